"""Rows in; an SQLite database of SAIGE's four tables, with bytes that depend on nothing else, out.

Tables and columns are those of the SAIGE worker; `causal_patterns` and `model_versions` stay empty,
as they are there.
"""

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

Row = tuple[str | int | float | None, ...]

SCHEMA = """
CREATE TABLE scenarios (
    id INTEGER PRIMARY KEY,
    context TEXT NOT NULL,
    person_state TEXT NOT NULL,
    facts TEXT NOT NULL,
    critical_info TEXT NOT NULL,
    difficulty_level INTEGER NOT NULL,
    harm_type TEXT,
    expected_response TEXT,
    created_at TEXT NOT NULL
);
CREATE TABLE experiences (
    id INTEGER PRIMARY KEY,
    scenario_id INTEGER NOT NULL REFERENCES scenarios (id),
    ai_response TEXT NOT NULL,
    predicted_harm REAL,
    actual_harm REAL NOT NULL,
    harm_breakdown TEXT NOT NULL,
    learned_lesson TEXT,
    buddhist_scores TEXT,
    buddhist_alignment TEXT,
    model_version TEXT,
    timestamp TEXT NOT NULL
);
CREATE TABLE causal_patterns (
    id INTEGER PRIMARY KEY,
    pattern TEXT NOT NULL,
    harm_type TEXT,
    confidence REAL,
    created_at TEXT NOT NULL
);
CREATE TABLE model_versions (
    id INTEGER PRIMARY KEY,
    version TEXT NOT NULL,
    avg_harm REAL,
    created_at TEXT NOT NULL
);
"""
PAGE_BYTES = 4096
# https://www.sqlite.org/fileformat2.html, 1.3.17: who wrote the file last, for information only.
WRITER_AT, WRITER = 96, (3_040_001).to_bytes(4, "big")


def write(path: Path, scenarios: Iterable[Row], experiences: Iterable[Row]) -> None:
    """Write a new database in one transaction, rows in the order given."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(
            f"PRAGMA page_size = {PAGE_BYTES}; PRAGMA encoding = 'UTF-8';"
            "PRAGMA auto_vacuum = NONE; PRAGMA journal_mode = MEMORY; BEGIN;" + SCHEMA
        )
        connection.executemany(_insert("scenarios", 9), scenarios)
        connection.executemany(_insert("experiences", 11), experiences)
        connection.execute("COMMIT")
    with path.open("r+b") as file:  # else each version of SQLite would write another file
        file.seek(WRITER_AT)
        file.write(WRITER)


def _insert(table: str, columns: int) -> str:
    return f"INSERT INTO {table} VALUES ({', '.join('?' * columns)})"  # noqa: S608 (both ours)
