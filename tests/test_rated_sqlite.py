"""The recipe `rated_sqlite`: filters, order and limit against a plain reading of the same rows."""

import json
import random
import re
import sqlite3
from collections import Counter
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import pytest

from stages.core.errors import TunesmithError
from stages.core.example import Example, Reject
from stages.makers import scenarios as maker
from stages.recipes import rated_sqlite as recipe

STATE = "Context: Person is {mood}, vulnerability: {vulnerability}"
LEVELS = ["low", "moderate", "good", "excellent"]
WEIGHTS = {"ahimsa": 25, "sacca": 20, "karuna": 25, "panna": 20, "upekkha": 10}
SCENARIO = {
    "id": 1,
    "context": "May I lie?",
    "person_state": '{"mood": "sad", "vulnerability": "high"}',
    "facts": '["It is late"]',
    "critical_info": '["It is cold"]',
    "difficulty_level": 2,
}
EXPERIENCE = {
    "id": 1,
    "scenario_id": 1,
    "ai_response": "No, you may not.",
    "actual_harm": 0.1,
    "buddhist_scores": json.dumps(dict.fromkeys(WEIGHTS, 8)),
    "buddhist_alignment": "excellent",
    "timestamp": "2025-01-01 00:00:00",
}


def options(**chosen):
    usual = {"max_harm": 1.0, "min_score": 0.0, "min_alignment": "any", "limit": 0}
    usual |= {"self_dialogue": "keep", "person_state": STATE, "system": ""}
    return recipe.Options(**(usual | chosen))


def build(folder, experiences, scenarios=({},)):
    """A database whose columns take any value; rows are changes to the usual ones."""
    path = folder / "saige.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        for table, usual, rows in (
            ("scenarios", SCENARIO, scenarios),
            ("experiences", EXPERIENCE, experiences),
        ):
            connection.execute(f"CREATE TABLE {table} ({', '.join(usual)})")
            spots = ", ".join("?" * len(usual))
            for number, row in enumerate(rows, 1):
                values = usual | {"id": number} | row
                connection.execute(f"INSERT INTO {table} VALUES ({spots})", list(values.values()))
        connection.commit()
    return path


def read(source, **chosen):
    return list(recipe.examples(source, options(**chosen)))


def ids(found):
    return [one.meta["experience_id"] for one in found if isinstance(one, Example)]


def codes(found):
    return Counter(one.code for one in found if isinstance(one, Reject))


def points(*values):
    return json.dumps(dict(zip(WEIGHTS, values, strict=True)))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    maker.make(maker.Options(seed=5, scenarios=40, experiences=700), folder)
    return folder / "saige.db"


def oracle(path, max_harm, min_score, min_alignment, limit):
    """Ids of the experiences that pass, in order: all rows in memory, fractions for scores."""
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        known = {row["id"] for row in connection.execute("SELECT id FROM scenarios")}
        rows = connection.execute("SELECT * FROM experiences").fetchall()
    least = 0 if min_alignment == "any" else LEVELS.index(min_alignment)
    kept = []
    for row in rows:
        if row["scenario_id"] not in known or row["buddhist_alignment"] is None:
            continue
        scores = json.loads(row["buddhist_scores"])
        score = sum(Fraction(w, 100) * Fraction(scores.get(n, 0)) for n, w in WEIGHTS.items())
        if row["actual_harm"] > max_harm or score < Fraction(str(min_score)):
            continue
        if LEVELS.index(row["buddhist_alignment"]) >= least:
            kept.append(row)
    kept.sort(key=lambda row: row["id"])
    kept.sort(key=lambda row: row["timestamp"], reverse=True)
    kept.sort(key=lambda row: row["actual_harm"])
    return [row["id"] for row in kept][: limit or None]


CHOICES = [
    (harm, score, level, limit)
    for harm in (0.3, 0.1, 1.0)
    for score in (0.0, 6.0, 8.0)
    for level in ("any", "moderate", "good", "excellent")
    for limit in (0, 1, 15)
]


@pytest.mark.parametrize(("harm", "score", "level", "limit"), CHOICES)
def test_what_passes_and_its_order_are_the_brute_force_oracles(made, harm, score, level, limit):
    found = read(made, max_harm=harm, min_score=score, min_alignment=level, limit=limit)
    assert ids(found) == oracle(made, harm, score, level, limit) != []
    assert len(found) == 700


