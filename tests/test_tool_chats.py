"""The recipe tool_chats: each line is checked whole; its calls reach the template as objects."""

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from stages.core import checking, dialogue, splits, template
from stages.core.errors import TunesmithError
from stages.core.example import Example, Reject
from stages.recipes import tool_chats

ROOT = Path(__file__).parents[1]
SAMPLES = ROOT.parent / "shared" / "samples" / "synthia"
OPTIONS = {"pattern": "*.jsonl", "probes": "", "tools": "", "system": "", "final_calls": "reject"}
READ = {
    "type": "function",
    "function": {
        "name": "read",
        "parameters": {
            "type": "object",
            "properties": {"path": {"type": "string"}, "limit": {"type": "integer"}},
            "required": ["path"],
        },
    },
}
WRONG = {"name": "read", "parameters": {"type": "no"}}
ASK = {"role": "user", "content": "Open a.py"}
SAY = {"role": "assistant", "content": "It prints 1."}


def call(key="c1", arguments='{"path": "a.py"}', name="read", **more):
    return {
        "id": key,
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    } | more


def calling(*calls, content=None):
    return {"role": "assistant", "content": content, "tool_calls": list(calls)}


def told(key="c1", content="print(1)"):
    return {"role": "tool", "tool_call_id": key, "content": content}


def line(*messages, **more):
    return {"messages": list(messages), "tools": [READ]} | more


GOOD = line(ASK, calling(call()), told(), SAY)


def read(folder, **options):
    return list(tool_chats.examples(folder, tool_chats.Options(**OPTIONS | options)))


def only(folder, row, **options):
    """What becomes of a file with this one line."""
    text = row if isinstance(row, bytes) else json.dumps(row).encode()
    (folder / "a.jsonl").write_bytes(text + b"\n")
    (found,) = read(folder, **options)
    return found


@pytest.fixture(scope="module")
def sample():
    if not SAMPLES.is_dir():
        pytest.skip("the shared samples are not here")
    facts = json.loads((SAMPLES / "facts.json").read_text(encoding="utf-8"))
    return facts, read(SAMPLES, tools="tools.json")


def test_of_the_sample_lines_each_broken_one_is_refused_for_its_reason_and_no_other(sample):
    facts, found = sample
    reasons = {
        "no_messages_key": ("no_messages", "keys .'conversation'., but no messages"),
        "arguments_miss_required": ("arguments", "'file_path' is a required property"),
        "call_without_result": ("missing_result", "before the result of 'call_1'"),
        "invalid_json": ("broken_json", "broken JSON"),
        "unknown_role": ("unknown_role", "'robot'"),
        "arguments_not_json": ("arguments", "broken JSON"),
        "tool_result_for_unknown_call": ("unknown_result", "'call_99', which nobody called"),
        "unknown_tool": ("unknown_tool", "'teleport'"),
    }
    rejects = {item.source: item for item in found if isinstance(item, Reject)}
    wanted = {f"dataset.jsonl#{one['line']}": reasons[one["problem"]] for one in facts["broken"]}
    assert {place: reject.code for place, reject in rejects.items()} == {
        place: code for place, (code, _) in wanted.items()
    }
    for place, (_, reason) in wanted.items():
        assert re.search(reason, rejects[place].reason), rejects[place]
    assert len(found) == facts["lines"]
    assert len(found) - len(rejects) == facts["good"]


def test_the_numbers_of_the_sample_facts_are_met(sample):
    facts, found = sample
    rows = [item for item in found if isinstance(item, Example)]
    report = tool_chats.report(rows, tool_chats.Options(**OPTIONS))
    assert report["calls"] == facts["tool_calls"]
    parallel = facts["assistant_messages_with_parallel_calls"]
    assert report["turns"]["parallel_calls"] == parallel
    assert sum(row.meta["parallel"] for row in rows) == parallel
    assert report["turns"]["after_errors"] == facts["kinds"]["recovery"]
    assert report["turns"]["before_tools"] == facts["kinds"]["notool"]
    users = Counter(sum(m["role"] == "user" for m in row.messages) for row in rows)
    assert {str(n): count for n, count in users.items()} == facts["user_turns_per_conversation"]
    silent = sum(
        not message.get("content") and "tool_calls" in message
        for row in rows
        for message in row.messages
    )
    assert silent == facts["assistant_call_messages_with_null_or_empty_content"]


