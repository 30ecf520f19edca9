"""A path in; the rows of its two tables, read without a change to the file, out."""

import shutil
import sqlite3
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from operator import methodcaller
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from stages.core.errors import TunesmithError

ENDINGS = (".db", ".sqlite", ".sqlite3")
COLUMNS = {
    "scenarios": ("id", "context", "person_state", "facts", "critical_info", "difficulty_level"),
    "experiences": (
        *("id", "scenario_id", "ai_response", "actual_harm"),
        *("buddhist_scores", "buddhist_alignment", "timestamp"),
    ),
}
# Beside the file while SQLite has changes that are not in it yet.
PENDING = ("-wal", "-journal")
CACHE_KIB = 16 * 1024


class Experience(NamedTuple):
    """One row of `experiences` as SQLite gives it; `scenario` is None for an orphan."""

    number: int
    id: Any
    scenario: Any
    copies: int | None
    answer: Any
    harm: Any
    scores: Any
    alignment: Any


class Scenario(NamedTuple):
    """One row of `scenarios` as SQLite gives it."""

    id: Any
    context: Any
    person_state: Any
    facts: Any
    critical: Any
    difficulty: Any


def find(source: Path) -> Path:
    """The database: `source` itself, or the only one in it.

    Raises:
        TunesmithError: there is none, or the folder holds several.
    """
    if source.is_file():
        return source
    found = sorted(path for path in source.glob("*") if path.suffix in ENDINGS and path.is_file())
    if len(found) == 1:
        return found[0]
    names = ", ".join(path.name for path in found)
    raise TunesmithError(
        f"This folder holds {len(found)} databases: {names}." if found else "No database is here.",
        where=str(source),
        why="Experiences are read from one SQLite file; a missing one is never created.",
        do="Name the file in `source`, such as data/raw/saige/saige.db, or put it there.",
    )


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that cannot write, with both tables and their columns checked.

    The file is opened as immutable, so that SQLite makes no lock or index file beside it. Where
    changes are still pending (a write-ahead log, or the journal of a transaction that was cut
    off), a copy of all of them is read, in which SQLite finishes what was begun.

    Raises:
        TunesmithError: it is no database, is damaged, lacks a table or column, or changes now.
    """
    pending = [side for end in PENDING if (side := path.with_name(path.name + end)).is_file()]
    pending = [side for side in pending if side.stat().st_size]
    try:
        if not pending:
            with _connected(path, "mode=ro&immutable=1") as connection:
                yield connection
            return
        with TemporaryDirectory() as folder:
            _copy([path, *pending], Path(folder))
            with _connected(Path(folder) / path.name, "mode=rw") as connection:
                yield connection
    except sqlite3.Error as problem:
        raise TunesmithError(
            f"The database cannot be read: {problem}.",
            where=str(path),
            why="Rows that cannot be read would be lost without a word.",
            do=f"Look at it with: sqlite3 {path} 'PRAGMA integrity_check'",
        ) from problem


def _copy(files: list[Path], folder: Path) -> None:
    """Copy the database and what belongs to it, which must stand still meanwhile."""
    try:
        before = _state(files)
        for path in files:
            shutil.copyfile(path, folder / path.name)
        still = _state(files) == before
    except FileNotFoundError:  # a log or journal that its program has just taken away
        still = False
    if not still:
        raise TunesmithError(
            "Another program is writing to the database.",
            where=str(files[0]),
            why="A copy made meanwhile may be torn.",
            do="Stop that program, then run the same command again.",
        )


def _state(files: list[Path]) -> list[tuple[int, int]]:
    return [(found.st_size, found.st_mtime_ns) for found in (path.stat() for path in files)]


@contextmanager
def _connected(path: Path, mode: str) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True)) as connection:
        # Bytes that are not UTF-8 become lone surrogates, which `content` refuses, row by row.
        connection.text_factory = methodcaller("decode", "utf-8", "surrogateescape")
        connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")  # sorting takes as much, too
        connection.execute("PRAGMA temp_store = FILE")
        for table, columns in COLUMNS.items():
            _require(connection, path, table, columns)
        yield connection


def _require(
    connection: sqlite3.Connection, path: Path, table: str, columns: tuple[str, ...]
) -> None:
    known = [row[1] for row in connection.execute(f"PRAGMA table_xinfo({table})")]
    lower = {str(name).lower() for name in known}
    missing = [name for name in columns if name not in lower]
    if missing:
        named = f"column {missing[0]!r} in its table {table!r}" if known else f"table {table!r}"
        raise TunesmithError(
            f"The database has no {named}.",
            where=str(path),
            why=f"Read are the columns {', '.join(columns)} of {table}.",
            do="Point `source` at a database of SAIGE's schema (docs/systems/saige.md).",
        )


def experiences(connection: sqlite3.Connection) -> Generator[Experience, None, None]:
    """Every experience, least harm first, then the newest, then by id.

    SQLite sorts, in a temporary file where memory does not do. An experience is found once, also
    where its scenario's id stands in several rows; `copies` says how many.
    """
    number = _number(connection)
    found = connection.execute(
        f"SELECT {number} AS number, e.id, s.id, s.copies, e.ai_response, e.actual_harm,"  # noqa: S608
        " e.buddhist_scores, e.buddhist_alignment"
        " FROM experiences AS e LEFT JOIN"
        " (SELECT id, count(*) AS copies FROM scenarios GROUP BY id) AS s ON s.id = e.scenario_id"
        " ORDER BY e.actual_harm, e.timestamp DESC, e.id, number"
    )
    return (Experience(*row) for row in found)


def _number(connection: sqlite3.Connection) -> str:
    """What numbers a row; a view or a table WITHOUT ROWID has only its order by id."""
    views = connection.execute("SELECT lower(name) FROM sqlite_master WHERE type = 'view'")
    in_order = "row_number() OVER (ORDER BY e.id)"
    if ("experiences",) in views.fetchall():
        return in_order
    try:
        connection.execute("SELECT rowid FROM experiences LIMIT 0")
    except sqlite3.OperationalError:
        return in_order
    return "e.rowid"


def scenario(connection: sqlite3.Connection, key: Any) -> Scenario:
    """The scenario of this id, which must be there."""
    columns = ", ".join(COLUMNS["scenarios"])
    found = connection.execute(f"SELECT {columns} FROM scenarios WHERE id IS ?", (key,))  # noqa: S608
    return Scenario(*found.fetchone())
