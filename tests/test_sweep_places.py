"""A sweep over several machines: each point once, wherever it was built and whatever has died."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import yaml

from stages.commands.run import following, points
from stages.commands.sweep import crew, seats, spread, store
from stages.commands.sweep.seats import Seat
from stages.commands.sweep.store import Outcome, Point, Sweep
from stages.core import jobs
from stages.core.errors import TunesmithError
from tests import machines, small_project, test_sweep
from tests.machines import wait_for
from tests.small_project import MODEL, Plain, git
from tests.test_sweep import RANK, RATE, experiments, table

# As the stub of tests/test_sweep.py; a line of the log has the place and the rank, too.
STUB = """
import hashlib, json, os, sys, time
from pathlib import Path
import yaml
top = Path(TOP)
stage, key = sys.argv[1:]
params = yaml.load(Path("params.yaml").read_text(), yaml.CSafeLoader)
place, rank = Path(os.environ["HOME"]).parent.name, params["models"]["wzrdbrain"]["lora"]["r"]
rate = params["models"]["wzrdbrain"]["train"]["learning_rate"]
with (top / "ran.txt").open("a") as log:
    log.write(f"{stage} {place} {rank} {rate}\\n")
if (top / "hold").exists() and (top / "hold").read_text() == f"{stage} {place}":
    (top / "there").touch()
    while (top / "hold").exists():
        time.sleep(0.05)
"""
KEPT = test_sweep.STUB[test_sweep.STUB.index("params, graph = (") :].replace("== 13", "== 13.5")
# Runs what ssh would run, on a machine that is a folder; `dead`: it does not answer.
SSH = """#!/bin/sh
while :; do case "$1" in -o|-p|-i|-F) shift 2;; -*) shift;; *) break;; esac; done
home=TOP/$1/home
shift
[ -e "$home/dead" ] && { echo "ssh: no answer" >&2; exit 255; }
mkdir -p "$home" && cd "$home" && exec env -i HOME="$home" PATH="$PATH" sh -c "$*"
"""
# A machine that is off is found out in two seconds and not in fifteen: the first -o counts.
QUICK = """#!/bin/sh
exec /usr/bin/ssh -o ConnectTimeout=2 "$@"
"""
# `tunesmith sweep`, with less patience.
IMPATIENT = """
import sys
from stages.commands.run import points
points.PATIENCE = 2.0
from stages.__main__ import main
sys.argv[0] = "tunesmith"
sys.exit(main())
"""
GRID = ("-S", f"{RANK}=8,16,32", "-S", f"{RATE}=1e-5,1e-4", "--target", "evaluate")


def make(top: Path) -> Path:
    """A project with all of Tunesmith, whose stages do nothing but hash; its origin beside it."""
    folder = small_project.make(top / "project")
    params = small_project.params()
    params["datasets"][MODEL]["source"] = "data/raw/notes"
    params["gguf"].popitem()
    files = {
        "params.yaml": yaml.dump(params, Dumper=Plain),
        "dvc.yaml": test_sweep.DVC_YAML.replace("python -m stages", "python stub.py"),
        "stub.py": STUB.replace("TOP", repr(str(top))) + KEPT,
        "data/raw/notes/one.txt": "one",
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    git(folder, "add", "--force", *files)
    git(folder, "commit", "-q", "-m", "Stubs")
    git(top, "init", "-q", "--bare", "origin.git")
    git(folder, "remote", "add", "origin", str(top / "origin.git"))
    git(folder, "push", "-q", "origin", "HEAD:main")
    return folder


def declare(folder: Path, **more: object) -> None:
    """gpu0 and gpu1."""
    found = {name: {"kind": "ssh", "host": name, "python": sys.executable, **more}
             for name in ("gpu0", "gpu1")}  # fmt: skip
    (folder / "places.yaml").write_text(yaml.dump(found, Dumper=Plain))


def program(folder: Path, name: str, text: str) -> Path:
    """A script; the folder that PATH needs for it."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    (folder / name).chmod(0o755)
    return folder


def ran(top: Path) -> list[str]:
    """Lines of stage, place, rank and rate, of all places, in order."""
    return (top / "ran.txt").read_text().splitlines()


