"""A JSON-lines file in; its lines out, each as an object or as the reason why it is none."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import orjson

# A longer line is passed over without being held in memory: it is millions of tokens.
MOST_BYTES = 16 * 1024 * 1024
BOM = b"\xef\xbb\xbf"
UTF_16 = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Why a line is no JSON object: a reason code and a sentence."""

    code: str
    reason: str


def read(path: Path) -> Iterator[tuple[int, dict[str, Any] | Unreadable]]:
    """(1-based number, object or why not) of each line that is not blank.

    A UTF-8 byte order mark and CR LF do no harm. A file in UTF-16 is one unreadable line.
    """
    with path.open("rb") as file:
        number = 0
        while line := file.readline(MOST_BYTES + 1):
            number += 1
            if number == 1 and line.startswith(UTF_16):
                yield 1, Unreadable("encoding", "The file is in UTF-16; save it as UTF-8.")
                return
            if number == 1:
                line = line.removeprefix(BOM)
            if len(line) > MOST_BYTES and not line.endswith(b"\n"):
                size = len(line) + _skip(file)
                text = f"The line has {size:,} bytes; {MOST_BYTES:,} are allowed."
                yield number, Unreadable("too_long", text)
            elif line.strip():
                yield number, _object(line)


def _skip(file: BinaryIO) -> int:
    """Read up to the end of the line; returns how many bytes that were."""
    size = 0
    while part := file.readline(MOST_BYTES):
        size += len(part)
        if part.endswith(b"\n"):
            break
    return size


def _object(line: bytes) -> dict[str, Any] | Unreadable:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as problem:
        return Unreadable("broken_json", f"The line is broken JSON: {problem}.")
    if not isinstance(row, dict):
        return Unreadable("not_an_object", f"The line is a JSON {type(row).__name__}.")
    return row
