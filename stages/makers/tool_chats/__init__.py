"""A seed in; tool-call conversations of a coding clerk, in three phases, with probes, out.

The files are in the form of OpenAI's chat lines: `1-tools.jsonl` (one call, then the answer),
`2-agentic.jsonl` (calls that build on results, parallel calls, errors), `3-integration.jsonl`
(test first, debugging, refactoring, and turns in which no call is due), `probes.jsonl` (of all
these, under four categories; no request of it stands in another file) and `tools.json`.
Requests, files, symbols and results are drawn from small lists; nothing is quoted from anywhere.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import orjson

from stages.core.errors import TunesmithError
from stages.core.settings import Count, Positive, Settings
from stages.makers.tool_chats import agentic, integration, single
from stages.makers.tool_chats.chat import SYSTEM, TOOLS, Chat

__all__ = ["Options", "make"]

Kind = Callable[[Random], Chat]

PHASES: dict[str, tuple[Kind, ...]] = {
    "1-tools": single.KINDS,
    "2-agentic": agentic.KINDS,
    "3-integration": integration.KINDS,
}
PROBES: dict[str, tuple[Kind, ...]] = {
    "tool_use": (*single.KINDS, *agentic.KINDS, *integration.NO_CALLS),
    "tdd": integration.TDD,
    "debugging": integration.DEBUGGING,
    "refactoring": integration.REFACTORING,
}
TRIES = 1000


class Options(Settings):
    """How many conversations of each phase, and probes, which are shared among the categories.

    A conversation holds 1 to `requests` requests, one after the other; a probe holds one.
    """

    seed: Count
    requests: Positive
    tools: Positive
    agentic: Positive
    integration: Positive
    probes: Count


def make(options: Options, out: Path) -> None:
    """Write the five files into the existing folder `out`.

    A line depends on the seed, its file, its number, and the requests already taken.

    Raises:
        TunesmithError: more conversations are wanted than there are different requests.
    """
    taken: set[str] = set()
    indented = orjson.dumps(TOOLS, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    (out / "tools.json").write_bytes(indented)
    _write(out / "probes.jsonl", _probes(options, taken))
    counts = (options.tools, options.agentic, options.integration)
    for (name, kinds), count in zip(PHASES.items(), counts, strict=True):
        chats = (_several(options, name, n, kinds, taken) for n in range(count))
        _write(out / f"{name}.jsonl", (_line(chat) for chat in chats))


def _probes(options: Options, taken: set[str]) -> Iterator[dict[str, Any]]:
    """The lines of the probes, the categories in turn."""
    names = tuple(PROBES)
    for number in range(options.probes):
        place, category = number // len(names), names[number % len(names)]
        random = Random(f"{options.seed} {category} {place}")
        chat = _draw(random, category, place, PROBES[category], taken)
        chat.vary(random)
        yield {"category": category, **_line(chat)}


def _several(
    options: Options, name: str, number: int, kinds: Sequence[Kind], taken: set[str]
) -> Chat:
    """The conversation of this number: the kinds in turn, more requests at random."""
    random = Random(f"{options.seed} {name} {number}")
    chat = _draw(random, name, number, kinds, taken)
    for _ in range(random.randrange(options.requests)):
        chat.join(_draw(random, name, random.randrange(len(kinds)), kinds, taken))
    chat.vary(random)
    return chat


def _draw(random: Random, name: str, number: int, kinds: Sequence[Kind], taken: set[str]) -> Chat:
    """A conversation of this number's kind, with a request that is not taken."""
    kind = kinds[number % len(kinds)]
    for _ in range(TRIES):
        chat = kind(random)
        if chat.request not in taken:
            taken.add(chat.request)
            return chat
    raise TunesmithError(
        f"The maker knows no more different requests for {name} (at number {number}).",
        where="samples",
        why="A request that stands twice would be in training and in test.",
        do="Lower the counts of the maker `tool_chats`.",
    )


def _line(chat: Chat) -> dict[str, Any]:
    """The row: a system message in most, the tools in most (the rest rely on tools.json)."""
    messages = chat.messages
    if chat.with_system:
        messages = [{"role": "system", "content": SYSTEM}, *messages]
    return {"messages": messages} | ({"tools": TOOLS} if chat.with_tools else {})


def _write(path: Path, lines: Iterator[dict[str, Any]]) -> None:
    with path.open("wb") as out:
        for line in lines:
            out.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
