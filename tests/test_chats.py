"""The chats recipe: anybody's rows become examples, every other line a reject with its reason."""

import gzip
import json
import re
from collections import Counter
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import yaml

from stages.core import checking, splits
from stages.core.errors import TunesmithError
from stages.core.example import Example, Reject
from stages.core.settings import Dataset
from stages.recipes import chats
from stages.recipes.chats import arrays, lines

ROOT = Path(__file__).parents[1]
HELLO = ROOT / "data" / "raw" / "hello"
ASK = {"role": "user", "content": "Hi?"}
SAY = {"role": "assistant", "content": "Hello."}


def read(folder, pattern="*.jsonl", system="", group_by=""):
    return list(
        chats.examples(folder, chats.Options(pattern=pattern, system=system, group_by=group_by))
    )


def only(folder, row, **options):
    """What becomes of a file with this one row."""
    text = row if isinstance(row, bytes) else json.dumps(row).encode()
    (folder / "a.jsonl").write_bytes(text + b"\n")
    (found,) = read(folder, **options)
    return found


def calling(arguments, **function):
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": arguments}}
    call["function"] |= function
    assistant = {"role": "assistant", "content": None, "tool_calls": [call]}
    tool = {"role": "tool", "tool_call_id": "c1", "content": "3"}
    return {"messages": [ASK, assistant, tool, SAY], "tools": [{"name": "f"}]}


@pytest.mark.parametrize(
    ("row", "form"),
    [
        ({"messages": [ASK, SAY]}, "messages"),
        ({"prompt": "Hi?", "completion": "Hello."}, "prompt"),
        ({"instruction": "Hi?", "output": "Hello."}, "instruction"),
        ({"instruction": "Hi?", "input": "", "output": "Hello."}, "instruction"),
        ({"input": "Hi?", "output": "Hello."}, "input"),
    ],
)
def test_rows_of_all_shapes_become_the_same_chat(tmp_path, row, form):
    found = only(tmp_path, row)
    assert found == Example([ASK, SAY], "a.jsonl#1", "a.jsonl#1", {"format": form, "turns": 1})


def test_the_input_of_an_instruction_stands_below_it(tmp_path):
    found = only(tmp_path, {"instruction": "Add.", "input": "1 2", "output": "3"})
    assert found.messages[0]["content"] == "Add.\n\n1 2"


def test_the_system_message_of_the_options_goes_to_rows_without_their_own(tmp_path):
    be = {"role": "system", "content": "Be brief."}
    own = {"role": "system", "content": "Be kind."}
    assert only(tmp_path, {"messages": [ASK, SAY]}, system="Be brief.").messages[0] == be
    assert (
        only(tmp_path, {"input": "Hi?", "output": "Hello."}, system="Be brief.").messages[0] == be
    )
    assert only(tmp_path, {"messages": [own, ASK, SAY]}, system="Be brief.").messages[0] == own
    row = {"system": "Be kind.", "input": "Hi?", "output": "Hello."}
    assert only(tmp_path, row, system="Be brief.").messages == [own, ASK, SAY]
    assert only(tmp_path, {"messages": [ASK, SAY]}).messages[0] == ASK


def test_arguments_given_as_json_text_are_decoded_once(tmp_path):
    for arguments in ({"a": "{}"}, '{"a": "{}"}'):
        found = only(tmp_path, calling(arguments))
        assert found.messages[1]["tool_calls"][0]["function"]["arguments"] == {"a": "{}"}
        assert found.tools == [{"name": "f"}]
        assert "content" not in found.messages[1]
        assert found.meta["turns"] == 2


def test_rows_of_one_group_share_it_from_the_row_or_its_meta(tmp_path):
    top = {"input": "Hi?", "output": "Hello.", "user": 7}
    below = {"input": "Hi?", "output": "Hello.", "meta": {"user": "7", "deep": {"no": 1}}}
    assert only(tmp_path, top, group_by="user").group == "user:7"
    found = only(tmp_path, below, group_by="user")
    assert (found.group, found.meta["user"]) == ("user:7", "7")
    assert "deep" not in found.meta


