"""A stage's process and its workspace: run once at a time, ended when what started it is gone."""

import fcntl
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import psutil

from stages.core import files, graph, inside
from stages.core.errors import TunesmithError

LOOK = 0.25  # seconds between looks at the process that started this one
PATIENCE = 3.0  # seconds for a stage to end whose DVC was killed
CLOCK = 2.0  # seconds by which a process's age and a file's may disagree
SHELLS = ("sh", "bash", "dash", "zsh", "ksh", "fish")
LOCKS = Path(".tunesmith/locks")  # of this workspace: another one builds files of its own
# DVC's own: the first is held while it hashes and commits, the second names who writes which output
# while a stage runs.
REMEMBERED = Path(".tunesmith/dvc.lock")  # as it was when a stage began: DVC writes it in place
DVC_LOCK, DVC_WRITERS = Path(".dvc/tmp/lock"), Path(".dvc/tmp/rwlock")


@contextmanager
def once(address: str) -> Iterator[None]:
    """Hold the lock of one stage of this workspace; the system frees it when the process ends.

    Raises:
        TunesmithError: another process runs that stage here, which is named.
    """
    LOCKS.mkdir(parents=True, exist_ok=True)
    with (LOCKS / f"{address}.lock").open("a+b") as lock:
        until = time.monotonic() + PATIENCE
        while not _held(lock):
            if time.monotonic() >= until:
                raise _runs_already(address, _owner(lock))
            time.sleep(LOOK)
        lock.truncate(0)
        lock.write(str(os.getpid()).encode())
        lock.flush()
        yield


def _held(lock: BinaryIO) -> bool:
    """Take a lock, if nobody has it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _owner(lock: BinaryIO) -> str:
    lock.seek(0)
    return lock.read().decode() or "?"


def _runs_already(address: str, owner: str) -> TunesmithError:
    return TunesmithError(
        f"{address} runs already, as process {owner}.",
        where=str(Path.cwd()),
        why="Two of them would write the same files.",
        do=f"Wait until it has ended, or end it:    kill {owner}",
    )


def remember() -> None:
    """Keep dvc.lock as it is, for `tunesmith resume`: DVC writes it anew after the stage."""
    lock = Path(graph.LOCK)
    if under_dvc() and lock.is_file():
        with files.file(REMEMBERED) as work:
            work.write_bytes(lock.read_bytes())


def busy() -> list[str]:
    """What works in this workspace now, a line each: our stages, and DVC."""
    found = []
    for path in sorted(LOCKS.glob("*.lock")):
        with path.open("a+b") as lock:
            if not _held(lock):
                found.append(f"{path.stem} (process {_owner(lock)})")
    found += [f"dvc (process {process.pid})" for process in _alive(writers() or {})]
    if not found and DVC_LOCK.is_file():
        with DVC_LOCK.open("a+b") as lock:
            if not _held(lock):
                found.append(f"dvc (process {_owner(lock).strip()})")
    return found


def writers() -> dict[int, str] | None:
    """The processes of DVC that write outputs here by its own account, each with its command.

    None where that account is half-written: DVC writes it in place. Those that were killed are
    named until another takes their outputs.
    """
    try:
        rows = json.loads(DVC_WRITERS.read_bytes())
        reading = [row for of in rows.get("read", {}).values() for row in of]
        rows = [*rows.get("write", {}).values(), *reading]
        return {int(row["pid"]): str(row["cmd"]) for row in rows}
    except FileNotFoundError:
        return {}
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError):
        return None


def _alive(named: dict[int, str]) -> list[psutil.Process]:
    """Those that still are what was named: a number that was given anew began after the naming."""
    if not named:
        return []
    written, found = DVC_WRITERS.stat().st_mtime, []
    for pid in sorted(named):
        try:
            process = psutil.Process(pid)
            if not gone(process) and process.create_time() <= written + CLOCK:
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def watch() -> None:
    """End this process and all that it has started as soon as what started it is gone.

    In a container that is the launcher, elsewhere DVC; a stage that was typed in a shell stays.
    """
    inside.watch()
    if inside.facts() is None:
        threading.Thread(target=_wait, args=(alone(),), daemon=True).start()


def alone() -> Callable[[], bool]:
    """What says whether the DVC that started this process is gone; never, where none did."""
    if not under_dvc():
        return lambda: False
    first = _starter()
    return lambda: first is None or gone(first)


def under_dvc() -> bool:
    """Whether DVC runs this stage, by what it puts into the environment."""
    return "DVC_ROOT" in os.environ and "DVC_STAGE" in os.environ


def _starter() -> psutil.Process | None:
    """The process above that is the DVC that started this one; None where it is gone already.

    It is the one that DVC's account names; where it names others alone, they came after it. Without
    such an account it is the nearest that is no shell, if that is not what takes in orphans.
    """
    above, named = psutil.Process().parents(), writers()
    for process in above:
        if process.pid in (named or {}):
            return process
    if named:
        return None
    nearest = next((process for process in above if process.name() not in SHELLS), None)
    return None if nearest is not None and nearest.pid == 1 else nearest


def gone(process: psutil.Process) -> bool:
    """Whether a process has ended; one whose end nobody has asked for yet has ended, too."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _wait(left_alone: Callable[[], bool]) -> None:
    while not left_alone():
        time.sleep(LOOK)
    end()


def end_with_input() -> None:
    """End this process and its children when standard input does, which its starter holds open."""
    pipe = os.dup(0)
    with Path(os.devnull).open("rb") as nothing:  # what stages are given instead
        os.dup2(nothing.fileno(), 0)

    def wait() -> None:
        os.read(pipe, 1)
        end()

    threading.Thread(target=wait, daemon=True).start()


def end() -> None:
    """End this process at once, and before it those that it has started, to the last."""
    for process in psutil.Process().children(recursive=True):
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    os._exit(inside.ENDED)
