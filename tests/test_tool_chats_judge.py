"""The judge of tool_chats: each fault of an answer costs its own metric, and garbage all."""

import json
import random
from dataclasses import replace

import pytest

from stages.core.example import Example
from stages.makers import tool_chats as maker
from stages.recipes import tool_chats
from stages.recipes.tool_chats.answers import parse
from stages.recipes.tool_chats.results import failed

READ = {
    "type": "function",
    "function": {
        "name": "read",
        "parameters": {
            "type": "object",
            "properties": {"path": {"type": "string"}},
            "required": ["path"],
            "additionalProperties": False,
        },
    },
}
GREP = {
    "type": "function",
    "function": {
        "name": "grep",
        "parameters": {
            "type": "object",
            "properties": {"pattern": {"type": "string"}},
            "required": ["pattern"],
        },
    },
}
ASK = {"role": "user", "content": "Look at a.py"}
A, B, FIND = ("read", {"path": "a.py"}), ("read", {"path": "b.py"}), ("grep", {"pattern": "x_y"})
OK_CALL = {"clean": 1, "call": 1, "parses": 1, "known_tool": 1, "arguments_valid": 1, "tool": 1,
           "matching": 1, "right": 1}  # fmt: skip


def calling(*calls):
    made = [
        {"id": f"c{n}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for n, (name, arguments) in enumerate(calls)
    ]
    return {"role": "assistant", "content": "", "tool_calls": made}


def told(number, content):
    return {"role": "tool", "tool_call_id": f"c{number}", "content": content}


def say(text):
    return {"role": "assistant", "content": text}


def block(name, arguments):
    made = json.dumps({"name": name, "arguments": arguments})
    return f"<tool_call>\n{made}\n</tool_call>"


def judged(answer, *messages, **meta):
    row = Example([ASK, *messages], "a#1", "g", meta, [READ, GREP])
    scores = tool_chats.judge(row, answer)
    assert set(scores) <= set(tool_chats.METRICS)
    assert all(0 <= value <= 1 for value in scores.values())
    return scores


def zeros(scores):
    return {name for name, value in scores.items() if value == 0}


def test_the_call_that_is_due_scores_1_in_all_that_applies_and_nothing_else_applies():
    assert judged("Reading.\n" + block(*A), calling(A)) == OK_CALL


@pytest.mark.parametrize(
    "answer",
    [
        '<tool_call>{"arguments": {"path": "a.py"}, "name": "read"}</tool_call>',
        '{"name": "read", "parameters": {"path": "a.py"}}',
        '{"type": "function", "name": "read", "parameters": {"path": "a.py"}}',
        '<|python_tag|>{"name": "read", "parameters": {"path": "a.py"}}',
        '[{"name": "read", "arguments": {"path": "a.py"}}]',
        '[TOOL_CALLS] [{"name": "read", "arguments": {"path": "a.py"}, "id": "x12345678"}]',
    ],
)
def test_the_forms_of_other_families_are_read_too(answer):
    assert judged(answer, calling(A)) == OK_CALL


CHAIN = ("call", "parses", "known_tool", "arguments_valid", "tool", "matching", "right")


@pytest.mark.parametrize(
    ("answer", "wrong"),
    [
        ("I would read a.py now.", CHAIN),
        ("<tool_call>\n{'name': 'read'}\n</tool_call>", CHAIN),
        ('<tool_call>\n{"name": "read", "arguments": {"path": "a.py"}}', CHAIN),
        ('{"name": "read", "arguments": {"path": "a.py"}}</tool_call>', (*CHAIN,)),
        (block("read", '{"path": "a.py"}'), CHAIN),  # the double encoding
        ('<tool_call>\n{"name": 3, "arguments": {}}\n</tool_call>', CHAIN),
        ('{"name": "read", "arguments": {"path": "a.p', CHAIN),
        (block(*A) + "\n<tool_call>\n{", CHAIN[1:]),
        (block("fly", {"path": "a.py"}), CHAIN[2:]),
        (block("read", {"file": "a.py"}), (*CHAIN[3:4], *CHAIN[5:])),
        (block("read", {"path": 3}), (*CHAIN[3:4], *CHAIN[5:])),
        (block("grep", {"pattern": "a.py"}), CHAIN[4:]),
        (block("read", {"path": "b.py"}), CHAIN[5:]),
        (block(*A) + block(*A), CHAIN[4:]),
        (block(*A) + block(*B), CHAIN[4:]),
    ],
)
def test_each_fault_of_a_call_costs_its_metric_and_those_that_need_it(answer, wrong):
    assert zeros(judged(answer, calling(A))) - {"clean"} == set(wrong)


def test_parallel_calls_may_come_in_any_order_but_all_must_come():
    due = calling(A, B, FIND)
    ok = OK_CALL | {"parallel": 1}
    assert judged(block(*FIND) + "\n" + block(*A) + "\n" + block(*B), due) == ok
    assert zeros(judged(block(*A) + block(*B), due)) == {"tool", "matching", "parallel", "right"}
    assert zeros(judged(block(*A) * 3, due)) == {"tool", "matching", "parallel", "right"}
    other = block(*A) + block("read", {"path": "c.py"}) + block(*FIND)
    assert zeros(judged(other, due)) == {"matching", "right"}


def test_where_no_call_is_due_one_is_wrong_and_a_broken_one_too():
    before = (calling(A), told(0, "limit = 7"))
    assert judged("a.py sets limit to 7.", *before, say("The limit in a.py is 7.")) == {
        "clean": 1, "no_call": 1, "facts": 1, "right": 1,
    }  # fmt: skip
    for answer in (
        block(*A),
        "<tool_call>\n{",
        '{"name": "read", "arg',
        "limit 7 a.py</tool_call>",
    ):
        scores = judged(answer, *before, say("The limit in a.py is 7."))
        assert {"no_call", "facts", "right"} <= zeros(scores)


def test_an_answer_must_tell_the_facts_that_the_result_gave():
    before = (calling(A), told(0, "limit = 7"))
    due = say("The limit in a.py is 7.")
    assert judged("The limit in a.py is 9.", *before, due)["facts"] == 0.5
    assert judged("The limit in a.py is 9.", *before, due)["right"] == 0
    assert judged("It is `7` (a.py).", *before, due)["facts"] == 1
    assert judged("It is 77 in aa.py.", *before, due)["facts"] == 0
    assert "facts" not in judged("All right.", say("Very well."))


def test_a_number_that_the_reference_alone_knows_is_asked_of_nobody():
    assert "facts" not in judged("Fine.", say("It will take 45 minutes."))


def test_after_an_error_the_same_call_again_is_no_recovery():
    before = (calling(A), told(0, "Error: no such file"))
    assert judged(block(*B), *before, calling(B))["recovery"] == 1
    assert judged(block(*FIND), *before, calling(B))["recovery"] == 1
    assert judged(block(*A), *before, calling(B))["recovery"] == 0
    assert judged("It is not there.", *before, calling(B))["recovery"] == 0
    assert judged("It is not there.", *before, say("There is no such file."))["recovery"] == 1
    assert judged(block(*B), *before, say("There is no such file."))["recovery"] == 0
    assert judged(block(*A), *before, calling(A))["recovery"] == 1  # a second try was meant


def test_recovery_applies_only_right_after_an_error():
    fine = (calling(A), told(0, "print(1)"))
    assert "recovery" not in judged("Done.", *fine, say("Done."))
    later = (calling(A), told(0, "Error: x"), say("It failed."), ASK)
    assert "recovery" not in judged("Done.", *later, say("Done."))
    mixed = (calling(A, B), told(0, "print(1)"), told(1, "Error: no such file"))
    assert judged(block(*A), *mixed, calling(FIND))["recovery"] == 1  # not the one that failed
    assert judged(block(*B), *mixed, calling(FIND))["recovery"] == 0


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ("Error: old_string not found in file", True),
        ("error: regex parse error", True),
        ('{"error": "not found"}', True),
        ("FileNotFoundError: x", True),
        ("Traceback (most recent call last):\n  File", True),
        ("cat: a.py: No such file or directory", True),
        ("bash: fly: command not found", True),
        ("", False),
        ("0 errors", False),
        ("a.py:3: raise ValueError('x')", False),
        ("FAILED test_a: expected 1", False),
        ("def error():\n    pass", False),
    ],
)
def test_a_result_that_reads_as_an_error_is_told_from_others(content, error):
    assert failed(content) is error