@pytest.mark.parametrize(
    ("row", "code", "reason"),
    [
        (b'{"input": "Hi?", "outp', "broken_json", "broken JSON"),
        (b'{"input": "\\ud800", "output": "x"}', "broken_json", "surrogate"),
        (b'{"input": "\xff", "output": "x"}', "broken_json", "UTF-8"),
        (b'{"input": "a\x00b", "output": "x"}', "broken_json", "control character"),
        (b"\x00\x00\x00", "broken_json", "JSON"),
        (b"[" * 3000, "broken_json", "depth"),
        (b"[1, 2]", "not_an_object", "list"),
        (b'{"tools": [' + b'{"a": ' * 400 + b"1" + b"}" * 400 + b'], "input": "a", "output": "b"}',
         "too_deep", "written"),
        ({"input": "a\0b", "output": "x"}, "nul", "U\\+0000"),
        ({"text": "Hello."}, "no_known_keys", "text.*prompt \\+ completion"),
        ({"prompt": "Hi?"}, "no_known_keys", "prompt"),
        ({"input": 3, "output": "x"}, "wrong_type", "number"),
        ({"input": "Hi?", "output": None}, "wrong_type", "null"),
        ({"instruction": "Hi?", "input": ["a"], "output": "x"}, "wrong_type", "array"),
        ({"input": "Hi?", "output": " \n"}, "empty_answer", "output"),
        ({"input": "", "output": "x"}, "empty_prompt", "input"),
        ({"messages": "Hi?"}, "wrong_type", "messages"),
        ({"messages": ["Hi?"]}, "wrong_type", "messages"),
        ({"messages": []}, "no_messages", "empty"),
        ({"messages": [ASK]}, "no_answer", "user"),
        ({"messages": [ASK, SAY | {"role": "bot"}]}, "unknown_role", "'bot'"),
        ({"messages": [ASK, {"content": "x"}]}, "unknown_role", "None"),
        ({"messages": [ASK, SAY | {"role": ["user"]}]}, "unknown_role", "user"),
        ({"messages": [ASK, SAY | {"content": [{"text": "x"}]}]}, "wrong_type", "array"),
        ({"messages": [{"role": "user"}, SAY]}, "wrong_type", "null"),
        ({"messages": [ASK, SAY | {"content": ""}]}, "empty_answer", "blank"),
        ({"messages": [ASK, SAY | {"content": None, "tool_calls": []}]}, "empty_answer", "blank"),
        ({"messages": [ASK, SAY | {"weight": 0}]}, "unknown_key", "'weight'"),
        ({"messages": [ASK, SAY | {"tool_calls": {}}]}, "wrong_type", "object"),
        ({"messages": [ASK, SAY | {"tool_calls": [{"name": "f"}]}]}, "wrong_type", "function"),
        ({"messages": [ASK, SAY], "tools": "f"}, "wrong_type", "tools"),
        ({"messages": [ASK, SAY], "meta": [1]}, "wrong_type", "meta"),
        (calling('{"a": '), "arguments", "broken JSON"),
        (calling('"{}"'), "arguments", "string"),
        (calling([1]), "arguments", "array"),
        (calling({}, name=None), "wrong_type", "name"),
    ],
)  # fmt: skip
def test_a_bad_row_becomes_a_reject_with_its_place_and_reason(tmp_path, row, code, reason):
    found = only(tmp_path, row)
    assert isinstance(found, Reject)
    assert (found.source, found.code) == ("a.jsonl#1", code)
    assert re.search(reason, found.reason)


@pytest.mark.parametrize("user", [None, "", True, 1.5, [1]])
def test_a_row_without_a_group_to_belong_to_is_a_reject(tmp_path, user):
    row = {"input": "Hi?", "output": "Hello.", "user": user}
    assert only(tmp_path, row, group_by="user").code == "no_group"


HUMAN = {"from": "human", "value": "Hi?"}
GPT = {"from": "gpt", "value": "Hello."}
NO = {"role": "assistant", "content": "No."}


@pytest.mark.parametrize(
    ("row", "form"),
    [
        ({"conversations": [HUMAN, GPT]}, "sharegpt"),
        ({"conversations": [HUMAN | {"weight": None}, GPT | {"from": "chatgpt"}]}, "sharegpt"),
        ({"conversations": [ASK, SAY]}, "sharegpt"),
        ({"prompt": [ASK], "completion": [SAY]}, "prompt"),
        ({"prompt": "Hi?", "completion": [SAY], "label": True}, "prompt"),
        ({"question": "Hi?", "answer": "Hello."}, "question"),
    ],
)
def test_the_forms_of_public_data_sets_become_the_same_chat(tmp_path, row, form):
    found = only(tmp_path, row)
    assert found == Example([ASK, SAY], "a.jsonl#1", "a.jsonl#1", {"format": form, "turns": 1})