def test_the_order_is_the_oracles_whatever_order_the_rows_were_written_in(tmp_path):
    draw = random.Random(3)
    for number in range(30):
        folder = tmp_path / str(number)
        folder.mkdir()
        rows = [
            {"id": n, "actual_harm": draw.choice((0.0, 0.1, 0.2)), "timestamp": draw.choice("abc")}
            for n in range(40)
        ]
        draw.shuffle(rows)
        path = build(folder, rows)
        assert ids(read(path, max_harm=0.1)) == oracle(path, 0.1, 0.0, "any", 0)


def test_ties_in_harm_come_newest_first_and_then_by_id(tmp_path):
    rows = [
        {"id": 7, "actual_harm": 0.2, "timestamp": "2025-03-01"},
        {"id": 5, "actual_harm": 0.2, "timestamp": "2025-04-01"},
        {"id": 9, "actual_harm": 0.1, "timestamp": "2025-01-01"},
        {"id": 2, "actual_harm": 0.2, "timestamp": "2025-03-01"},
    ]
    assert ids(read(build(tmp_path, rows))) == [9, 5, 2, 7]


def test_the_limit_counts_only_what_passed_every_other_filter(tmp_path):
    rows = [
        {"actual_harm": 0.0, "buddhist_scores": points(1, 1, 1, 1, 1)},
        {"actual_harm": 0.0, "buddhist_alignment": "low"},
        {"actual_harm": 0.0, "ai_response": "Yes. Sir: No."},
        {"actual_harm": 0.0, "ai_response": ""},
        {"actual_harm": 0.1},
        {"actual_harm": 0.2},
        {"actual_harm": 0.3},
    ]
    chosen = {"min_score": 6.0, "min_alignment": "good", "self_dialogue": "drop"}
    found = read(build(tmp_path, rows), limit=2, **chosen)
    assert ids(found) == [5, 6]
    refused = ["low_score", "low_alignment", "self_dialogue", "empty_answer", "over_limit"]
    assert codes(found) == dict.fromkeys(refused, 1)


@pytest.mark.parametrize(
    ("scores", "score"),
    [
        (points(8, 8, 8, 8, 8), 8.0),
        (points(6, 6, 6, 6, 6), 6.0),
        (points(0.6, 0.6, 0.6, 0.6, 0.6), 0.6),
        (points(7.1, 7.1, 7.1, 7.1, 7.1), 7.1),
        (points(0, 1.5, 7, 6.5, 6.5), 4.0),  # 3.9999999999999996 in floating point
        (points(10, 0, 0, 0, 0), 2.5),
        (points(0, 10, 0, 0, 0), 2.0),
        (points(0, 0, 10, 0, 0), 2.5),
        (points(0, 0, 0, 10, 0), 2.0),
        (points(0, 0, 0, 0, 10), 1.0),
        ('{"ahimsa": 10, "kindness": 10}', 2.5),
        ("{}", 0.0),
    ],
)
def test_the_score_is_the_weighted_sum_and_passes_its_own_limit(tmp_path, scores, score):
    path = build(tmp_path, [{"buddhist_scores": scores}, {}])
    (one, *_) = [e for e in read(path, min_score=score) if e.source == "saige.db#1"]
    assert isinstance(one, Example)
    assert one.meta["weighted_score"] == score
    above = {e.source: e for e in read(path, min_score=min(score + 1e-9, 8.0))}
    assert score == 8.0 or above["saige.db#1"].code == "low_score"


def test_harm_on_the_limit_passes_and_above_it_does_not(tmp_path):
    rows = [{"actual_harm": harm} for harm in (0.3, 0.30000000000000004, 0, 1)]
    assert ids(read(build(tmp_path, rows), max_harm=0.3)) == [3, 1]


@pytest.mark.parametrize(
    ("least", "kept"), [("any", 4), ("moderate", 3), ("good", 2), ("excellent", 1)]
)
def test_the_alignment_is_the_databases_own_and_compared_by_rank(tmp_path, least, kept):
    rows = [{"buddhist_alignment": level} for level in [*LEVELS, None, "superb", b"good", 3]]
    found = read(build(tmp_path, rows), min_alignment=least)
    assert ids(found) == list(range(5 - kept, 5))
    assert codes(found)["no_alignment"] == 1
    assert codes(found)["unknown_alignment"] == 3


