"""The user's side of `run`: places.yaml, the plan and its cost, refusals, the list, the mailbox."""

import hashlib
import io
import json
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from stages.commands import run as command
from stages.commands.remote.store import Store
from stages.commands.run import asking, declared, listing, planning, records, sending
from stages.commands.run.mailbox import Mailbox, path
from stages.commands.run.records import Record
from stages.core import graph, jobs, lockfile
from stages.core.errors import TunesmithError
from stages.places import ssh
from tests import remote_servers

TOKEN = "hf_AbCdEfGhIjKlMnOpQrStUvWx"
VALUE = "correct-horse-battery-7"
MODELS = ("first", "second")
READ = "data/chat.txt"
STAGES = {
    "stages": {
        "read": {"cmd": "false", "deps": ["raw/rows.txt", "code/read.py"], "outs": [READ]},
        "train": {
            "foreach": list(MODELS),
            "do": {
                "cmd": "false",
                "deps": [READ, "code/read.py"],
                "params": ["rate"],
                "outs": ["models/${item}.bin"],
            },
        },
    }
}
BOX = {"kind": "ssh", "host": "me@gpubox"}


def git(folder: Path, *words: str) -> str:
    who = ("-c", "user.name=t", "-c", "user.email=t@localhost", "-c", "protocol.file.allow=always")
    done = subprocess.run(
        ["git", *who, *words], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def cached(folder: Path, name: str, content: bytes) -> dict[str, Any]:
    """An output that was built: in the workspace and in the cache; what dvc.lock says of it."""
    md5 = hashlib.md5(content).hexdigest()
    for target in (folder / name, folder / ".dvc/cache/files/md5" / md5[:2] / md5[2:]):
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return {"path": name, "hash": "md5", "md5": md5, "size": len(content)}


def write(folder: Path) -> None:
    """A project in which `read` was built and no model was trained; its remote is a folder."""
    (folder / ".dvc").mkdir(parents=True)
    (folder.parent / "store").mkdir(exist_ok=True)
    (folder / ".dvc/config").write_text("[core]\n    remote = store\n")
    url = folder.parent / "store"
    (folder / ".dvc/config.local").write_text(f'[remote "store"]\n    url = {url}\n')
    (folder / ".gitignore").write_text(
        "/places.yaml\n/.tunesmith\n/data\n/models\n/raw\n.dvc/config.local\n.dvc/cache\n.dvc/tmp\n"
    )
    (folder / "params.yaml").write_text("rate: 1\n")
    (folder / "dvc.yaml").write_text(yaml.safe_dump(STAGES))
    (folder / "code").mkdir()
    (folder / "code/read.py").write_text("pass\n")
    raw = cached(folder, "raw/rows.txt", b"rows")
    one = {key: raw[key] for key in ("md5", "size", "hash")} | {"path": "rows.txt"}
    (folder / "raw/rows.txt.dvc").write_text(yaml.safe_dump({"outs": [one]}))
    code = {"path": "code/read.py", "hash": "md5", "md5": hashlib.md5(b"pass\n").hexdigest()}
    entry = {"cmd": "false", "deps": [code, raw], "outs": [cached(folder, READ, b"chat" * 500)]}
    lock = {"schema": "2.0", "stages": {"read": entry}}
    (folder / "dvc.lock").write_text(yaml.safe_dump(lock))
    places(folder, box=BOX)


def places(folder: Path, **entries: Any) -> None:
    """Declare places that see the folder of the remote, too."""
    seen = {"remote_url": str(folder.parent / "store")}
    found = {name: seen | entry for name, entry in entries.items()}
    (folder / "places.yaml").write_text(yaml.safe_dump(found))


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("origin") / "project"
    write(folder)
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "add", "-f", "raw/rows.txt.dvc")
    git(folder, "commit", "-q", "-m", "A project")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        graph.load()  # DVC's expansion is kept, for every copy
    return folder


