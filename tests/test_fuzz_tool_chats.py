"""Fuzzing tool_chats: hostile lines become examples and rejects that add up, never a traceback."""

import json
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages.core import dialogue, example
from stages.core.errors import TunesmithError
from stages.core.example import Example, Reject
from stages.makers import tool_chats as maker
from stages.recipes import tool_chats

pytestmark = pytest.mark.slow

TEXTS = (
    *("", "x", "user", "tool", "assistant", "system", "call_1", "read", "{}", '{"path": "a.py"}'),
    *('"{}"', "[", "null", "<|im_end|>", "<tool_call>", "\x00", "e\u0301", "\u2028", "🙂", "#"),
)
REFERENCES = ("#", "#/properties/path/type", "#/no", "http://[", "x", "#/properties/path/enum")
JUNK = st.recursive(
    st.one_of(
        st.sampled_from((None, True, False, 0, -1, 1.5, 2**63, 2**70, 1e308, *TEXTS)),
        st.text(max_size=8),
        st.builds(lambda to: {"$ref": to}, st.sampled_from(REFERENCES)),
        st.builds(lambda to: {"$id": to, "$ref": "x"}, st.sampled_from(REFERENCES)),
    ),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(TEXTS) | st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


def fuzz(inputs: int) -> settings:
    health = [HealthCheck.too_slow, HealthCheck.large_base_example, HealthCheck.data_too_large]
    return settings(
        max_examples=inputs,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=health,
    )


@cache
def rows() -> list[dict[str, Any]]:
    """Good lines of every kind, all with their tools."""
    with TemporaryDirectory() as folder:
        counts = {"tools": 8, "agentic": 12, "integration": 12, "probes": 8}
        maker.make(maker.Options(seed=9, requests=2, **counts), Path(folder))
        tools = json.loads((Path(folder) / "tools.json").read_bytes())
        lines = [
            json.loads(line)
            for path in sorted(Path(folder).glob("*.jsonl"))
            for line in path.read_bytes().splitlines()
        ]
    return [line | {"tools": tools} for line in lines]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every part of a JSON value, itself left out."""
    if not isinstance(value, dict | list):
        return []
    found = []
    for key, part in value.items() if isinstance(value, dict) else enumerate(value):
        found += [(*path, key), *places(part, (*path, key))]
    return found


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A good line with up to three parts replaced, removed, doubled or put elsewhere."""
    row = json.loads(json.dumps(draw(st.sampled_from(rows()))))
    for _ in range(draw(st.integers(1, 3))):
        spots = places(row)
        if draw(st.booleans()):  # the tools have most of the parts
            spots = [spot for spot in spots if spot[0] == "messages"] or spots
        if not spots:
            break
        *path, key = draw(st.sampled_from(spots))
        parent = row
        for step in path:
            parent = parent[step]
        way = draw(st.sampled_from(("replace", "remove", "double", "rename")))
        if way == "replace":
            parent[key] = draw(JUNK)
        elif way == "remove":
            del parent[key]
        elif isinstance(parent, list):
            parent.insert(draw(st.integers(0, len(parent))), parent[key])
        else:
            parent[draw(st.sampled_from(TEXTS))] = parent.pop(key)
    return json.dumps(row).encode()


@st.composite
def corrupted(draw: st.DrawFn) -> bytes:
    """A good line with bytes changed, cut out or put in."""
    line = bytearray(json.dumps(draw(st.sampled_from(rows())), ensure_ascii=False).encode())
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(line)))
        line[start : start + draw(st.integers(0, 6))] = draw(st.binary(max_size=4))
    return bytes(line)


def read(lines: list[bytes], probes: bool, final_calls: str) -> int:
    """Read the lines as a file, check what becomes of them; returns how many examples."""
    options = {"pattern": "*.jsonl", "probes": "a.jsonl" if probes else "", "tools": ""}
    reading = tool_chats.Options(**options, system="", final_calls=final_calls)
    content = b"\n".join(lines)
    with TemporaryDirectory() as folder:
        (Path(folder) / "a.jsonl").write_bytes(content)
        try:
            found = list(tool_chats.examples(Path(folder), reading))
        except TunesmithError:  # the file is blank
            found = []
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        assert len(found) == 1
    else:
        text = content.removeprefix(b"\xef\xbb\xbf")
        wanted = [n for n, line in enumerate(text.split(b"\n"), 1) if line.strip()]
        assert [item.source for item in found] == [f"a.jsonl#{n}" for n in wanted]
    for item in found:
        sound(item)
    return sum(isinstance(item, Example) for item in found)


