"""Experiences for the recipe rated_sqlite in any number, and the plain way to convert them.

`make` fills a database of SAIGE's schema: answers of 300 to 1,700 characters over 1,000 scenarios,
harm in 14 steps, so that there are many ties, and about nine in ten that pass the filters. `naive`
is what one would write first, and what the recipe replaces: all rows in memory, then all examples.
"""

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

SCENARIOS = 1000
OPTIONS: dict[str, Any] = {
    "max_harm": 0.3,
    "min_score": 6.0,
    "min_alignment": "good",
    "limit": 0,
    "self_dialogue": "keep",
    "person_state": "Context: Person is {mood}, vulnerability: {vulnerability}",
    "system": "You are kind and honest.",
}
SENTENCES = (
    "I am sorry that you have to go through this, and I am glad that you ask.",
    "The letter from the office says that the time ends on Friday, so there are five days left.",
    "You could call them first, because they know of more ways than the letter tells.",
    "It may help to write down what happened, as long as it is fresh.",
    "Take your time; whatever you decide, it can be changed later.",
    "What would you tell a friend who stood where you stand now?",
)
TABLES = """
PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;
CREATE TABLE scenarios (id INTEGER PRIMARY KEY, context TEXT, person_state TEXT, facts TEXT,
    critical_info TEXT, difficulty_level INTEGER, harm_type TEXT, expected_response TEXT,
    created_at TEXT);
CREATE TABLE experiences (id INTEGER PRIMARY KEY, scenario_id INTEGER, ai_response TEXT,
    predicted_harm REAL, actual_harm REAL, harm_breakdown TEXT, learned_lesson TEXT,
    buddhist_scores TEXT, buddhist_alignment TEXT, model_version TEXT, timestamp TEXT);
"""
LEVELS = ((8, "excellent"), (6, "good"), (4, "moderate"), (0, "low"))
PARTS = (("ahimsa", 0.25), ("sacca", 0.2), ("karuna", 0.25), ("panna", 0.2), ("upekkha", 0.1))


def make(rows: int, out: Path) -> dict[str, Any]:
    """Write `out/saige.db` with so many experiences; returns the recipe's options."""
    connection = sqlite3.connect(out / "saige.db")
    connection.executescript(TABLES)
    moods = ("neutral", "sad", "afraid", "angry")
    connection.executemany(
        "INSERT INTO scenarios VALUES (?, ?, ?, ?, ?, ?, 'omission', 'Say it.', '2025-01-01')",
        (
            (
                n,
                f"Case {n}: {SENTENCES[n % 6]} {SENTENCES[n % 5]}",
                json.dumps({"mood": moods[n % 4], "vulnerability": "low"}),
                json.dumps([SENTENCES[1]]),
                json.dumps([f"Case {n} is open."]),
                1 + n % 5,
            )
            for n in range(1, SCENARIOS + 1)
        ),
    )
    spots = ", ".join("?" * 11)
    connection.executemany(f"INSERT INTO experiences VALUES ({spots})", _experiences(rows))
    connection.commit()
    connection.close()
    return OPTIONS


def _experiences(rows: int) -> Iterator[tuple[Any, ...]]:
    random = Random(1)
    answers = [" ".join(random.choices(SENTENCES, k=random.randint(4, 22))) for _ in range(500)]
    for n in range(1, rows + 1):
        draw = random.random()
        harm, points = int(draw * 14) / 40, 5 + int(random.random() ** 0.5 * 6)
        level = next(name for least, name in LEVELS if points >= least)
        told = f'{{"deception": {harm}, "harshness": {harm}, "omission": 0, "manipulation": 0}}'
        scores = ", ".join(f'"{name}": {points}' for name, _ in PARTS)
        when = f"2025-{1 + n % 12:02d}-{1 + n % 28:02d} {n % 24:02d}:00:00"
        answer = f"{n}. {answers[n % 500]}"
        yield (
            *(n, 1 + int(draw * 1e6) % SCENARIOS, answer, harm, harm, told, "Keep this."),
            *(f"{{{scores}}}", level, "v1", when),
        )


def naive(source: Path) -> list[dict[str, Any]]:
    """The examples of `source/saige.db` with the same filters, by fetchall and lists."""
    connection = sqlite3.connect(source / "saige.db")
    connection.row_factory = sqlite3.Row
    found = connection.execute(
        "SELECT e.*, s.context, s.person_state, s.difficulty_level FROM experiences e"
        " JOIN scenarios s ON s.id = e.scenario_id"
        " WHERE e.actual_harm <= 0.3 AND e.buddhist_alignment IN ('good', 'excellent')"
        " ORDER BY e.actual_harm, e.timestamp DESC, e.id"
    ).fetchall()
    made = []
    for row in [dict(one) for one in found]:
        scores = json.loads(row["buddhist_scores"])
        score = sum(weight * scores.get(name, 0) for name, weight in PARTS)
        if score < 6.0:
            continue
        state, prompt = json.loads(row["person_state"]), row["context"]
        if state["mood"] != "neutral" or state["vulnerability"] != "low":
            prompt += f"\n\nContext: Person is {state['mood']}, "
            prompt += f"vulnerability: {state['vulnerability']}"
        said = {"system": OPTIONS["system"], "user": prompt, "assistant": row["ai_response"]}
        meta = {"harm_score": row["actual_harm"], "weighted_score": score}
        meta |= {name: row[name] for name in ("buddhist_alignment", "difficulty_level")}
        messages = [{"role": role, "content": text} for role, text in said.items()]
        made.append({"messages": messages, "meta": meta})
    return made
