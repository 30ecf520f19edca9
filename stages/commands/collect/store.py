"""Episodes in; an SQLite file of SAIGE's schema that holds each experience exactly once out.

What was begun stands in a table of its own, `tunesmith_episodes`, so that the experience and the
mark that it is stored become true in one transaction. Readers of the four tables never see it.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from stages.commands.collect.web import FailedError
from stages.commands.collect.worker import Outcome, Scenario
from stages.core.errors import TunesmithError

SCHEMA = """
CREATE TABLE scenarios (
    id INTEGER PRIMARY KEY, context TEXT NOT NULL, person_state TEXT, facts TEXT,
    critical_info TEXT, difficulty_level INTEGER, harm_type TEXT, expected_response TEXT,
    created_at TEXT
);
CREATE TABLE experiences (
    id INTEGER PRIMARY KEY, scenario_id INTEGER REFERENCES scenarios (id), ai_response TEXT,
    predicted_harm REAL, actual_harm REAL, harm_breakdown TEXT, learned_lesson TEXT,
    buddhist_scores TEXT, buddhist_alignment TEXT, model_version TEXT, timestamp TEXT
);
CREATE TABLE causal_patterns (
    id INTEGER PRIMARY KEY, pattern TEXT, harm_type TEXT, confidence REAL, created_at TEXT
);
CREATE TABLE model_versions (
    id INTEGER PRIMARY KEY, version TEXT, avg_harm REAL, created_at TEXT
);
"""
STATE = """
CREATE TABLE IF NOT EXISTS tunesmith_episodes (
    key TEXT PRIMARY KEY, run TEXT NOT NULL, number INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('answered', 'stored', 'failed')),
    scenario TEXT, response TEXT, newest INTEGER, experience, reason TEXT
)
"""
NEEDED = {
    "scenarios": ("id", "context", "person_state", "facts", "critical_info", "difficulty_level"),
    "experiences": (
        *("id", "scenario_id", "ai_response", "actual_harm"),
        *("buddhist_scores", "buddhist_alignment", "timestamp"),
    ),
}
WAIT = 30.0  # seconds for another writer to finish
MILLISECONDS = 100_000_000_000  # a number of seconds would be in the year 5138


class Begun(NamedTuple):
    """An episode whose answer is known and not stored yet."""

    scenario: Scenario
    response: str


class Store:
    """An open database; made by `opened`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._columns = {table: _columns(connection, table) for table in NEEDED}

    def stored(self, run: str) -> set[int]:
        """The numbers of a run's episodes that are done."""
        found = self._connection.execute(
            "SELECT number FROM tunesmith_episodes WHERE run = ? AND state = 'stored'", (run,)
        )
        return {number for (number,) in found}

    def begun(self, key: str) -> Begun | None:
        """What an interrupted episode had come to."""
        found = self._connection.execute(
            "SELECT scenario, response FROM tunesmith_episodes"
            " WHERE key = ? AND state = 'answered'",
            (key,),
        ).fetchone()
        return found and Begun(Scenario.model_validate_json(found[0]), found[1])

    def answered(self, key: str, run: str, number: int, begun: Begun) -> None:
        """Keep an answer before the worker is told of it."""
        newest = self._one("SELECT coalesce(max(rowid), 0) FROM experiences")
        self._put(key, run, number, "answered", newest=newest, response=begun.response,
                  scenario=begun.scenario.model_dump_json())  # fmt: skip

    def failed(self, key: str, run: str, number: int, reason: str) -> None:
        """Note why an episode came to nothing; the next run begins it anew."""
        self._put(key, run, number, "failed", reason=reason)

    def _put(self, key: str, run: str, number: int, state: str, **more: Any) -> None:
        row = {"key": key, "run": run, "number": number, "state": state, **more}
        with self._transaction():
            if self._state(key) != "stored":
                self._insert("tunesmith_episodes", row, "INSERT OR REPLACE")

    def store(self, key: str, begun: Begun, outcome: Outcome, model: str, now: datetime) -> None:
        """Add the experience, its scenario where that is new, and the mark that it is done.

        A worker that writes into this very file has stored it already; then its row is the one.

        Raises:
            FailedError: the file has another scenario of this id.
        """
        with self._transaction():
            if self._state(key) == "stored":
                return
            self._put_scenario(begun.scenario)
            number = self._stored_by_worker(key, begun)
            if number is None:
                number = self._put_experience(key, begun, outcome, model, now)
            self._connection.execute(
                "UPDATE tunesmith_episodes SET state = 'stored', experience = ?, scenario = NULL,"
                " response = NULL, reason = NULL WHERE key = ?",
                (number, key),
            )

    def _put_scenario(self, scenario: Scenario) -> None:
        known = self._one("SELECT context FROM scenarios WHERE id = ?", scenario.id)
        if known is None:
            row = {name: _json(value) for name, value in scenario.model_dump().items()}
            self._insert("scenarios", row)
        elif known != scenario.context:
            raise FailedError(f"the database has another scenario with the id {scenario.id!r}")

    def _stored_by_worker(self, key: str, begun: Begun) -> Any:
        return self._one(
            "SELECT id FROM experiences WHERE scenario_id = ? AND ai_response = ? AND rowid >"
            " (SELECT newest FROM tunesmith_episodes WHERE key = ?) AND id NOT IN"
            " (SELECT experience FROM tunesmith_episodes WHERE experience IS NOT NULL)"
            " ORDER BY rowid",
            *(begun.scenario.id, begun.response, key),
        )

    def _put_experience(
        self, key: str, begun: Begun, outcome: Outcome, model: str, now: datetime
    ) -> Any:
        number: Any = key
        columns = self._columns["experiences"]
        if "INT" in columns["id"]:
            number = self._one("SELECT coalesce(max(id), 0) + 1 FROM experiences")
        assessment = outcome.buddhist_assessment
        self._insert("experiences", {
            "id": number, "scenario_id": begun.scenario.id, "ai_response": begun.response,
            # Nothing predicts it here; where the table wants a number all the same, none is 0.
            "predicted_harm": 0.0 if "NOT NULL" in columns.get("predicted_harm", "") else None,
            "actual_harm": outcome.total_harm, "harm_breakdown": _json(outcome.breakdown),
            "learned_lesson": outcome.lesson, "model_version": model,
            "buddhist_scores": _json(assessment.principle_scores),
            "buddhist_alignment": assessment.alignment_level, "timestamp": self._time(now),
        })  # fmt: skip
        return number

    def _time(self, now: datetime) -> str | int:
        """The time as the file's other rows have it: text in UTC, or seconds or milliseconds."""
        other = self._one("SELECT timestamp FROM experiences ORDER BY rowid DESC LIMIT 1")
        if isinstance(other, int | float):
            return int(now.timestamp() * (1000 if other >= MILLISECONDS else 1))
        mark = "T" if isinstance(other, str) and "T" in other else " "
        return now.astimezone(UTC).strftime(f"%Y-%m-%d{mark}%H:%M:%S")

    def _insert(self, table: str, row: dict[str, Any], verb: str = "INSERT") -> None:
        """Insert the values for which the table has a column."""
        known = self._columns.get(table, row)
        row = {name: value for name, value in row.items() if name in known}
        self._connection.execute(
            f"{verb} INTO {table} ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})",
            tuple(row.values()),
        )

    def _state(self, key: str) -> Any:
        return self._one("SELECT state FROM tunesmith_episodes WHERE key = ?", key)

    def _one(self, query: str, *values: Any) -> Any:
        found = self._connection.execute(query, values).fetchone()
        return found and found[0]

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All of the block or, whatever ends it, nothing of it."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.rollback()
            raise
        self._connection.execute("COMMIT")


