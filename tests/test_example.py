"""JSON lines: what is read is an object a line, what is written is NFC and real Unicode."""

from pathlib import Path

import pytest

from stages.core import example
from stages.core.errors import TunesmithError
from stages.core.example import Example, Reject

ROW = Example(
    [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}],
    "a.jsonl#1", "g1", {"kind": "greeting"},
)  # fmt: skip


def test_an_example_comes_back_as_it_was_written(tmp_path: Path) -> None:
    tool = {"type": "function", "function": {"name": "look", "parameters": {}}}
    rows = [ROW, Example(ROW.messages, "a.jsonl#2", "g2", {}, [tool])]
    assert example.write_lines(tmp_path / "x", (row.row() for row in rows)) == 2
    assert list(example.read_examples(tmp_path / "x")) == rows


def test_a_rejected_answer_comes_back_as_it_was_written_in_nfc(tmp_path: Path) -> None:
    rejected = {"role": "assistant", "content": "e\u0301"}
    pair = Example(ROW.messages, "a.jsonl#1", "g1", {}, rejected=rejected)
    example.write_lines(tmp_path / "x", [example.nfc(pair.row())])
    (read,) = example.read_examples(tmp_path / "x")
    assert read.rejected == {"role": "assistant", "content": "\u00e9"}
    assert read.messages == ROW.messages


def test_a_row_without_tools_has_no_such_key() -> None:
    assert list(ROW.row()) == ["messages", "source", "group", "meta"]


def test_a_reject_is_written_with_source_code_and_reason() -> None:
    line = example.dumps(Reject("a#3", "no_answer", "It ends with a question.").row())
    assert line == b'{"source":"a#3","code":"no_answer","reason":"It ends with a question."}\n'


def test_blank_lines_count_as_lines_and_yield_nothing(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b'\n{"a":1}\r\n \n\n{"b":2}')
    assert list(example.read_lines(tmp_path / "x")) == [(2, {"a": 1}), (5, {"b": 2})]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"a": 1', r"broken JSON \(unexpected end of data"),
        (b'{"a": 1} {"b": 2}', r"broken JSON \(unexpected content after document"),
        (b"{'a': 1}", r"broken JSON"),
        (b'{"a": NaN}', r"broken JSON"),
        (b'{"a": "\xff"}', r"broken JSON \(str is not valid UTF-8"),
        (rb'{"a": "\ud800"}', r"broken JSON"),
        (b"[1, 2]", "a JSON list, not an object"),
        (b'"text"', "a JSON str, not an object"),
        (b"null", "a JSON NoneType, not an object"),
    ],
)
def test_a_line_that_is_no_object_is_named_by_file_and_line(
    tmp_path: Path, line: bytes, said: str
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n\n' + line + b"\n")
    with pytest.raises(TunesmithError, match=f"This line is {said}") as mistake:
        list(example.read_lines(path))
    assert mistake.value.where == f"{path}:3"


def test_text_becomes_nfc_everywhere_in_a_row() -> None:
    split, whole = "e\u0301", "\u00e9"
    row = {split: [split, {"a": split, "n": 1, "none": None}], "plain": "x"}
    assert example.nfc(row) == {whole: [whole, {"a": whole, "n": 1, "none": None}], "plain": "x"}


def test_compatible_letters_and_signs_are_not_folded_together() -> None:
    assert example.nfc("ﬁ ② \u212b Ⅳ") == "ﬁ ② \u00c5 Ⅳ"  # NFC knows the angstrom; NFKC is not NFC


def test_a_lone_surrogate_is_refused_with_its_source() -> None:
    with pytest.raises(TunesmithError, match=r"written as JSON: .*surrogates") as mistake:
        example.dumps({"source": "a.jsonl#7", "text": "\ud83d"})
    assert mistake.value.where == "a.jsonl#7"


def test_rows_keep_emoji_and_other_scripts_as_raw_utf_8() -> None:
    assert example.dumps({"a": "🙂 日本 עברית"}) == '{"a":"🙂 日本 עברית"}\n'.encode()
