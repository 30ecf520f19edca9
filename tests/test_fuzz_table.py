"""Anything at all in a table: every row an example or a reject, and never a traceback."""

import csv
import io
import itertools
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from stages.core import dialogue, example
from stages.core.errors import TunesmithError
from stages.core.example import Example, Reject
from stages.recipes import table

pytestmark = pytest.mark.slow
fuzz = settings(max_examples=700, derandomize=True, deadline=None)

PLAIN = {
    "pattern": "*", "query": "", "delimiter": ",", "encoding": "utf-8", "system": "{n}",
    "user": "{q}?", "assistant": "{a}", "group_by": "q", "meta": ["n"],
}  # fmt: skip
CELLS = st.one_of(
    st.text(max_size=9),
    st.sampled_from(["", " ", "a\0", '"', 'x"', "\r", "\n", ",", "é", "{q}", "1"]),
    st.integers().map(str),
)
QUERY = "SELECT q, a, n FROM t ORDER BY rowid"


@st.composite
def spoilt_bytes(draw, content):
    """Some bytes of a file replaced, cut out or put in."""
    content = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(content)))
        size = draw(st.sampled_from([0, 1, 2, 9, 99]))
        signs = [
            b"",
            b'"',
            b'""',
            b",",
            b"\n",
            b"\r",
            b"\0",
            b"\xff",
            b'x",',
        ]
        content[at : at + size] = draw(st.sampled_from(signs) | st.binary(max_size=4))
    return bytes(content)


def outcomes(content: bytes, name: str = "t.csv", **changes: object) -> list[Example | Reject]:
    """What becomes of a file; each row is what the next stages can write and check."""
    options = table.Options.model_validate(PLAIN | changes)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / name).write_bytes(content)
        try:
            found = list(table.examples(Path(folder), options))
        except TunesmithError:
            return []
        assert [path.name for path in Path(folder).iterdir()] == [name]
    numbers = [int(item.source.rpartition("#")[2]) for item in found]
    assert all(a < b for a, b in itertools.pairwise(numbers))
    for item in found:
        example.dumps(example.nfc(item.row()))
        if isinstance(item, Example):
            dialogue.problem(item)
            assert all(0 <= score <= 1 for score in table.judge(item, "1").values())
    return found


@fuzz
@given(rows=st.lists(st.lists(CELLS, min_size=1, max_size=4), min_size=1, max_size=6))
def test_written_rows_of_any_cells_are_all_accounted_for(rows):
    out = io.StringIO()
    csv.writer(out, quoting=csv.QUOTE_ALL).writerows([["q", "a", "n"], *rows])
    found = outcomes(out.getvalue().encode("utf-8", "surrogatepass"))
    assert len(found) == len(rows)
    for row, item in zip(rows, found, strict=True):
        if isinstance(item, Example):
            said = [message["content"] for message in item.messages]
            assert said == [row[2], f"{row[0]}?", row[1]]


ROWS = [(f"question {n}", f"answer {n}" * (n % 5), n) for n in range(30)]
TEXT = "q,a,n\n" + "\n".join(f'"{q}",{a},"{n}"' for q, a, n in ROWS)


@fuzz
@given(content=st.one_of(spoilt_bytes(TEXT.encode()), st.binary(max_size=60)))
def test_text_of_any_bytes_leads_to_examples_and_rejects(content):
    outcomes(b"q,a,n\n" + content)
    outcomes(content)


@fuzz
@given(content=spoilt_bytes(TEXT.replace('"', "").encode()).filter(lambda c: b'"' not in c))
def test_without_quotes_every_line_is_one_row(content):
    content = content.replace(b"\r", b"")
    found = outcomes(b"q,a,n\n" + content)
    assert len(found) == sum(1 for line in content.split(b"\n") if line)


@settings(fuzz, max_examples=300)
@given(
    content=spoilt_bytes(TEXT.encode("utf-16")),
    encoding=st.sampled_from(["utf-16", "utf-16-le", "shift_jis", "gb18030", "utf-7", "cp1252"]),
)
def test_bytes_in_another_encoding_lead_to_examples_and_rejects(content, encoding):
    outcomes(content, encoding=encoding)


def _parquet() -> bytes:
    sink = pyarrow.BufferOutputStream()
    columns = dict(zip(("q", "a", "n"), map(list, zip(*ROWS, strict=True)), strict=True))
    pyarrow.parquet.write_table(pyarrow.table(columns), sink, row_group_size=10)
    return sink.getvalue().to_pybytes()


PARQUET = _parquet()


@settings(fuzz, max_examples=300)
@given(content=spoilt_bytes(PARQUET))
def test_parquet_of_any_bytes_leads_to_examples_and_rejects(content):
    outcomes(content, "t.parquet")


def _database() -> bytes:
    with closing(sqlite3.connect(":memory:")) as base:
        base.execute("CREATE TABLE t (q, a, n)")
        base.executemany("INSERT INTO t VALUES (?, ?, ?)", ROWS)
        base.commit()
        return base.serialize()


DATABASE = _database()


@settings(fuzz, max_examples=300)
@given(content=spoilt_bytes(DATABASE))
def test_a_database_of_any_bytes_leads_to_examples_rejects_or_a_refusal(content):
    outcomes(content, "t.db", query=QUERY)


@settings(fuzz, max_examples=300)
@given(
    query=st.text(max_size=30)
    | st.sampled_from(["SELECT", "select q,a,n from t", "VALUES (1)", "VACUUM INTO 'x'"]),
    template=st.text("{}qan ", max_size=9),
)
def test_queries_and_templates_of_any_text_are_run_or_refused(query, template):
    changes = {"query": query or " ", "assistant": template or "{a}"}
    try:
        table.Options.model_validate(PLAIN | changes)
    except ValidationError:
        return
    outcomes(DATABASE, "t.db", **changes)
