"""The place `sky`: its task, a program that answers as SkyPilot 0.14.1, and SkyPilot itself.

TUNESMITH_TEST_SKY names the program `sky` of an environment with the real one (`make sky`).
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from pydantic import ValidationError

from stages.core import beginning, preparing
from stages.core.errors import TunesmithError
from stages.core.jobs import ENDED, NONE, RUNNING, UNKNOWN, Job
from stages.places import sky
from stages.places.sky import program, tasks

VALUE = "Zq8-the-value-of-the-secret-4711"
GPU = {"infra": "lambda", "accelerators": "A10:1"}
ID = "train-first-0a1b2c"
NAME = f"ts-{ID}"
PATH = f"{Path(sys.executable).parent}:/usr/bin:/bin"  # of a machine
SCRIPT = "import os\nprint('node', os.environ['TUNESMITH_NODE'])\n"


def options(**changes: Any) -> sky.Options:
    return sky.Options(**{"kind": "sky", "resources": GPU} | changes)


def job(**changes: Any) -> Job:
    """A job of one stage."""
    own = options()
    facts = {
        "id": ID,
        "attempt": 1,
        "place": "gpu",
        "targets": ["train@first"],
        "needed": [],
        "baseline": "0" * 40,
        "snapshot": "0" * 40,
        "prefix": "",
        "project": "tunesmith",
        "git": "",
        "remote": {"name": "team", "url": "s3://bucket/x"},
        **{
            name: getattr(own, name)
            for name in (
                *("secrets", "env_file", "settings", "setup", "python", "folder", "hours"),
                *("processes", "nodes", "shard", "checkpoints"),
            )
        },
    }
    return Job(**facts | changes)


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    done = subprocess.run(["git", *who, *words], cwd=folder, capture_output=True, check=True)
    return done.stdout.decode().strip()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one commit, which is the working folder."""
    folder = tmp_path / "project"
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / "hello.txt").write_text("from the commit", encoding="utf-8")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "one")
    monkeypatch.chdir(folder)
    return folder


# --- a program that answers as the real one ---

# Forms of the answers: SkyPilot 0.14.1, sky/client/cli/command.py and what the real one printed.
FAKE = """\
import json, os, sys
from pathlib import Path
folder = Path(__file__).parent
words, told = sys.argv[1:], json.loads((folder / "told.json").read_text())
files = {w: Path(w).read_text() for w in words if w.endswith(".yaml")}
with (folder / "calls.jsonl").open("a") as log:
    log.write(json.dumps({"words": words, "files": files, "env": dict(os.environ)}) + "\\n")
clusters = told["clusters"]
act = " ".join(words[:2]) if words[0] == "api" else words[0]
if act == "launch" and "--dryrun" not in words:
    clusters.append({"name": words[words.index("--cluster") + 1], "status": "UP"})
    print("\\x1b[32m\\u2713 Cluster launched\\x1b[0m: " + os.environ.get("HF_TOKEN", ""))
if act == "down":
    if not clusters:
        print("Cluster(s) not found (tip: see `sky status`).")
    elif told.get("stays"):
        print("Terminating cluster x...failed.\\nCluster(s) failed. See details above.")
    else:
        clusters.clear()
(folder / "told.json").write_text(json.dumps(told))
if act == "status":
    print("" if clusters else "Cluster(s) not found: \\x1b[1mx\\x1b[0m.")
    print(json.dumps(clusters, indent=2))
if act == "queue":
    print("Fetching job queue for: x\\n" + json.dumps(told["queue"], indent=2))
if act == "api status":
    print(json.dumps(told["requests"], indent=2))
if act == "logs":
    print(told["logs"][0] if "--provision" not in words else told["logs"][1])
code, text = told["answers"].get(act, [0, ""])
print(text, file=sys.stderr)
sys.exit(code)
"""


