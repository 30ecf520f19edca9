"""Nothing that was finished is lost or computed twice, and what was cut off is cleared up."""

import errno
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import killing
import psutil
import pytest
import small_project
from dvc.repo import Repo
from project import ROOT, make

from stages.commands import resume
from stages.commands.resume import leftovers, mending
from stages.core import checkpoints, copies, disk, files, finished, graph, runner, running
from stages.core.cache import Cache
from stages.core.errors import TunesmithError

ADDRESS = "convert@mine"
ROWS = [
    {"messages": [{"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": f"a{n}"}]}
    for n in range(4)
]
GRAPH = """\
stages:
  convert:
    foreach: ${datasets}
    do:
      cmd: python -m stages convert ${key}
      deps: ["${item.source}"]
      params: ["datasets.${key}"]
      outs: ["data/examples/${key}", "data/lineage/${key}.json"]
"""
OUTS = (Path("data/examples/mine"), Path("data/lineage/mine.json"))


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """A project with one light stage, as DVC starts it."""
    folder = make(tmp_path / "main", ROWS)
    (folder / "dvc.yaml").write_text(GRAPH)
    Repo.init(str(folder), no_scm=True).close()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("DVC_ROOT", str(folder))
    monkeypatch.setenv("DVC_STAGE", ADDRESS)
    monkeypatch.setattr(running, "watch", lambda: None)  # pytest is not the stage to be ended
    return folder


def convert() -> None:
    """The stage as DVC runs it: DVC has deleted its outputs."""
    for out in OUTS:
        copies.remove(out)
    runner.run("convert", "datasets", "mine")


def times() -> int:
    """How often the stage has computed."""
    return len(Path(".tunesmith/runs.jsonl").read_text().splitlines())


def commit() -> None:
    """What DVC does after a stage: hash, keep the account of the run, copy to the cache."""
    with Repo() as repo:
        repo.commit(ADDRESS, force=True)


def contents() -> dict[str, str]:
    return {str(out): files.tree_hash(out) if out.is_dir() else files.sha256(out) for out in OUTS}


def test_what_finished_and_was_not_committed_is_not_computed_again(workspace, capsys):
    convert()
    made = contents()
    convert()

    assert (times(), contents()) == (1, made)
    assert files.incomplete(OUTS[0]) == ""
    assert "had finished and DVC did not have it yet" in capsys.readouterr().out


def test_what_dvc_holds_is_kept_no_longer_and_runs_when_it_is_asked_for(workspace):
    convert()
    commit()
    assert [kept.asked.address for kept in finished.every()] == [ADDRESS]
    finished.sweep()
    assert finished.every() == []

    convert()  # as `dvc repro --force` does
    convert()
    assert times() == 3


def test_an_account_of_a_run_without_its_objects_in_the_cache_is_no_commit(workspace):
    convert()
    commit()
    md5 = graph.lock()[ADDRESS]["outs"][1]["md5"]
    Cache().path(md5).unlink()
    convert()

    assert times() == 1


@pytest.mark.parametrize("changed", ["input", "setting"])
def test_other_inputs_or_settings_are_another_run(workspace, changed):
    convert()
    path = Path("params.yaml" if changed == "setting" else "data/raw/mine/chats.jsonl")
    path = path if path.is_file() else next(Path("data/raw/mine").glob("*.jsonl"))
    text = path.read_text()
    path.write_text(text.replace("seed: 1,", "seed: 2,") if changed == "setting" else text * 2)
    convert()

    assert times() == 2


def test_a_run_whose_input_changed_meanwhile_is_not_kept(workspace):
    wanted = finished.asked(ADDRESS)
    convert()
    copies.remove(finished.every()[0].folder)
    with next(Path("data/raw/mine").glob("*.jsonl")).open("a") as file:
        file.write("\n")
    finished.keep(wanted, 1.0, 1.0)

    assert finished.every() == []


def test_what_was_changed_after_it_was_kept_is_not_used(workspace):
    convert()
    with OUTS[1].open("a") as file:  # in place: it is the kept file, too
        file.write(" ")
    convert()

    assert times() == 2


def test_a_half_made_entry_is_none(workspace):
    convert()
    kept = finished.every()[0]
    (kept.folder / finished.OUTS / "0" / "stats.json").unlink()
    convert()

    assert times() == 2


def test_a_stage_that_was_typed_by_hand_always_runs_and_keeps_nothing(workspace, monkeypatch):
    monkeypatch.delenv("DVC_STAGE")
    convert()
    convert()

    assert (times(), finished.every()) == (2, [])


