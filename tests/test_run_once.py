"""A job never runs twice at once, and nothing is taken for its result that is not."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stages.commands import run as command
from stages.commands.remote.store import Store
from stages.commands.run import declared, records, taking
from stages.commands.run.following import Ended
from stages.commands.run.mailbox import Mailbox, put
from stages.commands.run.records import Record
from stages.commands.run.there import saving
from stages.core import beginning, checkpoints, graph
from stages.core.errors import TunesmithError
from tests import test_run as ground
from tests.machines import wait_for

origin, project = ground.origin, ground.project
TRAIN, MODEL = "train@first", "models/first.bin"

# The program that a place is sent


class Box:
    """A machine that runs jobs whose worker waits until it may end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home, self.go = folder / "jobs" / "p", folder / "go"
        repo = self.home / "repo"
        repo.mkdir(parents=True)
        ground.git(repo, "init", "-q")
        ground.git(repo, "commit", "-q", "--allow-empty", "-m", "A project")
        self.commit = ground.git(repo, "rev-parse", "HEAD")
        os.mkfifo(self.go)
        self.worker = folder / "worker"
        self.worker.write_text(
            f'#!/bin/sh\necho at work >> {folder}/ran\nread word < "{self.go}"\n'
        )
        self.worker.chmod(0o755)
        self.begun: list[subprocess.Popen[bytes]] = []

    def job(self, attempt: int = 1) -> dict[str, Any]:
        return {
            "id": "train-a-1", "attempt": attempt, "baseline": self.commit, "prefix": "",
            "snapshot": self.commit, "project": "p", "git": "", "secrets": [], "env_file": "",
            "setup": [], "python": str(self.worker), "folder": str(self.folder / "jobs"),
            "hours": 0.0,
        }  # fmt: skip

    def start(self, act: str = "begin", attempt: int = 1) -> "subprocess.Popen[bytes]":
        text = beginning.text(self.job(attempt), act).replace("\nMOMENT = 3.0", "\nMOMENT = 0.05")
        call = subprocess.Popen(
            [sys.executable, "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.begun.append(call)
        assert call.stdin is not None
        call.stdin.write(text.encode())
        call.stdin.close()
        return call

    def says(self, act: str = "begin", attempt: int = 1) -> tuple[int, str]:
        call = self.start(act, attempt)
        assert call.stdout is not None
        return call.wait(20), call.stdout.read().decode().strip()

    def ran(self) -> int:
        path = self.folder / "ran"
        return len(path.read_text().splitlines()) if path.exists() else 0

    def end(self) -> None:
        """Let the worker that waits end."""
        with self.go.open("w") as file:
            file.write("go\n")


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Box]:
    for name in ("TUNESMITH_NODE", "TUNESMITH_DETACH", "TUNESMITH_MASTER"):
        monkeypatch.delenv(name, raising=False)
    found = Box(tmp_path)
    yield found
    with suppress(OSError):  # nobody waits any more
        os.close(os.open(found.go, os.O_WRONLY | os.O_NONBLOCK))
    for call in found.begun:
        call.kill()
        call.wait()
        assert call.stdout is not None
        call.stdout.close()


def test_a_job_that_is_at_work_is_not_begun_again_as_any_attempt(box: Box) -> None:
    first = box.start()
    wait_for(lambda: box.ran() == 1, "the worker")
    assert box.says("state") == (0, "running")
    code, said = box.says()
    assert (code, said) == (beginning.BUSY, "this job is at work here already, as attempt 1")
    assert box.says(attempt=2)[0] == beginning.OTHER
    assert box.says("state", attempt=2) == (0, "running")
    box.end()
    assert first.wait(20) == 0
    assert box.ran() == 1
    assert box.says("state") == (0, "ended")
    assert box.says("state", attempt=2) == (0, "none")


def test_a_worker_that_outlives_what_began_it_is_still_the_only_one(box: Box) -> None:
    first = box.start()
    wait_for(lambda: box.ran() == 1, "the worker")
    first.send_signal(signal.SIGKILL)
    assert first.wait(20) == -signal.SIGKILL
    assert box.says("state") == (0, "running")
    assert box.says(attempt=2)[0] == beginning.OTHER
    assert box.ran() == 1
    box.end()
    wait_for(lambda: box.says("state")[1] == "ended", "the lock to be free")
    again = box.start(attempt=2)
    wait_for(lambda: box.ran() == 2, "the next attempt")
    box.end()
    assert again.wait(20) == 0


# Attempts


def letters_of(store: Store, name: str, attempt: int) -> None:
    Mailbox(store, name, attempt).write(0, 1, {"result": {"code": 1}})


@pytest.mark.parametrize(
    ("here", "there", "next_one"), [(0, 0, 1), (3, 0, 4), (0, 5, 6), (2, 11, 12)]
)
def test_an_attempt_has_a_number_that_no_letters_have(
    here: int, there: int, next_one: int, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the end of an earlier attempt, perhaps another checkout's, would be its end."""
    seen: list[records.Record] = []
    monkeypatch.setattr(command, "conclude", lambda record, *_: seen.append(record))
    monkeypatch.setattr(ground.ssh, "state", lambda job, options: ground.jobs.NONE)
    store = Store("store", command.sending.settings.load())
    record = ground.begun()
    records.forget(record)
    if here:
        records.save(replace(record, job=replace(record.job, attempt=here), state="failed"))
    for attempt in range(1, there + 1):
        letters_of(store, record.job.id, attempt)
    ground.run(TRAIN, on="box", yes=True)
    assert [one.job.attempt for one in seen] == [next_one]


# Its result


@pytest.fixture
def ended(project: Path) -> tuple[Record, Ended, Store]:
    """A job whose result lies at the remote, and was not taken yet."""
    content = b"weights"
    out = ground.cached(project, MODEL, content)
    (project / MODEL).unlink()
    cached = project / ".dvc/cache/files/md5" / out["md5"][:2] / out["md5"][2:]
    store = Store("store", command.sending.settings.load())
    put(store, store.object(out["md5"]), content)
    cached.unlink()
    entry = {"cmd": "false", "deps": [], "params": {"params.yaml": {"rate": 1}}, "outs": [out]}
    record = ground.begun(job={"targets": [TRAIN], "needed": ["read", TRAIN]})
    return record, Ended(0, {TRAIN: entry}), store


def test_what_was_built_here_meanwhile_is_not_replaced(
    ended: tuple[Record, Ended, Store], project: Path
) -> None:
    record, over, store = ended
    mine = over.lock[TRAIN] | {"cmd": "mine"}
    taking.lockfile.put({TRAIN: mine})
    text = (project / graph.LOCK).read_text()
    with pytest.raises(TunesmithError, match="was built here since the job began"):
        taking.take(record, over, store)
    assert (project / graph.LOCK).read_text() == text
    assert not (project / MODEL).exists()

    taking.take(replace(record, before={TRAIN: mine}), over, store)  # it was there before the job
    assert graph.lock()[TRAIN] == over.lock[TRAIN]
    assert (project / MODEL).read_bytes() == b"weights"


def test_a_result_that_was_half_taken_is_taken_again(
    ended: tuple[Record, Ended, Store], project: Path
) -> None:
    record, over, store = ended
    taking.lockfile.put(over.lock)  # and the power went
    rows = [{"stage": TRAIN, "seconds": 3.0}]
    for _ in range(2):
        taking.take(record, replace(over, runs=rows), store)
    assert (project / MODEL).read_bytes() == b"weights"
    assert len(list(taking.runs.rows())) == 1


def test_a_file_that_is_damaged_or_gone_at_the_remote_is_never_put_here(
    ended: tuple[Record, Ended, Store], project: Path
) -> None:
    record, over, store = ended
    there = Path(store.object(over.lock[TRAIN]["outs"][0]["md5"]))
    there.unlink()
    for harm in (lambda: None, lambda: put(store, str(there), b"WEIGHTS")):
        harm()
        with pytest.raises(TunesmithError, match=r"did not come whole, such as models/first\.bin"):
            taking.take(record, over, store)
        assert not (project / MODEL).exists()
    put(store, str(there), b"weights")
    taking.take(record, over, store)
    assert (project / MODEL).read_bytes() == b"weights"


# Its checkpoints


def checkpoint(run: Path, step: int) -> None:
    own = run / f"checkpoint-{step}"
    own.mkdir(parents=True)
    (own / "weights").write_text(f"weights of {step}")
    (own / checkpoints.STATE).write_text(json.dumps({"step": step}))


def harmed(store: Store, top: Path) -> None:
    put(store, str(top / "20" / "weights"), b"other weights")


def lacking(store: Store, top: Path) -> None:
    (top / "20.json").unlink()  # a file of it is yet to come


@pytest.mark.parametrize("harm", [harmed, lacking])
def test_a_checkpoint_that_did_not_come_whole_is_none(
    harm: Callable[[Store, Path], None], project: Path
) -> None:
    store = Store("store", command.sending.settings.load())
    run = saving.home() / ("a" * 32)
    checkpoint(run, 20)
    saving.send(store, "p", TRAIN, run, run / "checkpoint-20")
    checkpoints._delete(run)
    top = Path(saving.folder(store, "p", TRAIN)) / run.name
    harm(store, top)
    assert saving.fetch(store, "p", TRAIN) == []
    assert checkpoints.last(run) is None
    assert not list(run.glob("checkpoint-*"))

    checkpoint(run, 30)  # a whole one comes, and is the only one there then
    saving.send(store, "p", TRAIN, run, run / "checkpoint-30")
    checkpoints._delete(run)
    assert len(saving.fetch(store, "p", TRAIN)) == 1
    last = checkpoints.last(run)
    assert last is not None
    assert (last / "weights").read_text() == "weights of 30"
    assert [entry.name for entry in Path(top).iterdir() if entry.suffix] == ["30.json"]


def test_a_place_of_the_record_is_the_one_it_was_begun_on(project: Path) -> None:
    record = ground.begun()
    ground.places(project, box={"kind": "ssh", "host": "another"})
    assert record.place.options.host == "me@gpubox"
    assert declared.place("box").options.host == "another"