class Fake:
    """A `sky` on PATH, what it answers and what it was asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        (folder / "sky.py").write_text(FAKE, encoding="utf-8")
        self.write("sky", f'exec {sys.executable} -I "{folder}/sky.py" "$@"')
        self.python('cat > "$0.task"')
        self.tell()

    def write(self, name: str, line: str) -> None:
        (self.folder / name).write_text(f"#!/bin/sh\n{line}\n", encoding="utf-8")
        (self.folder / name).chmod(0o755)

    def python(self, line: str) -> None:
        """What the Python beside it does with a task."""
        self.write("python3", line)

    def tell(self, **told: Any) -> None:
        """What it answers from now on."""
        usual: dict[str, Any] = {"clusters": [], "queue": {}, "requests": [], "logs": ["", ""],
                                 "answers": {}}  # fmt: skip
        (self.folder / "told.json").write_text(json.dumps(usual | told), encoding="utf-8")

    @property
    def calls(self) -> list[dict[str, Any]]:
        path = self.folder / "calls.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return [json.loads(line) for line in lines]

    def acts(self) -> list[str]:
        return [" ".join(call["words"][:2 if call["words"][0] == "api" else 1])
                for call in self.calls]  # fmt: skip


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    made = Fake(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{made.folder}{os.pathsep}{os.environ['PATH']}")
    return made


# --- entries ---


def test_a_fresh_machine_is_prepared_unless_the_entry_says_how() -> None:
    assert (options().setup, options().python) == (preparing.setup(), preparing.PYTHON)
    own = options(python="/opt/tunesmith/venv/bin/python")
    assert (own.setup, own.python) == ([], "/opt/tunesmith/venv/bin/python")
    assert options(setup=["true"]).python == "python3"


def test_the_set_up_installs_by_locks_that_the_checkout_has() -> None:
    locks = re.findall(r"env/\w+\.lock", " ".join(preparing.setup()))
    assert locks == ["env/cuda.lock", "env/data.lock", "env/torch.lock", "env/dev.lock"]
    assert all((Path(__file__).parents[1] / lock).is_file() for lock in locks)


def test_a_set_up_takes_the_first_python_that_the_project_allows(tmp_path: Path) -> None:
    found = tmp_path / "bin"
    found.mkdir()
    for name, code in (("python3.12", 1), ("python3.11", 0), ("python3.13", 0), ("uv", 1)):
        text = f'echo "{name} $*" >> "{tmp_path}/log"; test {code} = 0 || exit {code}\n'
        text += (
            'test "$1" != -m || { mkdir -p "$3/bin"; touch "$3/bin/pip"; chmod +x "$3/bin/pip";}'
        )
        (found / name).write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
        (found / name).chmod(0o755)
    env = {
        "PATH": f"{found}:/usr/bin:/bin",
        "TUNESMITH_HOME": str(tmp_path / "a home"),
        "HOME": "/",
    }
    subprocess.run(["sh", "-c", preparing.setup()[0]], env=env, check=True)
    log = (tmp_path / "log").read_text(encoding="utf-8")
    assert f"python3.11 -m venv {tmp_path}/a home/venv" in log
    assert "python3.13" not in log
    assert "uv" not in log


@pytest.mark.parametrize("resources", [{"autostop": 3}, {"infra": "aws", "labels": {"a": VALUE}}])
def test_resources_hold_no_secret_and_no_end_of_their_own(
    resources: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_TOKEN", VALUE)
    with pytest.raises(ValidationError) as refused:
        options(resources=resources)
    assert "Value error, autostop is set" in str(refused.value) or "is a secret" in str(
        refused.value
    )


def test_a_machine_is_always_told_to_end_itself() -> None:
    with pytest.raises(ValidationError, match="idle_minutes"):
        options(idle_minutes=0)


def test_the_description_says_what_is_rented() -> None:
    many = options(resources={**GPU, "use_spot": True}, nodes=2)
    assert sky.describe(many) == "SkyPilot, lambda, A10:1, spot, 2 machines"


# --- the task ---


def test_a_task_has_names_of_secrets_and_never_a_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", VALUE)
    made = sky.task(job(secrets=["HF_TOKEN"]), GPU, SCRIPT)
    assert made["secrets"] == {"HF_TOKEN": None}
    assert VALUE not in yaml.safe_dump(made)


def test_nothing_runs_in_the_set_up_of_skypilot_whose_failure_leaves_a_machine() -> None:
    assert "setup" not in sky.task(job(), GPU, SCRIPT)


def test_the_same_job_has_the_same_cluster_and_others_have_others() -> None:
    names = [sky.name(job(id=each)) for each in (ID, "Train@x", "train.x", "a" * 60, "a" * 61)]
    assert names[0] == NAME
    assert len(set(names)) == 5
    assert sky.name(job(attempt=2)) == NAME
    for each in names:  # sky/skylet/constants.py, CLUSTER_NAME_VALID_REGEX; clouds take no capitals
        assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", each)
        assert len(each) <= 35


def begun(task: dict[str, Any], machine: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a task's `run` as a machine does that has its file mounts and secrets."""
    for there, here in task["file_mounts"].items():
        target = machine / there.removeprefix("~/")
        target.parent.mkdir(exist_ok=True)
        shutil.copy(here, target)
    return subprocess.run(
        ["bash", "-c", task["run"]], capture_output=True, text=True, check=False,
        env={"PATH": PATH, "HOME": str(machine), **env},
    )  # fmt: skip