def test_sharegpt_tools_and_calls_become_messages_with_decoded_arguments(tmp_path):
    row = {
        "system": "Be brief.",
        "tools": '[{"name": "clock", "parameters": {"type": "object"}}]',
        "conversations": [
            {"from": "human", "value": "Time?"},
            {"from": "function_call", "value": '{"name": "clock", "arguments": {"zone": "UTC"}}'},
            {"from": "observation", "value": "12:00"},
            {"from": "gpt", "value": "Noon."},
        ],
    }
    found = only(tmp_path, row)
    call = {"function": {"name": "clock", "arguments": {"zone": "UTC"}}}
    assert found.messages == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Time?"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "content": "12:00"},
        {"role": "assistant", "content": "Noon."},
    ]
    assert found.tools == [{"name": "clock", "parameters": {"type": "object"}}]
    assert checking.checked([found], lambda row: None)[0] == [found]


def test_the_history_of_an_instruction_comes_before_it(tmp_path):
    row = {"history": [["Hi?", "Hello."]], "instruction": "Add.", "output": "3", "input": ""}
    found = only(tmp_path, row)
    assert [message["content"] for message in found.messages] == ["Hi?", "Hello.", "Add.", "3"]
    assert found.meta["turns"] == 2


SPOKEN = "\n\nHuman: Hi?\n\nAssistant:"
TWICE = [ASK, SAY, {"role": "user", "content": "And?"}]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Hi?", "chosen": "Hello.", "rejected": "No."},
        {"question": "Hi?", "chosen": " Hello.", "rejected": " No.", "score": 3},
        {"prompt": [ASK], "chosen": [SAY], "rejected": [NO]},
        {"chosen": [ASK, SAY], "rejected": [ASK, NO]},
        {"prompt": "Hi?", "chosen": [ASK, SAY], "rejected": [ASK, NO], "messages": [ASK, SAY]},
        {"prompt": "Hi?", "chosen": [SAY], "rejected": [NO]},
        {"conversations": [HUMAN], "chosen": GPT, "rejected": GPT | {"value": "No."}},
        {"chosen": f"{SPOKEN} Hello.", "rejected": f"{SPOKEN} No."},
        {"prompt": SPOKEN, "chosen": " Hello.", "rejected": " No."},
        {"chosen": "Hi? Hello.", "rejected": "Hi? No."},
        {"chosen": "Hi? Hello.", "rejected": "Hi? No.", "prompt": None},
    ],
)
def test_preferences_of_all_forms_become_the_same_pair(tmp_path, row):
    meta = {"format": "preference", "turns": 1}
    expected = Example([ASK, SAY], "a.jsonl#1", "a.jsonl#1", meta, None, NO)
    assert only(tmp_path, row) == expected


def test_what_a_pair_shares_is_its_prompt_whatever_its_length(tmp_path):
    found = only(tmp_path, {"chosen": [*TWICE, SAY], "rejected": [*TWICE, NO]}, system="Be brief.")
    assert found.messages == [{"role": "system", "content": "Be brief."}, *TWICE, SAY]
    assert found.rejected == NO
    row = {"instruction": "Add.", "input": "1 2", "chosen": "3", "rejected": "4"}
    assert only(tmp_path, row).messages[0]["content"] == "Add.\n\n1 2"


def test_a_shared_beginning_of_text_is_not_cut_inside_a_word(tmp_path):
    found = only(tmp_path, {"chosen": "The sky is blue.", "rejected": "The sky is black."})
    assert [message["content"] for message in found.messages] == ["The sky is", "blue."]
    assert found.rejected["content"] == "black."


