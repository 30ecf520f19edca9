"""A JSON object with messages in; its example, or the reason why it is none, out."""

import hashlib
from dataclasses import dataclass
from typing import Any

import orjson

from stages.core import dialogue
from stages.core.example import Example, Message, Reject
from stages.recipes.tool_chats import results, tools

ROLES = ("system", "user", "assistant", "tool")
KEYS = ("role", "content", "name", "tool_calls", "tool_call_id")
CATEGORIES = ("tool_use", "tdd", "debugging", "refactoring")
MOST_LETTERS = 300


class BadRowError(ValueError):
    """Why a row is no example.

    Attributes:
        code: a short reason code.
    """

    def __init__(self, code: str, reason: str) -> None:
        self.code = code
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class Form:
    """What lines may leave out: system message ("" for none) and tools; and how they may end."""

    system: str
    tools: list[tools.Tool] | None
    final_calls: bool


def example(row: dict[str, Any], source: str, form: Form, probe: bool) -> Example | Reject:
    """The example of a row, wholly checked, or its Reject."""
    try:
        messages = _messages(row)
        if form.system and messages[0]["role"] != "system":
            messages.insert(0, {"role": "system", "content": form.system})
        meta = _meta(messages, source)
        if probe:
            meta |= {"probe": True, "category": _category(row)}
        found = Example(messages, source, _group(messages), meta, _tools(row, form.tools))
        _writable([messages, found.tools])
        _require_sound(found, form.final_calls)
    except BadRowError as problem:
        return Reject(source, problem.code, _shortened(str(problem)))
    _order_results(messages)
    return found


def _messages(row: dict[str, Any]) -> list[Message]:
    if "messages" not in row:
        raise BadRowError("no_messages", f"It has the keys {sorted(row)}, but no messages.")
    value = row["messages"]
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise BadRowError("wrong_type", "Its messages are not a list of objects.")
    if not value:
        raise BadRowError("no_messages", "Its list of messages is empty.")
    return [_message(number, message) for number, message in enumerate(value, 1)]


def _message(number: int, message: dict[str, Any]) -> Message:
    """The message with its arguments decoded; keys that hold nothing are left out."""
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        text = f"Message {number} is from {role!r}; known are {', '.join(ROLES)}."
        raise BadRowError("unknown_role", text)
    if not isinstance(content, str) and (content is not None or role != "assistant"):
        text = f"Message {number} has content of type {_kind(content)}, not text."
        raise BadRowError("wrong_type", text)
    kept = {key: value for key, value in message.items() if value not in (None, [], {})}
    unknown = sorted(set(kept) - set(KEYS))
    if unknown:  # `weight`, say, would change what is learned
        text = f"Message {number} has {unknown[0]!r}; known are {', '.join(KEYS)}."
        raise BadRowError("unknown_key", text)
    if "tool_calls" in kept:
        if role != "assistant":
            raise BadRowError("wrong_type", f"Message {number} is from {role} and makes calls.")
        kept["tool_calls"] = _calls(number, kept["tool_calls"])
    if role == "tool":
        _require_id(number, "result", kept.get("tool_call_id"))
    return kept