def test_harm_score_and_alignment_refuse_in_this_order(tmp_path):
    bad = {"actual_harm": 0.9, "buddhist_scores": points(1, 1, 1, 1, 1)}
    bad |= {"buddhist_alignment": "low"}
    rows = [{}, bad, bad | {"actual_harm": 0.1}, {"buddhist_alignment": "low"}]
    found = read(build(tmp_path, rows), max_harm=0.3, min_score=6.0, min_alignment="good")
    refused = {one.source: one.code for one in found if isinstance(one, Reject)}
    assert refused == {
        "saige.db#2": "too_harmful",
        "saige.db#3": "low_score",
        "saige.db#4": "low_alignment",
    }


def test_an_example_holds_the_chat_and_everything_that_judge_and_export_need(tmp_path):
    (one,) = read(build(tmp_path, [{"id": 12}]), system="Be kind.")
    assert one == Example(
        [
            {"role": "system", "content": "Be kind."},
            {
                "role": "user",
                "content": "May I lie?\n\nContext: Person is sad, vulnerability: high",
            },
            {"role": "assistant", "content": "No, you may not."},
        ],
        "saige.db#1",
        "scenario:1",
        {
            "harm_score": 0.1,
            "buddhist_alignment": "excellent",
            "weighted_score": 8.0,
            "difficulty": 2,
            "scenario_id": 1,
            "experience_id": 12,
            "mood": "sad",
            "vulnerability": "high",
            "facts": "It is late",
            "critical": "It is cold",
        },
    )


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ('{"mood": "neutral", "vulnerability": "low"}', None),
        ("{}", None),
        (None, None),
        ('{"mood": null}', None),
        ('{"mood": "angry"}', "Context: Person is angry, vulnerability: low"),
        ('{"vulnerability": "high"}', "Context: Person is neutral, vulnerability: high"),
        ('{"mood": "{vulnerability}"}', "Context: Person is {vulnerability}, vulnerability: low"),
    ],
)
def test_the_persons_state_is_told_only_where_it_is_unusual(tmp_path, state, said):
    path = build(tmp_path, [{}], [{"person_state": state}])
    (one,) = read(path)
    assert one.messages[0]["content"] == "\n\n".join(["May I lie?", *([said] if said else [])])
    (without,) = read(path, person_state="")
    assert without.messages[0]["content"] == "May I lie?"


@pytest.mark.parametrize("text", ["{name}", "{mood!r}", "{mood:9}", "{}", "{mood", "}"])
def test_a_state_text_with_an_unknown_place_is_refused_before_reading(text):
    with pytest.raises(ValueError, match=r"mood|expected|Single"):
        options(person_state=text)


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ('["It is  late", " ", "Go\\nhome"]', "It is late\nGo home"),
        ('{"time": "late"}', "time: late"),
        ('"It is late"', "It is late"),
        ("[]", ""),
        (None, ""),
    ],
)
def test_facts_are_read_from_a_list_an_object_or_a_text(tmp_path, facts, said):
    path = build(tmp_path, [{}], [{"facts": facts, "critical_info": facts}])
    (one,) = read(path)
    assert (one.meta["facts"], one.meta["critical"]) == (said, said)


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("No.\nSir: Why?\nAI: Because.", "Sir"),
        ("AI: No, you may not.", "AI"),
        ("No\nSir: Why", "Sir"),
        ("You may not. Sir: Why is that?", "Sir"),
        ("No.\n**User:** Why?", "User"),
        ("No.\n[Human]: Why?", "Human"),
        ("No.\n> Person 2: Why?", "Person 2"),
        ("No.\nQ: Why?", "Q"),
        ("Tom: No.\nAnna: Why?\nTom: Because.", "Tom"),
        ("No.\nSIR : Why?", "SIR"),
    ],
)
def test_dialogue_that_an_answer_invents_is_found(tmp_path, answer, label):
    path = build(tmp_path, [{"ai_response": answer}, {}])
    refused = {one.source: one for one in read(path, self_dialogue="drop")}["saige.db#1"]
    assert refused.code == "self_dialogue"
    assert repr(label) in refused.reason
    assert ids(read(path)) == [1, 2]


