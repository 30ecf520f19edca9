"""A file's bytes in; its lines out, each as a JSON object or as the reason why it is none."""

from collections.abc import Iterator
from dataclasses import dataclass
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


Row = dict[str, Any] | Unreadable


def read(file: BinaryIO) -> Iterator[tuple[int, Row]]:
    """(1-based line number, JSON object or why not) of each line that is not blank.

    A UTF-8 byte order mark and CR LF line ends are read as if they were not there. A file in
    UTF-16 is one unreadable line, since its line ends cannot be told from its text.
    """
    number = 0
    while line := file.readline(MOST_BYTES + 1):
        number += 1
        if number == 1 and line.startswith(UTF_16):
            yield 1, Unreadable("encoding", "The file is in UTF-16; save it as UTF-8.")
            return
        if number == 1:
            line = line.removeprefix(BOM)
        if len(line) > MOST_BYTES and not line.endswith(b"\n"):
            yield number, too_long("line", len(line) + _skip_line(file))
        elif line.strip():
            yield number, row(line, "line")


def too_long(what: str, size: int) -> Unreadable:
    return Unreadable("too_long", f"The {what} has {size:,} bytes; {MOST_BYTES:,} are allowed.")


def _skip_line(file: BinaryIO) -> int:
    """Read up to the end of the line; returns how many bytes that were."""
    size = 0
    while part := file.readline(MOST_BYTES):
        size += len(part)
        if part.endswith(b"\n"):
            break
    return size


def row(text: bytes, what: str) -> Row:
    """The JSON object. Lone surrogates and bytes that are not UTF-8 are broken JSON."""
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError as problem:
        return Unreadable("broken_json", f"The {what} is broken JSON: {problem}.")
    if not isinstance(found, dict):
        return Unreadable("not_an_object", f"The {what} is a JSON {type(found).__name__}.")
    return found