def test_a_missing_input_has_no_fingerprint(workspace):
    copies.remove(Path("data/raw/mine"))

    assert finished.asked(ADDRESS) is None


def test_a_kill_while_results_are_put_back_costs_nothing(workspace, monkeypatch):
    convert()
    made = contents()
    whole = copies.tree

    def killed(source, target):
        if target.name.startswith(".mine.json"):
            raise KeyboardInterrupt
        whole(source, target)

    monkeypatch.setattr(copies, "tree", killed)
    with pytest.raises(KeyboardInterrupt):
        convert()
    monkeypatch.setattr(copies, "tree", whole)
    convert()

    assert (times(), contents()) == (1, made)


def test_no_output_of_a_workspace_is_an_output_of_another(workspace, tmp_path, monkeypatch):
    convert()
    other = tmp_path / "other"
    copies.tree(workspace, other)
    monkeypatch.chdir(other)  # an experiment's: its main checkout is the first
    convert()

    assert times_of(workspace) == 1
    here, there = (folder / OUTS[1] for folder in (workspace, other))
    assert here.read_bytes() == there.read_bytes()
    assert here.stat().st_ino != there.stat().st_ino


def times_of(folder: Path) -> int:
    return len((folder / ".tunesmith/runs.jsonl").read_text().splitlines())


def test_a_full_disk_while_a_result_is_kept_costs_nothing_but_a_line(
    workspace, monkeypatch, capsys
):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(copies, "tree", full)
    convert()

    assert OUTS[0].is_dir()
    assert "is not kept" in capsys.readouterr().err
    assert [path.name for path in finished.folder().iterdir()] == []


def test_what_a_killed_run_did_not_note_is_noted_when_it_is_taken(workspace, monkeypatch):
    weights = OUTS[0]
    monkeypatch.setattr(runner, "wrote", lambda *_: weights)
    convert()
    Path(".tunesmith/runs.jsonl").unlink()
    convert()
    convert()

    assert times() == 1


def test_the_outputs_of_a_stage_are_at_the_same_time_made_once(workspace, monkeypatch):
    monkeypatch.setattr(running, "PATIENCE", 0.0)
    with running.once(ADDRESS):
        assert running.busy() == [f"{ADDRESS} (process {os.getpid()})"]
        with pytest.raises(TunesmithError, match=rf"runs already, as process {os.getpid()}"):
            convert()
        with pytest.raises(TunesmithError, match="Something works here: convert@mine"):
            resume.run([])
    convert()
    assert times() == 1


