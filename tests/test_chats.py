"""The chats recipe: anybody's rows become examples, every other line a reject with its reason."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest
import yaml

from stages.core import checking, splits
from stages.core.errors import TunesmithError
from stages.core.example import Example, Reject
from stages.core.settings import Dataset
from stages.recipes import chats
from stages.recipes.chats import lines

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
        (".", "blank.jsonl", "hold no line"),
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
    assert Counter(type(item).__name__ for item in found) == {"Example": 5}
    assert Counter(item.meta["format"] for item in found)["messages"] == 2


def test_the_recipe_shown_in_the_docs_reads_judges_and_rejects(tmp_path):
    (code,), settings = blocks("python"), blocks("yaml")
    recipe = {"__name__": "stages.recipes.capitals"}
    exec(compile(code, "docs/recipes.md", "exec"), recipe)
    own = Dataset.model_validate(yaml.safe_load(settings[1])["capitals"])
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