def test_a_machine_checks_out_the_commit_and_begins_the_job(
    project: Path, fake: Fake, tmp_path: Path
) -> None:
    worker = tmp_path / "worker"
    worker.write_text('#!/bin/sh\ncat hello.txt; echo " $HF_TOKEN $*"\nexit 7\n', encoding="utf-8")
    worker.chmod(0o755)
    commit = git(project, "rev-parse", "HEAD")
    mine = job(baseline=commit, snapshot=commit, python=str(worker), setup=[],
               secrets=["HF_TOKEN"], hours=1.0)  # fmt: skip
    sky.start(mine, options(), beginning.text(mine.facts()))
    (launch,) = fake.calls
    (task,) = (yaml.safe_load(text) for text in launch["files"].values())
    machine = tmp_path / "machine"
    machine.mkdir()
    done = begun(task, machine, SKYPILOT_NODE_RANK="0", HF_TOKEN="of-the-machine")
    assert done.returncode == 7, done.stderr
    assert "from the commit of-the-machine -m stages.commands.run.there" in done.stdout


def test_machines_that_share_a_home_know_which_they_are_and_where_they_meet(
    project: Path, fake: Fake, tmp_path: Path
) -> None:
    commit = git(project, "rev-parse", "HEAD")
    mine = job(nodes=2, snapshot=commit, folder="$HOME/a folder")
    script = (
        f"import os\nprint({{k: v for k, v in os.environ.items() if 'TUNE' in k}})\n# {'é'}$X`\n"
    )
    sky.start(mine, options(nodes=2), script)
    (made,) = (yaml.safe_load(text) for text in fake.calls[0]["files"].values())
    machine = tmp_path / "machine"
    machine.mkdir()
    ips = "10.0.0.1\n10.0.0.2"
    begun({**made, "run": "true"}, machine)  # its files
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(
            lambda rank: begun({**made, "file_mounts": {}}, machine, SKYPILOT_NODE_RANK=rank,
                               SKYPILOT_NODE_IPS=ips), "01"))  # fmt: skip
    for rank, done in enumerate(both):
        assert done.returncode == 0, done.stderr
        assert f"'TUNESMITH_NODE': '{rank}'" in done.stdout
        assert "'TUNESMITH_MASTER': '10.0.0.1:29500'" in done.stdout
    got = git(machine / "a folder/tunesmith/repo", "rev-parse", mine.reference)
    assert got == commit


def test_a_job_that_does_not_end_by_its_hours_is_ended_from_outside() -> None:
    assert "timeout --kill-after=120 9000 python3 -" in sky.task(job(hours=2.0), GPU, "")["run"]
    assert sky.Options(kind="sky", resources=GPU).hours == 24
    with pytest.raises(ValidationError, match="0 would never end a machine that is paid for"):
        sky.Options(kind="sky", resources=GPU, hours=0.0)


