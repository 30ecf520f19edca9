"""A JSON object of a known shape in; its example, or the reason why it is none, out."""

from typing import Any

import orjson

from stages.core.example import Example, Message, Reject
from stages.recipes.chats import messages, pairs
from stages.recipes.chats.messages import BadRowError, kind

# Plain shapes: (name, the key asked, the key answered), the first that fits counts.
PLAIN = (
    ("prompt", "prompt", "completion"),
    ("instruction", "instruction", "output"),
    ("input", "input", "output"),
    ("question", "question", "answer"),
)
KNOWN = "messages, conversations, chosen + rejected, " + ", ".join(
    f"{asked} + {answered}" for _, asked, answered in PLAIN
)
KEYS = (
    *("messages", "conversations", "chosen", "rejected"),
    *dict.fromkeys(key for _, *keys in PLAIN for key in keys),
    *("history", "label", "system", "tools", "meta"),
)


def example(row: dict[str, Any], source: str, system: str, group_by: str) -> Example | Reject:
    """The example of a row, or its Reject."""
    try:
        form, said, rejected = _shape(row)
        if said[0]["role"] != "system" and (first := _system(row) or system):
            said.insert(0, {"role": "system", "content": first})
        tools = _tools(row)
        meta = _meta(row) | {"format": form, "turns": _turns(said)}
        _writable([said, tools, meta, rejected])
        return Example(said, source, _group(row, group_by) or source, meta, tools, rejected)
    except BadRowError as problem:
        return Reject(source, problem.code, str(problem))


def _shape(row: dict[str, Any]) -> tuple[str, list[Message], Message | None]:
    """The name of the row's shape, its messages, and the answer not wanted of a pair."""
    if "chosen" in row and "rejected" in row:
        return "preference", *pairs.pair(row)
    if "messages" in row:
        return "messages", messages.chat(row["messages"]), None
    if "conversations" in row:
        return "sharegpt", messages.chat(row["conversations"]), None
    for form, asked, answered in PLAIN:
        if asked in row and answered in row:
            return form, _plain(row, asked, answered), None
    raise BadRowError("no_known_keys", f"It has the keys {sorted(row)}; known are {KNOWN}.")


def _plain(row: dict[str, Any], asked: str, answered: str) -> list[Message]:
    """What was said before, the question, and the answer."""
    if row.get("label") is False:  # a row of an unpaired preference set (TRL: KTO)
        raise BadRowError("unwanted_answer", "Its label is false: the answer is not to be learned.")
    if asked == "prompt" and (isinstance(row["prompt"], list) or isinstance(row[answered], list)):
        said = _spoken(row["prompt"], "user") + _spoken(row[answered], "assistant")
        messages.require_answer(said)
        return said
    question, answer = _text(row, asked), _text(row, answered)
    if asked == "instruction" and row.get("input"):
        question = f"{question}\n\n{_text(row, 'input')}"
    if not question.strip():
        raise BadRowError("empty_prompt", f"Its {asked} is blank.")
    if not answer.strip():
        raise BadRowError("empty_answer", f"Its {answered} is blank.")
    return [*_history(row), *_turn(question, answer)]


def _turn(question: str, answer: str) -> list[Message]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def _spoken(value: Any, role: str) -> list[Message]:
    """Messages as they are; text as one message from `role`."""
    return [{"role": role, "content": value}] if isinstance(value, str) else messages.turns(value)


def _history(row: dict[str, Any]) -> list[Message]:
    """The earlier turns of an Alpaca row, pairs of question and answer."""
    history = row.get("history") or []
    if not isinstance(history, list) or not all(map(_is_pair, history)):
        raise BadRowError("wrong_type", "Its history is not a list of pairs of texts.")
    return [message for turn in history for message in _turn(*turn)]


def _is_pair(turn: Any) -> bool:
    return isinstance(turn, list) and len(turn) == 2 and all(isinstance(t, str) for t in turn)


def _text(row: dict[str, Any], key: str) -> str:
    value = row[key]
    if not isinstance(value, str):
        raise BadRowError("wrong_type", f"Its {key} is of type {kind(value)}, not text.")
    return value


def _system(row: dict[str, Any]) -> str:
    return _text(row, "system") if row.get("system") else ""


def _tools(row: dict[str, Any]) -> list[dict[str, Any]] | None:
    """The row's tools; a list written as JSON text, as beside ShareGPT turns, is decoded."""
    tools = row.get("tools")
    if isinstance(tools, str) and tools:
        try:
            tools = orjson.loads(tools)
        except orjson.JSONDecodeError as problem:
            raise BadRowError("wrong_type", f"Its tools are broken JSON: {problem}.") from problem
    if tools and (not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools)):
        raise BadRowError("wrong_type", "Its tools are not a list of objects.")
    return tools or None


def _meta(row: dict[str, Any]) -> dict[str, Any]:
    """The plain values of the row's `meta`; lists and objects are no statistics."""
    meta = row.get("meta") or {}
    if not isinstance(meta, dict):
        raise BadRowError("wrong_type", f"Its meta is of type {kind(meta)}, not an object.")
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


def _turns(said: list[Message]) -> int:
    """How many times the assistant speaks."""
    return sum(message["role"] == "assistant" for message in said)


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