def trainings(top: Path) -> list[str]:
    return [line for line in ran(top) if line.startswith("train ")]


def hold(top: Path, what: str) -> None:
    """Let a stage on a place wait, once it runs."""
    (top / "there").unlink(missing_ok=True)
    (top / "hold").write_text(what)


def reached(top: Path, sweep: "subprocess.Popen[str]") -> None:
    """Wait until a held stage runs."""

    def has() -> bool:
        assert sweep.poll() is None, sweep.communicate()
        return (top / "there").exists()

    wait_for(has, "a stage that is held", 60)


def numbers(row: dict[str, str]) -> list[str]:
    return [row[name] for name in ("distinct", "parse", "valid loss")]


@pytest.mark.machines
def test_a_sweep_of_six_over_two_places_completes_though_one_dies_half_way(tmp_path):
    folder = make(tmp_path)
    path = f"{program(tmp_path / 'bin', 'ssh', QUICK)}:{machines.PATH}"
    who = {name: value for name, value in small_project.environment().items()
           if name.startswith("GIT_")}  # fmt: skip
    with machines.network(tmp_path, {"here": {"PATH": path, **who}, "gpu0": {}, "gpu1": {},
                                     "store": {}}) as net:  # fmt: skip
        key = str(net.keyfile)
        words = ["remote", "store", net["store"].ssh.url, "--option", f"keyfile={key}"]
        net.here.run([sys.executable, "-m", "stages", *words], cwd=folder, check=True)
        declare(folder, remote_options={"keyfile": key})
        hold(tmp_path, "train gpu1")
        sweep = [sys.executable, "-c", IMPATIENT, "sweep"]
        typed = net.here.popen(
            [*sweep, *GRID, "--on", "gpu0,gpu1", "--yes", "--name", "six"], cwd=folder
        )
        reached(tmp_path, typed)
        net["gpu1"].die()
        (tmp_path / "hold").unlink()
        said, bad = typed.communicate(timeout=120)

        assert typed.returncode == 0, said + bad
        rows = table(folder, "six")
        assert [row["state"] for row in rows] == ["done"] * 6
        assert [row["place"] for row in rows] == ["gpu0"] * 6
        assert all(all(numbers(row)) for row in rows)
        assert experiments(folder) == [f"six-{n}" for n in range(1, 7)]
        assert experiments(tmp_path / "origin.git") == experiments(folder)
        died = [line for line in trainings(tmp_path) if " gpu1 " in line]
        assert len(died) == 1
        once = sorted(line.replace("gpu0 ", "") for line in trainings(tmp_path) if line not in died)
        assert len(once) == len(set(once)) == 6, "nothing else was trained twice"
        assert [line.split()[0] for line in ran(tmp_path)].count("convert") == 1
        assert "gpu1 gets no more points" in said


class Fake:
    """A project, two places that are folders, and a remote that is one."""

    def __init__(self, top: Path) -> None:
        self.top, self.folder = top, make(top)
        program(top / "bin", "ssh", SSH.replace("TOP", str(top)))
        self.env = small_project.environment()
        self.env |= {"PATH": f"{top / 'bin'}{os.pathsep}{self.env['PATH']}", "HOME": str(top)}
        (top / "store").mkdir()
        words = ["remote", "store", str(top / "store")]
        subprocess.run(
            [sys.executable, "-m", "stages", *words], cwd=self.folder, env=self.env, check=True,
            capture_output=True,
        )  # fmt: skip
        declare(self.folder, remote_url=str(top / "store"))

    def start(self, *words: str) -> "subprocess.Popen[str]":
        """`tunesmith sweep <words>`, going on."""
        return subprocess.Popen(
            [sys.executable, "-c", IMPATIENT, "sweep", *words], cwd=self.folder, env=self.env,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        )  # fmt: skip

    def done(self, *words: str) -> tuple[int, str]:
        """Its exit code and what it said."""
        process = self.start(*words)
        said, _ = process.communicate()
        return process.returncode, said

    def die(self, name: str) -> None:
        """A place ends with all that runs there, and does not answer any more."""
        home = self.top / name / "home"
        (home / "dead").touch()
        for process in psutil.process_iter():
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                if Path(process.cwd()).is_relative_to(home):
                    process.kill()