def _json(value: Any) -> Any:
    return orjson.dumps(value).decode() if isinstance(value, dict | list) else value


def _columns(connection: sqlite3.Connection, table: str) -> dict[str, str]:
    """The columns of a table and their types in capitals, `NOT NULL` behind where it holds."""
    found = connection.execute(f"PRAGMA table_info({table})")
    return {name: kind.upper() + " NOT NULL" * full for _, name, kind, full, *_ in found}


@contextmanager
def opened(path: Path) -> Iterator[Store]:
    """The database at `path`, made where there is none, and closed at the end.

    Raises:
        TunesmithError: it is no SQLite file, has another schema, or cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise TunesmithError(
            f"The database's folder cannot be made: {problem.strerror}.",
            where=str(path.parent),
            do="Name a file in a folder that you may write, with --db.",
        ) from problem
    try:
        with closing(sqlite3.connect(path, timeout=WAIT, isolation_level=None)) as connection:
            _prepare(connection)
            made = Store(connection)
            _require_schema(path, made)
            connection.execute(STATE)
            yield made
    except sqlite3.Error as problem:
        raise TunesmithError(
            f"The database cannot be used: {problem}.",
            where=str(path),
            why="What is stored is stored; the episode at hand is not lost either.",
            do="Free it (disk, rights, other programs), then run the same command again.",
        ) from problem


def _prepare(connection: sqlite3.Connection) -> None:
    """Give an empty file its tables, all at once."""
    connection.execute("BEGIN IMMEDIATE")
    if not connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
        for statement in SCHEMA.split(";"):
            connection.execute(statement)
    connection.execute("COMMIT")


def _require_schema(path: Path, made: Store) -> None:
    for table, needed in NEEDED.items():
        columns = made._columns[table]
        if missing := [name for name in needed if name not in columns]:
            raise TunesmithError(
                f"The table {table} has no {missing[0]!r}." if columns else f"It has no {table}.",
                where=str(path),
                why="Experiences are stored in SAIGE's schema; no table of yours is altered.",
                do="Name a database of that schema, or a new file, with --db.",
            )
