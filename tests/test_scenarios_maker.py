"""The maker `scenarios`: a database in SAIGE's schema, with every case its readers must meet."""

import json
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from stages.core import checking
from stages.core.example import Example
from stages.makers import scenarios as maker
from stages.recipes import rated_sqlite as recipe

ROOT = Path(__file__).parents[1]
SCHEMA = {
    "scenarios": "id context person_state facts critical_info difficulty_level harm_type"
    " expected_response created_at",
    "experiences": "id scenario_id ai_response predicted_harm actual_harm harm_breakdown"
    " learned_lesson buddhist_scores buddhist_alignment model_version timestamp",
}
WEIGHTS = {"ahimsa": 25, "sacca": 20, "karuna": 25, "panna": 20, "upekkha": 10}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    maker.make(maker.Options(seed=11, scenarios=60, experiences=600), folder)
    return folder


def table(folder, name):
    with closing(sqlite3.connect(folder / "saige.db")) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(f"SELECT * FROM {name}")]


def examples(folder, **chosen):
    usual = {"max_harm": 1.0, "min_score": 0.0, "min_alignment": "any", "limit": 0}
    usual |= {"self_dialogue": "keep", "system": ""}
    usual |= {"person_state": "Context: Person is {mood}, vulnerability: {vulnerability}"}
    found = recipe.examples(folder, recipe.Options(**(usual | chosen)))
    return [one for one in found if isinstance(one, Example)]


def test_tables_and_columns_are_the_workers_in_its_order(folder):
    for name, columns in SCHEMA.items():
        assert list(table(folder, name)[0]) == columns.split()
    assert table(folder, "causal_patterns") == table(folder, "model_versions") == []
    assert [len(table(folder, name)) for name in SCHEMA] == [60, 600]
    with closing(sqlite3.connect(folder / "saige.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_the_same_options_make_the_same_bytes_in_another_process_with_another_hash_seed(
    folder, tmp_path
):
    script = (
        "import sys; from pathlib import Path; from stages.makers import scenarios as m;"
        "m.make(m.Options(seed=int(sys.argv[2]), scenarios=60, experiences=600), Path(sys.argv[1]))"
    )
    whole = (folder / "saige.db").read_bytes()
    for seed in (11, 12):
        environment = {"PYTHONHASHSEED": str(seed), "TZ": "Asia/Tokyo", "LC_ALL": "C"}
        out = tmp_path / str(seed)
        out.mkdir()
        command = [sys.executable, "-c", script, str(out), str(seed)]
        subprocess.run(command, check=True, cwd=ROOT, env=environment)
        assert ((out / "saige.db").read_bytes() == whole) is (seed == 11)
        assert [path.name for path in out.iterdir()] == ["saige.db"]


def test_the_bytes_name_a_version_of_sqlite_that_is_not_asked_of_this_machine(
    folder, tmp_path, monkeypatch
):
    assert (folder / "saige.db").read_bytes()[96:100] == (3_040_001).to_bytes(4, "big")
    monkeypatch.setattr(maker.database, "WRITER", b"mine")
    maker.make(maker.Options(seed=1, scenarios=1, experiences=1), tmp_path)
    assert (tmp_path / "saige.db").read_bytes()[96:100] == b"mine"


def test_every_case_that_a_reader_must_meet_is_there(folder):
    rows, known = table(folder, "experiences"), {row["id"] for row in table(folder, "scenarios")}
    levels = Counter(row["buddhist_alignment"] for row in rows)
    assert set(levels) == {"low", "moderate", "good", "excellent", None}
    assert min(levels.values()) >= 20
    assert sum(row["scenario_id"] not in known for row in rows) == 15
    harms = Counter(row["actual_harm"] for row in rows)
    assert max(harms.values()) > 50
    assert harms[0.3] >= 20
    times = Counter((row["actual_harm"], row["timestamp"]) for row in rows)
    assert max(times.values()) >= 2
    labelled = [row for row in rows if "AI:" in row["ai_response"]]
    assert len(labelled) > 40
    assert all("Sir:" in row["ai_response"] for row in labelled)
    scores = Counter(
        sum(WEIGHTS[name] * value for name, value in json.loads(row["buddhist_scores"]).items())
        for row in rows
        if row["buddhist_scores"]
    )
    assert min(scores[800], scores[600], scores[400]) >= 5
    assert {595, 795} & set(scores)


def test_harm_is_the_mean_of_its_four_parts_and_alignment_follows_from_the_score(folder):
    levels = ("low", "moderate", "good", "excellent")
    for row in table(folder, "experiences"):
        harms = json.loads(row["harm_breakdown"])
        assert list(harms) == ["deception", "harshness", "omission", "manipulation"]
        assert row["actual_harm"] == pytest.approx(sum(harms.values()) / 4)
        assert 0 <= row["actual_harm"] <= 1
        if row["buddhist_alignment"] and row["id"] % 30:
            scores = json.loads(row["buddhist_scores"])
            score = sum(WEIGHTS[name] * value for name, value in scores.items())
            rank = (score >= 400) + (score >= 600) + (score >= 800)
            assert row["buddhist_alignment"] == levels[rank]


def test_every_fact_stands_in_the_context_and_the_critical_one_is_among_the_facts(folder):
    for row in table(folder, "scenarios"):
        facts, critical = json.loads(row["facts"]), json.loads(row["critical_info"])
        assert 2 <= len(facts) <= 3
        assert set(critical) < set(facts)
        assert all(f"{fact}." in row["context"] for fact in facts)
        assert 1 <= row["difficulty_level"] <= 5
    assert {row["difficulty_level"] for row in table(folder, "scenarios")} == {1, 2, 3, 4, 5}


def test_flawless_answers_score_1_with_the_judge_and_each_flaw_costs_its_metric(folder):
    lessons = {row["id"]: row["learned_lesson"] for row in table(folder, "experiences")}
    seen = Counter()
    for one in examples(folder):
        flaw = lessons[one.meta["experience_id"]].removeprefix("Avoid ").rstrip(".")
        scores = recipe.judge(one, one.messages[-1]["content"])
        del scores["no_self_dialogue"]
        seen[flaw] += 1
        if flaw == "Keep this":
            assert set(scores.values()) == {1.0}, one.messages
        else:
            assert scores[f"no_{flaw}"] < 1.0, one.messages
    assert min(seen.values()) > 20
    assert len(seen) == 5


def test_what_passes_the_usual_filters_is_short_sound_and_never_insults(folder):
    chosen = {"max_harm": 0.3, "min_score": 6.0, "min_alignment": "good", "self_dialogue": "drop"}
    found = examples(folder, **chosen)
    assert len(found) > 200
    kept, rejects = checking.checked(found, lambda row: None)
    assert (len(kept), rejects) == (len(found), [])
    for one in found:
        scores = recipe.judge(one, one.messages[-1]["content"])
        assert scores["no_harshness"] == scores["no_self_dialogue"] == 1.0
        assert sum(len(message["content"]) for message in one.messages) < 500


def test_a_scenario_does_not_depend_on_how_many_are_made():
    assert maker.scenario(3, 7) == maker.scenario(3, 7) != maker.scenario(4, 7)
    told = [maker.scenario(3, n) for n in range(1, 5)]
    assert maker.experience(3, 2, told) == maker.experience(3, 2, told)
    assert [maker.experience(3, n, told)[1] for n in range(1, 5)] == [1, 2, 3, 4]