def _calls(number: int, value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        text = f"Message {number} has tool_calls of type {_kind(value)}, not a list."
        raise BadRowError("wrong_type", text)
    return [_call(number, call) for call in value]


def _call(number: int, call: Any) -> dict[str, Any]:
    """The call in OpenAI's order of keys, its arguments decoded once."""
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        text = f"Message {number} has a tool call without a function and its name."
        raise BadRowError("wrong_type", text)
    if call.get("type", "function") != "function":
        text = f"Message {number} has a tool call of type {call['type']!r}, not 'function'."
        raise BadRowError("wrong_type", text)
    _require_id(number, "call", call.get("id"))
    name, arguments = function["name"], function.get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = orjson.loads(arguments)
        except orjson.JSONDecodeError as problem:
            text = f"Message {number} calls {name} with arguments that are broken JSON: {problem}."
            raise BadRowError("arguments", text) from problem
    if not isinstance(arguments, dict):
        text = f"Message {number} calls {name} with arguments that are {_kind(arguments)}."
        raise BadRowError("arguments", text)
    made = {"name": name, "arguments": arguments}
    return {"id": call["id"], "type": "function", "function": made}


def _require_id(number: int, what: str, value: Any) -> None:
    if not isinstance(value, str) or not value:
        raise BadRowError("call_id", f"Message {number} has a {what} without the id of its call.")


def _tools(row: dict[str, Any], shared: list[tools.Tool] | None) -> list[tools.Tool] | None:
    """The row's own tools where it names any, even none; else the shared ones."""
    if row.get("tools") is None:
        return shared
    wrong = tools.problem_of(row["tools"])
    if wrong:
        raise BadRowError("tools", wrong)
    return row["tools"] or None


def _category(row: dict[str, Any]) -> str:
    value = row.get("category")
    if value not in CATEGORIES:
        known = ", ".join(CATEGORIES)
        raise BadRowError("category", f"This probe is of category {value!r}; known are {known}.")
    return str(value)


def _group(messages: list[Message]) -> str:
    """Conversations that open with the same question are one group: each turn is a prompt."""
    asked = next((m["content"] for m in messages if m["role"] == "user"), "")
    folded = " ".join(asked.casefold().split())
    return hashlib.sha256(folded.encode()).hexdigest()[:16]


def _meta(messages: list[Message], source: str) -> dict[str, Any]:
    """What statistics count: calls, messages with several of them, results that are errors."""
    calls = [len(message.get("tool_calls", ())) for message in messages]
    told = (message["content"] for message in messages if message["role"] == "tool")
    return {
        "file": source.rpartition("#")[0],
        "calls": sum(calls),
        "parallel": sum(count > 1 for count in calls),
        "errors": sum(map(results.failed, told)),
    }


def _require_sound(row: Example, final_calls: bool) -> None:
    """Refuse a chat that breaks a rule of chats; its calls say more than the order of its roles."""
    found = list(dialogue.problems(row))
    found.sort(key=lambda problem: problem[0] == "roles")  # stable
    if found:
        raise BadRowError(*found[0])
    if row.messages[-1].get("tool_calls") and not final_calls:
        call = row.messages[-1]["tool_calls"][0]["id"]
        raise BadRowError("missing_result", f"It ends before the result of {call!r}.")


def _order_results(messages: list[Message]) -> None:
    """Put the results of parallel calls in the order of the calls: most templates drop the ids."""
    for place, message in enumerate(messages):
        ids = [call["id"] for call in message.get("tool_calls", ())]
        if len(ids) < 2:
            continue
        end = place + 1 + len(ids)
        messages[place + 1 : end] = sorted(
            messages[place + 1 : end], key=lambda told: ids.index(told["tool_call_id"])
        )


def _writable(value: Any) -> None:
    """Refuse what no later stage could write or read."""
    try:
        text = orjson.dumps(value)
    except orjson.JSONEncodeError as problem:  # it reads 1,024 levels and writes 254
        raise BadRowError("too_deep", f"It cannot be written again: {problem}.") from problem
    if b"\\u0000" in text and _holds_nul(value):
        raise BadRowError("nul", "It holds the character U+0000, at which C programs stop reading.")


def _holds_nul(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_holds_nul(part) for item in value.items() for part in item)
    if isinstance(value, list):
        return any(map(_holds_nul, value))
    return isinstance(value, str) and "\0" in value


def _shortened(reason: str) -> str:
    """A reason may quote what it found, and that may be megabytes."""
    return reason if len(reason) <= MOST_LETTERS else f"{reason[:MOST_LETTERS]} …"


def _kind(value: Any) -> str:
    """The JSON name of a value's type."""
    names = {dict: "object", list: "array", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")
