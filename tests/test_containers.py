"""Stages in real containers: the same bytes, the caller's files, and nothing that they must not do.

Needs a container engine and the image tunesmith-cpu; `.ci/run` starts the one and builds the other.
"""

import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import hiding
import project
import pytest
import remote_servers
import small_project
import yaml
from small_project import BIN, MODEL, ROOT

from stages.core import engine, launch

pytestmark = pytest.mark.container

PLANTED = "hf_planted" + "TokenThatMustNotBeFound"  # .ci/run builds the image with it as HF_TOKEN
CONTAINER = {"TUNESMITH_LAUNCH": "container"}
STEPS = f"models.{MODEL}.train.max_steps"
SECONDS = 60.0  # by which what is waited for has long happened


@pytest.fixture(scope="module")
def native(tmp_path_factory) -> Path:
    """The small project, built without containers."""
    folder = small_project.make(tmp_path_factory.mktemp("native"))
    built(folder, TUNESMITH_LAUNCH="native")
    return folder


@pytest.fixture(scope="module")
def contained(tmp_path_factory) -> Path:
    """The small project at another path, every stage of it built in a container."""
    folder = small_project.make(tmp_path_factory.mktemp("contained"))
    built(folder, **CONTAINER, HF_TOKEN=PLANTED)
    return folder


