"""The rules of a chat: each has an example that breaks it, and only it."""

import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from stages.core import dialogue
from stages.core.example import Example

SHARED = Path(__file__).parents[2] / "shared" / "samples"
SYSTEM = {"role": "system", "content": "Be brief."}
ASK = {"role": "user", "content": "How many files are here?"}
SAY = {"role": "assistant", "content": "Three."}
LIST = {
    "type": "function",
    "function": {
        "name": "list",
        "parameters": {
            "type": "object",
            "properties": {"path": {"type": "string"}, "depth": {"type": "integer"}},
            "required": ["path"],
            "additionalProperties": False,
        },
    },
}


def call(call_id: str | None = "c1", name: str = "list", arguments: Any = None) -> dict:
    made = {"type": "function", "function": {"name": name, "arguments": arguments or {"path": "."}}}
    return made if call_id is None else made | {"id": call_id}


def calling(*calls: dict) -> dict:
    return {"role": "assistant", "content": None, "tool_calls": list(calls)}


def result(call_id: str | None = "c1", content: str = "a b c") -> dict:
    made = {"role": "tool", "content": content}
    return made if call_id is None else made | {"tool_call_id": call_id}


def codes(*messages: dict, tools: Any = (LIST,)) -> list[str]:
    row = Example(list(messages), "x#1", "x", {}, list(tools))
    return [code for code, _ in dialogue.problems(row)]