@pytest.mark.parametrize(
    ("row", "code", "reason"),
    [
        ({"conversations": [HUMAN, GPT | {"from": "nobody"}]}, "unknown_role", "'nobody'"),
        ({"conversations": [HUMAN, GPT | {"from": None}]}, "unknown_role", "None"),
        ({"conversations": [HUMAN, GPT | {"value": 3}]}, "wrong_type", "number"),
        ({"conversations": [HUMAN, GPT | {"weight": 0}]}, "unknown_key", "'weight'"),
        ({"conversations": [HUMAN]}, "no_answer", "user"),
        ({"conversations": [HUMAN, {"from": "function_call", "value": "{"}]}, "arguments", "JSON"),
        ({"conversations": [HUMAN, {"from": "function_call", "value": "[]"}]},
         "empty_answer", "calls nothing"),
        ({"conversations": [HUMAN, GPT], "tools": "[{"}, "wrong_type", "tools"),
        ({"conversations": [HUMAN, GPT], "tools": "3"}, "wrong_type", "tools"),
        ({"conversations": [HUMAN, GPT], "system": 3}, "wrong_type", "system"),
        ({"instruction": "a", "output": "b", "history": [["a"]]}, "wrong_type", "history"),
        ({"instruction": "a", "output": "b", "history": 3}, "wrong_type", "history"),
        ({"prompt": "Hi?", "completion": "No.", "label": False}, "unwanted_answer", "label"),
        ({"prompt": [ASK], "completion": [ASK]}, "no_answer", "user"),
        ({"prompt": "Hi?", "chosen": "A", "rejected": "A "}, "same_answers", "same"),
        ({"chosen": "Hi? A", "rejected": "Hi? A"}, "same_answers", "same"),
        ({"chosen": [ASK, SAY], "rejected": [ASK, SAY]}, "same_answers", "same"),
        ({"chosen": [ASK, SAY], "rejected": [ASK]}, "not_one_answer", "1 message.* 0"),
        ({"chosen": [ASK, SAY], "rejected": [*TWICE, NO]}, "not_one_answer", "0 message.* 2"),
        ({"prompt": "Hi?", "chosen": [SAY], "rejected": [ASK, NO]}, "not_one_answer", "1 .* 2"),
        ({"prompt": "Why?", "chosen": [ASK, SAY], "rejected": [ASK, NO]}, "prompt_differs", "prom"),
        ({"chosen": "A", "rejected": "B"}, "empty_prompt", "share no prompt"),
        ({"prompt": " ", "chosen": "A", "rejected": "B"}, "empty_prompt", "share no prompt"),
        ({"prompt": "Hi?", "chosen": "A", "rejected": " "}, "empty_answer", "blank"),
        ({"prompt": "Hi?", "chosen": "A", "rejected": [NO]}, "wrong_type", "the other"),
        ({"prompt": "Hi?", "chosen": "A", "rejected": None}, "wrong_type", "messages"),
        ({"prompt": "Hi?", "chosen": "A", "rejected": "b\0"}, "nul", "U\\+0000"),
    ],
)  # fmt: skip
def test_a_bad_row_of_a_public_form_becomes_a_reject(tmp_path, row, code, reason):
    found = only(tmp_path, row)
    assert isinstance(found, Reject)
    assert (found.source, found.code) == ("a.jsonl#1", code)
    assert re.search(reason, found.reason)


ARRAY = b' [{"prompt": "a, ]\\"{", "completion": "b\\\\"},\n  {"input": "[", "output": "}"}]\n'


def outcome(item):
    return item.code if isinstance(item, Reject) else item.messages[-1]["content"]


