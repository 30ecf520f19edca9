"""Fuzzing of the recipe `rules`: damaged knowledge files, and answers of any form to its judge."""

import json
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from stages.core.errors import TunesmithError
from stages.core.example import Example, Reject, dumps, nfc
from stages.recipes import rules
from stages.recipes.rules import knowledge, package
from stages.recipes.rules.combos import parse_combo

pytestmark = pytest.mark.slow
OURS = Path(__file__).parents[1] / "data" / "raw" / "wzrdbrain"
FILES = (knowledge.MOVES_FILE, knowledge.TIERS_FILE)
WHOLE = [json.loads((OURS / name).read_text(encoding="utf-8")) for name in FILES]
COUNTS = rules.Options(
    seed=1, simple=2, constrained=2, explanation=3, rules=2, progression=4
)  # fmt: skip
LONG = settings(
    max_examples=800, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck)
)
READER = settings(LONG, max_examples=1_100)

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.just("")
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


def places(value, here=()):
    """The path of every value in a document."""
    yield here
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*here, key))


PLACES = [(file, place) for file in (0, 1) for place in places(WHOLE[file]) if place]


def outcome(files, damaged=None):
    """Examples and rejects of a folder with these two files' bytes; none where it is refused.

    A refusal names the damaged file, and no other.
    """
    mistake = None
    with TemporaryDirectory() as name:
        for file, content in zip(FILES, files, strict=True):
            (Path(name) / file).write_bytes(content)
        try:
            found = list(rules.examples(Path(name), COUNTS))
        except TunesmithError as refusal:
            mistake = refusal
    if mistake:
        assert mistake.where.partition(": ")[0] == str(Path(name) / FILES[damaged]), mistake
        assert mistake.what
        assert mistake.do
        return []
    assert len(found) == 13, "a row was lost"
    assert len({item.source for item in found}) == 13
    for item in found:
        assert isinstance(item, Example | Reject)
        dumps(nfc(item.row()))
    return found


def test_the_files_as_they_are_make_all_examples():
    found = outcome([json.dumps(value).encode() for value in WHOLE])
    assert found
    assert all(isinstance(item, Example) for item in found)


@READER
@given(st.sampled_from(PLACES), st.sampled_from(["replace", "remove", "add"]), VALUES)
def test_a_damaged_value_is_named_or_does_no_harm(chosen, how, value):
    file, place = chosen
    both = deepcopy(WHOLE)
    inner = both[file]
    for key in place[:-1]:
        inner = inner[key]
    if how == "replace":
        inner[place[-1]] = value
    elif how == "remove":
        del inner[place[-1]]
    elif isinstance(inner, dict):
        inner["more"] = value
    else:
        inner.append(value)
    outcome([json.dumps(one).encode("utf-8", "surrogatepass") for one in both], file)


@READER
@given(st.integers(0, 1), st.data())
def test_damaged_bytes_are_named_or_do_no_harm(file, data):
    files = [json.dumps(value).encode() for value in WHOLE]
    first = data.draw(st.integers(0, len(files[file])))
    last = data.draw(st.integers(first, min(first + 40, len(files[file]))))
    files[file] = files[file][:first] + data.draw(st.binary(max_size=12)) + files[file][last:]
    outcome(files, file)


WORDS = ("front", "back", "forward", "fakie", "open", "closed")
TRICKS = st.builds(
    " ".join,
    st.lists(
        st.sampled_from([*package.grammar().moves, *WORDS]) | st.text(max_size=6),
        max_size=4,
    ),
)
LINES = st.builds(
    "{}{}{} {}".format,
    st.sampled_from(["", " ", "**", "\t", "1"]),
    st.integers(0, 12),
    st.sampled_from([".", ")", ".**", "", "-"]),
    TRICKS,
)
ANSWERS = st.text(max_size=80) | st.lists(LINES | TRICKS, max_size=7).map("\n".join)
METAS = st.fixed_dictionaries(
    {"category": st.sampled_from(["simple", "constrained", "explanation", "rules"])},
    optional={
        "n": st.integers(2, 5),
        "request": st.sampled_from(["starts", "ends", "includes"]),
        "move": st.sampled_from(package.grammar().moves),
        "direction": st.sampled_from(["front", "back"]),
    },
)


@LONG
@example("1. front open gazelle\n2. back closed tree", {"category": "simple", "n": 2})
@given(ANSWERS, METAS)
def test_any_answer_is_scored_from_0_to_1_and_only_a_combo_scores_as_one(answer, meta):
    facts = {"facts": ["difficulty=expert", "moves=tree|lion", "says=before it ends"]}
    found = rules.judge(Example([], "x#1", "x", meta | facts), answer)
    assert set(found) <= set(rules.METRICS)
    assert all(0.0 <= score <= 1.0 for score in found.values())
    if "parse" in found:
        assert (found["parse"] == 1.0) == (parse_combo(answer, package.grammar()) is not None)
        assert found["all"] == min(found.values())
