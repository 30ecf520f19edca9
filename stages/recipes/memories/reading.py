"""A folder of memories in; its files in a fixed order, each as a record or a reject, out."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from stages.core import files
from stages.core.errors import TunesmithError
from stages.core.example import Reject

Record = dict[str, Any]

# A memory is a few kilobytes; a larger file is passed over without being held in memory.
MOST_BYTES = 16 * 1024 * 1024
BOM = b"\xef\xbb\xbf"


def root(source: Path, user: str) -> Path:
    """The folder that holds the memories.

    Raises:
        TunesmithError: it is not there; the users that are there are named.
    """
    folder = source / "profiles" / user / "memory" / "episodic" if user else source
    if folder.is_dir():
        return folder
    profiles = source / "profiles"
    known = sorted(path.name for path in profiles.iterdir()) if profiles.is_dir() else []
    raise TunesmithError(
        f"There is no folder of memories of {user!r}." if user else "There is no such folder.",
        where=folder.as_posix(),
        why=f"Profiles there: {', '.join(known[:10]) or 'none'}.",
        do='Mend `source` or `options.user` (user: "" reads every file below `source` itself).',
    )


def walk(source: Path, user: str) -> Iterator[tuple[str, Record | Reject]]:
    """(path below `source`, record or reject) of every memory, each folder sorted by name.

    The names of the folders on the way are in memory, and one file's content.

    Raises:
        TunesmithError: there is no such folder.
    """
    waiting = [iter(_sorted(root(source, user)))]
    while waiting:
        entry = next(waiting[-1], None)
        if entry is None:
            waiting.pop()
        elif entry.is_dir(follow_symlinks=False):
            waiting.append(iter(_sorted(Path(entry.path))))
        elif entry.name != files.MARKER:
            name = _printable(os.path.relpath(entry.path, source))
            yield name, _record(entry, name)


def _sorted(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def _printable(name: str) -> str:
    """The path with `/` and, in place of bytes that are no text, their numbers."""
    return os.fsencode(name.replace(os.sep, "/")).decode("utf-8", "backslashreplace")


def _record(entry: os.DirEntry[str], name: str) -> Record | Reject:
    if entry.name.endswith(".enc"):
        return Reject(name, "encrypted", "The memory is encrypted.")
    if not entry.name.endswith(".json"):
        return Reject(name, "not_json", "The name of a memory ends in .json.")
    try:
        content = _content(entry)
    except OSError as problem:
        return Reject(name, "unreadable", f"It cannot be read: {problem.strerror}.")
    if isinstance(content, str):
        return Reject(name, "unreadable", content)
    try:
        record = orjson.loads(content.removeprefix(BOM))
    except orjson.JSONDecodeError as problem:
        return Reject(name, "broken_json", f"It is broken JSON: {problem}.")
    if not isinstance(record, dict):
        return Reject(name, "not_an_object", "It is JSON, but no object.")
    if b"\\u0000" in content and _holds_nul(record):
        return Reject(name, "nul", "It holds the character U+0000, at which C programs stop.")
    return record


def _content(entry: os.DirEntry[str]) -> bytes | str:
    """The bytes of the file, or a sentence why they are not read."""
    found = entry.stat()
    if not stat.S_ISREG(found.st_mode):
        return "It is no plain file."
    if found.st_size > MOST_BYTES:
        return f"It has {found.st_size:,} bytes; {MOST_BYTES:,} are allowed."
    return Path(entry.path).read_bytes()


def _holds_nul(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_holds_nul(part) for item in value.items() for part in item)
    if isinstance(value, list):
        return any(map(_holds_nul, value))
    return isinstance(value, str) and "\0" in value