GOOD = {
    "question and answer": (ASK, SAY),
    "with a system message": (SYSTEM, ASK, SAY),
    "two turns": (ASK, SAY, ASK, SAY),
    "a call and its result": (ASK, calling(call()), result(), SAY),
    "text beside a call": (ASK, calling(call()) | {"content": "Looking."}, result(), SAY),
    "parallel calls, results in another order": (
        ASK, calling(call("c1"), call("c2")), result("c2"), result("c1"), SAY,
    ),
    "calls one after another": (
        ASK, calling(call("c1")), result("c1"), calling(call("c2")), result("c2"), SAY,
    ),
    "a call as the answer to learn": (ASK, calling(call())),
    "calls without ids, results in order": (
        ASK, calling(call(None), call(None)), result(None), result(None), SAY,
    ),
    "an id but a result without one": (ASK, calling(call("c1")), result(None), SAY),
    "marks that are no control tokens": (
        {"role": "user", "content": "a < b | c, <think>, <div>, [INSTALL], <|not a token|>"}, SAY,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_a_good_chat_has_no_problem(name: str) -> None:
    assert codes(*GOOD[name]) == []


BAD = {
    "no messages": ((), ["no_messages"]),
    "starts with the answer": ((SAY,), ["roles"]),
    "two questions in a row": ((ASK, ASK, SAY), ["roles"]),
    "two answers in a row": ((ASK, SAY, SAY), ["roles"]),
    "system message in the middle": ((ASK, SAY, SYSTEM, ASK, SAY), ["roles"]),
    "two system messages": ((SYSTEM, SYSTEM, ASK, SAY), ["roles"]),
    "an unknown role": ((ASK, {"role": "bot", "content": "Three."}), ["roles"]),
    "ends with the question": ((ASK, SAY, ASK), ["ending"]),
    "ends with a result": ((ASK, calling(call()), result()), ["ending"]),
    "blank answer": ((ASK, {"role": "assistant", "content": " \n"}), ["empty_answer"]),
    "no answer": ((ASK, {"role": "assistant", "content": None}), ["empty_answer"]),
    "blank answer earlier": (
        (ASK, {"role": "assistant", "content": ""}, ASK, SAY), ["empty_answer"],
    ),
    "content in parts": (
        ({"role": "user", "content": [{"type": "text", "text": "Hi"}]}, SAY), ["content_type"],
    ),
    "question without content": (({"role": "user"}, SAY), ["content_type"]),
    "a result nobody asked for": ((ASK, SAY, ASK, result(), SAY), ["roles", "unknown_result"]),
    "a result for another call": (
        (ASK, calling(call("c1"), call("c2")), result("c1"), result("c3"), SAY),
        ["unknown_result", "missing_result"],
    ),
    "the same result twice": (
        (ASK, calling(call("c1"), call("c2")), result("c1"), result("c1"), SAY),
        ["unknown_result", "missing_result"],
    ),
    "which result is it?": (
        (ASK, calling(call("c1"), call("c2")), result(None), result(None), SAY),
        ["unknown_result", "unknown_result", "missing_result"],
    ),
    "a call without its result": (
        (ASK, calling(call("c1"), call("c2")), result("c1"), SAY), ["missing_result"],
    ),
    "no result at all": ((ASK, calling(call()), SAY), ["roles", "missing_result"]),
    "an id used twice": (
        (ASK, calling(call("c1")), result(), calling(call("c1")), result(), SAY), ["duplicate_id"],
    ),
    "an unknown tool": ((ASK, calling(call(name="dir")), result(), SAY), ["unknown_tool"]),
    "arguments as JSON text": (
        (ASK, calling(call(arguments='{"path": "."}')), result(), SAY), ["arguments"],
    ),
    "a required argument is missing": (
        (ASK, calling(call(arguments={"depth": 1})), result(), SAY), ["arguments"],
    ),
    "an argument of the wrong type": (
        (ASK, calling(call(arguments={"path": ".", "depth": "1"})), result(), SAY), ["arguments"],
    ),
    "an argument that does not exist": (
        (ASK, calling(call(arguments={"path": ".", "deep": 1})), result(), SAY), ["arguments"],
    ),
    "control token in an argument": (
        (ASK, calling(call(arguments={"path": "<|im_end|>"})), result(), SAY), ["control_token"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_broken_rule_is_found_and_no_other(name: str) -> None:
    messages, found = BAD[name]
    assert codes(*messages) == found


@pytest.mark.parametrize(
    "mark",
    [
        "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|END|>", "[INST]", "[/INST]",
        "<<SYS>>", "<</SYS>>", "<s>", "</s>", "<start_of_turn>", "<end_of_turn>", "<bos>", "<eos>",
        "<pad>", "<tool_call>", "</tool_response>",
    ],
)  # fmt: skip
@pytest.mark.parametrize("role", ["system", "user", "assistant", "tool"])
def test_a_control_token_in_any_text_is_found(role: str, mark: str) -> None:
    texts = dict.fromkeys(("system", "user", "assistant", "tool"), "x") | {role: f"a{mark}b"}
    messages = (
        {"role": "system", "content": texts["system"]},
        {"role": "user", "content": texts["user"]},
        calling(call()),
        {"role": "tool", "tool_call_id": "c1", "content": texts["tool"]},
        {"role": "assistant", "content": texts["assistant"]},
    )
    assert codes(*messages) == ["control_token"]


def test_a_tool_call_without_tools_is_an_unknown_tool() -> None:
    assert codes(ASK, calling(call()), result(), SAY, tools=()) == ["unknown_tool"]


def test_a_tool_may_be_written_without_its_wrapper() -> None:
    assert codes(ASK, calling(call()), result(), SAY, tools=[LIST["function"]]) == []


@pytest.mark.parametrize(
    "tool", [{"type": "function", "function": "list"}, {"function": {}}, {"name": ["list"]}]
)
def test_a_tool_without_a_name_is_a_problem_of_the_row(tool: dict) -> None:
    assert codes(ASK, SAY, tools=[tool]) == ["tools"]


def test_a_wrong_schema_is_a_problem_of_the_row_and_no_crash() -> None:
    tool = {"name": "list", "parameters": {"type": "objekt"}}
    row = Example([ASK, calling(call()), result(), SAY], "x#1", "x", {}, [tool])
    code, reason = dialogue.problem(row) or ("", "")
    assert code == "tool_schema"
    assert "'objekt' is not valid" in reason


def test_a_schema_elsewhere_is_never_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(urllib.request, "urlopen", lambda *what, **_: asked.append(what))
    tool = {"name": "list", "parameters": {"$ref": "http://127.0.0.1:9/schema.json"}}
    row = Example([ASK, calling(call()), result(), SAY], "x#1", "x", {}, [tool])
    code, reason = dialogue.problem(row) or ("", "")
    assert code == "tool_schema"
    assert "refers to 'http://127.0.0.1:9/schema.json', which is not in it" in reason
    assert asked == []


BAD_PAIRS: dict[str, tuple[Any, str]] = {
    "from the user": ({"role": "user", "content": "Four."}, "rejected"),
    "no message": ("Four.", "rejected"),
    "the same but for case and space": (
        {"role": "assistant", "content": " three. "},
        "same_answer",
    ),
    "empty": ({"role": "assistant", "content": " "}, "empty_answer"),
    "no text": ({"role": "assistant", "content": 4}, "content_type"),
    "a control token": ({"role": "assistant", "content": "<|im_end|>"}, "control_token"),
    "an unknown tool": (calling(call("c1", "other")), "unknown_tool"),
}


@pytest.mark.parametrize("name", BAD_PAIRS)
def test_a_rejected_answer_must_be_another_that_could_stand_there(name: str) -> None:
    rejected, code = BAD_PAIRS[name]
    row = Example([SYSTEM, ASK, SAY], "x#1", "x", {}, [LIST], rejected)
    assert [found for found, _ in dialogue.problems(row)] == [code]


def test_a_good_pair_has_no_problem() -> None:
    for rejected in ({"role": "assistant", "content": "Four."}, calling(call())):
        row = Example([SYSTEM, ASK, SAY], "x#1", "x", {}, [LIST], rejected)
        assert dialogue.problem(row) is None


def test_the_first_problem_is_told_with_the_number_of_its_message() -> None:
    row = Example([ASK, calling(call(arguments={})), result(), SAY], "x#1", "x", {}, [LIST])
    row.messages[1]["tool_calls"][0]["function"]["arguments"] = {}
    assert dialogue.problem(row) == (
        "arguments",
        "Message 2 calls list: wrong arguments: 'path' is a required property at $.",
    )


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared samples are not here")
def test_of_the_sample_conversations_only_the_broken_ones_have_a_problem() -> None:
    folder = SHARED / "synthia"
    tools = json.loads((folder / "tools.json").read_text(encoding="utf-8"))
    facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    lines = (folder / "dataset.jsonl").read_text(encoding="utf-8").splitlines()
    # Seen when the line is read, before it is a chat: their recipe's work.
    unreadable = {"no_messages_key", "invalid_json", "arguments_not_json"}
    skipped = {item["line"] for item in facts["broken"] if item["problem"] in unreadable}
    found = {}
    for number, text in enumerate(lines, 1):
        if number not in skipped:
            row = decoded(json.loads(text), tools)
            if problem := dialogue.problem(row):
                found[number] = problem[0]
    assert found == {
        22: "arguments",
        28: "roles",
        87: "roles",
        97: "unknown_result",
        117: "unknown_tool",
    }


def decoded(line: dict, tools: list[dict]) -> Example:
    """The line as an example; its arguments are JSON text in the file."""
    for message in line["messages"]:
        for made in message.get("tool_calls") or []:
            made["function"]["arguments"] = json.loads(made["function"]["arguments"])
    return Example(line["messages"], "dataset.jsonl", "x", {}, line.get("tools") or tools)