# --- the program ---


def test_a_missing_program_is_named_with_how_to_install_it() -> None:
    with pytest.raises(TunesmithError, match="uv tool install 'skypilot"):
        sky.require(job(), options(program="no-such-sky"))


def test_the_python_of_the_program_is_beside_it_or_in_its_first_line(tmp_path: Path) -> None:
    file = tmp_path / "sky"
    file.write_text(f"#!{sys.executable}\n", encoding="utf-8")
    file.chmod(0o755)
    assert program.python(str(file)) == Path(sys.executable)
    file.write_text("#!/bin/sh\n", encoding="utf-8")
    with pytest.raises(TunesmithError, match="which Python"):
        program.python(str(file))
    (tmp_path / "python3").touch()
    link = tmp_path / "elsewhere"
    link.symlink_to(file)
    assert program.python(str(link)) == tmp_path / "python3"


def test_a_secret_that_is_not_set_here_is_refused_before_anything_is_asked(
    fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SOME_TOKEN", raising=False)
    with pytest.raises(TunesmithError, match="SOME_TOKEN is not set here"):
        sky.require(job(secrets=["SOME_TOKEN"]), options())
    assert fake.calls == []


def test_what_can_be_rented_is_asked_by_a_dry_run_that_names_no_cluster(fake: Fake) -> None:
    sky.require(job(), options())
    (call,) = fake.calls
    assert "--dryrun" in call["words"]
    assert "--cluster" not in call["words"]
    assert yaml.safe_load(next(iter(call["files"].values())))["resources"] == GPU
    sent = json.loads((fake.folder / "python3.task").read_text(encoding="utf-8"))
    assert sent["resources"] == GPU


def test_the_words_of_skypilot_are_shown_on_our_one_screen(fake: Fake) -> None:
    said = "note\nsky.exceptions.NoCloudAccessError: Cloud access is not set up. Run: sky check"
    fake.tell(answers={"launch": [1, said]})
    with pytest.raises(TunesmithError) as refused:
        sky.require(job(), options())
    assert refused.value.what == (
        "SkyPilot would not rent this: Cloud access is not set up. Run: sky check"
    )
    fake.python("cat > /dev/null; echo \"Instead of 'infraa', did you mean 'infra'?\" >&2; exit 1")
    with pytest.raises(TunesmithError, match="did you mean 'infra'") as refused:
        sky.require(job(), options())
    assert "gpu.resources" in refused.value.where


def test_a_launch_is_told_to_end_the_machine_and_names_secrets_alone(
    project: Path, fake: Fake, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_TOKEN", VALUE)
    commit = git(project, "rev-parse", "HEAD")
    sky.start(job(snapshot=commit, secrets=["HF_TOKEN"]), options(idle_minutes=7), SCRIPT)
    (call,) = fake.calls
    words = " ".join(call["words"])
    assert f"launch --cluster {NAME} --detach-run" in words
    assert "--yes --down --idle-minutes-to-autostop 7 --wait-for jobs" in words
    assert "--secret HF_TOKEN " in words
    assert VALUE not in words + "".join(call["files"].values())
    assert call["env"]["HF_TOKEN"] == VALUE
    assert call["env"]["SKYPILOT_DISABLE_USAGE_COLLECTION"] == "1"
    seen = capfd.readouterr()
    assert "✓ Cluster launched: [redacted]" in seen.err
    assert VALUE not in seen.out + seen.err


def test_a_launch_that_fails_gives_back_what_it_had_rented(project: Path, fake: Fake) -> None:
    commit = git(project, "rev-parse", "HEAD")
    fake.tell(answers={"launch": [1, "sky.exceptions.ResourcesUnavailableError: no capacity"]})
    with pytest.raises(TunesmithError, match="not begun the job: no capacity"):
        sky.start(job(snapshot=commit), options(), SCRIPT)
    assert fake.acts() == ["launch", "api status", "down", "status"]
    assert not tasks.folder(job()).exists()


UP = [{"name": NAME, "status": "UP", "init_kind": None}]


@pytest.mark.parametrize(
    ("told", "wanted"),
    [
        ({}, NONE),
        ({"answers": {"status": [1, "no connection"]}}, UNKNOWN),
        ({"clusters": [{"name": NAME, "status": "INIT", "init_kind": "launching"}]}, RUNNING),
        ({"clusters": [{"name": NAME, "status": "INIT", "init_kind": "unhealthy"}]}, UNKNOWN),
        ({"clusters": [{"name": NAME, "status": "STOPPED"}]}, ENDED),
        ({"clusters": UP}, UNKNOWN),
        ({"clusters": UP, "queue": {NAME: []}}, UNKNOWN),
        ({"clusters": UP, "queue": {NAME: [{"job_id": 1, "status": "SETTING_UP"}]}}, RUNNING),
        ({"clusters": UP, "queue": {NAME: [{"job_id": 1, "status": "FAILED_DRIVER"}]}}, ENDED),
        (
            {
                "clusters": UP,
                "queue": {
                    NAME: [{"job_id": 10, "status": "RUNNING"}, {"job_id": 9, "status": "FAILED"}]
                },
            },
            RUNNING,
        ),
    ],
)
def test_the_state_is_the_machines_and_where_it_is_up_the_last_jobs(
    fake: Fake, told: dict[str, Any], wanted: str
) -> None:
    fake.tell(**told)
    assert sky.state(job(), options()) == wanted


def test_what_was_said_comes_from_the_job_or_else_from_its_making(fake: Fake) -> None:
    fake.tell(logs=["(x, pid=1) \x1b[32mhello\x1b[0m", ""], answers={"logs": [100, ""]})
    assert "(x, pid=1) hello\n" in sky.said(job(), options())
    fake.tell(logs=["", "made"], answers={"logs": [1, "ClusterDoesNotExist"]})
    assert sky.said(job(), options()) == ""
    assert fake.calls[-1]["words"][-1] == "--provision"


def test_a_stop_may_be_repeated_and_comes_for_a_job_that_never_began(fake: Fake) -> None:
    fake.tell(clusters=UP)
    for _ in range(2):
        sky.stop(job(), options())
    assert [call["words"] for call in fake.calls if call["words"][0] == "down"] == [
        ["down", "--yes", NAME]
    ] * 2


def test_a_stop_ends_a_launch_that_is_still_at_work(fake: Fake) -> None:
    requests = [{"request_id": "abc", "name": "sky.launch"}, {"request_id": "d", "name": "status"}]
    fake.tell(requests=requests)
    sky.stop(job(), options())
    cancels = [call["words"] for call in fake.calls if call["words"][:2] == ["api", "cancel"]]
    assert cancels == [["api", "cancel", "abc"]]


@pytest.mark.parametrize(
    "told",
    [
        # The real `sky down` ends with 0 where it has failed.
        {"clusters": UP, "stays": True},
        {"answers": {"down": [1, "no connection"]}},
        {"answers": {"status": [1, "no connection"]}},
    ],
)
def test_a_machine_that_may_still_cost_is_said_aloud_with_what_to_type(
    fake: Fake, told: dict[str, Any]
) -> None:
    fake.tell(**told)
    with pytest.raises(TunesmithError, match=f"{NAME} may still be running") as refused:
        sky.stop(job(), options())
    assert f"sky down {NAME}" in refused.value.do


def test_a_price_that_skypilot_does_not_know_is_none(fake: Fake) -> None:
    fake.python("cat > /dev/null; echo 'a note'; echo '{\"usd_per_hour\": 1.5}'")
    assert sky.price(options()) == 1.5
    fake.python("cat > /dev/null; echo '{\"usd_per_hour\": 0.0}'")
    assert sky.price(options()) is None
    fake.python("cat > /dev/null; echo 'Cloud access is not set up' >&2; exit 1")
    assert sky.price(options()) is None


# --- SkyPilot itself ---

# Machines of a catalogue of our own, in the form of SkyPilot's v8; its own is on the network.
CATALOGUE = {
    "common/accelerators.csv": "AcceleratorName,Clouds\n"
    "A10,\"['Lambda', 'AWS', 'RunPod']\"\nH100,\"['Lambda', 'RunPod', 'Slurm']\"\n",
    "common/metadata.csv": "GPU,MemoryGB,Manufacturer\nA10,24,NVIDIA\n",
    "lambda/vms.csv": "InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,Price,Region,"
    "GpuInfo,SpotPrice\ngpu_1x_a10,A10,1.0,30.0,200.0,0.75,us-east-1,,\n",
}
ENABLE = """\
from sky import global_user_state as state
from sky.clouds import cloud
state.set_allowed_clouds(["lambda"], "default")
state.set_enabled_clouds(["Lambda"], cloud.CloudCapability.COMPUTE, "default")
"""
READ = "import json, sky, sys; sky.Task.from_yaml_config(json.load(sys.stdin))"


@pytest.fixture(scope="module")
def real() -> str:
    """The program of the real SkyPilot."""
    named = os.environ.get("TUNESMITH_TEST_SKY", "")
    assert named, "TUNESMITH_TEST_SKY names no program `sky`: make sky"
    return str(Path(named).absolute())


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, real: str) -> Iterator[Path]:
    """A home with a small catalogue, where Lambda can be used, and SkyPilot's server."""
    folder = tmp_path_factory.mktemp("home")
    for name, text in CATALOGUE.items():
        (folder / ".sky/catalogs/v8" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / ".sky/catalogs/v8" / name).write_text(text, encoding="utf-8")
    # Only what it allows is it asked for; without a network it finds no login by itself.
    (folder / ".sky/config.yaml").write_text("allowed_clouds: [lambda]\n", encoding="utf-8")
    (folder / "bin").mkdir()
    # It asks whether there is one.
    (folder / "bin/rsync").write_text("#!/bin/sh\n", encoding="utf-8")
    (folder / "bin/rsync").chmod(0o755)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder))
        patch.setenv("PATH", f"{os.environ['PATH']}{os.pathsep}{folder / 'bin'}")
        patch.setenv("SKYPILOT_API_SERVER_ENDPOINT", f"http://127.0.0.1:{port}")
        patch.setenv("SKYPILOT_DISABLE_USAGE_COLLECTION", "1")
        python = program.python(real)
        words = [str(python), "-m", "sky.server.server", "--host=127.0.0.1", f"--port={port}"]
        with (folder / "server.log").open("wb") as log:
            server = subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True)
        try:
            answering(server, f"http://127.0.0.1:{port}", folder / "server.log")
            yield folder
        finally:
            ended(server)