def test_the_sample_passes_the_common_checks_and_splits_without_a_leak(sample):
    _, found = sample
    rows = [item for item in found if isinstance(item, Example)]
    kept, rejects = checking.checked(rows, lambda row: None)
    assert rejects == []
    kept, _ = checking.without_copies(kept, 0.95)
    sides = splits.assign(kept, 1, 0.1, 0.1)
    assert set(splits.leaks(kept, sides).values()) == {0}
    first = {}
    for row, side in zip(kept, sides, strict=True):  # each turn is a prompt: the first one too
        asked = next(m["content"] for m in row.messages if m["role"] == "user")
        assert first.setdefault(asked, side) == side


def test_a_good_line_becomes_an_example_with_decoded_arguments_and_its_tools(tmp_path):
    found = only(tmp_path, GOOD)
    assert isinstance(found, Example)
    assert found.messages[1]["tool_calls"] == [call(arguments={"path": "a.py"})]
    assert (found.source, found.tools) == ("a.jsonl#1", [READ])
    assert found.meta == {"file": "a.jsonl", "calls": 1, "parallel": 0, "errors": 0}


@pytest.mark.parametrize("content", [None, ""])
def test_a_call_needs_no_text_beside_it(tmp_path, content):
    found = only(tmp_path, line(ASK, calling(call(), content=content), told(), SAY))
    assert not found.messages[1].get("content")
    absent = {key: value for key, value in calling(call()).items() if key != "content"}
    assert isinstance(only(tmp_path, line(ASK, absent, told(), SAY)), Example)


def test_an_empty_result_and_keys_that_hold_nothing_do_no_harm(tmp_path):
    empty = SAY | {"tool_calls": [], "name": None, "refusal": None, "annotations": []}
    found = only(tmp_path, line(ASK, calling(call()), told(content=""), empty))
    assert found.messages[2:] == [told(content=""), SAY]


