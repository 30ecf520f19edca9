"""A row with `chosen` and `rejected` in; the prompt with the answer wanted, and the other, out.

The forms are those of TRL's preference datasets ("Dataset formats and types"): the prompt stands
beside the two answers (explicit) or at the start of both (implicit), as text or as messages.
"""

import re
from typing import Any

from stages.core.example import Message
from stages.recipes.chats import messages
from stages.recipes.chats.messages import BadRowError

ASKED = ("prompt", "question", "instruction")
CONTEXT = ("messages", "conversations")
# Text dialogues of the older reward data sets; a turn begins after a blank line.
SPOKEN = re.compile(r"(?:^|\n\n)(Human|Assistant):")
SPEAKERS = {"Human": "user", "Assistant": "assistant"}


def pair(row: dict[str, Any]) -> tuple[list[Message], Message]:
    """The messages that end with the chosen answer, and the rejected one as a message."""
    chosen, rejected = (_answer(row, key) for key in ("chosen", "rejected"))
    if isinstance(chosen, str) and isinstance(rejected, str):
        shared, wanted, other = _of_text(row, chosen, rejected)
    elif isinstance(chosen, list) and isinstance(rejected, list):
        shared, wanted, other = _of_messages(row, chosen, rejected)
    else:
        text = "One of its chosen and rejected is text, the other messages."
        raise BadRowError("wrong_type", text)
    if not shared:
        raise BadRowError("empty_prompt", "Its chosen and rejected share no prompt.")
    for said in (wanted, other):
        if len(said) != 1 or said[0]["role"] != "assistant":
            raise _not_one_answer(wanted, other)
        messages.require_answer(said)
    if wanted == other:
        raise BadRowError("same_answers", "Its chosen and rejected are the same.")
    return shared + wanted, other[0]


def _answer(row: dict[str, Any], key: str) -> str | list[Message]:
    """Text as it is; one message or a list of them as messages."""
    value = row[key]
    if isinstance(value, str):
        return value
    return messages.turns([value] if isinstance(value, dict) else value)


def _not_one_answer(wanted: list[Message], other: list[Message]) -> BadRowError:
    text = (
        f"After what both share, its chosen has {len(wanted)} message(s) and its rejected "
        f"{len(other)}; a pair is one answer each."
    )
    return BadRowError("not_one_answer", text)


def _of_text(
    row: dict[str, Any], chosen: str, rejected: str
) -> tuple[list[Message], list[Message], list[Message]]:
    """What is shared, and what is left of both texts."""
    prompt = _prompt(row)
    if prompt is None and chosen == rejected:
        raise BadRowError("same_answers", "Its chosen and rejected are the same.")
    if prompt is None and _is_spoken(chosen) and _is_spoken(rejected):
        return _parted(_spoken(chosen), _spoken(rejected))
    if prompt is None:
        size = _shared_words(chosen, rejected)
        prompt, chosen, rejected = _asked(chosen[:size].strip()), chosen[size:], rejected[size:]
    return prompt, _said(chosen), _said(rejected)


def _said(text: str) -> list[Message]:
    return [{"role": "assistant", "content": text.strip()}]


def _asked(text: str) -> list[Message]:
    """A prompt of text: a dialogue where it is written as one, else one question."""
    if _is_spoken(text):
        spoken = _spoken(text)  # such a prompt ends with `Assistant:`
        return spoken if spoken[-1]["content"] else spoken[:-1]
    return [{"role": "user", "content": text}] if text.strip() else []


def _shared_words(one: str, two: str) -> int:
    """How many characters both begin with, back to a whitespace so that no word is cut."""
    size = next((n for n, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), 0)
    while size and not one[size - 1].isspace():
        size -= 1
    return size


def _is_spoken(text: str) -> bool:
    return text.lstrip().startswith("Human:")


def _spoken(text: str) -> list[Message]:
    """The turns of a text `Human: … Assistant: …`."""
    parts = SPOKEN.split(text.strip())[1:]
    return [
        {"role": SPEAKERS[who], "content": said.strip()}
        for who, said in zip(parts[::2], parts[1::2], strict=True)
    ]


def _of_messages(
    row: dict[str, Any], chosen: list[Message], rejected: list[Message]
) -> tuple[list[Message], list[Message], list[Message]]:
    prompt = _prompt(row)
    if chosen[0]["role"] == "assistant":  # answers alone: the prompt stands beside them
        return prompt or _context(row), chosen, rejected
    shared, wanted, other = _parted(chosen, rejected)
    if prompt and not _holds(shared, prompt):
        text = "Its chosen is a whole conversation, in which its prompt does not stand."
        raise BadRowError("prompt_differs", text)
    return shared, wanted, other


def _parted(
    one: list[Message], two: list[Message]
) -> tuple[list[Message], list[Message], list[Message]]:
    """The messages that both begin with, and what is left of each."""
    if one == two:
        raise BadRowError("same_answers", "Its chosen and rejected are the same.")
    size = next(
        (n for n, (a, b) in enumerate(zip(one, two, strict=False)) if a != b),
        min(len(one), len(two)),
    )
    return one[:size], one[size:], two[size:]


def _holds(shared: list[Message], prompt: list[Message]) -> bool:
    """Whether every message of the prompt stands among the shared ones."""
    texts = [(message["role"], (message.get("content") or "").strip()) for message in shared]
    return all((m["role"], (m.get("content") or "").strip()) in texts for m in prompt)


def _prompt(row: dict[str, Any]) -> list[Message] | None:
    """The prompt beside the answers; None where there is none."""
    key = next((key for key in ASKED if row.get(key) is not None), None)
    if key is None:
        return None
    value = row[key]
    if not isinstance(value, str):
        return messages.turns(value)
    more = row.get("input") if key == "instruction" else None
    return _asked(f"{value}\n\n{more}" if isinstance(more, str) and more else value)


def _context(row: dict[str, Any]) -> list[Message]:
    value = next((row[key] for key in CONTEXT if row.get(key) is not None), None)
    return [] if value is None else messages.turns(value)
