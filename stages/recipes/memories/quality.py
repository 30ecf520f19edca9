"""The kept examples in; MetaHuman's quality metrics with their targets and verdicts out."""

from collections import Counter
from collections.abc import Iterable
from typing import Any, Protocol

from stages.core.example import Example
from stages.recipes.memories import modes

# Counted anywhere in an answer, case folded: what cleaning could not take off, too.
FILLERS = (
    *("as an ai", "as a language model", "certainly", "let me think", "let me start"),
    *("i'm just", "i'm here to", "here's what", "okay, so", "alright, so"),
)
SHORT, LONG = 40, 100
FEW, ENOUGH = 1000, 5000
MODE_TARGETS = {"dual": 0.2, "emulation": 0.2, "agent": 0.1}
MODE_BAD = 0.05

Verdict = tuple[float, str, str]


class Wanted(Protocol):
    """The option that says which modes there should be."""

    @property
    def mode(self) -> str: ...


def report(examples: Iterable[Example], options: Wanted) -> dict[str, Any]:
    """Metrics of the answers without their tags, each with its target, and a verdict in words.

    A verdict is ok, warn or bad. Words are split at whitespace. With one `mode` wanted, shares
    of the modes are given without a verdict. Too few samples are a warning, never bad.
    """
    found = _Counted()
    for example in examples:
        found.add(example)
    judged = _judged(found)
    if options.mode == "all":
        judged |= _modes(found)
    named = {
        name: {"value": value, "target": target, "verdict": verdict}
        for name, (value, target, verdict) in judged.items()
    }
    return {
        "samples": found.total,
        "modes": {mode: found.share(found.modes[mode]) for mode in modes.TAGS},
        "metrics": {name: value for name, (value, _, _) in judged.items()},
        "quality": named,
        "verdicts": [_said(name, *one) for name, one in judged.items()],
    }


class _Counted:
    """What the metrics are made of."""

    def __init__(self) -> None:
        self.total = self.words = self.short = self.long = self.filler = 0
        self.modes: Counter[str] = Counter()

    def add(self, example: Example) -> None:
        mode = example.meta["mode"]
        answer = modes.body(mode, example.messages[-1]["content"]) or ""
        words = len(answer.split())
        self.total += 1
        self.words += words
        self.short += words <= SHORT
        self.long += words > LONG
        folded = answer.casefold().replace("’", "'")
        self.filler += any(filler in folded for filler in FILLERS)
        self.modes[mode] += 1

    def share(self, count: int) -> float:
        return round(count / self.total, 4) if self.total else 0.0


def _judged(found: _Counted) -> dict[str, Verdict]:
    average = round(found.words / found.total, 1) if found.total else 0.0
    short, long = found.share(found.short), found.share(found.long)
    filler = found.share(found.filler)
    return {
        "samples": (found.total, *_enough(found.total)),
        "average_words": (average, "25 to 40", _verdict(25 <= average <= 40, average > 60)),
        "short_share": (short, "above 0.80", _verdict(short > 0.8, short < 0.6)),
        "long_share": (long, "0.05 to 0.10", _verdict(0.05 <= long <= 0.1, False)),
        "filler_share": (filler, "below 0.02", _verdict(filler < 0.02, filler > 0.05)),
    }


def _enough(total: int) -> tuple[str, str]:
    if total >= ENOUGH:
        return f"{ENOUGH} or more", "ok"
    short = f"; {ENOUGH - total} are missing"
    few = f", and fewer than {FEW} are hardly a dataset" if total < FEW else ""
    return f"{ENOUGH} or more for full fine-tuning{short}{few}", "warn"


def _modes(found: _Counted) -> dict[str, Verdict]:
    judged = {}
    for mode, target in MODE_TARGETS.items():
        share = found.share(found.modes[mode])
        verdict = _verdict(share > target, share < MODE_BAD)
        judged[f"{mode}_share"] = (share, f"above {target:.2f}", verdict)
    return judged


def _verdict(good: bool, bad: bool) -> str:
    return "ok" if good else "bad" if bad else "warn"


def _said(name: str, value: float, target: str, verdict: str) -> str:
    return f"{verdict:<4} {name} {value:g} (target: {target})"