@pytest.mark.parametrize(
    ("row", "code", "reason"),
    [
        (b'{"messages": [', "broken_json", "broken JSON"),
        (b'{"messages": "\xff"}', "broken_json", "UTF-8"),
        (b"[1]", "not_an_object", "list"),
        ({"messages": []}, "no_messages", "empty"),
        ({"text": "x"}, "no_messages", "'text'"),
        ({"messages": {"role": "user"}}, "wrong_type", "list of objects"),
        ({"messages": [ASK, 3]}, "wrong_type", "list of objects"),
        (line(ASK, SAY | {"role": "robot"}), "unknown_role", "robot"),
        (line(ASK, SAY | {"role": ["user"]}), "unknown_role", "user"),
        (line(ASK | {"content": 5}, SAY), "wrong_type", "number"),
        (line(ASK | {"content": None}, SAY), "wrong_type", "null"),
        (line(ASK, calling(call()), told(content=None), SAY), "wrong_type", "null"),
        (line(ASK, SAY | {"weight": 0}), "unknown_key", "weight"),
        (line(ASK | {"tool_calls": [call()]}, SAY), "wrong_type", "from user"),
        (line(ASK, calling(call()) | {"tool_calls": "x"}, told(), SAY), "wrong_type", "list"),
        (line(ASK, calling({"id": "c1", "name": "read"}), told(), SAY), "wrong_type", "function"),
        (line(ASK, calling(call(type="code")), told(), SAY), "wrong_type", "'code'"),
        (line(ASK, calling(call(key=None)), told(), SAY), "call_id", "a call without"),
        (line(ASK, calling(call(key="")), told(), SAY), "call_id", "a call without"),
        (line(ASK, calling(call()), told(None), SAY), "call_id", "a result without"),
        (line(ASK, calling(call(arguments="{'path': 1}")), told(), SAY), "arguments", "broken"),
        (line(ASK, calling(call(arguments="")), told(), SAY), "arguments", "broken"),
        (line(ASK, calling(call(arguments='"{}"')), told(), SAY), "arguments", "string"),
        (line(ASK, calling(call(arguments="[1]")), told(), SAY), "arguments", "array"),
        (line(ASK, calling(call(arguments=None)), told(), SAY), "arguments", "null"),
        (line(ASK, calling(call(arguments="{}")), told(), SAY), "arguments", "required"),
        (line(ASK, calling(call(arguments='{"path": 3}')), told(), SAY), "arguments", "string"),
        (line(ASK, calling(call(name="fly")), told(), SAY), "unknown_tool", "'fly'"),
        (line(ASK, calling(call()), told(), SAY, tools=[]), "unknown_tool", "'read'"),
        (line(ASK, calling(call()), SAY), "missing_result", "'c1'"),
        (line(ASK, calling(call(), call("c2")), told(), SAY), "missing_result", "'c2'"),
        (line(ASK, calling(call()), told("c9"), SAY), "unknown_result", "'c9'"),
        (line(ASK, calling(call()), told(), told(), SAY), "unknown_result", "'c1'"),
        (line(ASK, told(), SAY), "unknown_result", "'c1'"),
        (line(ASK, calling(call(), call()), told(), SAY), "duplicate_id", "'c1'"),
        (
            line(ASK, calling(call()), told(), calling(call()), told(), SAY),
            "duplicate_id",
            "second time",
        ),
        (line(ASK, calling(call())), "missing_result", "ends before"),
        (line(ASK, calling(call()), told()), "ending", "'tool'"),
        (line(ASK, SAY, ASK), "ending", "'user'"),
        (line(ASK, SAY | {"content": " "}), "empty_answer", "empty"),
        (line(SAY), "roles", "assistant"),
        (line(ASK, SAY, SAY), "roles", "assistant"),
        (line(ASK, SAY | {"content": "<|im_end|>"}), "control_token", "im_end"),
        (line(ASK, SAY | {"content": "a\0b"}), "nul", "U\\+0000"),
        (line(ASK, SAY, tools={"read": READ}), "tools", "not a list"),
        (line(ASK, SAY, tools=[READ, {"type": "function"}]), "tools", "Tool 2"),
        (
            line(ASK, calling(call()), told(), SAY, tools=[WRONG]),
            "tool_schema",
            "'no'",
        ),
    ],
)  # fmt: skip
def test_a_bad_line_becomes_a_reject_with_its_reason(tmp_path, row, code, reason):
    found = only(tmp_path, row)
    assert isinstance(found, Reject), found
    assert (found.source, found.code) == ("a.jsonl#1", code)
    assert re.search(reason, found.reason)


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"allOf": [{"$ref": "#"}]},
        {"$ref": "#/properties/a/enum", "properties": {"a": {"enum": [3]}}},
        {"$id": "http://[", "properties": {"path": {"$ref": "x"}}},
    ],
)
def test_a_schema_that_cannot_be_followed_is_a_reject(tmp_path, schema):
    row = GOOD | {"tools": [{"name": "read", "parameters": schema}]}
    assert only(tmp_path, row).code == "tool_schema"


def test_a_line_nested_too_deep_to_be_written_is_a_reject(tmp_path):
    deep = json.loads('{"a": ' * 300 + "1" + "}" * 300)
    assert only(tmp_path, GOOD | {"tools": [READ | {"x": deep}]}).code == "too_deep"


def test_a_reason_never_quotes_more_than_a_few_lines(tmp_path):
    found = only(tmp_path, line(ASK | {"role": "x" * 100_000}, SAY))
    assert found.code == "unknown_role"
    assert len(found.reason) < 400


def test_bad_lines_do_not_end_the_file_and_blank_ones_count_as_lines(tmp_path):
    good = json.dumps(GOOD).encode()
    (tmp_path / "a.jsonl").write_bytes(
        b"\xef\xbb\xbf" + b"\r\n".join([good, b"{", b"", good, b"7", good])
    )
    found = [(item.source, getattr(item, "code", "")) for item in read(tmp_path)]
    assert found == [
        ("a.jsonl#1", ""),
        ("a.jsonl#2", "broken_json"),
        ("a.jsonl#4", ""),
        ("a.jsonl#5", "not_an_object"),
        ("a.jsonl#6", ""),
    ]


def test_a_line_beyond_the_limit_is_passed_over(tmp_path, monkeypatch):
    good = json.dumps(GOOD).encode()
    (tmp_path / "a.jsonl").write_bytes(b"x" * 5000 + b"\n" + good)
    monkeypatch.setattr(tool_chats.lines, "MOST_BYTES", 1000)
    long, kept = read(tmp_path)
    assert (long.code, kept.source) == ("too_long", "a.jsonl#2")
    assert "5,001 bytes" in long.reason