HOLDER = """
import sys
from stages.core import running
with running.once("train@x"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_lock_ends_with_the_process_that_holds_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [sys.executable, "-c", HOLDER]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(words, env=env, stdin=-1, stdout=-1) as holder:
        holder.stdout.readline()
        monkeypatch.setattr(running, "PATIENCE", 0.0)
        with pytest.raises(TunesmithError, match=f"kill {holder.pid}"), running.once("train@x"):
            pass
        holder.kill()
        monkeypatch.undo()
        monkeypatch.chdir(tmp_path)
        with running.once("train@x"):  # as soon as it is gone
            assert len(running.busy()) == 1


# A stage with a process of its own, and what started it; both say their numbers.
STAGE = """
import os, subprocess, sys, threading
from stages.core import running
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
running.watch()
print(os.getpid(), child.pid, flush=True)
threading.Event().wait()
"""
STARTER = """
import subprocess, sys
subprocess.run(["/bin/sh", "-c", f"{sys.executable} -c '{sys.argv[1]}'; exit"])
"""


def test_a_stage_and_what_it_started_end_when_dvc_is_killed(tmp_path):
    env = {**os.environ, "PYTHONPATH": str(ROOT), "DVC_ROOT": str(tmp_path), "DVC_STAGE": "a@b"}
    words = [sys.executable, "-c", STARTER, STAGE.replace('"', '\\"').replace("'", '"')]
    words[-1] = STAGE.strip()
    with subprocess.Popen(words, env=env, stdout=-1, cwd=tmp_path, text=True) as starter:
        started = [psutil.Process(int(pid)) for pid in starter.stdout.readline().split()]
        starter.send_signal(signal.SIGKILL)
        _, alive = psutil.wait_procs(started, timeout=30)

    assert alive == []


def test_dvcs_own_account_says_what_started_a_stage(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setenv("DVC_STAGE", "a@b")
    account(os.getppid())
    assert not running.alone()()
    account(dead())
    assert running.alone()()
    with subprocess.Popen(["sleep", "600"]) as another:
        account(another.pid)  # a dvc that was started after ours was killed
        assert running.alone()()
        another.kill()


def test_a_stage_that_was_typed_is_never_alone(monkeypatch):
    monkeypatch.delenv("DVC_STAGE", raising=False)

    assert not running.alone()()


def account(pid: int) -> None:
    """What DVC writes of a process that runs a stage."""
    running.DVC_WRITERS.parent.mkdir(parents=True, exist_ok=True)
    rows = {"write": {"x/models": {"pid": pid, "cmd": "dvc repro"}}, "read": {}}
    running.DVC_WRITERS.write_text(json.dumps(rows))


def dead() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_resume_refuses_while_dvc_works_here_and_not_for_one_that_was_killed(workspace):
    account(os.getpid())
    assert running.busy() == [f"dvc (process {os.getpid()})"]
    with pytest.raises(TunesmithError, match="Something works here: dvc"):
        resume.run([])
    account(dead())
    assert running.busy() == []


def test_a_lock_file_that_was_cut_off_anywhere_is_made_whole(workspace):
    convert()
    commit()
    running.remember()
    lock, whole = Path("dvc.lock"), graph.lock()
    text = lock.read_text()
    wrong = []
    ends = {n + past for n, letter in enumerate(text) if letter == "\n" for past in (0, 1)}
    for cut in sorted(ends - {len(text)} | set(range(0, len(text), 97))):
        lock.write_text(text[:cut])
        said = mending.mend()
        if graph.lock() != whole or [line.split(" was ")[0] for line in said] != ["dvc.lock"]:
            wrong.append(text[:cut][-40:])

    assert wrong == []
    assert mending.mend() == []


def test_a_stage_that_the_files_of_a_job_have_no_more_is_not_put_back(workspace):
    """A job's checkout has the commit as HEAD, and in the index the files as they were sent."""
    convert()
    commit()
    small_project.git(workspace, "init", "-q")
    small_project.git(workspace, "add", "-f", "dvc.lock")
    small_project.git(workspace, "commit", "-q", "-m", "Built")
    Path("dvc.lock").write_text("schema: '2.0'\nstages: {}\n")
    small_project.git(workspace, "add", "-f", "dvc.lock")

    assert mending.mend() == []
    assert graph.lock() == {}


def test_an_empty_account_of_a_run_goes_since_dvc_fails_on_it(workspace):
    convert()
    commit()
    account = next((Cache().folder / "runs").glob("??/*"))
    for path in account.iterdir():
        path.rename(account / ".x_yz.tmp")
    os.utime(account / ".x_yz.tmp", (1000, 1000))
    leftovers.clear(graph.load().values())

    assert not account.exists()


def test_dvcs_account_of_writers_goes_where_it_is_half_written(workspace):
    running.DVC_WRITERS.write_text('{"write": {"x"')

    assert "half-written" in mending.mend()[0]
    assert not running.DVC_WRITERS.exists()


def test_half_written_files_go_and_those_of_a_living_process_stay(workspace, monkeypatch):
    kept = Cache().folder / "files" / "md5" / "ab"
    left = [
        Path("data/examples/.mine.tmp"),
        Path(".tunesmith/hashes.9.tmp"),
        kept / ".x_yz.tmp",
        kept / "cdef.dir.x_yz.tmp",
        Path("data/lineage/.x_yz.tmp"),
    ]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("half")
        os.utime(path, (1000, 1000))
    used = kept / ".used.tmp"
    used.write_text("half")
    monkeypatch.setattr(leftovers, "_oldest", lambda: 2000.0)

    assert leftovers.clear(graph.load().values()) == ["half-written files removed: 5 (0.0 MB)"]
    assert [path.exists() for path in (*left, used)] == [False] * 5 + [True]


def test_resume_says_what_it_found_and_what_it_did(workspace, monkeypatch, capsys):
    convert()
    monkeypatch.setattr(resume, "_repro", lambda _: convert() or 0)
    capsys.readouterr()
    resume.run([])
    said = capsys.readouterr().out

    assert f"finished, and not in DVC's cache yet: {ADDRESS}" in said
    assert f"taken as they had finished: {ADDRESS}\n  run: none" in said


def test_resume_ends_as_dvc_does_and_names_a_full_disk(workspace, monkeypatch, capsys):
    monkeypatch.setattr(resume, "_repro", lambda _: 255)
    with pytest.raises(SystemExit) as ended:
        resume.run([])
    assert ended.value.code == 255
    assert "nothing was cut off here" in capsys.readouterr().out
    monkeypatch.setattr(disk, "MARGIN", 1 << 62)
    with pytest.raises(TunesmithError, match="The disk is full") as refusal:
        resume.run([])
    assert "tunesmith resume" in refusal.value.do


