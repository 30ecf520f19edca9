"""Anything at all in files of chats: every row an example or a reject, and never a traceback."""

import copy
import gzip
import json
import tempfile
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.core import dialogue, example
from stages.core.errors import TunesmithError
from stages.core.example import Example, Reject
from stages.recipes import chats
from stages.recipes.chats import lines

pytestmark = pytest.mark.slow
fuzz = settings(max_examples=700, derandomize=True, deadline=None)

ASK, SAY = {"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Hello."}
NO = {"role": "assistant", "content": "No."}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
HUMAN, GPT = {"from": "human", "value": "Hi?"}, {"from": "gpt", "value": "Hello."}
ROWS = [
    {"messages": [ASK, SAY], "meta": {"topic": "a"}},
    {"messages": [ASK, {"role": "assistant", "content": None, "tool_calls": [CALL]},
                  {"role": "tool", "tool_call_id": "c", "content": "3"}, SAY], "tools": TOOLS},
    {"conversations": [HUMAN, GPT], "system": "Be brief.", "tools": "[]"},
    {"conversations": [HUMAN, {"from": "function_call", "value": '{"name": "f"}'},
                       {"from": "observation", "value": "3"}, GPT], "tools": '[{"name": "f"}]'},
    {"prompt": "Hi?", "completion": "Hello.", "label": True},
    {"prompt": [ASK], "completion": [SAY]},
    {"instruction": "Add.", "input": "1 2", "output": "3", "history": [["Hi?", "Hello."]]},
    {"input": "Hi?", "output": "Hello."},
    {"question": "Hi?", "answer": "Hello."},
    {"prompt": "Hi?", "chosen": "Hello.", "rejected": "No."},
    {"chosen": "\n\nHuman: Hi?\n\nAssistant: A", "rejected": "\n\nHuman: Hi?\n\nAssistant: B"},
    {"chosen": [ASK, SAY], "rejected": [ASK, NO], "prompt": "Hi?"},
    {"conversations": [HUMAN], "chosen": GPT, "rejected": GPT | {"value": "No."}},
]  # fmt: skip
PLAIN = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False)),
    *(
        st.text(max_size=9),
        st.sampled_from(["", " ", "\0", "Human:", "[", "{}", '"', "<|im_end|>"]),
    ),
    st.sampled_from([key for row in ROWS for key in row]),
)
JUNK = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner)
)


@st.composite
def spoilt_rows(draw):
    """A good row, some of whose parts are replaced, left out, doubled or renamed."""
    row = copy.deepcopy(draw(st.sampled_from(ROWS)))
    for _ in range(draw(st.integers(0, 3))):
        row = _spoil(draw, row)
    return row


def _spoil(draw, value):
    if not value or not isinstance(value, dict | list) or draw(st.integers(0, 4)) == 0:
        return draw(JUNK)
    if isinstance(value, list):
        value = list(value)
        at = draw(st.integers(0, len(value) - 1))
        value[at : at + 1] = draw(
            st.sampled_from([[], [value[at]] * 2, [_spoil(draw, value[at])], [value[at]]])
        )
        return value
    value = dict(value)
    key = draw(st.sampled_from(sorted(value)))
    way = draw(st.integers(0, 3))
    if way == 0:
        del value[key]
    elif way == 1:
        value[draw(st.sampled_from(["messages", "prompt", "tools", "x"]))] = value.pop(key)
    else:
        value[key] = _spoil(draw, value[key])
    return value


@st.composite
def spoilt_bytes(draw, content):
    """Some bytes of a file replaced, cut out or put in."""
    content = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(content)))
        size = draw(st.sampled_from([0, 1, 2, 9, 99]))
        signs = [b"", b'"', b"\\", b"[", b"]", b"{", b"}", b",", b"\n", b"\0", b"\xff", b"\xff\xfe"]
        content[at : at + size] = draw(st.sampled_from(signs) | st.binary(max_size=4))
    return bytes(content)


def outcomes(name: str, content: bytes) -> list[Example | Reject]:
    """What becomes of a file; each row is what the next stages can write and check."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / name).write_bytes(content)
        options = chats.Options(pattern="*", system="Be brief.", group_by="")
        try:
            found = list(chats.examples(Path(folder), options))
        except TunesmithError:  # all options are good: there was no row
            return []
    sources = [item.source for item in found]
    assert len(set(sources)) == len(sources)
    for item in found:
        example.dumps(example.nfc(item.row()))
        if isinstance(item, Example):
            dialogue.problem(item)
            assert item.messages[-1]["role"] == "assistant"
            assert all(0 <= score <= 1 for score in chats.judge(item, "Hello.").values())
    return found


@fuzz
@given(rows=st.lists(spoilt_rows(), min_size=1, max_size=5))
def test_rows_of_any_content_are_all_accounted_for(rows):
    texts = [json.dumps(row).encode() for row in rows]
    found = outcomes("a.jsonl", b"\n".join(texts))
    assert [item.source for item in found] == [f"a.jsonl#{n + 1}" for n in range(len(rows))]
    again = outcomes("a.json", b"[" + b",".join(texts) + b"]")
    assert list(map(essence, again)) == list(map(essence, found))


def essence(item: Example | Reject) -> object:
    """All of an item but its place."""
    if isinstance(item, Reject):
        return item.code
    return item.messages, item.rejected, item.tools, item.meta


LINES = b"\n".join(json.dumps(row).encode() for row in ROWS)


@fuzz
@given(content=st.one_of(spoilt_bytes(LINES), st.binary(max_size=99)))
def test_lines_of_any_bytes_are_all_accounted_for(content):
    found = outcomes("a.jsonl", content)
    if content.startswith(lines.UTF_16):
        assert [item.code for item in found] == ["encoding"]
    else:
        plain = content.removeprefix(lines.BOM).split(b"\n")
        assert len(found) == sum(1 for line in plain if line.strip())


@fuzz
@given(content=spoilt_bytes(b"[" + LINES.replace(b"\n", b",") + b"]"))
def test_arrays_of_any_bytes_lead_to_examples_and_rejects(content):
    found = outcomes("a.json", content)
    assert found or not content.strip(b" \t\r\n[]")


PACKED = gzip.compress(LINES, mtime=0)


@settings(fuzz, max_examples=300)
@given(content=spoilt_bytes(PACKED))
def test_packed_files_of_any_bytes_lead_to_examples_and_rejects(content):
    outcomes("a.jsonl.gz", content)


def _parquet() -> bytes:
    sink = pyarrow.BufferOutputStream()
    rows = [{"messages": [ASK, SAY], "prompt": "Hi?", "completion": f"{n}."} for n in range(50)]
    table = pyarrow.Table.from_pylist(rows)
    pyarrow.parquet.write_table(table, sink, row_group_size=10)
    return sink.getvalue().to_pybytes()


PARQUET = _parquet()


@settings(fuzz, max_examples=300)
@given(content=spoilt_bytes(PARQUET))
def test_parquet_files_of_any_bytes_lead_to_examples_and_rejects(content):
    assert outcomes("a.parquet", content)