def test_a_file_in_utf_16_is_one_reject(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps(GOOD), encoding="utf-16")
    assert [item.code for item in read(tmp_path)] == ["encoding"]


def test_lines_without_tools_take_those_of_the_file_beside_them(tmp_path):
    (tmp_path / "tools.json").write_text(json.dumps([READ]), encoding="utf-8")
    bare = {"messages": GOOD["messages"]}
    assert only(tmp_path, bare, tools="tools.json").tools == [READ]
    assert only(tmp_path, bare | {"tools": None}, tools="tools.json").tools == [READ]
    own = [{"name": "read"}]
    assert only(tmp_path, bare | {"tools": own}, tools="tools.json").tools == own
    assert only(tmp_path, bare, tools="").code == "unknown_tool"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no such file"),
        ("[{", "broken JSON"),
        ('{"a": 1}', "not a list"),
        ('[{"name": "f"}, {"name": 3}]', "Tool 2 has no name"),
        ('[{"name": "f", "parameters": {"type": "no"}}]', r"\(f\).*'no'"),
    ],
)
def test_a_tools_file_that_cannot_be_used_is_an_error(tmp_path, text, message):
    if text is not None:
        (tmp_path / "tools.json").write_text(text, encoding="utf-8")
    with pytest.raises(TunesmithError, match=message):
        only(tmp_path, GOOD, tools="tools.json")


def test_the_system_message_goes_to_lines_that_bring_none(tmp_path):
    own = {"role": "system", "content": "Be kind."}
    assert only(tmp_path, GOOD, system="Be brief.").messages[0]["content"] == "Be brief."
    found = only(tmp_path, line(own, ASK, SAY), system="Be brief.")
    assert found.messages == [own, ASK, SAY]


def test_a_line_may_end_with_a_call_where_the_options_say_so(tmp_path):
    found = only(tmp_path, line(ASK, calling(call())), final_calls="keep")
    assert isinstance(found, Example)
    assert dialogue.problem(found) is None


def test_results_of_parallel_calls_stand_in_the_order_of_the_calls(tmp_path):
    calls = calling(call("x"), call("y", '{"path": "b.py"}'), call("z"))
    row = line(ASK, calls, told("z", "3"), told("x", "1"), told("y", "2"), SAY)
    found = only(tmp_path, row)
    assert [message["content"] for message in found.messages[2:5]] == ["1", "2", "3"]
    assert found.meta["parallel"] == 1


def test_lines_that_open_with_the_same_question_share_a_group(tmp_path):
    rows = [GOOD, line(ASK | {"content": " open  A.py"}, SAY), line(ASK | {"content": "Hi"}, SAY)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    one, two, other = (item.group for item in read(tmp_path))
    assert one == two != other


def test_probes_are_marked_with_their_category_and_never_trained_on(tmp_path):
    (tmp_path / "b.jsonl").write_text(json.dumps(GOOD | {"category": "tdd"}), encoding="utf-8")
    rows = [line(ASK | {"content": f"Say {n}"}, SAY) for n in range(30)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    found = read(tmp_path, probes="b.jsonl")
    assert [item.source for item in found][-1] == "b.jsonl#1"
    assert [item.meta.get("category") for item in found] == [None] * 30 + ["tdd"]
    sides = splits.assign(found, 3, 0.1, 0.0)
    assert [item.source for item, side in zip(found, sides, strict=True) if side == "test"] == [
        "b.jsonl#1"
    ]


@pytest.mark.parametrize("category", [None, "cooking", ["tdd"]])
def test_a_probe_of_no_known_category_is_a_reject(tmp_path, category):
    found = only(tmp_path, GOOD | {"category": category}, probes="a.jsonl")
    assert found.code == "category"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("absent", {}, "no such folder"),
        (".", {"pattern": "*.json"}, r"No file .*'\*\.json'"),
        (".", {"pattern": "../*.jsonl"}, "stay inside"),
        (".", {"pattern": "."}, "stay inside"),
        (".", {"pattern": "a**"}, "is none|No file"),  # newer Pythons take it
        (".", {"probes": "/etc/*.jsonl"}, "stay inside"),
        (".", {"probes": "none.jsonl"}, "No file"),
        (".", {}, "hold no line"),
    ],
)
def test_a_source_without_a_line_is_an_error_that_says_what_to_mend(
    tmp_path, name, options, message
):
    (tmp_path / "blank.jsonl").write_bytes(b"\xef\xbb\xbf\n\r\n")
    with pytest.raises(TunesmithError, match=message):
        read(tmp_path / name, **options)


