"""Fuzzing `rated_sqlite`: whatever stands in the database, no traceback and no lost row."""

import json
import sqlite3
from contextlib import closing
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages.core import dialogue, example
from stages.core.errors import TunesmithError
from stages.core.example import Example
from stages.makers import scenarios as maker
from stages.recipes import rated_sqlite as recipe

pytestmark = pytest.mark.slow
PROFILE = {"derandomize": True, "deadline": None}
UNCHECKED = [HealthCheck.too_slow, HealthCheck.data_too_large]
JSON_COLUMNS = ("person_state", "facts", "critical_info", "buddhist_scores")
COLUMNS = {
    "scenarios": ("id", "context", "person_state", "facts", "critical_info", "difficulty_level"),
    "experiences": (
        *("id", "scenario_id", "ai_response", "actual_harm"),
        *("buddhist_scores", "buddhist_alignment", "timestamp"),
    ),
}

scalars = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.text(max_size=20),
    st.binary(max_size=20),
    st.sampled_from(["", " ", "\0", "good", "AI: x", "1", "{}", "[]", "null", "NaN", 0, 1, -1, 11]),
)
loose = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)
keyed = st.dictionaries(
    st.sampled_from(["ahimsa", "sacca", "karuna", "panna", "upekkha", "mood", "vulnerability"]),
    loose,
)
json_texts = st.one_of(loose, keyed).map(json.dumps)
options = st.builds(
    recipe.Options,
    max_harm=st.floats(0, 1),
    min_score=st.floats(0, 10),
    min_alignment=st.sampled_from(["any", "moderate", "good", "excellent"]),
    limit=st.integers(0, 3),
    self_dialogue=st.sampled_from(["keep", "drop"]),
    person_state=st.sampled_from(["", "Person is {mood}.", "{{{vulnerability}}} {mood}"]),
    system=st.sampled_from(["", "Be kind."]),
)
lax = recipe.Options(
    max_harm=1.0,
    min_score=0.0,
    min_alignment="any",
    limit=0,
    self_dialogue="keep",
    person_state="{mood} {vulnerability}",
    system="",
)


@cache
def sample():
    """The bytes of a small made database."""
    with TemporaryDirectory() as folder:
        maker.make(maker.Options(seed=2, scenarios=4, experiences=12), Path(folder))
        return (Path(folder) / "saige.db").read_bytes()


def outcome(path, chosen):
    """Examples and rejects, or None for an error of ours; anything else is a finding."""
    found, error = [], None
    try:
        for one in recipe.examples(path, chosen):
            example.dumps(example.nfc(one.row()))
            found.append(one)
    except TunesmithError as problem:
        error = problem
    assert error is None or len(error.screen().splitlines()) <= 6
    return found, error


def check_rows(found, problem, rows):
    if problem is None or "passes the filters" in problem.what:
        assert len(found) == rows
        assert len({one.source for one in found}) == rows
    kept = [one for one in found if isinstance(one, Example)]
    assert bool(kept) is (problem is None) or rows == 0
    for one in kept:
        assert {name for name, _ in dialogue.problems(one)} <= {"control_token"}
        scores = recipe.judge(one, one.messages[-1]["content"])
        assert set(scores) <= set(recipe.METRICS)
        assert all(0 <= value <= 1 for value in scores.values())


def write(path, tables):
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        for name, rows in tables.items():
            connection.execute(f"CREATE TABLE {name} ({', '.join(COLUMNS[name])})")
            spots = ", ".join("?" * len(COLUMNS[name]))
            connection.executemany(f"INSERT INTO {name} VALUES ({spots})", rows)
        connection.commit()


