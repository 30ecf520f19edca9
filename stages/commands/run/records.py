"""The jobs that this checkout knows: .tunesmith/jobs/<id>.json, written before anything is begun.

What is written there is enough to find a job again, to end it and to take its result.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stages.commands.run import declared
from stages.commands.run.declared import Place
from stages.core import files, jobs, local, plugins
from stages.core.errors import TunesmithError
from stages.core.jobs import Job

# Being sent; begun there; ended there and not taken yet; and how it ended.
SENDING, BEGUN, DONE, FAILED, STOPPED = "sending", "begun", "done", "failed", "stopped"
OPEN = (SENDING, BEGUN)


class FollowedError(TunesmithError):
    """Another process follows this job, and will take its result."""


@dataclass(frozen=True, slots=True)
class Record:
    """A job of this checkout.

    Attributes:
        entry: what places.yaml said of its place.
        state: one of the above.
        begun, ended: when, in UTC; empty while it is not.
        before: dvc.lock's entries of its stages, as they were here.
        bring: what is to be fetched: targets, all or nothing.
        reason: why it failed.
        stage: the last one that was seen to run.
        left: why the machine that was started for it may still run; empty where none does.
    """

    job: Job
    entry: dict[str, Any]
    state: str = SENDING
    begun: str = ""
    ended: str = ""
    before: dict[str, Any] = field(default_factory=dict)
    bring: str = "targets"
    reason: str = ""
    stage: str = ""
    left: str = ""

    @property
    def place(self) -> Place:
        """Its place, as it was declared when it was begun."""
        return declared.of(self.job.place, self.entry)

    def but(self, **changes: Any) -> "Record":
        """The same record with changes, written down."""
        found = replace(self, **changes)
        save(found)
        return found


def folder() -> Path:
    """Where they lie, in the main checkout."""
    return local.root().absolute() / ".tunesmith" / "jobs"


def now() -> str:
    """The time, in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def save(record: Record) -> None:
    """Write it down."""
    folder().mkdir(parents=True, exist_ok=True)
    with files.file(folder() / f"{record.job.id}.json") as work:
        files.write_json(work, asdict(record))


def load(name: str) -> Record | None:
    """The job of an id; None where there is none."""
    path = folder() / f"{name}.json"
    if not path.is_file():
        return None
    row = files.read_json(path)
    return Record(**row | {"job": jobs.read(row["job"])})


def every() -> list[Record]:
    """All jobs that are known here, the oldest first."""
    paths = sorted(folder().glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    return [found for path in paths if (found := load(path.stem))]


def named(name: str, states: tuple[str, ...] = ()) -> Record:
    """The job of an id; without one the only job in these states.

    Raises:
        TunesmithError: there is none, or several could be meant.
    """
    known = {record.job.id: record for record in every()}
    if name in known:
        return known[name]
    if not name:
        fitting = [record for record in known.values() if not states or record.state in states]
        if len(fitting) == 1:
            return fitting[0]
        several = ", ".join(record.job.id for record in fitting)
        raise TunesmithError(
            f"Several jobs could be meant: {several}." if fitting else "No job is under way.",
            where=str(folder()),
            do="Name one. All of them: tunesmith run --list",
        )
    raise TunesmithError(
        f"There is no job {name!r}.", where=str(folder()), do=plugins.nearest(name, known)
    )


def forget(record: Record) -> None:
    """Remove what is known of a job."""
    for suffix in ("json", "lock"):
        (folder() / f"{record.job.id}.{suffix}").unlink(missing_ok=True)


@contextmanager
def deciding() -> Iterator[None]:
    """Hold what two that look whether a place is free would both find so; the other one waits."""
    folder().mkdir(parents=True, exist_ok=True)
    with (folder() / "deciding.lock").open("a+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def alone(name: str) -> Iterator[None]:
    """Hold the lock of a job here, which the system frees when the process ends.

    Raises:
        FollowedError: another process has it.
    """
    folder().mkdir(parents=True, exist_ok=True)
    with (folder() / f"{name}.lock").open("a+b") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise FollowedError(
                f"{name} is followed already, by process {lock.read().decode() or '?'}.",
                where=str(folder()),
                why="Two of them would take its result at once.",
                do="Look there, or end that one; the job itself goes on without it.",
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()).encode())
        lock.flush()
        yield
