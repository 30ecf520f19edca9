"""The table recipe: rows of CSV, Parquet and SQLite become examples by templates, or rejects."""

import datetime
import decimal
import random
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import yaml
from pydantic import ValidationError

from stages.core.errors import TunesmithError
from stages.core.example import Example, Reject
from stages.makers import hub as makers_hub
from stages.recipes import chats, table
from stages.recipes.table import delimited
from stages.recipes.table.templates import Template

PLAIN = {
    "pattern": "*", "query": "", "delimiter": ",", "encoding": "utf-8", "system": "",
    "user": "{q}", "assistant": "{a}", "group_by": "", "meta": [],
}  # fmt: skip


def options(**changes):
    return table.Options.model_validate(PLAIN | changes)


def read(folder, **changes):
    return list(table.examples(folder, options(**changes)))


def only(folder, content, **changes):
    """What becomes of the rows of a CSV file, as (source, answer or reject code)."""
    (folder / "a.csv").write_bytes(content)
    return [outcome(item) for item in read(folder, **changes)]


def outcome(item):
    said = item.code if isinstance(item, Reject) else item.messages[-1]["content"]
    return int(item.source.partition("#")[2]), said


def database(path, rows, columns="q, a"):
    with closing(sqlite3.connect(path)) as base:
        base.execute(f"CREATE TABLE t ({columns})")
        base.executemany(f"INSERT INTO t VALUES ({', '.join('?' * len(rows[0]))})", rows)
        base.commit()


def test_templates_make_the_messages_and_columns_the_facts(tmp_path):
    (tmp_path / "capitals.csv").write_text("country,capital,area\nItaly,Rome,301\n")
    changes = {"user": "Capital of {country}?", "assistant": "{capital}."}
    more = {"system": "{{JSON}} on {country}", "group_by": "country", "meta": ["area"]}
    assert read(tmp_path, **changes, **more) == [
        Example(
            [
                {"role": "system", "content": "{JSON} on Italy"},
                {"role": "user", "content": "Capital of Italy?"},
                {"role": "assistant", "content": "Rome."},
            ],
            "capitals.csv#2",
            "country:Italy",
            {"area": "301", "format": "text"},
        )
    ]


@pytest.mark.parametrize(
    ("content", "changes", "outcomes"),
    [
        (b"q,a\r\nx,y\r\n", {}, [(2, "y")]),
        (b"\xef\xbb\xbfq,a\nx,y\n", {}, [(2, "y")]),
        (b'"q","a"\n"x, y","say ""hi"""\n', {}, [(2, 'say "hi"')]),
        (b'q,a\nx,"one\n\ntwo"\n\nz,three\n', {}, [(2, "one\n\ntwo"), (6, "three")]),
        (b"q\ta\nx, y\tz\n", {"delimiter": "\t"}, [(2, "z")]),
        (b"q;a\nx;1,5\n", {"delimiter": ";"}, [(2, "1,5")]),
        (b"q,a\nx,caf\xe9\n", {"encoding": "cp1252"}, [(2, "café")]),
        ("q,a\nx,é\n".encode("utf-16"), {"encoding": "utf-16"}, [(2, "é")]),
        (b"a,q\nx,y\n", {}, [(2, "x")]),
        (b'q,a\n5" pipe,y\n', {}, [(2, "y")]),
        (b"q,a\nx,y", {}, [(2, "y")]),
        (b"q,a\rx,y\r", {}, [(2, "y")]),
    ],
)
def test_tables_of_text_are_read_as_they_are_written(tmp_path, content, changes, outcomes):
    assert only(tmp_path, content, **changes) == outcomes


