"""The messages of a row in, by OpenAI's keys or ShareGPT's; checked, with decoded calls, out."""

from typing import Any

import orjson

from stages.core.example import Message

ROLES = ("system", "user", "assistant", "tool")
MESSAGE_KEYS = ("role", "content", "name", "tool_calls", "tool_call_id")
KINDS: dict[type, str] = {
    **{dict: "object", list: "array", str: "string", bool: "boolean", type(None): "null"},
    **dict.fromkeys((int, float), "number"),
}
TURN_KEYS = ("from", "value")
CALL = "function_call"  # a ShareGPT turn whose value is a call as JSON text
SPEAKERS = {
    **{"system": "system", "human": "user", "user": "user", CALL: "assistant"},
    **dict.fromkeys(("gpt", "assistant", "chatgpt", "bing", "bard", "model"), "assistant"),
    **dict.fromkeys(("observation", "tool", "function_response"), "tool"),
}


class BadRowError(ValueError):
    """Why a row is no example.

    Attributes:
        code: a short reason code.
    """

    def __init__(self, code: str, reason: str) -> None:
        self.code = code
        super().__init__(reason)


def chat(value: Any) -> list[Message]:
    """The messages of a whole conversation, which ends with an answer."""
    messages = turns(value)
    require_answer(messages)
    return messages


def turns(value: Any) -> list[Message]:
    """The messages of a list in either form, wherever it ends."""
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise BadRowError("wrong_type", "Its messages are not a list of objects.")
    if not value:
        raise BadRowError("no_messages", "Its list of messages is empty.")
    read = _turn if "from" in value[0] else _message
    return [read(number, message) for number, message in enumerate(value, 1)]


def require_answer(messages: list[Message]) -> None:
    """Refuse messages whose last one is no answer, or a blank one."""
    last = messages[-1]
    if last["role"] != "assistant":
        raise BadRowError("no_answer", f"It ends with {last['role']}: there is nothing to learn.")
    if not (last.get("content") or "").strip() and not last.get("tool_calls"):
        raise BadRowError("empty_answer", "Its last message is blank.")


def _message(number: int, message: dict[str, Any]) -> Message:
    """The message with its arguments decoded; null keys and empty tool_calls are left out."""
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        raise _unknown_role(number, role, ROLES)
    if not isinstance(content, str) and (content is not None or role != "assistant"):
        text = f"Message {number} has content of type {kind(content)}, not text."
        raise BadRowError("wrong_type", text)
    kept = {key: value for key, value in message.items() if value is not None}
    if kept.get("tool_calls") == []:
        del kept["tool_calls"]
    _refuse_other_keys(number, kept, MESSAGE_KEYS)
    if "tool_calls" in kept:
        kept["tool_calls"] = _calls(number, kept["tool_calls"])
    return kept


def _turn(number: int, turn: dict[str, Any]) -> Message:
    """A ShareGPT turn `{"from", "value"}` as a message."""
    speaker, value = turn.get("from"), turn.get("value")
    role = SPEAKERS.get(speaker) if isinstance(speaker, str) else None
    if role is None:
        raise _unknown_role(number, speaker, SPEAKERS)
    if not isinstance(value, str):
        text = f"Message {number} has a value of type {kind(value)}, not text."
        raise BadRowError("wrong_type", text)
    _refuse_other_keys(number, {key: v for key, v in turn.items() if v is not None}, TURN_KEYS)
    if speaker != CALL:
        return {"role": role, "content": value}
    called = _decoded(number, "a function", value)
    listed = called if isinstance(called, list) else [called]
    return {"role": role, "tool_calls": _calls(number, [{"function": call} for call in listed])}


def _unknown_role(number: int, role: Any, known: Any) -> BadRowError:
    text = f"Message {number} is from {role!r}; known are {', '.join(known)}."
    return BadRowError("unknown_role", text)


def _refuse_other_keys(number: int, message: dict[str, Any], known: tuple[str, ...]) -> None:
    unknown = sorted(set(message) - set(known))
    if unknown:  # `weight` or `reasoning_content`, say, would change what is learned
        text = f"Message {number} has {unknown[0]!r}; known are {', '.join(known)}."
        raise BadRowError("unknown_key", text)


def _calls(number: int, value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        text = f"Message {number} has tool_calls of type {kind(value)}, not a list."
        raise BadRowError("wrong_type", text)
    if not value:
        raise BadRowError("empty_answer", f"Message {number} calls nothing.")
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
        text = f"Message {number} calls {function['name']} with a {kind(arguments)}, no object."
        raise BadRowError("arguments", text)
    return {**call, "function": function | {"arguments": arguments}}


def _decoded(number: int, name: str, text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as problem:
        reason = f"Message {number} calls {name} with arguments that are broken JSON: {problem}."
        raise BadRowError("arguments", reason) from problem


def kind(value: Any) -> str:
    """The JSON name of a value's type."""
    return KINDS.get(type(value), type(value).__name__)
