"""One example -> why it may not be trained on (code and sentence), or None."""

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any

import orjson

from stages.core.example import Example, Message

Problem = tuple[str, str]

# What jsonschema raises on a schema that passes its own check yet cannot be followed: one that
# refers to itself without end, to something that is no schema, or to an address that is none.
UNUSABLE = (RecursionError, AttributeError, TypeError, ValueError)
# Marks of the chat forms we know; text that holds one could end a turn or open another.
CONTROL = re.compile(
    r"<\|[a-z0-9_]{1,40}\|>|\[/?INST\]|<</?SYS>>|</?s>|<(?:start|end)_of_turn>|<(?:bos|eos|pad)>"
    r"|</?tool_(?:call|response)>",
    re.IGNORECASE,
)
AFTER = {
    "start": {"system", "user"},
    "system": {"user"},
    "user": {"assistant"},
    "assistant": {"user"},
    "calls": {"tool"},
    "tool": {"tool", "assistant"},
}


def problem(row: Example) -> Problem | None:
    """The first problem of an example, or None."""
    return next(problems(row), None)


def problems(row: Example) -> Iterator[Problem]:
    """Every problem of an example, the structural ones first."""
    if not row.messages:
        yield "no_messages", "It has no messages."
        return
    yield from _roles(row.messages)
    yield from _contents(row.messages)
    yield from _tools(row)
    if row.rejected is not None:
        yield from _rejected(row)


def _rejected(row: Example) -> Iterator[Problem]:
    """What is wrong with the answer not wanted: it must fit where the last message stands."""
    rejected: Any = row.rejected
    if not isinstance(rejected, dict) or rejected.get("role") != "assistant":
        yield "rejected", "Its rejected answer is not a message from the assistant."
        return
    if _folded(rejected) == _folded(row.messages[-1]):
        yield "same_answer", "Its rejected answer says what the last message says."
    other = replace(row, messages=[*row.messages[:-1], rejected], rejected=None)
    for code, reason in problems(other):
        yield code, f"With its rejected answer: {reason}"


def _folded(message: Message) -> tuple[str, Any]:
    return " ".join(str(message.get("content") or "").split()).casefold(), message.get("tool_calls")


def _roles(messages: list[Message]) -> Iterator[Problem]:
    state = "start"
    for number, message in enumerate(messages, 1):
        role = message.get("role")
        if role not in AFTER[state]:
            allowed = " or ".join(sorted(AFTER[state]))
            yield "roles", f"Message {number} is from {role!r} where {allowed} must speak."
            return
        state = "calls" if role == "assistant" and message.get("tool_calls") else str(role)
    if messages[-1].get("role") != "assistant":
        yield "ending", f"It ends with {messages[-1].get('role')!r}: there is no answer to learn."


def _contents(messages: list[Message]) -> Iterator[Problem]:
    for number, message in enumerate(messages, 1):
        content, calls = message.get("content"), message.get("tool_calls")
        if content is not None and not isinstance(content, str):
            kind = type(content).__name__
            yield "content_type", f"Message {number} has content of type {kind}, not text."
            continue
        if message.get("role") == "assistant" and not calls and not (content or "").strip():
            yield "empty_answer", f"Message {number} is an empty answer."
        if message.get("role") != "assistant" and content is None:
            yield "content_type", f"Message {number} has no content."
        if found := CONTROL.search(
            (content or "") + (orjson.dumps(calls).decode() if calls else "")
        ):
            text = f"Message {number} holds {found.group()!r}, which a chat template gives meaning."
            yield "control_token", text


def _tools(row: Example) -> Iterator[Problem]:
    known: dict[str, Any] = {}
    for number, tool in enumerate(row.tools or [], 1):
        function = tool.get("function", tool)
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(name, str):
            yield "tools", f"Tool {number} has no name."
            continue
        known[name] = function.get("parameters") or {}
    open_calls: dict[str, None] = {}
    seen: set[str] = set()
    for number, message in enumerate(row.messages, 1):
        if message.get("role") == "tool":
            yield from _result(number, message, open_calls)
            continue
        if open_calls:
            call = next(iter(open_calls))
            yield "missing_result", f"Message {number} comes before the result of {call!r}."
            open_calls.clear()
        for call in message.get("tool_calls") or []:
            call_id = str(call.get("id") or f"#{len(seen)}")
            yield from _call(number, call, call_id in seen, known)
            seen.add(call_id)
            open_calls[call_id] = None


def _result(number: int, message: Message, open_calls: dict[str, None]) -> Iterator[Problem]:
    call_id, first = message.get("tool_call_id"), next(iter(open_calls), "")
    if call_id is None and (len(open_calls) == 1 or first.startswith("#")):
        del open_calls[first]  # without ids results come in the order of the calls
    elif str(call_id) in open_calls:
        del open_calls[str(call_id)]
    else:
        text = f"Message {number} is the result of {call_id!r}, which nobody called."
        yield "unknown_result", text


def _call(
    number: int, call: dict[str, Any], repeated: bool, known: dict[str, Any]
) -> Iterator[Problem]:
    function = call.get("function") or {}
    name, arguments = function.get("name"), function.get("arguments")
    if repeated:
        text = f"Message {number} uses the call id {call.get('id')!r} a second time."
        yield "duplicate_id", text
    if name not in known:
        yield "unknown_tool", f"Message {number} calls {name!r}, which is not among its tools."
    elif not isinstance(arguments, dict):
        kind = type(arguments).__name__
        yield "arguments", f"Message {number} calls {name} with a {kind} in place of an object."
    else:
        for code, reason in _schema_problem(orjson.dumps(known[name]), arguments):
            yield code, f"Message {number} calls {name}: {reason}."


@lru_cache(maxsize=256)
def _validator(schema: bytes) -> Any:
    """A checker of arguments; `$ref` is looked up in the schema alone, never on the network."""
    from jsonschema import Draft202012Validator
    from referencing import Registry

    parsed = orjson.loads(schema)
    Draft202012Validator.check_schema(parsed)
    return Draft202012Validator(parsed, registry=Registry())


def _schema_problem(schema: bytes, arguments: dict[str, Any]) -> Iterator[Problem]:
    from jsonschema import SchemaError
    from referencing.exceptions import Unresolvable

    try:
        errors = sorted(
            _validator(schema).iter_errors(arguments), key=lambda error: error.json_path
        )
    except SchemaError as problem:
        yield "tool_schema", f"the tool's own schema is wrong: {problem.message}"
        return
    except Unresolvable as problem:
        yield "tool_schema", f"the tool's own schema refers to {problem.ref!r}, which is not in it"
        return
    except UNUSABLE as problem:
        kind = type(problem).__name__
        yield "tool_schema", f"the tool's own schema cannot be followed ({kind})"
        return
    if errors:
        yield "arguments", f"wrong arguments: {errors[0].message} at {errors[0].json_path}"