@pytest.mark.parametrize(
    ("content", "outcomes"),
    [
        (b"q,a\nx\nx,y,z\nx,y\n", [(2, "columns"), (3, "columns"), (4, "y")]),
        (b'q,a\n"x"y,z\nx,y\n', [(2, "broken_quotes"), (3, "y")]),
        (b'q,a\nx,"y\nx,1\nx,2\n', [(2, "broken_quotes"), (3, "1"), (4, "2")]),
        (b'q,a\nx,"y\nx,1\nx,"2"\n', [(2, "broken_quotes"), (3, "1"), (4, "2")]),
        (b"q,a\nx\0,y\nx,y\0\nx,y\n", [(2, "nul"), (3, "nul"), (4, "y")]),
        (b"q,a\nx,\xff\nx,y\n", [(2, "encoding"), (3, "y")]),
        (b"q,a\n,y\nx, \t\nx,y\n", [(2, "missing_value"), (3, "missing_value"), (4, "y")]),
    ],
)
def test_a_bad_line_is_one_reject_and_the_next_is_read(tmp_path, content, outcomes):
    assert only(tmp_path, content) == outcomes


def test_bytes_that_are_not_in_the_encoding_spoil_their_line_alone(tmp_path):
    broken = b"x\0,\0\x00\xd8\x41\x00\n\0"  # half a pair of surrogates
    content = "q,a\nx,1\n".encode("utf-16") + broken + "x,2\n".encode("utf-16-le") + b"x"
    found = only(tmp_path, content, encoding="utf-16")
    assert found == [(2, "1"), (3, "encoding"), (4, "2"), (5, "columns")]
    content = b"q,a\nx,\x82\xff\nx,\x82\xa0\n"
    assert only(tmp_path, content, encoding="shift_jis") == [(2, "encoding"), (3, "あ")]


@pytest.mark.parametrize("quote", ["", '"'])
def test_a_field_of_three_million_characters_is_a_reject_and_the_next_line_is_read(tmp_path, quote):
    field = quote + "a" * 3_000_000 + quote
    found = only(tmp_path, f"q,a\nx,{field}\nx,y\n".encode())
    assert found == [(2, "too_long"), (3, "y")]


def test_lines_lost_behind_open_quotes_are_read_again_until_that_grows_too_costly(
    tmp_path, monkeypatch
):
    content = b"q,a\n" + b'x","""\n' * 9  # opens a quote wherever one begins to read
    assert only(tmp_path, content) == [(n, "broken_quotes") for n in range(2, 11)]
    monkeypatch.setattr(delimited, "MOST_AGAIN", 63)
    (first, last) = read(tmp_path)
    assert (first.source, last.source) == ("a.csv#2", "a.csv#3")
    assert "read up to line 10." in first.reason
    assert "the lines up to 10 are lost with it" in last.reason


@pytest.mark.parametrize(
    ("content", "changes", "message"),
    [
        (b"q,antwort\nx,y\n", {"assistant": "{antwrt}"}, "no column 'antwrt'.*mean 'antwort'"),
        (b"q,a\nx,y\n", {"group_by": "topic"}, "no column 'topic'.*Columns: q, a"),
        (b"q,a\nx,y\n", {"meta": ["topic"]}, "no column 'topic'"),
        (b"q,a\nx,y\n", {"user": "{q.__class__}"}, r"no column 'q\.__class__'"),
        (b"q,a\nx,y\n", {"user": "{q[0]}"}, r"no column 'q\[0\]'"),
        (b"q,a\nx,y\n", {"user": "{q!r:>9}"}, "no column 'q!r:>9'"),
        (b"q,a,q\nx,y,z\n", {}, "Two columns are called 'q'"),
        (b"q,a,\nx,y,z\n", {}, "Column 3 has no name"),
        (b'"q,a\nx,y\n', {}, "header cannot be read: .*quotes"),
        (b"", {}, "hold no row"),
        (b"q,a\n\n", {}, "hold no row"),
        ("q,a\nx,y\n".encode("utf-16-le"), {"encoding": "utf-16"}, "not in its encoding: .*BOM"),
    ],
)
def test_a_table_that_cannot_be_used_at_all_is_an_error_that_says_why(
    tmp_path, content, changes, message
):
    with pytest.raises(TunesmithError, match=f"(?s){message}"):
        only(tmp_path, content, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"user": "{q"}, "'{' at character 1 stands alone"),
        ({"assistant": "{a} }"}, "'}' at character 5 stands alone"),
        ({"assistant": "{}"}, "'{' at character 1"),
        ({"assistant": "the same"}, "all answers would be the same"),
        ({"user": ""}, "at least 1 character"),
        ({"delimiter": "||"}, "at most 1 character"),
        ({"delimiter": '"'}, "a delimiter is one sign"),
        ({"encoding": "utf-9"}, "no encoding of text"),
        ({"encoding": "rot13"}, "no encoding of text"),
        ({"encoding": "base64"}, "no encoding of text"),
        ({"encoding": "idna"}, "no encoding of text"),
        ({"meta": ["format"]}, "cannot take a column `format`"),
    ],
)
def test_options_that_cannot_work_are_refused(changes, message):
    with pytest.raises(ValidationError, match=re.escape(message)):
        options(**changes)