@pytest.fixture(scope="module")
def spread_out(tmp_path_factory) -> tuple[Fake, str]:
    """A sweep of two points over gpu0 and this machine, and what it said; one has a failed gate."""
    fake = Fake(tmp_path_factory.mktemp("spread"))
    code, said = fake.done("-S", f"{RANK}=7,16", "--name", "two", "--on", "gpu0,here", "--yes")
    assert code == 1, said
    return fake, said


@pytest.mark.slow
def test_what_points_share_is_built_by_one_machine_and_taken_by_the_others(spread_out):
    fake, said = spread_out

    rows = table(fake.folder, "two")
    assert sorted(row["place"] for row in rows) == ["gpu0", "here"], said
    assert [row["state"] for row in rows] == ["gate failed", "done"]
    assert rows[0]["reason"].endswith("did not pass. fused: parse")
    assert len(trainings(fake.top)) == 2
    stages = [line.split()[0] for line in ran(fake.top)]
    assert stages.count("convert") == stages.count("base") == 1


@pytest.mark.slow
def test_an_experiment_can_be_taken_in_another_clone(spread_out):
    fake, _ = spread_out
    git(fake.top, "clone", "-q", "-b", "main", str(fake.top / "origin.git"), "clone")
    clone = fake.top / "clone"
    (clone / ".dvc/config.local").write_bytes((fake.folder / ".dvc/config.local").read_bytes())

    pulled = small_project.dvc(clone, "exp", "pull", "origin", "two-2")
    applied = small_project.dvc(clone, "exp", "apply", "two-2")

    assert (pulled.returncode, applied.returncode) == (0, 0), pulled.stderr + applied.stderr
    assert yaml.safe_load((clone / "params.yaml").read_text())["models"][MODEL]["lora"]["r"] == 16
    assert (clone / f"models/adapter/{MODEL}/file").is_file()


@pytest.mark.slow
def test_a_point_has_the_same_numbers_elsewhere_as_here(spread_out):
    fake, _ = spread_out
    elsewhere = [row for row in table(fake.folder, "two") if row["place"] == "gpu0"]
    before = len(ran(fake.top))

    rank = f"{RANK}={elsewhere[0]['r']}"
    code, said = fake.done("-S", rank, "--target", "evaluate", "--name", "own")

    assert code == 0, said
    assert "train" in " ".join(ran(fake.top)[before:])
    assert numbers(table(fake.folder, "own")[0]) == numbers(elsewhere[0])
    assert "place" not in table(fake.folder, "own")[0]


@pytest.mark.slow
def test_a_sweep_that_was_ended_here_finds_its_points_again(tmp_path):
    fake = Fake(tmp_path)
    words = ("-S", f"{RANK}=8", "--target", "train", "--name", "one", "--on", "gpu0", "--yes")
    hold(tmp_path, "train gpu0")
    process = fake.start(*words)
    reached(tmp_path, process)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate()

    assert process.returncode == 130
    assert "one-1 goes on, on gpu0" in said
    assert "to go on: tunesmith sweep --name one --on gpu0" in said

    process = fake.start(*words)
    log = fake.folder / ".tunesmith/sweeps/one/points/one-1.log"
    wait_for(lambda: "Running stage 'train" in log.read_text(), "it to be followed", 60)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    (tmp_path / "hold").unlink()
    code, said = fake.done("--name", "one", "--on", "gpu1", "--yes")

    assert code == 0, said
    assert "one-1 is under way on gpu0" in said
    assert len(trainings(tmp_path)) == 1
    assert table(fake.folder, "one")[0]["place"] == "gpu0"