@pytest.mark.parametrize(
    "answer",
    [
        "No.",
        "Dear Sir: I may not lie.",
        "Pros: it is kind.\nCons: it is a lie.",
        "Two ways: call them, or write to them.",
        "Note: it is late.\nIt is 10:30, sir.",
        "I said to him: no.",
        "See https://example.org/ai: it is all there.",
    ],
)
def test_a_colon_alone_is_no_dialogue(tmp_path, answer):
    path = build(tmp_path, [{"ai_response": answer}])
    assert ids(read(path, self_dialogue="drop")) == [1]


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ({"scenario_id": 99}, "orphan"),
        ({"scenario_id": None}, "orphan"),
        ({"actual_harm": None}, "no_harm"),
        ({"actual_harm": "low"}, "harm_type"),
        ({"actual_harm": b"\0\1"}, "harm_type"),
        ({"actual_harm": -0.1}, "harm_range"),
        ({"actual_harm": 1.01}, "harm_range"),
        ({"actual_harm": float("inf")}, "harm_range"),
        ({"actual_harm": float("nan")}, "no_harm"),  # SQLite stores no NaN
        ({"buddhist_scores": None}, "no_scores"),
        ({"buddhist_scores": b"{}"}, "scores_type"),
        ({"buddhist_scores": 7}, "scores_type"),
        ({"buddhist_scores": "[8, 8]"}, "scores_type"),
        ({"buddhist_scores": '{"ahimsa": "8"}'}, "scores_type"),
        ({"buddhist_scores": '{"ahimsa": true}'}, "scores_type"),
        ({"buddhist_scores": '{"ahimsa": null}'}, "scores_type"),
        ({"buddhist_scores": '{"ahimsa": 11}'}, "scores_range"),
        ({"buddhist_scores": '{"ahimsa": -1}'}, "scores_range"),
        ({"buddhist_scores": '{"ahimsa": NaN}'}, "broken_scores"),
        ({"buddhist_scores": '{"ahimsa": 8'}, "broken_scores"),
        ({"buddhist_scores": ""}, "broken_scores"),
        ({"buddhist_scores": "[" * 3000}, "broken_scores"),
        ({"ai_response": None}, "empty_answer"),
        ({"ai_response": " \n"}, "empty_answer"),
        ({"ai_response": b"No."}, "wrong_type"),
        ({"ai_response": 5}, "wrong_type"),
        ({"ai_response": "a\0b"}, "nul"),
        ({"ai_response": "a" * 65_537}, "too_long"),
        ({"id": None}, "bad_id"),
        ({"id": b"\1"}, "bad_id"),
        ({"id": 1.5}, "bad_id"),
    ],
)
def test_a_bad_experience_is_a_reject_and_the_others_are_read(tmp_path, row, code):
    found = read(build(tmp_path, [{}, row, {}]))
    assert ids(found) == [1, 3]
    assert [(one.source, one.code) for one in found if isinstance(one, Reject)] == [
        ("saige.db#2", code)
    ]


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ({"context": None}, "empty_prompt"),
        ({"context": ""}, "empty_prompt"),
        ({"context": b"x"}, "wrong_type"),
        ({"context": "a\0"}, "nul"),
        ({"context": "a" * 65_537}, "too_long"),
        ({"person_state": "{"}, "broken_json"),
        ({"person_state": '{"mood": "\\ud800"}'}, "broken_json"),
        ({"person_state": "[]"}, "wrong_type"),
        ({"person_state": b"{}"}, "wrong_type"),
        ({"person_state": '{"mood": 5}'}, "wrong_type"),
        ({"person_state": '{"mood": "\\u0000"}'}, "nul"),
        ({"facts": "nonsense"}, "broken_json"),
        ({"facts": "[1]"}, "wrong_type"),
        ({"facts": "5"}, "wrong_type"),
        ({"facts": '["\\u0000"]'}, "nul"),
        ({"facts": '["' + "a" * 65_536 + '"]'}, "too_long"),
        ({"critical_info": '{"a": 1}'}, "wrong_type"),
        ({"difficulty_level": None}, "difficulty"),
        ({"difficulty_level": "hard"}, "difficulty"),
        ({"difficulty_level": 0}, "difficulty"),
        ({"difficulty_level": 6}, "difficulty"),
        ({"difficulty_level": 2.0}, "difficulty"),
        ({"id": 1}, "ambiguous_scenario"),
    ],
)
def test_a_bad_scenario_makes_each_of_its_experiences_a_reject(tmp_path, row, code):
    rows = [
        {"scenario_id": row.get("id", 2)},
        {"scenario_id": 3},
        {"scenario_id": row.get("id", 2)},
    ]
    found = read(build(tmp_path, rows, [{}, row, {}]))
    assert ids(found) == [2]
    assert codes(found) == {code: 2}


