"""A CSV or TSV file in; its records, numbered by the line where each begins, out.

RFC 4180 with any delimiter: quotes around a field, doubled inside it, line ends in it kept.
"""

import codecs
import csv
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from stages.core.errors import TunesmithError
from stages.recipes.table.cells import BadRowError
from stages.recipes.table.templates import require_columns

# Characters of one record; a longer one is some hundred thousand tokens.
MOST = 1 << 20
# Characters read a second time in one file: behind a quote that is never closed, the lines are
# read again one by one, and a file made to abuse that would take for ever.
MOST_AGAIN = 64 << 20

UNKNOWN_BYTES = "stages.recipes.table"  # a way to go on after them, by its name among codecs
MARK = "\udcff"  # a lone surrogate, which no decoder gives by itself; its row is a reject

Record = dict[str, str] | BadRowError


def _mark(problem: UnicodeError) -> tuple[str, int]:
    """Put the mark in place of bytes that the encoding does not know, in any encoding."""
    if not isinstance(problem, UnicodeDecodeError):
        raise problem
    return MARK, problem.end


codecs.register_error(UNKNOWN_BYTES, _mark)


def require_text_codec(name: str) -> None:
    """Refuse a codec that does not turn any bytes at all into text, piece by piece.

    Raises:
        ValueError: naming it.
    """
    try:
        "a".encode(name)
        codecs.getincrementaldecoder(name)(UNKNOWN_BYTES).decode(b"\xff\xfe\xff\x80", True)
    except (LookupError, UnicodeError) as problem:
        raise ValueError(f"{name!r} is no encoding of text, such as utf-8") from problem


def read(
    path: Path, delimiter: str, encoding: str, wanted: list[str]
) -> Iterator[tuple[int, Record]]:
    """(1-based number of its first line, values by column or why not) of each record.

    Raises:
        TunesmithError: a header that is broken, names a column twice or not at all, or lacks a
            wanted one.
    """
    with path.open(encoding=encoding, errors=UNKNOWN_BYTES, newline="") as file:
        lines = _Lines(file)
        records = _records(lines, csv.reader(lines, delimiter=delimiter, strict=True))
        header: list[str] | None = None
        for number, record in records:
            if header is not None:
                yield number, _row(header, record)
                continue
            if isinstance(record, BadRowError):
                raise _bad_header(path, number, record)
            header = record
            require_columns(wanted, header, f"{path}:{number}")


def _row(header: list[str], record: list[str] | BadRowError) -> Record:
    if isinstance(record, BadRowError):
        return record
    if len(record) != len(header):
        text = f"It has {len(record)} fields where the header names {len(header)}."
        return BadRowError("columns", text)
    return dict(zip(header, record, strict=True))


def _bad_header(path: Path, number: int, problem: BadRowError) -> TunesmithError:
    return TunesmithError(
        f"The header cannot be read: {problem}",
        where=f"{path}:{number}",
        why="Its first line names the columns of a table.",
        do="Mend that line, or `delimiter` and `encoding` in the options.",
    )


class _Lines:
    """The lines of a file, noting those of the record at hand, so that they can be read again.

    Attributes:
        number: how many lines were read so far.
        record: the lines of this record.
    """

    def __init__(self, file: TextIO) -> None:
        self.number = 0
        self.record: list[str] = []
        self._file = file
        self._size = 0
        self._back: deque[str] = deque()
        self._again = MOST_AGAIN

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._back.popleft() if self._back else self._fresh()
        if not line:
            raise StopIteration
        self.number += 1
        self.record.append(line)
        self._size += len(line)
        if self._size > MOST:
            raise BadRowError("too_long", f"The record has more than {MOST:,} characters.")
        return line

    def _fresh(self) -> str:
        """The next line; of one that is too long the head alone, the rest is passed over."""
        line = self._file.readline(MOST + 1)
        if self.number == 0:
            line = line.removeprefix("\ufeff")
        if len(line) > MOST:
            part = line
            while part and not part.endswith(("\n", "\r")):
                part = self._file.readline(MOST)
        return line

    def begin(self) -> None:
        """Forget the lines of the record before."""
        self.record.clear()
        self._size = 0

    def end(self) -> str:
        """End a sentence on the record, which is broken, by how far it was read.

        All lines of it but the first are taken back, as long as that stays cheap.
        """
        last, more = self.number, self.record[1:]
        if not more:
            return "."
        self._again -= self._size
        if self._again < 0:
            return f"; the lines up to {last} are lost with it."
        self.number -= len(more)
        self._back.extendleft(reversed(more))
        return f"; it was read up to line {last}."


def _records(
    lines: _Lines, reader: Iterator[list[str]]
) -> Iterator[tuple[int, list[str] | BadRowError]]:
    """Each record with the number of its first line; blank lines are passed over."""
    csv.field_size_limit(MOST)
    while True:
        lines.begin()
        first = lines.number + 1
        try:
            record = next(reader)
        except StopIteration:
            return
        except UnicodeError as problem:  # UTF-16 that does not say its byte order
            text = f"The file is not in its encoding: {problem}."
            yield first, BadRowError("encoding", text)
            return
        except csv.Error as problem:
            yield (
                first,
                BadRowError("broken_quotes", f"Its quotes are broken: {problem}{lines.end()}"),
            )
        except BadRowError as problem:
            yield first, BadRowError(problem.code, f"{problem}{lines.end()}")
        else:
            if record:
                yield first, record
