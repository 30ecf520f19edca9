"""Fuzzing games: damaged logs become examples and rejects that add up, and never a traceback."""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages.core import converting, dialogue, example
from stages.core.errors import TunesmithError
from stages.makers.games import play
from stages.recipes import games

pytestmark = pytest.mark.slow

Key = int | str
Change = tuple[int, int, str, Any]


def fuzz(inputs: int) -> settings:
    return settings(
        max_examples=inputs,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


def deep(levels: int) -> Any:
    value: Any = 0
    for _ in range(levels):
        value = [value]
    return value


VALUES = [
    None, True, False, 0, -1, 1, 7, 2**63 - 1, 2**64, -(2**70), 0.5, 1e308, "", "0", "NaN", "\x00",
    "draw", "wait", "player", "opponent", "a|b;c,d", "<|im_end|>", "e\u0301", "\u2028", "🙂",
    [], {}, [[]], [None], {"x": {}}, {"type": []}, {"type": "cloaked"}, {"x": 1, "y": 1},
    [{"type": "cloaked"}], [{"type": "cloaked", "turnsLeft": "2"}], [{"effect": 1}],
]  # fmt: skip
JUNK = st.one_of(
    st.sampled_from(VALUES),
    st.builds(deep, st.sampled_from([100, 260, 900])),
    st.text(max_size=20),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
)
# (kind, which, what, junk): kinds and places are taken modulo their number in the log.
CHANGES = st.lists(
    st.tuples(
        st.integers(0, 10**6),
        st.integers(0, 10**6),
        st.sampled_from(["junk", "junk", "junk", "delete", "double", "other", "rename"]),
        JUNK,
    ),
    min_size=1,
    max_size=6,
)
OPTIONS = st.fixed_dictionaries(
    {
        "sides": st.sampled_from(["winners", "all"]),
        "min_version": st.sampled_from(["0.0.0", "0.0.0", "0.5.9"]),
        "failed_actions": st.sampled_from(["keep", "drop"]),
        "pairs": st.just("none"),
    }
)
JSON = st.recursive(
    JUNK, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20
)


@cache
def log(number: int) -> tuple[str, bytes]:
    """A played match by its file's name, cut to its first rounds so that changes are dense."""
    played = play(3, number)
    data, rounds = played.log, 0
    kept = []
    for event in data["events"]:
        rounds += event["type"] == "turn_start"
        if rounds < 4 or event["type"] == "game_end":
            kept.append(event)
    return played.name, json.dumps(data | {"events": kept}).encode()


@cache
def places(number: int) -> list[list[tuple[Key, ...]]]:
    """Every place in a log, those of one kind (say, the hp in a `turn_end`) in a list of theirs."""
    data = json.loads(log(number)[1])
    kinds: dict[str, list[tuple[Key, ...]]] = {}
    for place in _walk(data, ()):
        event = data["events"][place[1]]["type"] if len(place) > 2 and place[0] == "events" else ""
        names = [key if isinstance(key, str) else "*" for key in place]
        kinds.setdefault(".".join([event, *names]), []).append(place)
    outermost = [places for places in kinds.values() if len(places[0]) == 1]
    return [*kinds.values(), *(8 * outermost)]


def _walk(value: Any, place: tuple[Key, ...]) -> Iterator[tuple[Key, ...]]:
    if place:
        yield place
    inside = dict(enumerate(value)) if isinstance(value, list) else value
    for key, inner in inside.items() if isinstance(inside, dict) else ():
        yield from _walk(inner, (*place, key))


def changed(number: int, changes: list[Change]) -> bytes:
    """The log with these changes; one whose place an earlier one removed does nothing."""
    data, known = json.loads(log(number)[1]), places(number)
    for kind, which, what, junk in changes:
        same = known[kind % len(known)]
        *path, key = same[which % len(same)]
        try:
            inside = data
            for step in path:
                inside = inside[step]
            value = inside[key]
        except (KeyError, IndexError, TypeError):
            continue
        if not isinstance(inside, dict | list):
            continue
        change(inside, key, value, what, junk)
    return json.dumps(data).encode()


def change(inside: Any, key: Any, value: Any, what: str, junk: Any) -> None:
    if what == "junk":
        inside[key] = junk
    elif what == "delete":
        del inside[key]
    elif what == "double" and isinstance(inside, list):
        inside.insert(key, value)
    elif what == "other" and isinstance(inside, list):
        inside[key] = inside[0]
    elif what == "rename" and isinstance(inside, dict):
        inside[f"{key}2"] = inside.pop(key)
    elif isinstance(value, int):
        inside[key] = value * -1000


def agree(folder: Path, given_options: dict[str, str]) -> None:
    """Convert the folder: nothing but a refusal is raised, and every decision comes out once."""
    options = games.Options.model_validate(given_options)
    out = folder.parent / "out"
    out.mkdir(exist_ok=True)
    try:
        stats = converting.write(games.examples(folder, options), out, games.STATS)
    except TunesmithError as refusal:
        if "match log" not in refusal.what:  # only a folder without any log is refused
            raise
        return
    rows = list(example.read_examples(out / "examples.jsonl"))
    rejects = [row for _, row in example.read_lines(out / "rejects.jsonl")]
    assert stats["inputs"] == len(rows) + len(rejects)
    found: dict[str, list[str]] = {}
    for source in [row.source for row in rows] + [row["source"] for row in rejects]:
        name, _, n = source.partition("#")
        found.setdefault(name, []).append(n)
    assert sorted(found) == sorted(path.name for path in folder.iterdir())
    for name, numbers in found.items():
        if numbers != [""]:
            assert sorted(map(int, numbers)) == list(range(1, decisions(folder / name) + 1))
    for row in rows:
        dialogue.problem(row)
        games.check(row)
        answer = row.messages[-1]["content"]
        assert all(0 <= score <= 1 for score in games.judge(row, answer).values())


def decisions(path: Path) -> int:
    events = json.loads(path.read_bytes())["events"]
    return sum(event["type"] == "agent_decision" for event in events)


def fresh(tmp_path: Path) -> Path:
    folder = tmp_path / "logs"
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    return folder


@fuzz(1500)
@given(number=st.integers(1, 8), changes=CHANGES, options=OPTIONS)
def test_a_log_with_changed_fields_loses_no_decision(
    tmp_path: Path, number: int, changes: list[Change], options: dict[str, str]
) -> None:
    folder = fresh(tmp_path)
    (folder / log(number)[0]).write_bytes(changed(number, changes))
    agree(folder, options)


@fuzz(400)
@given(
    number=st.integers(1, 8),
    cuts=st.lists(
        st.tuples(st.integers(0, 10**6), st.integers(0, 40), st.binary(max_size=8)), max_size=5
    ),
    end=st.integers(0, 10**6),
)
def test_a_log_with_changed_bytes_loses_no_decision(
    tmp_path: Path, number: int, cuts: list[tuple[int, int, bytes]], end: int
) -> None:
    name, data = log(number)
    for at, length, put in cuts:
        at %= len(data)
        data = data[:at] + put + data[at + length :]
    folder = fresh(tmp_path)
    (folder / name).write_bytes(data if end % 3 else data[: end % len(data)])
    agree(folder, {"sides": "all", "min_version": "0.0.0", "failed_actions": "drop",
                   "pairs": "none"})  # fmt: skip


NAMES = [
    "training-1.json", "training-v0.5.10-2.json", "training-v9.9.9.json", "training-.json",
    "training-v0.5.x-3.json", "notes.txt", "training-1.json.bak", "Training-1.json",
    "training-v00000000000000000000001.2.3-99999999999999999999.json", "training-٣.json",
]  # fmt: skip
KINDS = [*games.replay.APPLY, "agent_decision"]


@fuzz(600)
@given(
    files=st.dictionaries(
        st.sampled_from(NAMES),
        st.one_of(
            st.binary(max_size=60),
            st.builds(lambda value: json.dumps(value).encode(), JSON),
            st.builds(
                lambda events: json.dumps({"events": events}).encode(),
                st.lists(
                    st.fixed_dictionaries(
                        {"type": st.sampled_from(KINDS)},
                        optional={
                            "winner": JUNK, "unitId": JUNK, "units": JUNK, "turn": JUNK,
                            "grid": JUNK, "firstAction": JUNK, "effect": JUNK,
                        },
                    )
                    | st.just({"type": "game_config"})
                    | st.just({"type": "game_end", "winner": "player"}),
                    max_size=12,
                ),
            ),
        ),
        max_size=4,
    ),
    options=OPTIONS,
)  # fmt: skip
def test_a_folder_of_garbage_is_rejected_file_by_file(
    tmp_path: Path, files: dict[str, bytes], options: dict[str, str]
) -> None:
    folder = fresh(tmp_path)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    agree(folder, options)