@pytest.mark.parametrize(
    ("table", "column", "code"),
    [
        ("experiences", "ai_response", "not_utf8"),
        ("experiences", "id", "bad_id"),
        ("experiences", "buddhist_scores", "broken_scores"),
        ("experiences", "buddhist_alignment", "unknown_alignment"),
        ("scenarios", "context", "not_utf8"),
        ("scenarios", "facts", "broken_json"),
    ],
)
def test_text_that_is_not_utf8_is_a_reject_of_its_row_alone(tmp_path, table, column, code):
    rows = [{}, {"scenario_id": 2}, {}]
    path = build(tmp_path, rows, [{}, {}])
    with closing(sqlite3.connect(path)) as connection:
        bad = f"UPDATE {table} SET {column} = CAST(x'41ff42' AS TEXT) WHERE id = 2"
        connection.execute(bad)
        connection.commit()
    found = read(path)
    assert ids(found) == [1, 3]
    assert codes(found) == {code: 1}


def test_text_ids_and_other_scripts_are_kept_as_they_are(tmp_path):
    rows = [{"id": "e-ä", "scenario_id": "s/1", "ai_response": "Nein, 不行 🙏."}]
    (one,) = read(build(tmp_path, rows, [{"id": "s/1"}]))
    assert (one.meta["experience_id"], one.group) == ("e-ä", "scenario:s/1")
    assert one.messages[-1]["content"] == "Nein, 不行 🙏."


def test_every_reason_code_is_named_in_the_recipes_own_words():
    package = Path(recipe.__file__).parent
    code = "".join(path.read_text(encoding="utf-8") for path in sorted(package.glob("*.py")))
    raised = set(re.findall(r'BadValueError\(\s*"([a-z_0-9]+)"', code))
    raised |= {"empty_answer", "empty_prompt"}
    assert len(raised) >= 20
    assert [name for name in sorted(raised) if f"`{name}`" not in (recipe.__doc__ or "")] == []


def test_no_row_that_passes_is_an_error_that_counts_each_filter_and_says_how_far_to_relax(tmp_path):
    rows = [
        {"actual_harm": 0.5},
        {"actual_harm": 0.4},
        {"buddhist_scores": points(7, 7, 7, 7, 7)},
        {"buddhist_alignment": "moderate"},
        {"buddhist_alignment": None},
        {"scenario_id": 5},
    ]
    path = build(tmp_path, rows)
    with pytest.raises(TunesmithError, match="None of the 6 experiences") as problem:
        read(path, max_harm=0.3, min_score=7.5, min_alignment="good")
    screen = problem.value.screen()
    order = [
        "no_alignment: 1",
        "orphan: 1",
        "harm above 0.3: 2",
        "score below 7.5: 1",
        "alignment below good: 1",
    ]
    assert ", ".join(order) in screen
    assert "max_harm: 0.4 or min_score: 7.0 or min_alignment: moderate" in screen
    relaxed = {"max_harm": 0.4, "min_score": 7.0, "min_alignment": "moderate"}
    assert ids(read(path, **relaxed)) == [3, 4, 2]


def test_relaxing_one_filter_as_told_lets_a_row_pass(made):
    with pytest.raises(TunesmithError) as problem:
        read(made, min_score=9.99)
    (told,) = re.findall(r"min_score: ([0-9.]+)", problem.value.screen())
    assert len(ids(read(made, min_score=float(told)))) >= 1


def test_where_only_broken_rows_are_there_no_filter_is_blamed(tmp_path):
    with pytest.raises(TunesmithError, match=r"no_harm: 1.*\n.*Mend the database"):
        read(build(tmp_path, [{"actual_harm": None}]))


@pytest.mark.parametrize(
    ("rows", "advice"), [(1, "at least 49 more"), (50, "enough to try"), (200, "enough to train")]
)
def test_the_report_has_the_seeds_statistics_and_its_advice(tmp_path, rows, advice):
    odd = {"actual_harm": 0.3, "buddhist_alignment": "good", "buddhist_scores": points(*[7] * 5)}
    path = build(tmp_path, [odd, *[{}] * (rows - 1)])
    found = recipe.report(read(path), options())
    assert found["examples"] == rows
    assert found["harm"]["most"] == 0.3
    assert found["harm"]["mean"] == pytest.approx((0.3 + 0.1 * (rows - 1)) / rows, abs=1e-6)
    assert found["score"]["least"] == 7.0
    assert found["alignment"] == ({"good": 1} | ({"excellent": rows - 1} if rows > 1 else {}))
    assert found["difficulty"] == {"2": rows}
    assert advice in found["verdicts"][0]


def test_a_report_of_nothing_has_no_spread():
    assert recipe.report([], options())["harm"] == {}
