"""A memory's record in; its question-and-answer pairs, or why a part of it is none, out."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Record = dict[str, Any]

OBSERVED = "What did you observe?"
KEYS = (("prompt", "response"), ("content", "response"), ("question", "answer"))
CONTEXT = ("system", "developer", "tool", "function")


@dataclass(frozen=True, slots=True)
class Pair:
    """A question as it stands and an answer as it stands; `number` counts messages from 1."""

    number: int
    asked: str
    answered: str


@dataclass(frozen=True, slots=True)
class Problem:
    """Why message `number` (0: the whole memory) gives no pair: a code and a sentence."""

    number: int
    code: str
    reason: str


def of(record: Record) -> Iterator[Pair | Problem]:
    """The pairs of the first source that the memory has, and what is wrong with the rest.

    In this order: `messages` (the last user message before each assistant message), prompt and
    response, content and response, question and answer, observation (asked by a fixed question).
    As in the recorder, `messages` counts as soon as it is there, and a blank text is none.
    """
    if record.get("messages") is not None:
        yield from _conversation(record["messages"])
        return
    for asked, answered in KEYS:
        if _there(record, asked) and _there(record, answered):
            yield _plain(record, asked, answered)
            return
    if _there(record, "observation"):
        yield _plain(record | {"": OBSERVED}, "", "observation")
        return
    yield _nothing(record)


def _there(record: Record, key: str) -> bool:
    return record.get(key) not in (None, "")


def _plain(record: Record, asked: str, answered: str) -> Pair | Problem:
    for key in (asked, answered):
        if not isinstance(record[key], str):
            return Problem(1, "wrong_type", f"Its {key} is {_kind(record[key])}, not text.")
    if not record[asked].strip():
        return Problem(1, "empty_prompt", f"Its {asked} is blank.")
    if not record[answered].strip():
        return Problem(1, "empty_answer", f"Its {answered} is blank.")
    return Pair(1, record[asked], record[answered])


def _nothing(record: Record) -> Problem:
    """Why a memory without a pair has none."""
    for asked, answered in KEYS:
        if _there(record, asked) and record.get(answered) == "":
            return Problem(1, "empty_answer", f"Its {answered} is blank.")
        if _there(record, answered) and record.get(asked) == "":
            return Problem(1, "empty_prompt", f"Its {asked} is blank.")
    if _there(record, "content"):
        return Problem(0, "content_only", "It has content, but nothing that answers it.")
    return Problem(0, "no_pair", "It has neither messages nor a question with its answer.")


def _conversation(messages: Any) -> Iterator[Pair | Problem]:
    if not isinstance(messages, list):
        yield Problem(0, "wrong_type", f"Its messages are {_kind(messages)}, not a list.")
        return
    asked, waiting, found = None, 0, False
    for number, message in enumerate(messages, 1):
        part = _message(number, message)
        if part is None:
            continue
        found = True
        if isinstance(part, Problem):  # what follows answers something that cannot be read
            yield part
            asked, waiting = None, 0
        elif part[0] == "user":
            if waiting:
                yield _unanswered(waiting)
            asked, waiting = part[1], number
        elif asked is None:
            yield Problem(number, "no_question", f"Message {number} answers no user message.")
        else:
            yield _turn(number, asked, part[1])
            waiting = 0
    if waiting:
        yield _unanswered(waiting)
    if not found:
        yield Problem(0, "no_pair", "Its messages hold no question and no answer.")


def _message(number: int, message: Any) -> tuple[str, str] | Problem | None:
    """Role and text of a user or assistant message; None for one that is only context."""
    if not isinstance(message, dict):
        return Problem(number, "wrong_type", f"Message {number} is {_kind(message)}, no object.")
    role, content = message.get("role"), message.get("content")
    if role in CONTEXT:
        return None
    if role not in ("user", "assistant"):
        return Problem(number, "unknown_role", f"Message {number} is from {role!r}.")
    if not isinstance(content, str):
        text = f"Message {number} has content that is {_kind(content)}, not text."
        return Problem(number, "wrong_type", text)
    return role, content


def _turn(number: int, asked: str, answered: str) -> Pair | Problem:
    if not asked.strip():
        return Problem(number, "empty_prompt", f"Message {number} answers a blank message.")
    if not answered.strip():
        return Problem(number, "empty_answer", f"Message {number} is blank.")
    return Pair(number, asked, answered)


def _unanswered(number: int) -> Problem:
    return Problem(number, "unanswered", f"Message {number} has no answer.")


def _kind(value: Any) -> str:
    """The JSON name of a value's type, with its article."""
    names = {dict: "an object", list: "an array", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "text" if isinstance(value, str) else "a number")
