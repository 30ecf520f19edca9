"""Kept examples in; what they teach about tools, and what they leave out, as a report out."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from stages.core.example import Example
from stages.core.settings import Settings
from stages.recipes.tool_chats import results, tools
from stages.recipes.tool_chats.rows import CATEGORIES


def report(examples: Iterable[Example], options: Settings) -> dict[str, Any]:
    """Calls by tool, kinds of turns, probes by category; verdicts name what is missing.

    `turns` counts assistant messages: with one call, with several, with none; `after_errors` are
    those that follow a result which reads as an error, `before_tools` answers before any call.
    """
    calls: Counter[str] = Counter()
    turns: Counter[str] = Counter()
    probes: Counter[str] = Counter()
    offered: set[str] = set()
    for row in examples:
        offered.update(tools.name_of(tool) for tool in row.tools or ())
        for place, message in enumerate(row.messages):
            if message["role"] == "assistant":
                names = [call["function"]["name"] for call in message.get("tool_calls", ())]
                calls.update(names)
                turns.update(_kinds(row, place, len(names)))
        if row.meta.get("probe"):
            probes[row.meta["category"]] += 1
    asked = bool(getattr(options, "probes", ""))
    return {
        "calls": dict(calls.most_common()),
        "never_called": sorted(offered - set(calls)),
        "turns": {name: turns[name] for name in KINDS},
        "probes": {name: probes[name] for name in CATEGORIES},
        "verdicts": _verdicts(
            calls, sorted(offered - set(calls)), turns, probes if asked else None
        ),
    }


KINDS = ("one_call", "parallel_calls", "no_call", "before_tools", "after_errors")


def _kinds(row: Example, place: int, calls: int) -> list[str]:
    """What sort of turn the assistant message at this place is."""
    found = ["no_call" if not calls else "one_call" if calls == 1 else "parallel_calls"]
    before = row.messages[:place]
    if not calls and not any(message["role"] == "tool" for message in before):
        found.append("before_tools")
    if before and before[-1]["role"] == "tool" and results.failed(before[-1]["content"]):
        found.append("after_errors")
    return found


def _verdicts(
    calls: Counter[str], never: list[str], turns: Counter[str], probes: Counter[str] | None
) -> list[str]:
    made = ", ".join(f"{name} {count}" for name, count in calls.most_common())
    found = [f"tool calls: {made or 'none'}"]
    if never:
        found.append(f"warning: never called: {', '.join(never)}")
    lacking = [name.replace("_", " ") for name in KINDS if not turns[name]]
    if lacking:
        found.append(f"warning: no turn of: {', '.join(lacking)}")
    if probes is not None and (unasked := [name for name in CATEGORIES if not probes[name]]):
        found.append(f"warning: no probe of: {', '.join(unasked)}")
    return found