def rows(table):
    """Rows near to good ones: most columns are usual, some hold anything."""
    usual = {
        "id": st.integers(1, 4),
        "scenario_id": st.integers(1, 4),
        "context": st.text(max_size=30),
        "ai_response": st.text(max_size=60),
        "difficulty_level": st.integers(1, 5),
        "actual_harm": st.sampled_from([0, 0.1, 0.3, 1.0]),
        "buddhist_alignment": st.sampled_from(["low", "moderate", "good", "excellent", None]),
        "timestamp": st.sampled_from(["2025-01-01", "2025-01-02", None, 5]),
    }
    columns = [
        st.one_of(usual.get(name, json_texts), usual.get(name, json_texts), scalars)
        for name in COLUMNS[table]
    ]
    return st.lists(st.tuples(*columns), max_size=6)


@settings(max_examples=900, suppress_health_check=UNCHECKED, **PROFILE)
@given(scenarios=rows("scenarios"), experiences=rows("experiences"), chosen=options)
def test_rows_of_any_values_are_all_accounted_for(scenarios, experiences, chosen):
    with TemporaryDirectory() as folder:
        path = Path(folder) / "saige.db"
        write(path, {"scenarios": scenarios, "experiences": experiences})
        check_rows(*outcome(path, chosen), len(experiences))


@settings(max_examples=700, suppress_health_check=UNCHECKED, **PROFILE)
@given(
    changes=st.lists(
        st.tuples(
            st.sampled_from([(t, c) for t, names in COLUMNS.items() for c in names if c != "id"]),
            st.integers(1, 12),
            st.one_of(scalars, json_texts, st.binary(max_size=9)),
            st.booleans(),
        ),
        min_size=1,
        max_size=6,
    ),
    chosen=st.one_of(st.just(lax), options),
)
def test_a_good_database_with_spoiled_values_is_all_accounted_for(changes, chosen):
    with TemporaryDirectory() as folder:
        path = Path(folder) / "saige.db"
        path.write_bytes(sample())
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA synchronous = OFF")
            for (table, column), row, value, as_text in changes:
                new = "CAST(? AS TEXT)" if as_text else "?"
                connection.execute(
                    f"UPDATE OR IGNORE {table} SET {column} = {new} WHERE id = ?", (value, row)
                )
            connection.commit()
        check_rows(*outcome(path, chosen), 12)


@settings(max_examples=500, suppress_health_check=UNCHECKED, **PROFILE)
@given(
    hits=st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=16)), max_size=8
    ),
    cut=st.one_of(st.none(), st.floats(0, 1)),
    beside=st.sampled_from([None, None, None, "-wal", "-journal"]),
)
def test_a_database_with_damaged_bytes_is_read_or_an_error_of_ours(hits, cut, beside):
    data = bytearray(sample())
    for place, junk in hits:
        at = int(place * len(data))
        data[at : at + len(junk)] = junk
    with TemporaryDirectory() as folder:
        path = Path(folder) / "saige.db"
        path.write_bytes(data[: None if cut is None else int(cut * len(data))])
        if beside:
            (Path(folder) / f"saige.db{beside}").write_bytes(bytes(data[:512]))
        outcome(path, lax)


@settings(max_examples=100, suppress_health_check=UNCHECKED, **PROFILE)
@given(st.binary(max_size=300))
def test_any_bytes_are_an_error_of_ours(data):
    with TemporaryDirectory() as folder:
        path = Path(folder) / "saige.db"
        path.write_bytes(data)
        found, problem = outcome(path, lax)
        assert found == []
        assert problem is not None


@settings(max_examples=400, **PROFILE)
@given(st.one_of(st.text(), st.text("AISiruser:. \n*[]", max_size=80)), st.text(max_size=20))
def test_the_judge_takes_any_text(answer, fact):
    meta = {"facts": fact, "critical": fact, "mood": "sad"}
    one = Example([{"role": "user", "content": "Why?"}, {"role": "assistant"}], "a#1", "a", meta)
    scores = recipe.judge(one, answer)
    assert set(scores) <= set(recipe.METRICS)
    assert all(0 <= value <= 1 for value in scores.values())
