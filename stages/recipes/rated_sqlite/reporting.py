"""Kept examples in; what the seed's converter and pipeline say about a data set out."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from stages.core.example import Example

# The seed's pipeline: below the first too few, below the second enough to try.
FEW, FAIR = 50, 200


def report(examples: Iterable[Example], _options: Any) -> dict[str, Any]:
    """Mean, least and most of harm (0 to 1) and score (0 to 10), shares of levels, a verdict."""
    harms: list[float] = []
    scores: list[float] = []
    levels: Counter[str] = Counter()
    difficulties: Counter[str] = Counter()
    for one in examples:
        harms.append(one.meta["harm_score"])
        scores.append(one.meta["weighted_score"])
        levels[one.meta["buddhist_alignment"]] += 1
        difficulties[str(one.meta["difficulty"])] += 1
    return {
        "examples": len(harms),
        "harm": _spread(harms),
        "score": _spread(scores),
        "alignment": dict(sorted(levels.items())),
        "difficulty": dict(sorted(difficulties.items())),
        "verdicts": [_verdict(len(harms))],
    }


def _spread(values: list[float]) -> dict[str, float]:
    if not values:
        return {}
    mean = round(sum(values) / len(values), 6)
    return {"mean": mean, "least": min(values), "most": max(values)}


def _verdict(count: int) -> str:
    if count < FEW:
        return f"{count} examples are few: collect at least {FEW - count} more, or relax a filter."
    if count < FAIR:
        return f"{count} examples are enough to try; {FAIR} and more are better."
    return f"{count} examples: enough to train on."
