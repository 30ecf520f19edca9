"""A JSON object of one of four shapes in; its example, or the reason why it is none, out."""

from typing import Any

import orjson

from stages.core.example import Example, Message, Reject

# Plain shapes: (name, the key asked, the key answered), the first that fits counts.
PLAIN = (
    ("prompt", "prompt", "completion"),
    ("instruction", "instruction", "output"),
    ("input", "input", "output"),
)
KNOWN = "messages, prompt + completion, instruction + output, or input + output"
ROLES = ("system", "user", "assistant", "tool")
MESSAGE_KEYS = ("role", "content", "name", "tool_calls", "tool_call_id")


class BadRowError(ValueError):
    """Why a row is no example.

    Attributes:
        code: a short reason code.
    """

    def __init__(self, code: str, reason: str) -> None:
        self.code = code
        super().__init__(reason)


def example(row: dict[str, Any], source: str, system: str, group_by: str) -> Example | Reject:
    """The example of a row, or its Reject."""
    try:
        form, messages = _messages(row)
        if system and messages[0]["role"] != "system":
            messages.insert(0, {"role": "system", "content": system})
        tools = _tools(row)
        meta = _meta(row) | {"format": form, "turns": _turns(messages)}
        _writable([messages, tools, meta])
        return Example(messages, source, _group(row, group_by) or source, meta, tools)
    except BadRowError as problem:
        return Reject(source, problem.code, str(problem))


def _messages(row: dict[str, Any]) -> tuple[str, list[Message]]:
    """The name of the row's shape, and its messages."""
    if "messages" in row:
        return "messages", _chat(row["messages"])
    for form, asked, answered in PLAIN:
        if asked in row and answered in row:
            return form, _plain(row, asked, answered)
    raise BadRowError("no_known_keys", f"It has the keys {sorted(row)}; known are {KNOWN}.")


def _plain(row: dict[str, Any], asked: str, answered: str) -> list[Message]:
    """System message if the row brings one, question and answer."""
    question, answer = _text(row, asked), _text(row, answered)
    if asked == "instruction" and row.get("input"):
        question = f"{question}\n\n{_text(row, 'input')}"
    if not question.strip():
        raise BadRowError("empty_prompt", f"Its {asked} is blank.")
    if not answer.strip():
        raise BadRowError("empty_answer", f"Its {answered} is blank.")
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    if row.get("system"):
        messages.insert(0, {"role": "system", "content": _text(row, "system")})
    return messages


def _text(row: dict[str, Any], key: str) -> str:
    value = row[key]
    if not isinstance(value, str):
        raise BadRowError("wrong_type", f"Its {key} is of type {_kind(value)}, not text.")
    return value


def _chat(value: Any) -> list[Message]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise BadRowError("wrong_type", "Its messages are not a list of objects.")
    if not value:
        raise BadRowError("no_messages", "Its list of messages is empty.")
    messages = [_message(number, message) for number, message in enumerate(value, 1)]
    last = messages[-1]
    if last["role"] != "assistant":
        raise BadRowError("no_answer", f"It ends with {last['role']}: there is nothing to learn.")
    if not (last.get("content") or "").strip() and not last.get("tool_calls"):
        raise BadRowError("empty_answer", "Its last message is blank.")
    return messages


def _message(number: int, message: dict[str, Any]) -> Message:
    """The message with its arguments decoded; null keys and empty tool_calls are left out."""
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        text = f"Message {number} is from {role!r}; known are {', '.join(ROLES)}."
        raise BadRowError("unknown_role", text)
    if not isinstance(content, str) and (content is not None or role != "assistant"):
        text = f"Message {number} has content of type {_kind(content)}, not text."
        raise BadRowError("wrong_type", text)
    kept = {key: value for key, value in message.items() if value is not None}
    if kept.get("tool_calls") == []:
        del kept["tool_calls"]
    unknown = sorted(set(kept) - set(MESSAGE_KEYS))
    if unknown:  # `weight` or `reasoning_content`, say, would change what is learned
        text = f"Message {number} has {unknown[0]!r}; known are {', '.join(MESSAGE_KEYS)}."
        raise BadRowError("unknown_key", text)
    if "tool_calls" in kept:
        kept["tool_calls"] = _calls(number, kept["tool_calls"])
    return kept


def _calls(number: int, value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        text = f"Message {number} has tool_calls of type {_kind(value)}, not a list."
        raise BadRowError("wrong_type", text)
    return [_call(number, call) for call in value]


def _call(number: int, call: Any) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        text = f"Message {number} has a tool call without a function and its name."
        raise BadRowError("wrong_type", text)
    arguments = function.get("arguments", {})
    if isinstance(arguments, str):  # OpenAI writes them as JSON text; templates want the object
        arguments = _decoded(number, function["name"], arguments)
    if not isinstance(arguments, dict):
        text = f"Message {number} calls {function['name']} with a {_kind(arguments)}, no object."
        raise BadRowError("arguments", text)
    return {**call, "function": function | {"arguments": arguments}}


def _decoded(number: int, name: str, text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as problem:
        reason = f"Message {number} calls {name} with arguments that are broken JSON: {problem}."
        raise BadRowError("arguments", reason) from problem


def _tools(row: dict[str, Any]) -> list[dict[str, Any]] | None:
    tools = row.get("tools")
    if tools is not None and (
        not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools)
    ):
        raise BadRowError("wrong_type", "Its tools are not a list of objects.")
    return tools or None


def _meta(row: dict[str, Any]) -> dict[str, Any]:
    """The plain values of the row's `meta`; lists and objects are no statistics."""
    meta = row.get("meta") or {}
    if not isinstance(meta, dict):
        raise BadRowError("wrong_type", f"Its meta is of type {_kind(meta)}, not an object.")
    return {key: value for key, value in meta.items() if isinstance(value, str | int | float)}


def _group(row: dict[str, Any], key: str) -> str:
    """The value to group by as text; "" where each row is its own group."""
    if not key:
        return ""
    meta = row.get("meta") or {}
    value = row.get(key, meta.get(key))
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        text = f"It has no text or whole number under {key!r}, by which rows are grouped."
        raise BadRowError("no_group", text)
    return f"{key}:{value}"


def _turns(messages: list[Message]) -> int:
    """How many times the assistant speaks."""
    return sum(message["role"] == "assistant" for message in messages)


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


def _kind(value: Any) -> str:
    """The JSON name of a value's type."""
    names = {dict: "object", list: "array", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")