@pytest.mark.parametrize(
    "answer",
    [
        "",
        " \n",
        "the file the file the file the file the file",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "Here it is:\n" + "I will read the file again.\n" * 5,
        "Готово, файл прочитан",
        "It is 完了しました です ね",
        "done\ufffd\x07",
        "done <|im_start|>assistant",
        "done <tool_response> 3 </tool_response>",
    ],
)
def test_garbage_is_not_clean_and_scores_0_in_all_that_applies(answer):
    told_before = (calling(A), told(0, "limit = 7"))
    assert set(judged(answer, *told_before, say("It is 7.")).values()) == {0}
    assert set(judged(answer, calling(A, B)).values()) == {0}


@pytest.mark.parametrize(
    ("answer", "question"),
    [
        ("It is done.", "Look"),
        ("Voilà, c'est naïf : œuvre.", "Look"),
        ("| a | b |\n|---|---|\n| 1 | 2 |", "Look"),
        ("Готово, файл прочитан", "Открой файл"),
        ("ha ha ha ha ha ha ha ha ha ha", "Say ha ha ha ha ha ha ha ha ha ha"),
        ("λ is a letter of 5 µm", "Look"),
    ],
)
def test_sound_answers_are_clean(answer, question):
    row = Example([{"role": "user", "content": question}, say("Done.")], "a#1", "g")
    assert tool_chats.judge(row, answer)["clean"] == 1