def test_doubled_braces_are_braces():
    template = Template('{{"a": "{x y}"}}{{}}')
    assert template.columns == ["x y"]
    assert template.fill({"x y": "{q}"}) == '{"a": "{q}"}{}'


@pytest.mark.parametrize(
    ("name", "pattern", "message"),
    [
        ("absent", "*.csv", "no such folder"),
        (".", "*.csv", "fits the pattern"),
        (".", "../*.csv", "stay inside"),
        (".", "/etc/*.csv", "stay inside"),
        (".", "a**", r"The pattern 'a\*\*' is none"),
    ],
)
def test_a_source_without_a_table_is_an_error(tmp_path, name, pattern, message):
    with pytest.raises(TunesmithError, match=message):
        read(tmp_path / name, pattern=pattern)


def test_files_are_read_in_the_order_of_their_names_each_by_its_own_header(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "b.csv").write_text("a,q\n1,x\n")
    (tmp_path / "a.csv").write_text("q,a,z\nx,2,\n")
    (tmp_path / "x" / "c.csv").write_text("q,a\nx,3\n")
    found = read(tmp_path, pattern="**/*.csv")
    assert [(item.source, item.messages[1]["content"]) for item in found] == [
        ("a.csv#2", "2"),
        ("b.csv#2", "1"),
        ("x/c.csv#2", "3"),
    ]


def parquet(path, columns, **more):
    pyarrow.parquet.write_table(pyarrow.table(columns), path, **more)


def test_parquet_values_become_texts_and_facts_keep_their_type(tmp_path):
    noon = datetime.datetime(2024, 5, 1, 12, tzinfo=datetime.UTC)
    columns = {
        "q": pyarrow.array(["x", "y", None]).dictionary_encode(),
        "a": pyarrow.array([decimal.Decimal("1.50"), None, decimal.Decimal("2")]),
        "when": [noon] * 3,
        "day": [datetime.date(2024, 5, 1)] * 3,
        "n": [1, 2, 3],
        "ok": [True, False, None],
        "share": [0.5, float("nan"), None],
    }
    parquet(tmp_path / "t.parquet", columns)
    template = "{a} {when} {day} {n} {ok} {share}"
    found = read(tmp_path, assistant=template, meta=["n", "ok", "share", "day"])
    said = found[0].messages[1]["content"]
    assert said == "1.50 2024-05-01 12:00:00.000000Z 2024-05-01 1 true 0.5"
    facts = {"n": 1, "ok": True, "share": 0.5, "day": "2024-05-01", "format": "parquet"}
    assert found[0].meta == facts
    assert [outcome(item) for item in found[1:]] == [(2, "missing_value"), (3, "missing_value")]


def test_a_column_of_lists_or_bytes_is_refused_with_its_type(tmp_path):
    parquet(tmp_path / "t.parquet", {"q": ["x"], "a": [["y"]], "b": [b"y"]})
    with pytest.raises(TunesmithError, match=r"(?s)'a' is of type list<.*recipe chats"):
        read(tmp_path)
    with pytest.raises(TunesmithError, match="'b' is of type binary"):
        read(tmp_path, assistant="{b}")


def test_parquet_text_that_is_not_utf_8_is_a_reject_of_its_row(tmp_path):
    answers = pyarrow.array([b"a", b"\xff", None, b"c"]).view(pyarrow.string())
    parquet(tmp_path / "t.parquet", {"q": ["x"] * 4, "a": answers})
    assert [outcome(item) for item in read(tmp_path)] == [
        (1, "a"), (2, "encoding"), (3, "missing_value"), (4, "c"),
    ]  # fmt: skip


