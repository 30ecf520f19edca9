"""A match's examples and its losers' answers in; examples with an answer to reject out."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from stages.core.example import Example, Reject
from stages.recipes.games.judge import parse


@dataclass(frozen=True, slots=True)
class Loser:
    """What a unit of the losing side answered: its class, when, and its two actions."""

    cls: str
    round: int
    n: int
    source: str
    answer: str
    actions: tuple[dict[str, Any], dict[str, Any]]


def paired(found: Sequence[Example | Reject], losers: Sequence[Loser]) -> list[Example | Reject]:
    """Each example with the answer to reject, or a reject `no_pair` in its place."""
    return [item if isinstance(item, Reject) else _pair(item, losers) for item in found]


def _pair(example: Example, losers: Sequence[Loser]) -> Example | Reject:
    """The loser of the same class, nearest in rounds, then the earlier, that acted otherwise.

    Answers with the same two actions and another thought are no pair: which of them to prefer
    says nothing about the game.
    """
    meta, chosen = example.meta, parse(example.messages[-1]["content"])
    others = [one for one in losers if one.cls == meta["class"] and one.actions != chosen]
    if not others:
        reason = f"No {meta['class']} of the losing side acted otherwise in this match."
        return Reject(example.source, "no_pair", reason)
    near = min(others, key=lambda one: (abs(one.round - meta["round"]), one.n))
    told = {"rejectedSource": near.source, "rejectedRound": near.round}
    rejected = {"role": "assistant", "content": near.answer}
    return replace(example, rejected=rejected, meta=meta | told)