def test_a_probe_scores_under_its_category_as_it_is_right():
    probe = {"probe": True, "category": "tdd"}
    assert judged(block(*A), calling(A), **probe)["tdd"] == 1
    assert judged(block(*B), calling(A), **probe)["tdd"] == 0
    assert "tdd" not in judged(block(*A), calling(A), category="tdd")


def test_text_that_speaks_of_json_is_no_call():
    for text in ('Use {"name": "read", "arguments": {}}.', "[1, 2]", '{"limit": 7}', "<tool>"):
        assert parse(text).calls == []
        assert parse(text).broken == 0


def spoken(message):
    return (message.get("content") or "") + "".join(
        block(call["function"]["name"], call["function"]["arguments"])
        for call in message.get("tool_calls", ())
    )


@pytest.fixture(scope="module")
def turns(tmp_path_factory):
    """Every turn of made conversations, as evaluation cuts them, with its reference as text."""
    folder = tmp_path_factory.mktemp("raw")
    options = {"tools": 24, "agentic": 24, "integration": 24, "probes": 40}
    maker.make(maker.Options(seed=3, requests=1, **options), folder)
    reading = {"pattern": "[123]-*.jsonl", "probes": "probes.jsonl", "tools": "tools.json"}
    options = tool_chats.Options(**reading, system="", final_calls="reject")
    rows = list(tool_chats.examples(folder, options))
    return [
        (replace(row, messages=row.messages[: place + 1]), spoken(message))
        for row in rows
        for place, message in enumerate(row.messages)
        if message["role"] == "assistant"
    ]


def test_every_reference_scores_1_and_all_metrics_occur(turns):
    found = [tool_chats.judge(row, answer) for row, answer in turns]
    assert {value for scores in found for value in scores.values()} == {1.0}
    assert {name for scores in found for name in scores} == set(tool_chats.METRICS)


def test_no_single_answer_is_right_for_many_turns(turns):
    for _, answer in turns[::20]:
        right = sum(tool_chats.judge(row, answer)["right"] for row, _ in turns)
        assert right < 0.12 * len(turns), answer


def test_random_letters_are_never_right_where_a_call_or_a_fact_is_due(turns):
    draw = random.Random(5)
    for row, answer in turns:
        letters = "".join(draw.choices('abcdefghij klmnop{}":,\n', k=60))
        scores = tool_chats.judge(row, letters)
        if "call" in scores or "facts" in scores:
            assert scores["right"] == 0
        shuffled = "".join(draw.sample(answer, len(answer)))
        assert "call" not in scores or tool_chats.judge(row, shuffled)["right"] == 0