def test_a_damaged_group_of_parquet_rows_is_one_reject_and_the_next_is_read(tmp_path):
    columns = {"q": ["x"] * 40, "a": [f"answer {n}" for n in range(40)]}
    more = {"row_group_size": 10, "compression": "none", "use_dictionary": False}
    parquet(tmp_path / "t.parquet", columns, **more)
    content = bytearray((tmp_path / "t.parquet").read_bytes())
    at = content.index(b"answer 10") - 30
    content[at : at + 20] = bytes(20)
    (tmp_path / "t.parquet").write_bytes(content)
    (tmp_path / "u.parquet").write_bytes(b"no parquet")
    found = read(tmp_path)
    rejects = {item.source: item.code for item in found if isinstance(item, Reject)}
    assert rejects == {"t.parquet#11": "broken_parquet", "u.parquet#1": "broken_parquet"}
    kept = [n for n, said in map(outcome, found) if said.startswith("answer")]
    assert kept == [*range(1, 11), *range(21, 41)]


def test_a_query_answers_with_rows_of_any_type(tmp_path):
    rows = [("x", "y"), ("x", 2), ("x", 2.5), ("x", None), (None, "y"), ("x", b"y"), ("x", "\0")]
    database(tmp_path / "t.db", rows)
    found = read(tmp_path, query="SELECT q, a FROM t ORDER BY rowid", meta=["a"])
    assert [outcome(item) for item in found] == [
        (1, "y"), (2, "2"), (3, "2.5"), (4, "missing_value"), (5, "missing_value"),
        (6, "wrong_type"), (7, "nul"),
    ]  # fmt: skip
    assert found[1].meta == {"a": 2, "format": "sqlite"}


def test_a_query_may_join_and_name_its_columns(tmp_path):
    database(tmp_path / "t.db", [("x", 1), ("y", 2)])
    query = "WITH one AS (SELECT * FROM t WHERE a > 1) SELECT upper(q) AS big, a FROM one"
    assert [outcome(item) for item in read(tmp_path, query=query, user="{big}")] == [(1, "2")]


def test_text_of_a_database_that_is_not_utf_8_is_a_reject_of_its_row(tmp_path):
    database(tmp_path / "t.db", [("x", "y"), ("x", "z")])
    query = "SELECT q, CASE a WHEN 'y' THEN CAST(x'ff41' AS TEXT) ELSE a END AS a FROM t"
    assert [outcome(item) for item in read(tmp_path, query=query)] == [(1, "encoding"), (2, "z")]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("DELETE FROM t", "not authorized"),
        ("SELECT q, a FROM t; DROP TABLE t", "one statement"),
        ("PRAGMA table_info(t)", "not authorized"),
        ("ATTACH 'other.db' AS other", "not authorized"),
        ("SELECT random() AS q, 1 AS a", "random"),
        ("SELECT current_date AS q, 1 AS a", "current_date"),
        ("SELECT q, a FROM absent", "no such table"),
        ("SELEC q", "syntax error"),
        (" ", "no SELECT"),
        ("SELECT q, a, a FROM t", "Two columns are called 'a'"),
        ("SELECT q FROM t", "no column 'a'"),
    ],
)
def test_a_query_that_is_not_one_steady_select_is_refused(tmp_path, query, message):
    database(tmp_path / "t.db", [("x", "y")])
    before = (tmp_path / "t.db").read_bytes()
    with pytest.raises(TunesmithError, match=message):
        read(tmp_path, query=query)
    assert [path.name for path in tmp_path.iterdir()] == ["t.db"]
    assert (tmp_path / "t.db").read_bytes() == before


