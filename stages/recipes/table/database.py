"""A SQLite file and one SELECT in; the rows of its answer, numbered, out. Nothing is written."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from stages.core.errors import TunesmithError
from stages.recipes.table.cells import BadRowError, Value
from stages.recipes.table.templates import require_columns

ALLOWED = (
    *(sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION),
    sqlite3.SQLITE_RECURSIVE,
)
# The same data must be the same examples.
CHANGING = ("random", "randomblob", "current_date", "current_time", "current_timestamp")
LOGS = ("-wal", "-journal")

Record = dict[str, Value] | BadRowError


def read(path: Path, query: str, wanted: list[str]) -> Iterator[tuple[int, Record]]:
    """(1-based row number, values by column or why not) of each row of the query's answer.

    Text that is not UTF-8 comes with lone surrogates. A database that turns out to be damaged
    half way ends with one reject.

    Raises:
        TunesmithError: no database, one with unfinished writes, a query that fails or is not one
            SELECT, or an answer without a wanted column.
    """
    _require_finished(path)
    # Without `immutable` SQLite would write files beside the database, that is into raw data.
    address = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
    with closing(sqlite3.connect(address, uri=True)) as base:
        base.set_authorizer(_authorize)
        base.text_factory = _text
        try:
            rows = base.execute(query)
        except (sqlite3.Error, sqlite3.Warning, ValueError) as problem:
            raise _refused(path, problem) from problem
        if rows.description is None:
            raise _refused(path, "it is no SELECT")
        names = [name for name, *_ in rows.description]
        require_columns(wanted, names, str(path))
        number = 0
        try:
            for number, row in enumerate(rows, 1):
                yield number, dict(zip(names, row, strict=True))
        except sqlite3.Error as problem:
            text = f"From here on the database cannot be read: {problem}."
            yield number + 1, BadRowError("broken_database", text)


def _authorize(action: int, _: str | None, function: str | None, *__: str | None) -> int:
    if action not in ALLOWED:
        return sqlite3.SQLITE_DENY
    changing = action == sqlite3.SQLITE_FUNCTION and str(function).lower() in CHANGING
    return sqlite3.SQLITE_DENY if changing else sqlite3.SQLITE_OK


def _text(content: bytes) -> str:
    return content.decode("utf-8", "surrogateescape")


def _require_finished(path: Path) -> None:
    for log in LOGS:
        beside = path.with_name(path.name + log)
        if beside.is_file() and beside.stat().st_size:
            raise TunesmithError(
                f"{beside.name} holds writes that are not yet in the database.",
                where=str(path),
                why="It is opened as a file that nobody writes to, and would be read without them.",
                do="Close what writes to it, or: sqlite3 <file> 'PRAGMA wal_checkpoint(TRUNCATE)'",
            )


def _refused(path: Path, problem: Exception | str) -> TunesmithError:
    return TunesmithError(
        f"The query cannot be run: {problem}.",
        where=str(path),
        why="The recipe table runs one SELECT, whose rows are the same each time, and no more.",
        do="Mend `query` in the options; try it with: sqlite3 -readonly <file> '<query>'",
    )