@pytest.mark.slow
def test_without_a_place_left_the_sweep_ends_and_goes_on_with_another(tmp_path):
    fake = Fake(tmp_path)
    hold(tmp_path, "train gpu0")
    process = fake.start(
        "-S", f"{RANK}=8,16", "--target", "train", "--name", "two", "--on", "gpu0", "--yes"
    )
    reached(tmp_path, process)
    fake.die("gpu0")
    (tmp_path / "hold").unlink()
    said, _ = process.communicate()

    assert process.returncode == 1
    assert "2 of 2 points are left, and no place" in said
    assert "tunesmith sweep --name two --on PLACE" in said
    (job,) = (fake.folder / ".tunesmith/jobs").glob("train-*.json")
    assert "given up without an answer" in job.read_text()

    code, said = fake.done("--name", "two", "--on", "gpu1", "--yes")

    assert code == 0, said
    assert [row["place"] for row in table(fake.folder, "two")] == ["gpu1", "gpu1"]
    assert len(trainings(tmp_path)) == 3
    refused, said = fake.done("-S", f"{RANK}=9", "--name", "no", "--on", "gpu0,gpu1", "--yes")
    assert (refused, "gpu0 cannot be reached" in said) == (2, True), said
    assert not (fake.folder / ".tunesmith/sweeps/no").exists()
    asked, said = fake.done("-S", f"{RANK}=9", "--name", "no", "--on", "gpu1")
    assert (asked, "Nobody is here to say yes" in said) == (2, True), said
    assert not (fake.folder / ".tunesmith/sweeps/no").exists()


def swept(values: list[dict[str, object]], affected: dict[str, list[str]]) -> Sweep:
    """A sweep of these points."""
    points = [Point(f"s-{n}", one, "") for n, one in enumerate(values, 1)]
    return Sweep("s", [], [], "", "", "", "", list(affected), affected, {}, points)


@pytest.fixture
def team() -> crew.Crew:
    """Four points of rank and quant over two places."""
    values: list[dict[str, object]] = [{"r": r, "q": q} for q in (4, 6) for r in (8, 16)]
    of = swept(values, {"base": [], "train": ["r"], "gguf": ["r", "q"]})
    found = crew.Crew(of, [Seat("a", 1), Seat("b", 1)], lambda line: None)
    found.waiting = list(of.points)
    return found


def begin(team: crew.Crew) -> crew.Running | None:
    """The next point, as if it had begun."""
    ready = team.next()
    if ready is None:
        return None
    team.waiting.remove(ready[0])
    one = crew.Running(*ready, 0, team.shared(ready[0]))
    team.running[ready[0].name] = one
    return one


def test_a_point_begins_with_what_keeps_a_free_place_waiting_and_with_no_more(team):
    team.seats.append(Seat("c", 1))
    first = begin(team)

    assert first is not None
    assert team.next() is None, "all others need the base"
    assert team.ahead(first.point, first.holds) == ["base"]
    team.heed(first, "for other points: base")
    second = begin(team)
    assert second is not None
    assert [(one.point.name, one.seat.name) for one in (first, second)] == [
        ("s-1", "a"), ("s-2", "b")
    ]  # fmt: skip
    assert team.ahead(second.point, second.holds) == ["train"], "the fourth has its rank"
    team.seats.pop()
    assert team.ahead(second.point, second.holds) == [], "no place is free"


def test_what_is_made_elsewhere_is_for_others_only_when_its_job_has_ended(team):
    first = begin(team)
    assert first is not None

    for line in ("Running stage 'base':", "Running stage 'train':", "Stage 'gguf' didn't change"):
        team.heed(first, line)

    assert team.made == set()
    here = Seat(seats.HERE, 1)
    team.running = {"s-1": crew.Running(first.point, here, 0, team.shared(first.point))}
    team.heed(team.running["s-1"], "Running stage 'base':")
    team.heed(team.running["s-1"], "Running stage 'train':")
    assert team.made == {"base []"}


def test_a_lost_place_gets_no_more_points_and_its_point_is_the_next_elsewhere(team):
    first = begin(team)
    assert first is not None
    del team.running["s-1"]

    assert team.again(first, Outcome(store.LOST, "a: it died", place="a")) is None

    again = begin(team)
    assert again is not None
    assert (again.point.name, again.seat.name) == ("s-1", "b")
    del team.running["s-1"]
    team.again(again, Outcome(store.LOST, "b: it died", place="b"))
    assert team.next() is None


def test_a_point_that_was_lost_with_three_places_has_failed(team):
    team.seats.append(Seat("c", 1))
    outcomes = []
    for name in "abc":
        one = begin(team)
        assert one is not None
        del team.running[one.point.name]
        outcomes.append(team.again(one, Outcome(store.LOST, f"{name}: it died", place=name)))

    assert outcomes[:2] == [None, None]
    assert outcomes[2] is not None
    assert (outcomes[2].state, outcomes[2].reason) == (store.FAILED, "lost with a, b, c")