def test_the_report_names_what_is_never_taught(tmp_path):
    options = tool_chats.Options(**OPTIONS | {"probes": "p.jsonl"})
    other = {"name": "fly", "parameters": {"type": "object"}}
    found = only(tmp_path, GOOD | {"tools": [READ, other]})
    report = tool_chats.report([found], options)
    assert report["calls"] == {"read": 1}
    assert report["never_called"] == ["fly"]
    assert report["turns"] == {
        "one_call": 1, "parallel_calls": 0, "no_call": 1, "before_tools": 0, "after_errors": 0,
    }  # fmt: skip
    assert report["verdicts"] == [
        "tool calls: read 1",
        "warning: never called: fly",
        "warning: no turn of: parallel calls, before tools, after errors",
        "warning: no probe of: tool_use, tdd, debugging, refactoring",
    ]


# Two templates of our own with the behaviour of Qwen2.5's, which puts arguments through its JSON
# filter whatever they are, and of Qwen3's, which leaves text alone.
TURNS = """\
{%- if tools %}{{- '<|im_start|>system\\n<tools>' }}
{%- for tool in tools %}{{- '\\n' + (tool | tojson) }}{%- endfor %}
{{- '\\n</tools><|im_end|>\\n' }}{%- endif %}
{%- for message in messages %}
{{- '<|im_start|>' + ('user' if message.role == 'tool' else message.role) + '\\n' }}
{{- message.content if message.content is string else '' }}
{%- for call in message.tool_calls or [] %}
{{- '\\n<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
ARGUMENTS
{{- '}\\n</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""
PLAIN = "{{- call.function.arguments | tojson }}"
TESTED = """\
{%- if call.function.arguments is string %}{{- call.function.arguments }}
{%- else %}{{- call.function.arguments | tojson }}{%- endif %}"""
FORMS = {
    "Qwen2.5-like": TURNS.replace("ARGUMENTS", PLAIN),
    "Qwen3-like": TURNS.replace("ARGUMENTS", TESTED),
}


def rendered(folder, form, example):
    (folder / "chat_template.jinja").write_text(FORMS[form], encoding="utf-8")
    (folder / "tokenizer_config.json").write_text("{}", encoding="utf-8")
    return template.load(folder).render(example.messages, example.tools, generation_prompt=False)


def arguments(text):
    """What a reader of the rendered text finds as the arguments of each call."""
    blocks = re.findall(r"<tool_call>\n(.*?)\n</tool_call>", text, re.DOTALL)
    return [json.loads(block)["arguments"] for block in blocks]


@pytest.mark.parametrize("form", FORMS)
def test_neither_template_encodes_arguments_twice_and_both_show_the_tools(tmp_path, form):
    hard = {"path": 'a "b" \\n ü.py', "limit": 3}
    row = line(ASK, calling(call(arguments=json.dumps(hard)), call("c2")), told(), told("c2"), SAY)
    text = rendered(tmp_path, form, only(tmp_path, row))
    assert arguments(text) == [hard, {"path": "a.py"}]
    assert json.dumps(READ) in text


def test_the_first_template_does_encode_json_text_twice_so_decoding_is_due(tmp_path):
    found = only(tmp_path, GOOD)
    raw = replace(found, messages=GOOD["messages"])  # arguments as the line has them
    assert arguments(rendered(tmp_path, "Qwen2.5-like", raw)) == ['{"path": "a.py"}']
    assert arguments(rendered(tmp_path, "Qwen3-like", raw)) == [{"path": "a.py"}]


@pytest.mark.parametrize("form", FORMS)
def test_every_good_sample_line_renders_with_its_arguments_once_encoded(tmp_path, sample, form):
    _, found = sample
    for row in found:
        if isinstance(row, Example):
            made = [
                c["function"]["arguments"] for m in row.messages for c in m.get("tool_calls", ())
            ]
            assert arguments(rendered(tmp_path, form, row)) == made
