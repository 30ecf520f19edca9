"""The recipe `rated_sqlite` and the database file: found, never written, whole, or an error."""

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from stages.core.errors import TunesmithError
from stages.core.example import Example
from stages.makers import scenarios as maker
from stages.recipes import rated_sqlite as recipe
from stages.recipes.rated_sqlite import database

ROOT = Path(__file__).parents[1]


def read(source):
    chosen = {"max_harm": 0.3, "min_score": 6.0, "min_alignment": "good", "limit": 0}
    chosen |= {"self_dialogue": "drop", "person_state": "", "system": ""}
    return list(recipe.examples(source, recipe.Options(**chosen)))


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "raw #1 100%"  # signs that mean something in a URI
    folder.mkdir()
    maker.make(maker.Options(seed=1, scenarios=10, experiences=60), folder)
    return folder


def run(path, *commands):
    with closing(sqlite3.connect(path)) as connection:
        for command in commands:
            connection.execute(command)
        connection.commit()


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_folder_and_the_file_in_it_read_the_same_and_nothing_is_changed(folder):
    before = contents(folder)
    found = read(folder)
    assert found == read(folder / "saige.db")
    assert len(found) == 60
    assert contents(folder) == before
    assert found[0].source.startswith("saige.db#")


def test_a_file_that_nobody_may_write_in_a_folder_that_nobody_may_write_is_read(folder):
    whole = read(folder)
    (folder / "saige.db").chmod(0o444)
    folder.chmod(0o555)
    try:
        assert read(folder) == whole
    finally:
        folder.chmod(0o755)


def test_no_connection_of_the_recipe_can_write_to_the_file(folder):
    with (
        pytest.raises(TunesmithError, match="readonly database"),
        database.opened(folder / "saige.db") as connection,
    ):
        connection.execute("DELETE FROM experiences")


def test_a_missing_database_is_an_error_and_is_not_created(tmp_path):
    for source in (tmp_path, tmp_path / "saige.db", tmp_path / "no" / "saige.db"):
        with pytest.raises(TunesmithError, match="No database is here"):
            read(source)
    assert list(tmp_path.iterdir()) == []


def test_of_two_databases_none_is_guessed(folder):
    shutil.copy(folder / "saige.db", folder / "old.sqlite")
    with pytest.raises(TunesmithError, match=r"holds 2 databases: old\.sqlite, saige\.db"):
        read(folder)
    assert len(read(folder / "saige.db")) == 60


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"id,context\n1,Hello\n" * 100, "not a database"),
        (b"SQLite format 3\0" + b"\xff" * 5000, "cannot be read"),
        (b"", "no table 'scenarios'"),
    ],
)
def test_a_file_that_is_no_database_is_an_error(tmp_path, content, message):
    (tmp_path / "saige.db").write_bytes(content)
    with pytest.raises(TunesmithError, match=message):
        read(tmp_path)


def test_a_database_that_was_cut_off_or_overwritten_in_part_is_an_error(folder):
    whole = (folder / "saige.db").read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:8192] + b"\xff" * 8192 + whole[16384:]):
        (folder / "saige.db").write_bytes(damaged)
        with pytest.raises(TunesmithError, match="cannot be read"):
            read(folder)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("DROP TABLE experiences", "no table 'experiences'"),
        ("ALTER TABLE scenarios RENAME TO scenes", "no table 'scenarios'"),
        (
            "ALTER TABLE experiences RENAME COLUMN actual_harm TO harm",
            "no column 'actual_harm' in its table 'experiences'",
        ),
        (
            "ALTER TABLE scenarios DROP COLUMN facts",
            "no column 'facts' in its table 'scenarios'",
        ),
    ],
)
def test_a_missing_table_or_column_is_named(folder, command, message):
    run(folder / "saige.db", command)
    with pytest.raises(TunesmithError, match=message):
        read(folder)


def test_a_database_without_experiences_says_so(folder):
    run(folder / "saige.db", "DELETE FROM experiences")
    with pytest.raises(TunesmithError, match="holds no experiences"):
        read(folder)


def test_a_closed_database_in_wal_mode_is_read_without_files_beside_it(folder):
    whole = read(folder)
    run(folder / "saige.db", "PRAGMA journal_mode = WAL")
    before = contents(folder)
    assert read(folder) == whole
    assert contents(folder) == before


def test_rows_that_are_only_in_the_write_ahead_log_are_read_and_the_log_stays(folder):
    whole = read(folder)
    with closing(sqlite3.connect(folder / "saige.db")) as writer:
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute("UPDATE experiences SET actual_harm = 0.9 WHERE id < 40")
        writer.commit()
        before = contents(folder)
        assert len(before["saige.db-wal"]) > 0
        found = read(folder)
        assert contents(folder) == before
    assert len(found) == len(whole)
    kept = [one for one in whole if isinstance(one, Example) and one.meta["experience_id"] >= 40]
    assert [one for one in found if isinstance(one, Example)] == kept != []


def test_a_transaction_that_was_cut_off_is_undone_in_a_copy_and_not_in_the_file(folder, tmp_path):
    whole = read(folder)
    script = (
        "import os, sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "c.execute('PRAGMA cache_size = 1'); c.execute('BEGIN');"
        "c.execute('UPDATE experiences SET ai_response = hex(randomblob(900))'); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", script, str(folder / "saige.db")], check=True)
    before = contents(folder)
    assert before["saige.db-journal"]
    assert read(folder) == whole
    assert contents(folder) == before


def test_a_log_that_changes_while_it_is_copied_is_an_error(folder, monkeypatch):
    (folder / "saige.db-wal").write_bytes(b"x")
    copy = shutil.copyfile

    def slow(source, target):
        os.truncate(folder / "saige.db-wal", 0)
        return copy(source, target)

    monkeypatch.setattr(database.shutil, "copyfile", slow)
    with pytest.raises(TunesmithError, match="Another program is writing"):
        read(folder)


@pytest.mark.parametrize("form", ["view", "without rowid"])
def test_a_view_or_a_table_without_rowid_gives_the_same_examples(folder, form):
    whole = read(folder)
    path = folder / "saige.db"
    run(path, "ALTER TABLE experiences RENAME TO kept")
    if form == "view":
        run(path, "CREATE VIEW experiences AS SELECT * FROM kept")
    else:
        with closing(sqlite3.connect(path)) as connection:
            (made,) = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'kept'")
        run(path, made[0].replace('"kept"', "experiences") + " WITHOUT ROWID")
        run(path, "INSERT INTO experiences SELECT * FROM kept")
    assert read(folder) == whole