def test_a_point_that_is_under_way_is_followed_where_it_is_and_brings_no_others_there(team):
    team.bound = {"s-3": "old"}

    first, second = begin(team), begin(team)

    assert first is not None
    assert (first.point.name, first.seat.name, first.seat.lost) == ("s-3", "old", seats.NOT_NAMED)
    assert second is None, "it holds the base"
    assert team.free(first.seat) == 0


@pytest.mark.parametrize(
    ("on", "at_once", "said"),
    [
        ("a,a", 0, "a is named twice"),
        (" , ", 0, "No place was named"),
        ("a", 2, "(?s)--at-once is about this machine.*--on here,a"),
        ("a,nowhere", 0, "no place 'nowhere'"),
        ("n", 0, "begun by hand"),
        ("a,b", 0, "a and b have different remotes"),
    ],
)
def test_places_that_cannot_be_meant_are_refused(on, at_once, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("places.yaml").write_text(
        "a: {kind: ssh, host: a, at_once: 3}\nn: {kind: notebook}\n"
        "b: {kind: ssh, host: b, remote: other}\n"
    )

    with pytest.raises(TunesmithError, match=said):
        seats.named(on, at_once)


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_dry_run_of_a_sweep_that_has_ended_sends_nothing(dry_run, monkeypatch):
    sent = []
    monkeypatch.setattr(store, "pending", lambda sweep: [])
    monkeypatch.setattr(spread.workspace, "git_remote", lambda root: "origin")
    monkeypatch.setattr(spread, "send", lambda sweep, remote: sent.append(remote))

    spread.work(object.__new__(Sweep), [], yes=True, dry_run=dry_run)

    assert sent == ([] if dry_run else ["origin"])


def test_this_machine_may_be_one_of_the_places(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("places.yaml").write_text("a: {kind: ssh, host: a, at_once: 3}\n")

    found = seats.named("here,a", 2)

    assert [(seat.name, seat.at_once) for seat in found] == [("a", 3), ("here", 2)]
    Path("places.yaml").write_text("here: {kind: ssh, host: a}\n")
    with pytest.raises(TunesmithError, match="A place is called 'here'"):
        seats.named("here", 1)


def test_the_cost_is_that_of_all_points_and_of_each_place_where_they_differ(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("places.yaml").write_text(
        "a: {kind: ssh, host: a, usd_per_hour: 2}\nb: {kind: ssh, host: b, usd_per_hour: 3}\n"
    )
    Path(".tunesmith").mkdir()
    Path(".tunesmith/runs.jsonl").write_text('{"stage":"train@m","seconds":1800}\n')
    places = [seat.place for seat in seats.named("a,b", 0) if seat.place]
    plan = {"runs": ["train@m"] * 6}

    said = spread.cost(places, plan)

    assert "if all ran on a: about 3.0 h" in said
    assert "6.00 USD" in said
    assert "9.00 USD" in said
    assert "\n" not in spread.cost(places[:1], plan)


class Silent:
    """A kind of place that says of each job what it is told."""

    said = jobs.UNKNOWN

    def state(self, job: object, options: object) -> str:
        del job, options
        return self.said


def test_a_job_is_given_up_only_where_its_place_gives_no_answer(monkeypatch):
    monkeypatch.setattr(following.Follower, "ask", lambda self, box: None)
    monkeypatch.setattr(following.Follower, "without", lambda self, store, failure: None)
    plugin = Silent()
    one = object.__new__(points.Patient)
    one.job, one.place, one.patience = None, SimpleNamespace(plugin=plugin, options=None), 60.0
    now = time.monotonic()

    one.heard = now - 59
    assert one.ask(None) is None
    one.heard = now - 61
    plugin.said = jobs.RUNNING
    assert one.ask(None) is None, "it runs, though its letters do not come"
    plugin.said = jobs.UNKNOWN
    over = one.ask(None)
    assert over is not None
    assert (over.code, over.reason) == (None, "it has not answered for 60 s")
    one.without(None, OSError())
    assert one.ask(None) is None, "who cannot reach the remote knows nothing of a place"