@pytest.mark.parametrize(
    ("content", "outcomes"),
    [
        (ARRAY, ["b\\", "}"]),
        (b"\xef\xbb\xbf" + ARRAY, ["b\\", "}"]),
        (b'[{"prompt": "a" "b"}, 3, {"input": "a", "output": "b"}]',
         ["broken_json", "not_an_object", "b"]),
        (b'[{"input": "a", "output": "b"}, ]', ["b", "broken_json"]),
        (b'[,{"input": "a", "output": "b"}]', ["broken_json", "b"]),
        (b'[{"input": "a", "output": "b"}, {"input": "a", "outp', ["b", "broken_json"]),
        (b'[{"input": "a", "output": "b"}', ["broken_json"]),
        (b'[{"input": "a", "output": "b"}] {}', ["b", "broken_json"]),
        (b'[{"input": "a", "output": "b"}}, {"input": "a", "output": "c"}]', ["broken_json", "c"]),
        (b'{"input": "a", "output": "b"}\n[]\n{"input": "a", "output": "c"}\n',
         ["b", "not_an_object", "c"]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("chunk", [1, 7, 1 << 16])
def test_a_json_file_is_read_as_an_array_or_as_lines(
    tmp_path, monkeypatch, content, outcomes, chunk
):
    monkeypatch.setattr(arrays, "CHUNK", chunk)
    (tmp_path / "a.json").write_bytes(content)
    found = read(tmp_path, "*.json")
    assert [outcome(item) for item in found] == outcomes
    assert [item.source for item in found] == [f"a.json#{n + 1}" for n in range(len(outcomes))]


def test_an_empty_array_is_a_source_without_a_row(tmp_path):
    (tmp_path / "a.json").write_bytes(b" [ ] ")
    with pytest.raises(TunesmithError, match="hold no row"):
        read(tmp_path, "*.json")


@pytest.mark.parametrize("chunk", [1, 1 << 16])
def test_an_item_too_long_is_passed_over_and_the_next_one_read(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(arrays, "CHUNK", chunk)
    monkeypatch.setattr(lines, "MOST_BYTES", 100)
    good = b'{"input": "a", "output": "b"}'
    long = b'{"input": "' + b'\\"],' * 100 + b'", "output": "x"}'
    (tmp_path / "a.json").write_bytes(b"[" + good + b"," + long + b"," + good + b"]")
    found = read(tmp_path, "*.json")
    assert [outcome(item) for item in found] == ["b", "too_long", "b"]
    assert f"{len(long)} bytes" in found[1].reason


def test_packed_lines_and_arrays_are_unpacked_as_they_are_read(tmp_path):
    row = b'{"input": "a", "output": "b"}'
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(row + b"\n" + row))
    (tmp_path / "b.json.gz").write_bytes(gzip.compress(b"[" + row + b"]"))
    cut = gzip.compress(b"\n".join([row] * 3))[:-9]
    (tmp_path / "c.jsonl.gz").write_bytes(cut)
    (tmp_path / "d.jsonl.gz").write_bytes(b"no gzip")
    found = [(item.source, outcome(item)) for item in read(tmp_path, "*.gz")]
    assert found[:3] == [("a.jsonl.gz#1", "b"), ("a.jsonl.gz#2", "b"), ("b.json.gz#1", "b")]
    assert found[-2][1] == "broken_gzip"
    assert found[-1] == ("d.jsonl.gz#1", "broken_gzip")


def parquet(path, rows, **options):
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, **options)


def test_parquet_rows_are_read_like_lines_and_a_null_counts_as_absent(tmp_path):
    call = {"function": {"name": "f", "arguments": {"a": 1, "b": None}}}
    calling = {"role": "assistant", "content": None, "tool_calls": [call]}
    result = {"role": "tool", "content": "3", "tool_calls": None}
    rows = [
        {"messages": [ASK | {"tool_calls": None}, calling, result, SAY], "user": 1, "prompt": None},
        {"messages": None, "user": 2, "prompt": "Hi?", "completion": "Hello."},
        {"messages": None, "user": None, "prompt": "Hi?", "completion": "Hello."},
    ]
    for row in rows:
        row.setdefault("completion", None)
    parquet(tmp_path / "a.parquet", rows)
    first, second, third = read(tmp_path, "*.parquet", group_by="user")
    assert first.messages[1]["tool_calls"] == [{"function": {"name": "f", "arguments": {"a": 1}}}]
    assert (first.source, first.group) == ("a.parquet#1", "user:1")
    assert second.messages == [ASK, SAY]
    assert (third.source, third.code) == ("a.parquet#3", "no_group")


def test_a_damaged_group_of_parquet_rows_is_one_reject_and_the_next_is_read(tmp_path):
    rows = [{"prompt": f"Is {n} odd?", "completion": f"It is {n % 2}."} for n in range(40)]
    options = {"row_group_size": 10, "compression": "none", "use_dictionary": False}
    parquet(tmp_path / "a.parquet", rows, **options)
    content = bytearray((tmp_path / "a.parquet").read_bytes())
    at = content.index(b"Is 10 odd?") - 30
    content[at : at + 20] = bytes(20)
    (tmp_path / "a.parquet").write_bytes(content)
    (tmp_path / "b.parquet").write_bytes(b"PAR1 no parquet PAR1")
    found = read(tmp_path, "*.parquet")
    codes = {item.source: item.code for item in found if isinstance(item, Reject)}
    assert codes == {"a.parquet#11": "broken_parquet", "b.parquet#1": "broken_parquet"}
    assert [n for n in range(40) if f"a.parquet#{n + 1}" in {item.source for item in found}] == [
        *range(11), *range(20, 40),
    ]  # fmt: skip


def test_parquet_text_that_is_not_utf_8_is_a_reject_of_its_row(tmp_path):
    answers = pyarrow.array([b"a", b"\xff", b"c"]).view(pyarrow.string())
    table = pyarrow.table({"prompt": ["Hi?"] * 3, "completion": answers})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    assert [outcome(item) for item in read(tmp_path, "*.parquet")] == ["a", "encoding", "c"]


def test_one_bad_line_does_not_end_the_file_and_all_lines_add_up(tmp_path):
    good = b'{"input": "Hi?", "output": "Hello."}'
    (tmp_path / "b.jsonl").write_bytes(b"\n".join([good, b"{", b"", good, b"7", good]))
    (tmp_path / "a.jsonl").write_bytes(good)
    found = [(item.source, type(item).__name__) for item in read(tmp_path)]
    assert found == [
        ("a.jsonl#1", "Example"),
        ("b.jsonl#1", "Example"),
        ("b.jsonl#2", "Reject"),
        ("b.jsonl#4", "Example"),
        ("b.jsonl#5", "Reject"),
        ("b.jsonl#6", "Example"),
    ]


def test_a_byte_order_mark_and_crlf_are_read_as_if_not_there(tmp_path):
    row = '{"input": "Grüße?", "output": "Hello."}'
    (tmp_path / "a.jsonl").write_bytes(("\ufeff" + row + "\r\n" + row + "\r\n").encode())
    assert [item.messages[0]["content"] for item in read(tmp_path)] == ["Grüße?"] * 2


def test_a_file_in_utf_16_is_one_reject(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"input": "Hi?", "output": "x"}\n' * 3, encoding="utf-16")
    (found,) = read(tmp_path)
    assert (found.source, found.code) == ("a.jsonl#1", "encoding")


def test_a_line_of_50_mb_is_a_reject_that_says_its_size_and_the_next_line_is_read(tmp_path):
    good = b'{"input": "Hi?", "output": "Hello."}\n'
    with (tmp_path / "a.jsonl").open("wb") as file:
        file.write(b'{"input": "' + b"a" * 50_000_000 + b'", "output": "x"}\n' + good)
    rejected, kept = read(tmp_path)
    assert (rejected.source, rejected.code) == ("a.jsonl#1", "too_long")
    assert "50,000,029 bytes" in rejected.reason
    assert kept.source == "a.jsonl#2"


def test_a_line_of_exactly_the_limit_is_read_and_one_more_byte_is_not(tmp_path, monkeypatch):
    line = b'{"input": "Hi?", "output": "Hello."}'
    for limit, kind in ((len(line), Example), (len(line) - 1, Reject)):
        monkeypatch.setattr(lines, "MOST_BYTES", limit)
        assert type(only(tmp_path, line)) is kind


@pytest.mark.parametrize(
    ("name", "pattern", "message"),
    [
        ("absent", "*.jsonl", "no such folder"),
        (".", "*.json", r"No file .*'\*\.json'"),
        (".", "", "pattern ''"),
        (".", "../*.jsonl", "stay inside"),
        (".", "/etc/*.jsonl", "stay inside"),
        (".", "a**", r"The pattern 'a\*\*' is none"),
        (".", "blank.jsonl", "hold no row"),
    ],
)
def test_a_source_without_a_row_is_an_error_that_says_what_to_mend(
    tmp_path, name, pattern, message
):
    (tmp_path / "blank.jsonl").write_bytes(b"\xef\xbb\xbf\n\r\n")
    with pytest.raises(TunesmithError, match=message):
        read(tmp_path / name, pattern)


def test_files_below_folders_are_read_where_the_pattern_says_so(tmp_path):
    (tmp_path / "x").mkdir()
    only(tmp_path / "x", {"input": "Hi?", "output": "Hello."})
    assert [item.source for item in read(tmp_path, "**/*.jsonl")] == ["x/a.jsonl#1"]


@pytest.mark.parametrize(
    ("answer", "exact", "overlap"),
    [
        ("The cat sat.", 1.0, 1.0),
        ("  The cat\n sat. ", 1.0, 1.0),
        ("the CAT sat", 0.0, 1.0),
        ("the cat", 0.0, 0.8),
        ("the the the cat", 0.0, 4 / 7),
        ("a dog", 0.0, 0.0),
        ("", 0.0, 0.0),
    ],
)
def test_an_answer_is_compared_with_the_reference(answer, exact, overlap):
    example = Example([ASK, SAY | {"content": "The cat sat."}], "a#1", "a#1")
    assert chats.judge(example, answer) == {"exact": exact, "overlap": pytest.approx(overlap)}


def test_signs_and_accents_are_compared_as_they_look():
    cafe = Example([ASK, SAY | {"content": "Caf\u00e9"}], "a#1", "a#1")
    assert chats.judge(cafe, "Cafe\u0301") == {"exact": 1.0, "overlap": 1.0}
    signs = Example([ASK, SAY | {"content": "?!"}], "a#1", "a#1")
    assert chats.judge(signs, "?!") == {"exact": 1.0, "overlap": 1.0}
    assert chats.judge(signs, "!") == {"exact": 0.0, "overlap": 0.0}


def test_a_reference_without_text_is_not_judged():
    call = {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}
    assert chats.judge(Example([ASK, call], "a#1", "a#1"), "x") == {}


def test_the_sample_chats_become_examples_of_every_shape_that_split_without_a_leak():
    found = read(HELLO, system="You explain Tunesmith.")
    assert Counter(type(item).__name__ for item in found) == {"Example": 40}
    assert {item.meta["format"] for item in found} == {"messages", "prompt", "instruction", "input"}
    kept, rejects = checking.checked(found, lambda row: None)
    assert (len(kept), rejects) == (40, [])
    sides = splits.assign(kept, 1, 0.1, 0.1)
    assert set(splits.leaks(kept, sides).values()) == {0}


def blocks(language):
    """The code blocks of a language in the page on recipes, in order."""
    page = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


def test_the_rows_and_settings_shown_in_the_docs_work(tmp_path):
    (rows,), settings = blocks("json"), blocks("yaml")
    (tmp_path / "own.jsonl").write_text(rows, encoding="utf-8")
    own = Dataset.model_validate(yaml.safe_load(settings[0])["mine"])
    assert own.recipe == "chats"
    found = list(chats.examples(tmp_path, chats.Options.model_validate(own.options)))
    assert Counter(type(item).__name__ for item in found) == {"Example": 7}
    assert Counter(item.meta["format"] for item in found)["messages"] == 2


def test_the_recipe_shown_in_the_docs_reads_judges_and_rejects(tmp_path):
    (code,), settings = blocks("python"), blocks("yaml")
    recipe = {"__name__": "stages.recipes.capitals"}
    exec(compile(code, "docs/recipes.md", "exec"), recipe)
    own = Dataset.model_validate(yaml.safe_load(settings[3])["capitals"])
    (tmp_path / "eu.csv").write_text("France,Paris\nSpain\nItaly,Rome\n")
    options = recipe["Options"].model_validate(own.options)
    found = list(recipe["examples"](tmp_path, options))
    assert [item.source for item in found] == ["eu.csv#1", "eu.csv#2", "eu.csv#3"]
    assert [type(item).__name__ for item in found] == ["Example", "Reject", "Example"]
    assert recipe["check"](found[0]) is None
    assert recipe["judge"](found[0], "Paris, of course.") == {"named": 1.0}
    assert recipe["judge"](found[0], "Rome.") == {"named": 0.0}
    assert set(recipe["judge"](found[0], "")) <= set(recipe["METRICS"])
    assert set(recipe["STATS"]) <= set(found[0].meta)


def test_every_reason_code_of_a_reject_stands_in_the_docs():
    package = ROOT / "stages" / "recipes" / "chats"
    code = "".join(path.read_text(encoding="utf-8") for path in sorted(package.glob("*.py")))
    codes = set(re.findall(r'(?:BadRowError|Unreadable)\(\s*"([a-z_0-9]+)"', code))
    assert len(codes) >= 15
    page = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    assert [name for name in sorted(codes) if f"`{name}`" not in page] == []
