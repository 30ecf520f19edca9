"""An example and an answer in; what the answer does with the tools, turn by turn, out."""

import re
from collections import Counter
from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from stages.core import dialogue
from stages.core.example import Example, Message
from stages.recipes.tool_chats import results
from stages.recipes.tool_chats.answers import Answer, Call, parse
from stages.recipes.tool_chats.rows import CATEGORIES
from stages.recipes.tool_chats.tidiness import tidy

METRICS = (
    *("call", "parses", "known_tool", "arguments_valid", "tool", "matching", "parallel"),
    *("no_call", "facts", "recovery", "clean", "right", *CATEGORIES),
)
WORD = re.compile(r"[^\s\"'`,;:()\[\]{}<>|=*]+")


def judge(example: Example, answer: str) -> dict[str, float]:
    """Scores of the turn that `example.messages[-1]` is the reference of.

    Where calls are due: `call`, one is made and can be read; `parses`, all can; `known_tool`, all
    name a tool that is offered; `arguments_valid`, all fit their JSON schema; `tool`, the tools
    are those due; `matching`, the arguments too, in any order of the calls; `parallel`, where
    several are due: as many different ones are made, and valid. Where none is due: `no_call`, none
    is made and the answer is clean; `facts`, the share of numbers, paths and names of the reference
    that come from the conversation and stand in the answer. `recovery`, after a result that
    reads as an error: does what the reference does, calls without repeating the call that failed,
    or answers. `clean`: see `tidiness.tidy`. `right`: clean and matching, or clean and all facts;
    for a probe also under its category.
    """
    made, due = parse(answer), _calls(example.messages[-1])
    scores = {"clean": float(tidy(made.text, answer, _context(example)))}
    if due:
        scores |= _calling(example, made, due)
        right = scores["clean"] and scores["matching"]
    else:
        scores |= _answering(example, made, answer, bool(scores["clean"]))
        right = scores["no_call"] and scores.get("facts", 1.0) == 1.0
    if failures := _failures(example.messages[:-1]):
        scores["recovery"] = _recovery(scores, made, due, failures)
    scores["right"] = float(bool(right))
    if example.meta.get("probe"):
        scores[example.meta["category"]] = scores["right"]
    return scores


def _calling(example: Example, made: Answer, due: Sequence[Call]) -> dict[str, float]:
    """Scores of a turn that must call; each asks for all that the one before it asks for."""
    parses = bool(made.calls) and not made.broken
    wrong = _problems(example, made.calls) if parses else {"unparsed"}
    known = parses and "unknown_tool" not in wrong
    valid = known and not wrong
    names = Counter(call.name for call in made.calls) == Counter(call.name for call in due)
    keys, wanted = (Counter(call.key() for call in calls) for calls in (made.calls, due))
    scores = {"call": bool(made.calls), "parses": parses, "known_tool": known}
    scores |= {
        "arguments_valid": valid,
        "tool": known and names,
        "matching": valid and keys == wanted,
    }
    if len(due) > 1:
        alike = (keys.total(), len(keys)) == (wanted.total(), len(wanted))
        scores["parallel"] = valid and alike
    return {name: float(value) for name, value in scores.items()}


def _answering(example: Example, made: Answer, answer: str, clean: bool) -> dict[str, float]:
    """Scores of a turn that must answer in words."""
    scores = {"no_call": float(clean and not made.calls and not made.broken)}
    told = _words(_context(example, reference=False))
    facts = {
        word for word in _words(example.messages[-1].get("content") or "") if _is_fact(word)
    } & told
    if facts:
        scores["facts"] = len(facts & _words(answer)) / len(facts) if scores["no_call"] else 0.0
    return scores


def _problems(example: Example, calls: Sequence[Call]) -> set[str]:
    """The codes of what is wrong with these calls, by the rules that examples are checked by."""
    made = [
        {"id": str(number), "function": {"name": call.name, "arguments": call.arguments}}
        for number, call in enumerate(calls)
    ]
    chat: list[Message] = [{"role": "user", "content": "."}]
    chat.append({"role": "assistant", "tool_calls": made})
    return {code for code, _ in dialogue.problems(Example(chat, "", "", {}, example.tools))}


def _failures(before: Sequence[Message]) -> list[Call]:
    """The calls whose results stand right before the turn and read as errors."""
    told = list(takewhile(lambda message: message["role"] == "tool", reversed(before)))
    ids = {one["tool_call_id"] for one in told if results.failed(one["content"])}
    last = before[-len(told) - 1] if told else {}
    pairs = zip(last.get("tool_calls", ()), _calls(last), strict=True)
    return [call for row, call in pairs if row["id"] in ids]


def _recovery(
    scores: dict[str, float], made: Answer, due: Sequence[Call], failures: Sequence[Call]
) -> float:
    """1 when the answer goes on as the reference does, be it with other words or arguments."""
    if not due:
        return scores["no_call"]
    stuck = {call.key() for call in failures} - {call.key() for call in due}
    again = any(call.key() in stuck for call in made.calls)
    return float(bool(scores["arguments_valid"] and scores["clean"] and not again))


def _calls(message: dict[str, Any]) -> list[Call]:
    functions = [call["function"] for call in message.get("tool_calls") or ()]
    return [Call(function["name"], function["arguments"]) for function in functions]


def _context(example: Example, reference: bool = True) -> str:
    """All that was said before the turn, calls included, and the reference if wanted."""
    messages = example.messages if reference else example.messages[:-1]
    said = [message.get("content") or "" for message in messages]
    said += [call.key().decode() for message in messages for call in _calls(message)]
    return "\n".join(said)


def _words(text: str) -> set[str]:
    """Words without the signs around them; paths and names stay whole."""
    return {word.strip(".!?-") for word in WORD.findall(text)} - {""}


def _is_fact(word: str) -> bool:
    """Whether a word is a number, a path or a name of code: nothing that one says by chance."""
    return any(letter.isdigit() or letter in "_./" for letter in word)