def built(folder: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    done = small_project.dvc(folder, "repro", *words, **env)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done


def running(folder: Path) -> list[str]:
    """The names of the containers that run and see this project."""
    asked = ["docker", "ps", "--filter", f"volume={folder}", "--format", "{{.Names}}"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()


def wait_for(happened: Callable[[], object], seconds: float = SECONDS) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def manifest(folder: Path) -> dict:
    path = folder / "models" / "release" / MODEL / "manifest.json"
    return json.loads(path.read_text(encoding="utf-8"))


def test_every_output_is_the_same_bytes_natively_and_in_containers(native, contained):
    ours, theirs = small_project.outputs(native), small_project.outputs(contained)
    release = f"models/release/{MODEL}"
    assert len(ours) > 15
    assert ours.pop(release) != theirs.pop(release)  # it says where each stage ran, and the commit
    assert ours == theirs
    released = [manifest(folder) for folder in (native, contained)]
    for found in released:
        del found["ran"], found["commit"], found["files"]
    assert released[0] == released[1]


def test_the_manifest_names_the_image_by_its_digest(native, contained):
    image = engine.image(engine.find(), "cpu", ROOT)
    for places in manifest(contained)["ran"].values():
        assert [(place["where"], place["image"]) for place in places] == [
            ("container", image.digest)
        ]
    for places in manifest(native)["ran"].values():
        assert places == [{"where": "native"}]


def test_a_host_with_only_the_light_install_builds_the_same_in_containers(tmp_path, native):
    """No training package is seen by DVC and the launcher; `auto` finds the image by itself."""
    folder = small_project.make(tmp_path)
    packages = {name.replace("-", "_") for names in launch.PACKAGES.values() for name in names}
    target = f"gguf@{MODEL}-q8_0"
    path = small_project.environment()["PATH"]
    done = hiding.python(folder, "-m", "dvc", "repro", target, hidden=tuple(packages), PATH=path)
    assert done.returncode == 0, done.stdout + done.stderr
    runs = [json.loads(line) for line in (folder / ".tunesmith" / "runs.jsonl").open("rb")]
    assert {run["stage"].partition("@")[0] for run in runs if run["where"] == "container"} == {
        "base", "train", "fuse", "gguf",
    }  # fmt: skip
    ours, theirs = small_project.outputs(native), small_project.outputs(folder)
    assert theirs.items() <= ours.items()


def test_dvc_finds_nothing_stale_after_containers_have_built(contained):
    done = small_project.dvc(contained, "status")
    assert "up to date" in done.stdout
    again = built(contained, **CONTAINER)
    assert "Running stage" not in again.stdout
    status = small_project.git(contained, "status", "--porcelain").split()
    assert status == ["??", "dvc.lock"]  # and nothing of what was built


def test_files_belong_to_the_caller_who_is_not_root(tmp_path):
    """DVC and the launcher run as `nobody`, whose rights end at the files that it owns."""
    nobody = pwd.getpwnam("nobody")
    if os.getuid():
        pytest.skip("only root can become somebody else; as yourself, see the next builds' files")
    folder = small_project.make(tmp_path)
    for path in (*tmp_path.parents[:2], tmp_path):
        path.chmod(0o755)
    subprocess.run(["chown", "-R", f"{nobody.pw_uid}:{nobody.pw_gid}", str(tmp_path)], check=True)
    python = Path("/usr/bin/python3")
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    if f"python3.{sys.version_info.minor}" not in os.readlink(python):
        pytest.skip("the system's Python is another than the packages are for")
    bin_, site = tmp_path / "bin", tmp_path / "site"
    bin_.mkdir()
    site.mkdir()
    (bin_ / "python").symlink_to(python)
    group = Path("/var/run/docker.sock").stat().st_gid
    # `nobody` may not be let into the folders above the checkout, so its packages are mounted.
    mounted = 'mount --bind "$0" "$1" && shift && exec "$@"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", mounted, packages, str(site),
         "setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", f"--groups={group}",
         str(python), "-m", "dvc", "repro", f"validate@{MODEL}", "base@tiny"],
        cwd=folder, capture_output=True, text=True, check=False,
        env={**CONTAINER, "HOME": str(tmp_path), "PYTHONPATH": str(site),
             "PATH": f"{bin_}:/usr/local/bin:/usr/bin:/bin"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    made = [*(folder / "models").rglob("*"), *(folder / "data" / "chat").rglob("*")]
    assert len(made) > 8
    assert {path.stat().st_uid for path in made} == {nobody.pw_uid}


@pytest.mark.parametrize("how", ["--temp", "--queue"])
def test_an_experiment_in_a_container_gives_what_it_gives_natively(native, contained, how):
    change = f"{STEPS}={26 if how == '--temp' else 27}"
    for folder, env in ((native, {"TUNESMITH_LAUNCH": "native"}), (contained, CONTAINER)):
        small_project.git(folder, "add", "-A")
        small_project.git(folder, "commit", "-q", "--allow-empty", "-m", "Built")
        tried = small_project.dvc(
            folder, "exp", "run", how, "-n", how.strip("-"), "-S", change, **env
        )
        assert tried.returncode == 0, tried.stdout + tried.stderr
        if how == "--queue":
            worked = small_project.dvc(folder, "exp", "run", "--run-all", **env)
            assert worked.returncode == 0, worked.stdout + worked.stderr
    locks = [
        yaml.safe_load(small_project.git(folder, "show", f"{experiment(folder, how)}:dvc.lock"))
        for folder in (native, contained)
    ]
    release = f"release@{MODEL}"
    for lock in locks:
        assert lock["stages"][f"train@{MODEL}"]["params"]["params.yaml"][f"models.{MODEL}.train"][
            "max_steps"
        ] == int(change.partition("=")[2])
        del lock["stages"][release]
    assert locks[0] == locks[1]


def experiment(folder: Path, how: str) -> str:
    """The git reference of an experiment that is named after how it ran."""
    listed = small_project.git(folder, "for-each-ref", "--format=%(refname)", "refs/exps")
    return next(name for name in listed.split() if name.endswith("/" + how.strip("-")))


def training(folder: Path) -> subprocess.Popen[bytes]:
    """A `dvc repro` whose training runs in a container now, in a process group of its own."""
    log = (folder / "log").open("wb")
    child = subprocess.Popen(
        [str(BIN / "dvc"), "repro", "-f", "-s", f"train@{MODEL}"],
        cwd=folder, env=small_project.environment(**CONTAINER), stdout=log, stderr=log,
        start_new_session=True,
        # A job in the background, as CI may be, hands on that Ctrl-C is not heard.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    wait_for(lambda: running(folder))
    wait_for(lambda: list((folder / ".tunesmith" / "checkpoints").glob("*/checkpoint-*")))
    return child


@pytest.mark.parametrize("killed", ["dvc", "launcher"])
def test_a_container_is_gone_within_five_seconds_when_what_started_it_is_killed(contained, killed):
    before = small_project.outputs(contained)
    child = training(contained)
    victim = child.pid if killed == "dvc" else launcher(child.pid)
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: not running(contained), seconds=5.0)
    child.wait(SECONDS)
    built(contained, "-f", "-s", f"train@{MODEL}", **CONTAINER)  # goes on from the checkpoint
    assert small_project.outputs(contained) == before


def launcher(dvc: int) -> int:
    """The process that DVC started for the stage, past a shell between them."""
    asked = ["pgrep", "--session", str(dvc), "--full", "stages train"]
    done = subprocess.run(asked, capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])


def test_ctrl_c_ends_the_container_and_dvc(contained):
    child = training(contained)
    os.killpg(child.pid, signal.SIGINT)  # as a terminal does it
    wait_for(lambda: not running(contained), seconds=10.0)
    assert child.wait(SECONDS) != 0
    built(contained, "-f", "-s", f"train@{MODEL}", **CONTAINER)


def test_a_stage_that_fails_in_a_container_ends_with_its_own_screen_and_code(tmp_path):
    folder = small_project.make(tmp_path)
    done = project.door(folder, "tokenise", MODEL, **CONTAINER)
    assert done.returncode == 2
    assert "error:" in done.stderr
    assert f"dvc repro validate@{MODEL}" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_image_says_what_to_type(tmp_path):
    folder = small_project.make(tmp_path)
    done = small_project.dvc(
        folder, "repro", f"convert@{MODEL}", **CONTAINER, TUNESMITH_IMAGE_CPU="no-such-image"
    )
    assert done.returncode
    assert "there is no image no-such-image" in done.stderr
    assert "make image-cpu" in done.stderr


def test_an_image_of_other_versions_is_refused(tmp_path):
    folder = small_project.make(tmp_path)
    with (folder / "env" / "cpu.lock").open("a", encoding="utf-8") as lock:
        lock.write("# a newer one\n")
    done = small_project.dvc(folder, "repro", f"convert@{MODEL}", **CONTAINER)
    assert done.returncode
    assert "holds other versions than env/cpu.lock" in done.stderr


def test_an_engine_that_does_not_answer_says_what_to_type(tmp_path):
    folder = small_project.make(tmp_path)
    done = small_project.dvc(
        folder, "repro", f"convert@{MODEL}", **CONTAINER, DOCKER_HOST="unix:///nowhere.sock",
        TUNESMITH_ENGINE="docker",
    )  # fmt: skip
    assert done.returncode
    assert "docker does not answer" in done.stderr
    assert "install and start docker or podman" in done.stderr


@pytest.fixture(scope="module")
def pried(tmp_path_factory) -> tuple[Path, dict]:
    """What a stage in a container found out about its machine, and the project it ran in."""
    tmp_path = tmp_path_factory.mktemp("pried")
    home = tmp_path / "home"
    home.mkdir()
    (home / "key").write_text("of a person", encoding="utf-8")
    (home / ".docker").mkdir()
    proxies = {"proxies": {"default": {"httpsProxy": f"http://me:{PLANTED}@proxy.example"}}}
    (home / ".docker" / "config.json").write_text(json.dumps(proxies), encoding="utf-8")
    folder = tmp_path / "project"
    folder.mkdir()
    small_project.make(folder)
    maker = folder / "stages" / "makers" / "prying"
    maker.mkdir()
    (maker / "__init__.py").write_bytes((ROOT / "tests" / "prying.py").read_bytes())
    cached = folder / ".dvc" / "cache" / "files" / "md5" / "ab" / "cached"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"an object")
    cached.chmod(0o444)
    (folder / "local.env").write_text(f"HF_TOKEN={PLANTED}\n", encoding="utf-8")
    (folder / ".dvc" / "config.local").write_text(f"# password = {PLANTED}\n", encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as server:
        options = {
            "cached": str(cached), "home": str(home), "seed": 1,
            "port": server.getsockname()[1],
        }  # fmt: skip
        params = small_project.params()
        params["samples"] = {"pried": {"maker": "prying", "options": options}}
        text = yaml.dump(params, Dumper=small_project.Plain, sort_keys=False)
        (folder / "params.yaml").write_text(text, encoding="utf-8")
        built(folder, "sample@pried", **CONTAINER, HF_TOKEN=PLANTED, HOME=str(home))
    assert cached.read_bytes() == b"an object"
    found = folder / "data" / "raw" / "pried" / "findings.json"
    return folder, json.loads(found.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("attempt", "said"),
    [
        ("write the cache", "Permission denied"),
        ("make it writable", "Read-only file system"),
        ("add to the cache", "Read-only file system"),
        ("read the home directory", ""),
        ("write outside", "Read-only file system"),
        ("reach the host", ""),
        ("look up a name", ""),
        ("read local.env", "there is nothing in it"),
        ("read DVC's tokens", "there is nothing in it"),
        ("read git's tokens", "there is nothing in it"),
        ("leave a hook for git", "Read-only file system"),
        ("change DVC's settings", "Read-only file system"),
        ("change the code", "Read-only file system"),
        ("change the parameters", "Read-only file system"),
    ],
)
def test_a_stage_in_a_container_cannot(pried, attempt, said):
    refused = pried[1][attempt]
    assert refused
    assert said in refused


def test_a_stage_in_a_container_can_do_its_work(pried):
    assert pried[1]["read the workspace"] is None
    assert pried[1]["write /tmp"] is None
    assert pried[1]["user"] == os.getuid()


def test_the_engines_own_proxy_settings_reach_no_stage_without_a_network(pried):
    assert pried[1]["environment"]["HTTPS_PROXY"] == ""


def test_no_token_reaches_a_stage_that_declares_none(pried):
    assert PLANTED not in json.dumps(pried[1]["environment"])


def test_a_planted_token_is_in_no_log_lock_manifest_or_output(contained, pried):
    for folder in (contained, pried[0]):
        kept = {folder / "local.env", folder / ".dvc" / "config.local"}
        looked_at = [path for path in folder.rglob("*") if path.is_file() and path not in kept]
        assert len(looked_at) > 100
        assert [path for path in looked_at if PLANTED.encode() in path.read_bytes()] == []


def test_a_planted_token_is_in_no_layer_of_the_image():
    """CI builds the image with HF_TOKEN in its environment."""
    with subprocess.Popen(["docker", "save", "tunesmith-cpu"], stdout=subprocess.PIPE) as saved:
        assert saved.stdout
        before, seen = b"", 0
        while piece := saved.stdout.read(1 << 24):
            seen += len(piece)
            assert PLANTED.encode() not in before + piece
            before = piece[-len(PLANTED) :]
    assert saved.returncode == 0
    assert seen > 1 << 28


def test_a_stage_that_is_run_elsewhere_runs_in_the_image_there(tmp_path, native):
    """The box is this machine behind a real sshd, told in places.yaml to use containers."""
    folder = tmp_path / "here"
    shutil.copytree(native, folder, symlinks=True)
    shutil.rmtree(folder / ".dvc" / "cache" / "runs")  # else the earlier result would be taken
    lock = yaml.safe_load((folder / "dvc.lock").read_text(encoding="utf-8"))
    expected = lock["stages"].pop(f"train@{MODEL}")
    (folder / "dvc.lock").write_text(yaml.safe_dump(lock, sort_keys=False), encoding="utf-8")
    with remote_servers.sshd(tmp_path / "box") as box:
        key = ["-p", str(box.port), "-i", str(box.keyfile)]
        place = {
            "kind": "ssh",
            "host": f"{box.user}@{box.host}",
            "ssh_options": [*key, "-o", f"UserKnownHostsFile={box.known_hosts}"],
            "remote_options": {"keyfile": str(box.keyfile)},
            "folder": str(tmp_path / "jobs"),
            "python": sys.executable,
            "settings": {"TUNESMITH_LAUNCH": "container"},
        }
        (folder / "places.yaml").write_text(yaml.safe_dump({"box": place}), encoding="utf-8")
        for words in (
            ("remote", "store", box.url, "--option", f"keyfile={box.keyfile}"),
            ("run", f"train@{MODEL}", "--on", "box", "--yes"),
        ):
            done = subprocess.run(
                [sys.executable, "-m", "stages", *words], cwd=folder, check=False,
                env=small_project.environment(), capture_output=True, text=True,
            )  # fmt: skip
            assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    rows = [json.loads(line) for line in (folder / ".tunesmith" / "runs.jsonl").open("rb")]
    there = [row for row in rows if row.get("place") == "box"]
    assert [(row["stage"], row["where"]) for row in there] == [(f"train@{MODEL}", "container")]
    made = yaml.safe_load((folder / "dvc.lock").read_text(encoding="utf-8"))
    assert made["stages"][f"train@{MODEL}"] == expected