def sound(item: Example | Reject) -> None:
    """An example can be written, checked and judged; a reject says why."""
    example.dumps(example.nfc(item.row()))
    if isinstance(item, Reject):
        assert item.code.replace("_", "").isalpha()
        assert 0 < len(item.reason) < 400
        return
    assert dialogue.problem(item) is None
    scores = tool_chats.judge(item, item.messages[-1].get("content") or "")
    assert set(scores) <= set(tool_chats.METRICS)
    tool_chats.report([item], tool_chats.Options(
        pattern="*", probes="", tools="", system="", final_calls="keep"
    ))  # fmt: skip


@fuzz(1500)
@given(damaged(), st.booleans(), st.sampled_from(("keep", "reject")))
def test_lines_with_damaged_parts_are_examples_or_rejects(line, probes, final_calls):
    read([line], probes, final_calls)


@fuzz(700)
@given(st.lists(corrupted(), min_size=1, max_size=2), st.booleans())
def test_lines_with_damaged_bytes_are_examples_or_rejects(lines, probes):
    read(lines, probes, "reject")


@fuzz(300)
@given(
    st.lists(st.one_of(st.binary(max_size=40), JUNK.map(json.dumps).map(str.encode)), max_size=4)
)
def test_lines_of_anything_are_rejects(lines):
    assert read(lines, False, "reject") == 0


@fuzz(200)
@given(st.one_of(JUNK.map(json.dumps), st.text(max_size=30)))
def test_a_tools_file_of_anything_is_read_or_refused_with_a_sentence(text):
    with TemporaryDirectory() as folder:
        line = {
            "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
        }
        (Path(folder) / "a.jsonl").write_text(json.dumps(line), encoding="utf-8")
        (Path(folder) / "t.json").write_text(text, encoding="utf-8", errors="replace")
        options = {"pattern": "*.jsonl", "probes": "", "tools": "t.json", "system": ""}
        try:
            found = list(
                tool_chats.examples(
                    Path(folder), tool_chats.Options(**options, final_calls="reject")
                )
            )
        except TunesmithError:
            return
        assert len(found) == 1


@cache
def turns() -> list[Example]:
    """The good lines as examples, all with several turns."""
    with TemporaryDirectory() as folder:
        (Path(folder) / "a.jsonl").write_bytes(b"\n".join(json.dumps(r).encode() for r in rows()))
        options = {"pattern": "*.jsonl", "probes": "", "tools": "", "system": ""}
        reading = tool_chats.Options(**options, final_calls="reject")
        found = list(tool_chats.examples(Path(folder), reading))
    return [
        Example(row.messages[: place + 1], row.source, row.group, row.meta, row.tools)
        for row in found
        for place, message in enumerate(row.messages)
        if message["role"] == "assistant"
    ]


@st.composite
def answers(draw: st.DrawFn) -> str:
    """Pieces of calls and other text in any order."""
    name = st.sampled_from(("read", "grep", "edit", "no")) | JUNK
    made = st.fixed_dictionaries({"name": name, "arguments": JUNK}).map(json.dumps)
    pieces = ("<tool_call>", "</tool_call>", "[TOOL_CALLS]", "<|python_tag|>", "[", "]", "\n", " ")
    parts = st.lists(st.one_of(made, st.sampled_from(pieces), st.text(max_size=6)), max_size=6)
    return "".join(draw(parts))


@fuzz(800)
@given(st.integers(0, 10_000), answers())
def test_any_answer_is_judged_between_0_and_1(number, answer):
    row = turns()[number % len(turns())]
    scores = tool_chats.judge(row, answer)
    assert set(scores) <= set(tool_chats.METRICS)
    assert all(0.0 <= value <= 1.0 for value in scores.values())
    assert scores["right"] == 0 or row.messages[-1].get("tool_calls") or "facts" not in scores


def test_the_good_lines_that_are_damaged_are_good():
    assert read([json.dumps(row).encode() for row in rows()], False, "reject") == len(rows())