@pytest.fixture
def project(origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, with a machine behind `ssh` that takes everything and runs nothing."""
    folder = tmp_path / "project"
    shutil.copytree(origin, folder)
    (tmp_path / "store").mkdir()
    local = f'[remote "store"]\n    url = {tmp_path / "store"}\n'
    (folder / ".dvc/config.local").write_text(local)
    places(folder, box=BOX)
    for name in ("DVC_ROOT", "HF_TOKEN", "GIT_DIR", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(ssh, "require", lambda job, options: None)
    monkeypatch.setattr(ssh, "start", lambda job, options, script: None)
    monkeypatch.setattr(ssh, "state", lambda job, options: jobs.RUNNING)
    return folder


def run(*names: str, acts: tuple[str, ...] = (), **options: Any) -> None:
    command.run(command.Request(list(names), **options), acts)


def refused(*names: str, acts: tuple[str, ...] = (), **options: Any) -> str:
    """The screen of the refusal; nothing has been sent by it."""
    with pytest.raises(TunesmithError) as failure:
        run(*names, acts=acts, **options)
    return str(failure.value)


def begun(place: str = "box", name: str = "train@first", **changes: Any) -> Record:
    """A job that is under way."""
    found = planning.of([name])
    job = replace(sending.job(found, declared.place(place)), **changes.pop("job", {}))
    entry = declared.place(place).options.model_dump()
    at = "2026-11-22T08:00:00+00:00"
    record = Record(
        job, entry | changes.pop("entry", {}), **{"begun": at, "state": "begun"} | changes
    )
    records.save(record)
    return record


# places.yaml

MISTAKES = {
    "an unknown key": ("box:\n  kind: ssh\n  hots: a\n  host: b\n", 3, "Did you mean 'host'"),
    "a kind that there is not": ("box:\n  kind: shh\n", 2, "Did you mean 'ssh'"),
    "no kind": ("box:\n  host: a\n", 1, "box.kind: is missing. Known: "),
    "an entry that is a word": ("box: ssh\n", 1, "is no mapping of keys"),
    "a key that must be there": ("box:\n  kind: ssh\n", 1, "box.host: is missing"),
    "a wrong type": ("box: {kind: ssh, host: a,\n nodes: two}\n", 2, "a valid integer"),
    "no process": ("box: {kind: ssh, host: a,\n processes: 0}\n", 2, "greater than or equal to 1"),
    "shards of one process": ("box: {kind: ssh, host: a,\n shard: fsdp}\n", 1, "several processes"),
    "a word that is not allowed": ("box: {kind: ssh, host: a,\n shard: fsd}\n", 2, "'fsdp'"),
    "a setting that nothing reads": (
        "box:\n  kind: ssh\n  host: a\n  settings: {TUNESMITH_LUNCH: native}\n",
        4,
        "Did you mean 'TUNESMITH_LAUNCH'",
    ),
    "a setting that follows from others": (
        "box: {kind: ssh, host: a,\n settings: {TUNESMITH_NODES: '2'}}\n",
        2,
        "TUNESMITH_NODES follows from processes, nodes and shard",
    ),
    "a setting that must be another word": (
        "box: {kind: ssh, host: a,\n settings: {TUNESMITH_LAUNCH: nativ}}\n",
        2,
        "Did you mean 'native'",
    ),
    "a key that stands twice": ("box:\n  kind: ssh\n  host: a\n  host: b\n", 4, "stands twice"),
    "a key without a value": ("box:\n  kind: ssh\n  host:\n", 3, "box.host: has no value"),
    "a name that is no key": ("GPU box: {kind: ssh, host: a}\n", 1, "may hold only a-z"),
    "no mapping": ("- kind: ssh\n", 1, "does not hold places by name"),
    "no YAML": ("box: {kind: ssh\nother: 1\n", 2, "is not YAML"),
    "a tab": ("box:\n\tkind: ssh\n", 2, "no tabs"),
    "a number among words": (
        "box:\n  kind: ssh\n  host: a\n  ssh_options: [-p, 2222]\n",
        4,
        "ssh_options.1: should be text: write it in quotes",
    ),
    "a word where a list belongs": (
        "box:\n  kind: ssh\n  host: a\n  setup: make\n",
        4,
        "should be a list",
    ),
    "a host with a port behind it": ("box:\n  kind: ssh\n  host: a -p 22\n", 3, "one word"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_in_places_yaml_is_named_with_its_line_and_what_is_meant(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, line, said = MISTAKES[case]
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    Path("places.yaml").write_text(text)
    with pytest.raises(TunesmithError) as failure:
        declared.place("box")
    assert f"places.yaml:{line}" in str(failure.value)
    assert said in str(failure.value)


SECRETS = (
    f"box:\n  kind: ssh\n  host: a\n  secrets: [{TOKEN}]\n",
    f"box:\n  kind: ssh\n  host: a\n  secrets: [{VALUE}]\n",
    f"box:\n  kind: ssh\n  host: a\n  secrets: {VALUE}\n",
    f"box:\n  kind: ssh\n  host: a\n  setup: ['export HF_TOKEN={TOKEN}']\n",
    f"box:\n  kind: ssh\n  host: a\n  remote_url: s3://me:{VALUE}@bucket\n",
    f"box:\n  kind: ssh\n  host: a\n  remote_options: {{password: {VALUE}}}\n",
    f"box:\n  kind: ssh\n  host: a\n  settings: {{HF_TOKEN: {VALUE}}}\n",
    f"box:\n  kind: ssh\n  host: a\n  master: [{TOKEN}]\n",
    f"box:\n  kind: ssh\n  host: a\n  {TOKEN}: 1\n",
    f"box:\n  kind: {TOKEN}\n  host: a\n  #\n",
    f"box:\n  kind: hfjobs\n  flavor: a\n  git: https://me:{VALUE}@host/x\n",
)


@pytest.mark.parametrize("text", SECRETS)
def test_a_secret_in_places_yaml_is_refused_with_its_line_and_never_shown(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    Path("places.yaml").write_text(text)
    with pytest.raises(TunesmithError) as failure:
        declared.place("box")
    assert TOKEN not in str(failure.value)
    assert VALUE not in str(failure.value)
    line = next(n for n, one in enumerate(text.splitlines(), 1) if TOKEN in one or VALUE in one)
    assert f"places.yaml:{line}" in str(failure.value)


def test_all_mistakes_of_an_entry_are_said_at_once(project: Path) -> None:
    (project / "places.yaml").write_text("box:\n  kind: ssh\n  hots: a\n  processes: 0\n")
    said = refused("train@first", on="box")
    assert [f"places.yaml:{line}" in said for line in (1, 3, 4)] == [True] * 3


def test_where_no_place_is_declared_it_says_what_to_write(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "places.yaml").unlink()
    assert "gpubox: {kind: ssh, host: me@gpubox}" in refused("train@first", on="box")
    run(acts=("list",))
    assert "gpubox: {kind: ssh, host: me@gpubox}" in capsys.readouterr().out
    (project / "places.yaml").write_text("# none yet\n")
    assert "gpubox: {kind: ssh, host: me@gpubox}" in refused("train@first", on="box")


def test_a_place_that_is_not_declared_is_refused_with_the_nearest(project: Path) -> None:
    assert "Did you mean 'box'" in refused("train@first", on="bx")
    assert "No place was named" in refused("train@first")


# The plan


def test_the_plan_says_what_runs_what_it_reads_and_how_much_is_to_be_sent(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("train@first", on="box", dry_run=True)
    said = capsys.readouterr().out
    assert "on box (ssh me@gpubox)\n  runs: train@first\n" in said
    assert f"  reads: {READ}\n" in said
    assert "): 1 files, 0.0 MB\n" in said
    assert "nothing of it ran on box or here; no price is known" in said
    found = planning.of(["train@first"])
    store = sending.opened("", "", "")
    assert sending.lacks(found, store) == [2000]
    assert sending.inputs(found, store).bytes == 2000
    run("train@first", on="box", dry_run=True)
    assert "): nothing; it has it all\n" in capsys.readouterr().out


def test_a_dry_run_sends_nothing_and_leaves_nothing(project: Path) -> None:
    (project / "code/read.py").write_text("1\n")
    run("train@first", on="box", dry_run=True)
    assert list((project.parent / "store").rglob("*")) == []
    assert git(project, "for-each-ref", "refs/tunesmith") == ""
    assert records.every() == []


def test_the_plan_is_json_too(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places(project, box=BOX | {"usd_per_hour": 2.0, "secrets": ["AWS_SECRET_ACCESS_KEY"]})
    log("train@first", 1800.0, "box")
    run("train@first", on="box", dry_run=True, as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["runs"] == ["train@first"]
    assert found["send"] == {"files": 1, "bytes": 2000, "remote": "store"}
    assert found["usd"] == pytest.approx(1.0)
    assert found["secrets"] == ["AWS_SECRET_ACCESS_KEY"]
    assert found["times"][0] | {"seconds": 1800.0, "on": "box"} == found["times"][0]


def log(stage: str, seconds: float, place: str = "") -> None:
    """A row of the log of runs."""
    row = {"stage": stage, "seconds": seconds} | ({"place": place} if place else {})
    Path(".tunesmith").mkdir(exist_ok=True)
    with Path(".tunesmith/runs.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")


def test_time_is_that_of_a_run_there_then_here_then_of_another_key(project: Path) -> None:
    def took() -> tuple[float | None, str, str]:
        one = planning.times(["train@first"], "box")[0]
        return one.seconds, one.on, one.of

    assert took() == (None, "", "")
    log("train@first", 9.0, "other")
    assert took() == (None, "", "")
    log("train@second", 10.0)
    assert took() == (10.0, "", "train@second")
    log("train@second", 20.0, "box")
    assert took() == (20.0, "box", "train@second")
    log("train@first", 30.0)
    assert took() == (30.0, "", "train@first")
    log("train@first", 40.0, "box")
    log("train@first", 9.0)
    assert took() == (40.0, "box", "train@first")


def test_the_cost_is_time_by_price_by_machines_and_says_where_each_is_from(project: Path) -> None:
    machines = {"others": ["b"], "master": "a:1", "usd_per_hour": 3.0, "hours": 2.0}
    places(project, box=BOX | machines, mine=BOX)
    log("read", 900.0)
    log("train@first", 900.0, "box")
    stages = ["read", "train@first", "train@second"]
    words, dollars = planning.cost(stages, declared.place("box"))
    assert dollars == pytest.approx(2700 / 3600 * 6.0)
    assert words == (
        "about 45 min, by earlier runs (2 on box, 1 here; 1 of them with another key); "
        "4.50 USD at 3 USD an hour x 2 machines, at most 12.00"
    )
    words, dollars = planning.cost(["read", "unknown@x"], declared.place("mine"))
    assert dollars is None
    assert words.startswith("about 15 min or more, by earlier runs (1 here, 1 not known); no price")


def test_a_provider_is_asked_for_the_price_where_the_entry_has_none(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh, "price", lambda options: 5.0, raising=False)
    machines = {"others": ["b"], "master": "a:1"}
    places(project, box=BOX | machines, mine=BOX | {"usd_per_hour": 1.0})
    assert planning.priced(declared.place("box")).options.usd_per_hour == 2.5
    assert planning.priced(declared.place("mine")).options.usd_per_hour == 1.0
    run("train@first", on="box", yes=True, detach=True)
    assert listing.hourly(records.every()[0]) == 5.0


def test_the_plan_says_how_stages_run_there(project: Path) -> None:
    native = {"settings": {"TUNESMITH_LAUNCH": "native"}, "processes": 4, "setup": ["make setup"]}
    image = {"settings": {"TUNESMITH_LAUNCH": "container", "TUNESMITH_IMAGE_CUDA": "mine:1"}}
    places(project, box=BOX, native=BOX | native, image=BOX | image)
    said = [asking.ways(declared.place(name).options) for name in ("box", "native", "image")]
    assert said[0] == "there: in the container image where there is an engine, else natively"
    assert said[1].startswith("there: natively, trained by 4 processes; after `setup`")
    assert said[2] == "there: in the container image that is there (mine:1)"


def test_the_place_is_told_the_stages_that_a_name_means(project: Path) -> None:
    for name, meant in (
        ("train", ["train@first", "train@second"]),
        ("models/first.bin", ["train@first"]),
    ):
        found = planning.of([name])
        job = sending.job(found, declared.place("box"))
        assert job.targets == meant
        git(project, "check-ref-format", job.reference)


def test_results_of_earlier_settings_are_sent_and_no_others(project: Path) -> None:
    def past(rate: int, content: bytes) -> str:
        """What DVC keeps of a run: its command, inputs and outputs, by their digest."""
        from dvc.utils import dict_sha256

        params = {"params.yaml": {"rate": rate}}
        lock = yaml.safe_load((project / "dvc.lock").read_text())["stages"]["read"]
        deps = sorted([lock["deps"][0], lock["outs"][0]], key=lambda one: one["path"])
        deps = [{k: one[k] for k in ("path", "hash", "md5")} for one in deps]
        out = cached(project, "models/first.bin", content)
        (project / "models/first.bin").unlink()
        entry = {"cmd": "false", "deps": deps, "params": params}
        key = dict_sha256(entry | {"outs": ["models/first.bin"]})
        whole = entry | {"outs": [out]}
        value = dict_sha256(whole, exclude=["size", "nfiles"])
        target = project / ".dvc/cache/runs" / key[:2] / key / value
        target.parent.mkdir(parents=True)
        target.write_text(yaml.safe_dump(whole))
        return str(out["md5"])

    wanted, other = past(1, b"with rate 1"), past(2, b"with rate 2")
    found = planning.of(["train"])
    assert (found.restored, found.runs) == (["train@first"], ["train@second"])
    sent = sending.inputs(found, sending.opened("", "", ""))
    names = {one.parent.name + one.name for one in (project.parent / "store/files").rglob("*")}
    assert wanted in names
    assert other not in names
    assert sent.runs == 1


# Refusals


def cut_git(folder: Path) -> None:
    shutil.rmtree(folder / ".git")


def no_commit(folder: Path) -> None:
    cut_git(folder)
    git(folder, "init", "-q")


def no_remote(folder: Path) -> None:
    (folder / ".dvc/config").write_text("")
    (folder / ".dvc/config.local").write_text("")


def only_here(folder: Path) -> None:
    (folder / "places.yaml").write_text("box: {kind: ssh, host: a}\n")


def untracked(folder: Path) -> None:
    git(folder, "rm", "-q", "--cached", "code/read.py")
    git(folder, "commit", "-q", "-m", "Forgotten")


def large(folder: Path) -> None:
    (folder / ".gitattributes").write_text("*.py filter=lfs\n")


def submodule(folder: Path) -> None:
    git(folder, "rm", "-rq", "--cached", "code")
    git(folder / "code", "init", "-q")
    git(folder / "code", "add", "-A")
    git(folder / "code", "commit", "-q", "-m", "Its own")
    git(folder, "-c", "advice.addEmbeddedRepo=false", "add", "code")
    git(folder, "commit", "-q", "-m", "A submodule")


def merging(folder: Path) -> None:
    git(folder, "checkout", "-q", "-b", "other")
    (folder / "params.yaml").write_text("rate: 2\n")
    git(folder, "commit", "-qam", "Two")
    git(folder, "checkout", "-q", "-")
    (folder / "params.yaml").write_text("rate: 3\n")
    git(folder, "commit", "-qam", "Three")
    with pytest.raises(subprocess.CalledProcessError):
        git(folder, "merge", "-q", "other")
    (folder / "params.yaml").write_text("rate: 3\n")


def secret_edit(folder: Path) -> None:
    (folder / "code/read.py").write_text(f"pass\ntoken = '{TOKEN}'\n")


def lost(folder: Path) -> None:
    shutil.rmtree(folder / ".dvc/cache")


def data_edited(folder: Path) -> None:
    (folder / "raw/rows.txt").write_text("others")


REFUSALS: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "no git": (cut_git, "git init; git add -A", "train@first"),
    "no commit": (no_commit, "git init; git add -A", "train@first"),
    "no remote": (no_remote, "This project has no remote yet", "train@first"),
    "a remote that only this machine sees": (only_here, "is a folder of this machine", "train"),
    "a file that git does not have": (untracked, "neither git nor DVC keeps it", "train@first"),
    "a file that Git LFS has": (large, "it is in Git LFS", "train@first"),
    "a file of a submodule": (submodule, "it is in a submodule", "train@first"),
    "a merge under way": (merging, "params.yaml is not merged yet", "train@first"),
    "a secret in an edit": (secret_edit, "code/read.py:2: a Hugging Face token", "train@first"),
    "an input that nobody has": (lost, "neither whole here nor at store", "train@first"),
    "data that was edited": (data_edited, "dvc add raw/rows.txt", "read"),
    "a stage that there is not": (lambda folder: None, "Did you mean 'train@first'", "train@fist"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_cannot_work_there_is_refused_before_anything_is_sent(
    case: str, project: Path
) -> None:
    damage, said, target = REFUSALS[case]
    damage(project)
    found = refused(target, on="box", yes=True, detach=True)
    assert said in found
    assert VALUE not in found
    assert TOKEN not in found
    assert list((project.parent / "store").rglob("*")) == []
    assert records.every() == []


def test_nothing_to_run_is_said_and_nothing_is_begun(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("read", on="box", yes=True)
    assert "nothing to run for read" in capsys.readouterr().out
    assert records.every() == []


def test_a_stage_that_a_job_makes_is_not_begun_again(project: Path) -> None:
    places(project, box=BOX | {"at_once": 5}, other=BOX)
    record = begun(name="train@first")
    assert f"is made on box already, by {record.job.id}" in refused(
        "train", on="other", yes=True, detach=True
    )
    run("train@second", on="other", yes=True, detach=True)
    assert len(records.every()) == 2


def test_a_place_takes_no_more_jobs_than_it_says(project: Path) -> None:
    record = begun(name="train@second")
    said = refused("train@first", on="box", yes=True, detach=True)
    assert f"box is at work: {record.job.id}" in said
    assert "box.at_once" in said


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_nothing_is_sent_without_a_yes(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert "type the command with --yes" in refused("train@first", on="box")
    monkeypatch.setattr("sys.stderr", Terminal())
    for answer in ("n\n", "\n", ""):
        monkeypatch.setattr("sys.stdin", Terminal(answer))
        assert "Nothing was sent" in refused("train@first", on="box")
    assert records.every() == []
    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    run("train@first", on="box", detach=True)
    assert [one.state for one in records.every()] == ["begun"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"acts": ("stop", "attach")}, "do not go together: --stop, --attach"),
        ({"acts": ("list",), "on": "box"}, "do not go together: --list, --on"),
        ({"acts": ("stop",), "dry_run": True}, "--dry-run does not go with --stop"),
        ({"acts": ("attach",), "bring": "all"}, "--bring does not go with --attach"),
        ({"as_json": True, "on": "box"}, "--json goes with --list or with --dry-run"),
        ({"on": "box"}, "No stage was named"),
        ({"acts": ("attach",)}, "No job is under way"),
    ],
)
def test_what_does_not_go_together_is_refused(
    words: dict[str, Any], said: str, project: Path
) -> None:
    assert said in refused(**words)


def test_a_job_is_named_by_its_id_or_is_the_only_one(project: Path) -> None:
    record = begun()
    assert f"Did you mean '{record.job.id}'" in refused(record.job.id[:-1], acts=("stop",))
    assert records.named("", records.OPEN).job == record.job
    begun(name="train@second")
    assert "Several jobs could be meant" in refused(acts=("attach",))


def test_a_job_of_a_kind_that_there_is_no_more_is_listed_and_refused(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = begun(entry={"kind": "mainframe", "usd_per_hour": 2.0})
    run(acts=("list",))
    said = capsys.readouterr().out
    assert "its place does not answer" in said
    assert "1 under way, 2.00 USD an hour" in said
    with pytest.raises(TunesmithError, match="by another version of Tunesmith"):
        run(record.job.id, acts=("attach",))


# What is sent


def test_a_project_in_a_folder_of_its_repository_is_sent_with_the_edits_around_it(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    top = project.parent / "top"
    shutil.copytree(project, top / "inner")
    shutil.move(top / "inner/.git", top / ".git")
    (top / "shared.py").write_text("old\n")
    git(top, "add", "-A")
    git(top, "commit", "-q", "-m", "Moved")
    (top / "shared.py").write_text("new\n")
    monkeypatch.chdir(top / "inner")
    found = planning.of(["train@first"])
    job = sending.job(found, declared.place("box"))
    assert found.edited == ["../shared.py"]
    assert job.prefix == "inner/"
    assert git(top, "show", f"{job.snapshot}:shared.py") == "new"
    assert git(top, "status", "--short", "shared.py") == "M shared.py"


def test_an_uncommitted_lock_travels_and_is_no_edit(project: Path) -> None:
    lockfile.put({"train@second": {"cmd": "true"}})
    found = planning.of(["train@first"])
    job = sending.job(found, declared.place("box"))
    assert found.edited == []
    assert "train@second" in git(project, "show", f"{job.snapshot}:dvc.lock")
    again = sending.job(found, declared.place("box"))
    assert again.id == job.id  # so that the same command finds the same job


def bucket(folder: Path, *lines: str) -> None:
    text = ["[remote 'store']", "    url = s3://bucket/x", *(f"    {line}" for line in lines)]
    (folder / ".dvc/config.local").write_text("\n".join(text).replace("'", '"') + "\n")
    (folder / "places.yaml").write_text("box: {kind: ssh, host: a}\n")


def test_the_remote_is_told_without_what_is_secret_or_of_this_machine(project: Path) -> None:
    keys = (f"access_key_id = {VALUE}", f"secret_access_key = {VALUE}", "profile = mine")
    bucket(project, *keys, "region = eu-1", "endpointurl = https://host")
    found = sending.remote(declared.place("box"))
    shared = {"region": "eu-1", "endpointurl": "https://host"}
    assert found == {"name": "store", "url": "s3://bucket/x"} | shared


@pytest.mark.parametrize("address", [f"https://me:{VALUE}@host", f"https://{TOKEN}@host"])
def test_an_address_with_a_secret_is_refused_and_not_shown(address: str, project: Path) -> None:
    bucket(project, f"endpointurl = {address}")
    with pytest.raises(TunesmithError, match="The endpointurl of the remote store holds") as shown:
        sending.remote(declared.place("box"))
    assert VALUE not in str(shown.value)
    assert TOKEN not in str(shown.value)


# The list


def like(record: Record, job: str, place: str = "box", **changes: Any) -> None:
    """A job like another one."""
    records.save(replace(record, job=replace(record.job, id=job, place=place), **changes))


def listed(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    run(acts=("list",), as_json=True)
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return found


def test_places_are_asked_side_by_side_and_a_refusal_is_said(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = begun()
    like(first, "second", "two")
    like(first, "third", "out")
    both = threading.Barrier(2)

    def state(job: jobs.Job, options: Any) -> str:
        if job.place == "out":
            raise TunesmithError("You are not signed in.")
        both.wait()  # each is asked while the other is
        return jobs.RUNNING

    monkeypatch.setattr(ssh, "state", state)
    assert {one["place"]: one["state"] for one in listed(capsys)} == {
        "box": "running",
        "two": "running",
        "out": "its place does not answer: You are not signed in.",
    }


def test_a_place_that_never_answers_does_not_hold_up_the_list(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    begun()
    never = threading.Event()
    monkeypatch.setattr(ssh, "state", lambda job, options: never.wait() and jobs.RUNNING)
    monkeypatch.setattr(listing, "BOUND", 0.1)
    assert [one["state"] for one in listed(capsys)] == ["its place does not answer"]
    never.set()


def test_the_list_shows_a_machine_that_may_still_run_first_and_the_last_ended_ones(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = begun(entry={"usd_per_hour": 1.5})
    ended = {"state": "done", "ended": "2026-11-22T10:00:00+00:00"}
    for number in range(13):
        like(first, f"old-{number:02}", **ended)
    like(first, "stuck", left="the Hub does not answer", **ended)
    run(acts=("list",))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "A MACHINE MAY STILL RUN AND COST, on box: the Hub does not answer"
    assert "tunesmith run --stop stuck" in lines[1]
    shown = [line.split()[0] for line in lines[3:]]
    assert shown[:3] == ["stuck", first.job.id, "old-12"]
    assert shown[-2:] == ["old-03", "1"]
    assert lines[5].endswith("2.0 h, 3.00 USD")
    assert lines[-1] == "1 under way, 1.50 USD an hour; 3 more have ended: --json"
    found = {one["job"]: one for one in listed(capsys)}
    assert len(found) == 15
    assert found["old-00"]["usd"] == 3.0


# The mailbox


@pytest.fixture(
    params=["folder", *(pytest.param(k, marks=pytest.mark.remotes) for k in ("ssh", "s3"))]
)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A remote of each kind."""
    if request.param == "folder":
        (tmp_path / "remote").mkdir()
        yield Store("r", {"remote": {"r": {"url": str(tmp_path / "remote")}}})
    elif request.param == "ssh":
        with remote_servers.sshd(tmp_path / "sshd") as server:
            values = {"url": server.url, "keyfile": str(server.keyfile)}
            yield Store("r", {"remote": {"r": values}})
    else:
        with remote_servers.s3() as server:
            keys = {"access_key_id": server.key_id, "secret_access_key": server.secret}
            values = {"url": f"s3://{server.bucket}", "endpointurl": server.endpoint, **keys}
            yield Store("r", {"remote": {"r": values}})


def test_letters_come_once_in_order_and_only_whole(store: Store) -> None:
    box = Mailbox(store, "job-1", 1)
    assert list(box.read(0, 0)) == []
    for number in (1, 2, 4):
        box.write(0, number, {"n": number})
    box.write(1, 1, {"n": "of another machine"})
    with store.fs.fs.open(store.fs.join(box.folder, "0-000003.json"), "wb") as half:
        half.write(b'{"n": 3, "log": ["half of')
    assert list(box.read(0, 0)) == [(1, {"n": 1}), (2, {"n": 2})]
    assert list(box.read(0, 2)) == []  # the fourth waits for the third
    box.write(0, 3, {"n": 3})
    assert [number for number, _ in box.read(0, 2)] == [3, 4]
    assert [letter for _, letter in box.read(1, 0)] == [{"n": "of another machine"}]


def test_a_note_that_asks_for_the_end_is_seen_and_all_is_cleared(store: Store) -> None:
    box, other = Mailbox(store, "job-1", 1), Mailbox(store, "job-1", 2)
    other.write(0, 1, {"n": 1})
    assert not box.stopped()
    box.stop()
    assert box.stopped()
    assert not other.stopped()
    box.write(0, 1, {"n": 1})
    box.clear()
    assert not box.stopped()
    assert list(box.read(0, 0)) == []
    assert len(list(other.read(0, 0))) == 1
    box.clear()  # what is empty is cleared, too


def test_a_folder_of_a_remote_lies_below_the_remote_whatever_its_name(store: Store) -> None:
    found = path(store, "tunesmith/jobs", "x")
    assert found.startswith(str(store.path))
    assert found.endswith("/tunesmith/jobs/x")