@pytest.fixture
def login(home: Path, real: str) -> None:
    """That Lambda can be used; SkyPilot forgets it where it asked another cloud in vain."""
    words = [str(program.python(real)), "-c", ENABLE]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)


def answering(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    """Return once it answers, and has looked for logins itself, of which it finds none."""
    until = time.monotonic() + 120
    while server.poll() is None and time.monotonic() < until:
        try:
            urllib.request.urlopen(f"{url}/api/health", timeout=5).close()
            break
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    look = "skypilot-server-on-boot-check"  # sky/server/constants.py
    try:
        urllib.request.urlopen(f"{url}/api/get?request_id={look}", timeout=120).close()
        return
    except urllib.error.HTTPError as none:  # its answer that there is none
        if none.code == 500:
            return
    pytest.fail(log.read_text(encoding="utf-8", errors="replace")[-2000:])


def ended(server: subprocess.Popen[bytes]) -> None:
    """End it and all that it began."""
    below = psutil.Process(server.pid).children(recursive=True) if server.poll() is None else []
    server.send_signal(signal.SIGTERM)
    psutil.wait_procs([psutil.Process(server.pid)] if server.poll() is None else [], timeout=10)
    for each in below:
        if each.is_running():
            each.kill()
    server.kill()
    server.wait()


@pytest.mark.sky
@pytest.mark.parametrize(
    ("resources", "nodes"),
    [
        ({"infra": "runpod", "accelerators": "H100:1", "disk_size": 200}, 1),
        ({"infra": "k8s", "cpus": "8+", "memory": "32+"}, 2),
        ({"infra": "slurm/cluster", "accelerators": "H100:8"}, 1),
        ({"infra": "aws/us-east-1", "accelerators": {"A10": 1}, "use_spot": True}, 4),
        ({"infra": "lambda", "accelerators": "A10:1"}, 2),
        ({"infra": "runpod", "accelerators": "H100", "image_id": "docker:python:3.12"}, 1),
        ({"any_of": [{"infra": "aws"}, {"infra": "gcp"}], "cpus": "4+"}, 1),
    ],
)
def test_the_real_parser_takes_the_task(
    home: Path, real: str, resources: dict[str, Any], nodes: int
) -> None:
    mine = job(nodes=nodes, hours=1.0, secrets=["HF_TOKEN"])
    made = sky.task(mine, resources, beginning.text(mine.facts()))
    words = [str(program.python(real)), "-c", READ]
    done = subprocess.run(
        words, input=json.dumps(made), capture_output=True, text=True, check=False
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


@pytest.mark.sky
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"resources": {"infraa": "aws"}}, "Instead of 'infraa', did you mean 'infra'?"),
        ({"resources": {"infra": "nowhere"}}, "'nowhere' does not match"),
        ({"resources": {"infra": "lambda", "use_spot": "maybe"}}, "use_spot"),
        ({"resources": {"infra": "verda"}}, "Auto-down is not supported on Verda"),
        ({"resources": {"infra": "hyperbolic"}}, "Auto-down not supported"),
        ({"resources": {"infra": "runpod"}, "nodes": 2}, "multi-node"),
        ({"resources": {"infra": "lambda", "accelerators": "A10:8"}}, "A10"),
        (
            {"resources": {"infra": "aws", "cpus": "4"}},
            "Cloud access is not set up. Run: sky check",
        ),
    ],
)
def test_the_real_skypilot_refuses_in_its_own_words(
    login: None, real: str, changes: dict[str, Any], words: str
) -> None:
    entry = options(program=real, **changes)
    with pytest.raises(TunesmithError) as refused:
        sky.require(job(nodes=entry.nodes), entry)
    assert words.lower() in refused.value.what.lower()


