"""The raw text of an answer in; the tool calls in it, and the text around them, out.

Known are the block of Hermes and Qwen (`<tool_call>` JSON `</tool_call>`), and JSON alone, as it is
left of Llama's form (`name`, `parameters`, one a line) and Mistral's (a list) once their control
tokens are taken out, or with them.
"""

from dataclasses import dataclass
from typing import Any

import orjson

OPENS, CLOSES = "<tool_call>", "</tool_call>"
MARKS = ("[TOOL_CALLS]", "<|python_tag|>")
BARE = ('{"name"', '[{"name"', '{"type"')


@dataclass(frozen=True, slots=True)
class Call:
    """One call that was read whole."""

    name: str
    arguments: dict[str, Any]

    def key(self) -> bytes:
        """Equal for calls that are equal, whatever the order of their keys."""
        return orjson.dumps([self.name, self.arguments], option=orjson.OPT_SORT_KEYS)


@dataclass(frozen=True, slots=True)
class Answer:
    """What an answer is made of.

    Attributes:
        calls: the calls that could be read, in order.
        broken: how many calls were begun, or closed, that could not.
        text: all that is no call.
    """

    calls: list[Call]
    broken: int
    text: str


def parse(answer: str) -> Answer:
    """The parts of an answer; text that merely speaks of calls is text."""
    if OPENS in answer or CLOSES in answer:
        return _blocks(answer)
    bare = answer.strip()
    mark = next((mark for mark in MARKS if bare.startswith(mark)), "")
    bare = bare.removeprefix(mark).strip()
    if not mark and not bare.replace(" ", "").startswith(BARE):
        return Answer([], 0, answer)
    calls = _bare(bare)
    return Answer(calls, 0, "") if calls else Answer([], 1, "")


def _blocks(answer: str) -> Answer:
    """The calls between the tags; a block must be closed and hold exactly one call."""
    head, *rest = answer.split(OPENS)
    calls, texts, broken = [], [head], 0
    for block in rest:
        inside, closed, after = block.partition(CLOSES)
        call = _call(_loads(inside)) if closed else None
        if call is None:
            broken += 1
        else:
            calls.append(call)
        texts.append(after)
    text = "\n".join(texts)
    return Answer(calls, broken + text.count(CLOSES), text.replace(CLOSES, ""))


def _bare(text: str) -> list[Call]:
    """The calls of JSON alone; empty where any part of it is none."""
    whole = _loads(text)
    if whole is None:
        parts = [_loads(line.strip().removesuffix(";")) for line in text.splitlines() if line]
    else:
        parts = whole if isinstance(whole, list) else [whole]
    calls = [_call(part) for part in parts]
    return [] if None in calls else [call for call in calls if call]


def _loads(text: str) -> Any:
    """The JSON value, None where it is none."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None


def _call(value: Any) -> Call | None:
    """The call that this value is: a name, and arguments that are an object, not JSON text."""
    if not isinstance(value, dict):
        return None
    name, arguments = value.get("name"), value.get("arguments", value.get("parameters"))
    if not isinstance(name, str) or not isinstance(arguments, dict):
        return None
    try:
        orjson.dumps(arguments)
    except orjson.JSONEncodeError:  # nested deeper than can be written again
        return None
    return Call(name, arguments)