def test_checkpoints_stay_until_the_result_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.setenv("DVC_STAGE", "train@x")
    run = Path(".tunesmith/checkpoints/abc")
    (run / "checkpoint-4").mkdir(parents=True)
    files.write_json(run / "checkpoint-4" / checkpoints.STATE, {})
    checkpoints.forget(run)
    assert checkpoints.last(run) == run / "checkpoint-4"
    checkpoints.let_go("train@other")
    assert run.is_dir()
    checkpoints.let_go("train@x")
    assert list(run.parent.iterdir()) == []
    checkpoints.forget(run)


def test_a_stage_that_would_not_fit_is_refused_before_it_runs(workspace, monkeypatch):
    convert()
    commit()
    free = 50_000_000
    stage = graph.load()[ADDRESS]
    size = disk.expected(stage, None)
    assert size == sum(map(copies.size, OUTS))
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: type("U", (), {"free": free}))
    disk.require(ADDRESS, None)
    monkeypatch.setattr(disk, "expected", lambda *_: 20_000_000)
    with pytest.raises(TunesmithError, match=r"needs 60 MB and the disk has 50 MB free") as refusal:
        disk.require(ADDRESS, None)
    assert "tunesmith resume" in refusal.value.do
    monkeypatch.setattr(disk, "copied", lambda _: False)
    disk.require(ADDRESS, None)


@pytest.mark.parametrize(
    "failure",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        RuntimeError("I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_said_in_one_screen_whatever_wrote(tmp_path, monkeypatch, failure):
    monkeypatch.chdir(tmp_path)
    with (
        pytest.raises(TunesmithError, match="The disk is full: train@x"),
        disk.Explained("train@x"),
    ):
        raise failure
    with pytest.raises(ValueError, match="other"), disk.Explained("train@x"):
        raise ValueError("other")


FAILING = """\
stages:
  good: {cmd: "mkdir -p models/adapter/x && echo w > models/adapter/x/w", outs: [models/adapter/x]}
  bad: {cmd: "mkdir models/fused && echo h > models/fused/half && false",
        deps: [models/adapter/x], outs: [models/fused/x]}
"""


def test_a_failed_build_brings_no_model_into_git(tmp_path):
    (tmp_path / "dvc.yaml").write_text(FAILING)
    (tmp_path / ".gitignore").write_bytes((ROOT / ".gitignore").read_bytes())
    killing.small_project.git(tmp_path, "init", "-q")
    Repo.init(str(tmp_path)).close()
    done = killing.small_project.dvc(tmp_path, "repro")
    killing.small_project.git(tmp_path, "add", "-A")
    added = killing.small_project.git(tmp_path, "status", "--porcelain").splitlines()

    assert "failed to reproduce 'bad'" in done.stderr
    assert (tmp_path / "models/adapter/x/w").is_file()
    assert not [line for line in added if "models" in line]


@pytest.mark.slow
def test_a_build_that_was_killed_again_and_again_is_the_whole_one(tmp_path):
    template, targets = killing.template(tmp_path / "template"), (f"fuse@{killing.MODEL}",)
    whole = killing.Build(killing.copy(template, tmp_path / "whole"), targets)
    touches = whole.whole()
    build = killing.Build(killing.copy(template, tmp_path / "killed"), targets)
    draw = random.Random(1)
    for _ in range(6):
        build.kill(draw, 4.0, touches // 6)
    build.whole()

    assert whole.wrong == []
    assert killing.differences(killing.made(whole.folder), build) == []
    assert build.kills.total() >= 4


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_disk_that_fills_up_is_said_and_the_build_goes_on_to_the_same_bytes(tmp_path):
    template, address = killing.template(tmp_path / "template"), f"convert@{killing.MODEL}"
    whole = killing.Build(killing.copy(template, tmp_path / "whole"), (address,))
    whole.whole()
    with killing.small_disk(tmp_path / "disk", "200m") as disk:
        build = killing.Build(killing.copy(template, disk / "build"), (address,))
        said = {
            when: killing.starved(build, address, when, tmp_path)
            for when in ("before", "during", "commit")
        }
        build.finish(address)
        build.whole()

        assert said["before"] == "clear"
        assert set(said.values()) <= {"clear", "too late"}, said
        assert killing.differences(killing.made(whole.folder), build) == []
