"""A job's folder in the DVC remote: what the other side says, in numbered letters that stay.

    tunesmith/jobs/<id>/<attempt>/<node>-000001.json   what machine <node> says, in order
    tunesmith/jobs/<id>/<attempt>/stop                 somebody wants it to end

A letter is one JSON object, written once. One that cannot be read is being written: letters behind
it are read later. So nothing is ever taken for more than it is, on any kind of remote.
"""

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
from fsspec.callbacks import NoOpCallback

from stages.commands.remote.store import Store, parallel

JOBS = "tunesmith/jobs"
STOP = "stop"
MEMORY = Path("/dev/shm")  # noqa: S108 (Linux has it; a private folder is made in it)


class Mailbox:
    """The letters of one attempt of one job."""

    def __init__(self, store: Store, job: str, attempt: int) -> None:
        self.store = store
        self.folder = path(store, JOBS, job, str(attempt))

    def write(self, node: int, number: int, letter: Mapping[str, Any]) -> None:
        """Put a letter there; the same one may be written again after a failure."""
        name = f"{node}-{number:06}.json"
        put(self.store, self.store.fs.join(self.folder, name), orjson.dumps(letter))

    def read(self, node: int, after: int) -> Iterator[tuple[int, dict[str, Any]]]:
        """The letters of a machine behind a number, with theirs, as far as they are whole."""
        files, _ = self.store.entries(self.folder)
        names = {entry.name: entry.path for entry in files}
        number = after + 1
        while (where := names.get(f"{node}-{number:06}.json")) is not None:
            try:
                letter = orjson.loads(self.store.read(where))
            except (orjson.JSONDecodeError, FileNotFoundError):
                return
            yield number, letter
            number += 1

    def last(self, node: int) -> int:
        """The number of the last letter of a machine; 0 where there is none."""
        files, _ = self.store.entries(self.folder)
        mine = (entry.name for entry in files if entry.name.startswith(f"{node}-"))
        return max((int(name[len(f"{node}-") : -len(".json")]) for name in mine), default=0)

    def stop(self) -> None:
        """Ask the other side to end."""
        put(self.store, self.store.fs.join(self.folder, STOP), b"stop\n")

    def stopped(self) -> bool:
        """Whether somebody has asked for the end."""
        files, _ = self.store.entries(self.folder)
        return any(entry.name == STOP for entry in files)

    def clear(self) -> None:
        """Remove all of it, once it was taken."""
        for _ in parallel(lambda entry: self.store.remove(entry.path),
                          self.store.below(self.folder)):  # fmt: skip
            continue


def path(store: Store, *parts: str) -> str:
    """A path below a remote's own."""
    return str(store.fs.join(store.path, *(word for part in parts for word in part.split("/"))))


def put(store: Store, target: str, content: bytes) -> None:
    """Write a small object."""
    with _file(content) as source:
        store.put(source, target, NoOpCallback())


@contextmanager
def _file(content: bytes) -> Iterator[Path]:
    """A file with this content, in memory where there is room: that a disk is full is told, too."""
    room = os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > 2 * len(content)
    with tempfile.TemporaryDirectory(dir=MEMORY if room else None) as own:
        source = Path(own) / secrets.token_hex(8)
        source.write_bytes(content)
        yield source