@pytest.mark.sky
def test_the_real_skypilot_would_rent_a_machine_of_its_catalogue_and_names_the_price(
    login: None, real: str
) -> None:
    sky.require(job(), options(program=real))
    assert sky.price(options(program=real)) == 0.75
    assert sky.price(options(program=real, nodes=2)) == 1.5


@pytest.mark.sky
def test_the_real_launch_takes_every_word_that_we_say(
    login: None, real: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", VALUE)
    said: list[tuple[str, ...]] = []
    run = program.sky

    def dry(own: str, *words: str, shown: bool = False) -> program.Answer:
        said.append(words)
        more = ("--dryrun",) if words[0] == "launch" else ()
        return run(own, *words, *more, shown=shown)

    monkeypatch.setattr(program, "sky", dry)
    commit = git(project, "rev-parse", "HEAD")
    sky.start(job(snapshot=commit, secrets=["HF_TOKEN"]), options(program=real), SCRIPT)
    assert [words[0] for words in said] == ["launch"]
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(TunesmithError, match="HF_TOKEN is not set in local environment"):
        sky.start(job(snapshot=commit, secrets=["HF_TOKEN"]), options(program=real), SCRIPT)


@pytest.mark.sky
def test_the_real_skypilot_knows_no_job_that_never_began(home: Path, real: str) -> None:
    mine, entry = job(id="never-began"), options(program=real)
    assert sky.state(mine, entry) == NONE
    assert sky.said(mine, entry) == ""
    sky.stop(mine, entry)
