"""Scores in, means with 95 % intervals and gate verdicts out."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Z95 = 1.959963984540054
RESAMPLES = 2000


def summary(values: Sequence[float]) -> dict[str, float]:
    """Mean of scores in [0, 1] with its 95 % interval and count.

    Wilson's score interval where every value is 0 or 1 (Wilson 1927), else a percentile
    bootstrap of the mean (Efron 1979; 2,000 resamples, fixed seed).

    Raises:
        ValueError: no values; a mean of nothing would look like a score.
    """
    if not values:
        raise ValueError("no values to summarise")
    array = np.asarray(values, dtype=np.float64)
    if np.isin(array, (0.0, 1.0)).all():
        low, high = wilson(int(array.sum()), len(array))
    else:
        low, high = bootstrap(array)
    return {"mean": float(array.mean()), "low": low, "high": high, "n": len(array)}


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of a proportion."""
    p, z2 = successes / n, Z95**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def bootstrap(values: np.ndarray) -> tuple[float, float]:
    """Percentile bootstrap 95 % interval of the mean."""
    generator = np.random.Generator(np.random.PCG64(0))
    # one resample at a time: memory stays that of the values
    means = [
        values[generator.integers(0, len(values), size=len(values))].mean()
        for _ in range(RESAMPLES)
    ]
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def columns(scores: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    """The values of each metric over the answers it applies to, metrics sorted by name."""
    names = sorted({name for score in scores for name in score})
    return {name: [score[name] for score in scores if name in score] for name in names}


def summaries(scores: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """`summary` of each metric."""
    return {name: summary(values) for name, values in columns(scores).items()}


def distinctness(answers: Sequence[str]) -> float:
    """Distinct answers over all answers, 0 for none."""
    return len(set(answers)) / len(answers) if answers else 0.0


def gates(
    at_least: Mapping[str, float],
    above_base: Sequence[str],
    base: Sequence[Mapping[str, float]],
    tuned: Sequence[Mapping[str, float]],
) -> list[dict[str, Any]]:
    """A verdict for each declared gate; base and tuned are scores of the same prompts in order.

    `at_least` compares the mean; `above_base` asks that the 95 % interval of the paired
    difference lies above 0. A gate on which both models score 0, or that applies to no prompt,
    measured nothing and fails as that.
    """
    low = [_at_least(name, limit, base, tuned) for name, limit in sorted(at_least.items())]
    return low + [_above_base(name, base, tuned) for name in sorted(above_base)]


def _pairs(
    name: str, base: Sequence[Mapping[str, float]], tuned: Sequence[Mapping[str, float]]
) -> tuple[np.ndarray, np.ndarray]:
    both = [(b[name], t[name]) for b, t in zip(base, tuned, strict=True) if name in b and name in t]
    array = np.asarray(both, dtype=np.float64).reshape(-1, 2)
    return array[:, 0], array[:, 1]


def _at_least(
    name: str,
    limit: float,
    base: Sequence[Mapping[str, float]],
    tuned: Sequence[Mapping[str, float]],
) -> dict[str, Any]:
    before, after = _pairs(name, base, tuned)
    row = {"gate": f"{name} >= {limit:g}", "metric": name, "limit": limit}
    if nothing := _measured_nothing(before, after):
        return row | nothing
    value = float(after.mean())
    return row | {"value": value, "base": float(before.mean()), **_verdict(value >= limit)}


def _above_base(
    name: str, base: Sequence[Mapping[str, float]], tuned: Sequence[Mapping[str, float]]
) -> dict[str, Any]:
    before, after = _pairs(name, base, tuned)
    row = {"gate": f"{name} above the base", "metric": name, "limit": 0.0}
    if nothing := _measured_nothing(before, after):
        return row | nothing
    low, high = bootstrap(after - before)
    found = {"value": float(after.mean()), "base": float(before.mean())}
    return row | found | {"difference": [low, high], **_verdict(low > 0.0)}


def _measured_nothing(before: np.ndarray, after: np.ndarray) -> dict[str, Any]:
    if len(after) == 0:
        return {"outcome": "failed", "reason": "measured nothing: it applies to no test prompt"}
    if not before.any() and not after.any():
        return {"outcome": "failed", "reason": "measured nothing: base and tuned both score 0"}
    return {}


def _verdict(passed: bool) -> dict[str, Any]:
    return {"outcome": "passed" if passed else "failed", "reason": ""}