def test_a_database_is_read_without_writing_beside_it_and_not_with_writes_pending(tmp_path):
    with closing(sqlite3.connect(tmp_path / "t.db")) as writer:
        writer.execute("PRAGMA journal_mode = wal")
        writer.execute("CREATE TABLE t (q, a)")
        writer.commit()
        with pytest.raises(TunesmithError, match=r"t\.db-wal holds writes"):
            read(tmp_path, pattern="*.db", query="SELECT q, a FROM t")
        writer.execute("INSERT INTO t VALUES ('x', 'y')")
        writer.commit()
    assert len(read(tmp_path, query="SELECT q, a FROM t")) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["t.db"]


def test_what_is_no_database_is_an_error_and_one_damaged_half_way_ends_with_a_reject(tmp_path):
    (tmp_path / "t.db").write_bytes(b"no database, but long enough for a header " * 9)
    with pytest.raises(TunesmithError, match="not a database"):
        read(tmp_path, query="SELECT q, a FROM t")
    (tmp_path / "t.db").unlink()
    database(tmp_path / "t.db", [(f"q{n}", "y" * 500) for n in range(200)])
    content = (tmp_path / "t.db").read_bytes()
    (tmp_path / "t.db").write_bytes(content[:40960] + b"\xff" * (len(content) - 40960))
    found = read(tmp_path, query="SELECT q, a FROM t")
    assert [outcome(item) for item in found][-1] == (len(found), "broken_database")


@pytest.mark.parametrize("answer", ["Rome.", " rome", "", "Rome or Paris", "\ud83d\ude00", "..."])
def test_answers_are_judged_as_those_of_chats(answer):
    messages = [{"role": "user", "content": "Capital?"}, {"role": "assistant", "content": "Rome."}]
    example = Example(messages, "a#1", "a#1")
    assert table.judge(example, answer) == chats.judge(example, answer)
    assert table.METRICS == chats.METRICS


def test_ten_thousand_rows_of_three_kinds_say_the_same(tmp_path):
    draw = random.Random(1)
    rows = [(str(n), "".join(draw.choices('ab ,"\n', k=9)) + "z") for n in range(10_000)]
    quoted = [",".join(f'"{v}"' for v in (q, a.replace('"', '""'))) for q, a in rows]
    for folder in ("csv", "parquet", "sqlite"):
        (tmp_path / folder).mkdir()
    (tmp_path / "csv" / "t.csv").write_text("q,a\n" + "\n".join(quoted), newline="")
    parquet(
        tmp_path / "parquet" / "t.parquet",
        {"q": [q for q, _ in rows], "a": [a for _, a in rows]},
        row_group_size=999,
    )
    database(tmp_path / "sqlite" / "t.db", rows)
    query = "SELECT q, a FROM t ORDER BY rowid"
    found = [
        [item.messages for item in read(tmp_path / folder, query=query * (folder == "sqlite"))]
        for folder in ("csv", "parquet", "sqlite")
    ]
    assert found[0] == found[1] == found[2]
    assert len(found[0]) == 10_000


PAGE = (Path(__file__).parents[1] / "docs" / "recipes.md").read_text(encoding="utf-8")


def test_the_settings_shown_in_the_docs_work(tmp_path):
    shown = [yaml.safe_load(text) for text in re.findall(r"(?ms)^```yaml\n(.*?)^```", PAGE)]
    own = next(entry["capitals"] for entry in shown if "table" in str(entry.get("capitals")))
    (tmp_path / "a.csv").write_text("country,capital,area\nItaly,Rome,301\n")
    (found,) = table.examples(tmp_path, table.Options.model_validate(own["options"]))
    assert found.messages[1]["content"] == "What is the capital of Italy?"
    hub = next(entry["samples"]["questions"] for entry in shown if "samples" in entry)
    assert makers_hub.Options.model_validate(hub["options"]).files == ["data/train-*.parquet"]


def test_every_reason_code_of_a_reject_stands_in_the_docs():
    package = Path(table.__file__).parent
    code = "".join(path.read_text(encoding="utf-8") for path in sorted(package.glob("*.py")))
    codes = set(re.findall(r'BadRowError\(\s*"([a-z_0-9]+)"', code))
    assert len(codes) >= 9
    section = PAGE.partition("## Tables and databases")[2].partition("\n## ")[0]
    assert [name for name in sorted(codes) if f"`{name}`" not in section] == []
