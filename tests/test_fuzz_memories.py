"""Fuzzing `memories`: whatever a memory holds, no traceback and nothing lost."""

import json
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from memories import options
from test_memories import memory, turns

from stages.core.errors import TunesmithError
from stages.core.example import Example, dumps
from stages.recipes import memories
from stages.recipes.memories import cleaning

pytestmark = pytest.mark.slow
fuzz = settings(
    *(), max_examples=700, derandomize=True, deadline=None, database=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip

VALID = (
    memory(),
    memory("dream", metadata={"cognitiveMode": "agent", "conversationId": "c", "discard": False}),
    memory("tool_use", content=..., response=..., question="Q?", answer="Certainly! A."),
    memory("observation", content=..., response=..., observation="Rain."),
    memory("reflection", response="word " * 50, metadata={"long_output": "allowed"}),
    turns("system: S", "user: One?", "assistant: One.", "user: Two?", "assistant: So, two."),
)
words = st.sampled_from(
    [
        "okay, ",
        "So ",
        "certainly! ",
        "<world>: ",
        "<user>",
        "let me think: ",
        "é",
        "\n",
        "word ",
        "\0",
    ]
)
texts = st.one_of(st.text(max_size=40), st.lists(words, max_size=8).map("".join))
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), texts),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.sampled_from(["role", "content", "user", "x"]), inner, max_size=4),
    ),
    max_leaves=8,
)
KEYS = (
    *("id", "timestamp", "type", "metadata", "content", "response", "prompt", "question"),
    *("answer", "observation", "messages"),
)
messages = st.lists(
    st.one_of(
        values,
        st.fixed_dictionaries(
            {
                "role": st.sampled_from(["user", "assistant", "system", "tool", "x", None]),
                "content": st.one_of(texts, values),
            }
        ),
    ),
    max_size=6,
)


@st.composite
def mutated(draw):
    """The bytes of a valid memory with keys changed and bytes cut, put in or turned over."""
    record = dict(draw(st.sampled_from(VALID)))
    for key in draw(st.lists(st.sampled_from(KEYS), max_size=3)):
        record[key] = draw(messages if key == "messages" else st.one_of(texts, values))
    if draw(st.booleans()):
        record.pop(draw(st.sampled_from(KEYS)), None)
    content = bytearray(
        json.dumps(record, ensure_ascii=draw(st.booleans())).encode(errors="replace")
    )
    for _ in range(draw(st.integers(0, 2))):
        place = draw(st.integers(0, len(content)))
        change = draw(st.sampled_from(["cut", "flip", "insert"]))
        if change == "cut":
            del content[place : place + draw(st.integers(1, 20))]
        elif change == "flip" and place < len(content):
            content[place] ^= draw(st.integers(1, 255))
        else:
            content[place:place] = draw(st.binary(min_size=1, max_size=6))
    return bytes(content)


def expected(content: bytes) -> Counter:
    """How many rows a file must give, counted without the recipe's own code."""
    try:
        record = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return Counter(least=1)
    said = record.get("messages") if isinstance(record, dict) else None
    if not isinstance(said, list) or not isinstance(record.get("type"), str):
        return Counter(least=1)
    answers = [m for m in said if isinstance(m, dict) and m.get("role") == "assistant"]
    return Counter(least=1, answers=len(answers))


def check_run(contents, **chosen):
    """Read a folder of these files, and hold the recipe to what it promises."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        for number, content in enumerate(contents):
            (folder / f"{number:03}.json").write_bytes(content)
        found = list(memories.examples(folder, options(**chosen)))
        if any(getattr(one, "code", "") == "contaminated" for one in found):
            with pytest.raises(TunesmithError, match="tags of another mode"):
                list(memories.examples(folder, options(**chosen | {"contaminated": "error"})))
    sources = [one.source for one in found]
    assert len(set(sources)) == len(sources)
    rows = Counter(source.partition("#")[0] for source in sources)
    whole = {one.source for one in found if "#" not in one.source}
    for number, content in enumerate(contents):
        due, file = expected(content), f"{number:03}.json"
        assert rows[file] >= due["least"]
        assert file in whole or rows[file] >= due["answers"]
    for one in found:
        dumps(one.row())
        if isinstance(one, Example):
            assert memories.check(one) is None
            scores = memories.judge(one, one.messages[-1]["content"])
            assert set(scores.values()) == {1.0}, one
    memories.report((one for one in found if isinstance(one, Example)), options())


@fuzz
@given(st.lists(mutated(), min_size=1, max_size=4))
def test_damaged_memories_are_examples_or_rejects(contents):
    check_run(contents, long_share=0.5, max_words=3)


@fuzz
@given(
    st.lists(mutated(), min_size=1, max_size=4),
    st.sampled_from(["all", "dual"]),
    st.integers(0, 3),
    st.sampled_from(["first", "random"]),
    st.integers(0, 2),
)
def test_filters_lose_nothing(contents, mode, most, choice, days):
    check_run(contents, mode=mode, max=most, max_choice=choice, days_recent=days, old_samples=1)


@fuzz
@given(st.binary(max_size=200))
def test_any_bytes_are_read_without_a_traceback(content):
    check_run([content])


@fuzz
@given(texts)
def test_cleaning_takes_from_the_start_only_and_comes_to_rest(text):
    cleaned = cleaning.clean(text)
    assert " ".join(text.split()).endswith(cleaned)
    assert cleaning.clean(cleaned) == cleaned


@fuzz
@given(texts, texts)
def test_the_judge_scores_anything_between_0_and_1(answer, reference):
    user, assistant = memories.modes.tagged("dual", "x", reference)
    messages = [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]
    row = Example(messages, "m#1", "m", {"mode": "dual", "max_words": 40})
    for said in (answer, f"<world>: {answer}"):
        scores = memories.judge(row, said)
        assert scores.keys() <= set(memories.METRICS)
        assert all(0 <= score <= 1 for score in scores.values())
