"""What Hugging Face and llama.cpp each made of the same input; a check with its outcome out.

A check is `{"name", "value", "limit", "outcome", "reason"}` and what else helps to read it.
`outcome` is `passed`, `failed`, `skipped` (could not run, and so proves nothing) or `reported`
(measured, with no limit declared).
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

Check = dict[str, Any]
NAMES = (
    *("opens", "template", "rendering", "tokens", "vocabulary", "prompts", "end_of_turn"),
    *("kl", "greedy", "stops", "chat"),
)
# Top-2 gap in logits below which the choice is left to rounding. fp16 weights moved single
# logits by up to 0.006 (3.7M parameters); two tokens 0.02 apart differ by 2 % in probability.
TIE = 0.02
BLOCK = 64  # places compared at a time in fp64: 64 x 152k values are 78 MB
EXACT = ("f32", "f16")  # quants whose greedy answers must be the model's


class Pair(NamedTuple):
    """The same thing from both sides, and what to call it in a report."""

    name: str
    model: Any
    file: Any


def check(name: str, value: Any, limit: Any, passed: bool, reason: str = "", **more: Any) -> Check:
    """A check that has a limit and a verdict."""
    outcome = "passed" if passed else "failed"
    verdict = {"outcome": outcome, "reason": reason}
    return {"name": name, "value": value, "limit": limit} | verdict | more


def skipped(name: str, reason: str) -> Check:
    """A check that could not run."""
    return {"name": name, "value": None, "limit": None, "outcome": "skipped", "reason": reason}


def reported(found: Check, reason: str) -> Check:
    """The same measurement without a verdict; what could not run stays skipped."""
    if found["outcome"] == "skipped":
        return found
    reason = "; ".join(part for part in (found["reason"], reason) if part)
    return found | {"limit": None, "outcome": "reported", "reason": reason}


def same(name: str, pairs: Sequence[Pair], left_out: str = "", **more: Any) -> Check:
    """How many pairs differ; none may. The first three that do are named."""
    if not pairs:
        return skipped(name, left_out or "there was nothing to compare")
    different = [pair for pair in pairs if pair.model != pair.file]
    shown = "; ".join(f"{pair.name}: {difference(pair)}" for pair in different[:3])
    reason = "; ".join(part for part in (shown, left_out) if part)
    return check(name, len(different), 0, not different, reason, compared=len(pairs), **more)


def difference(pair: Pair) -> str:
    """Where two texts or two lists of ids part, with a little around it."""
    model, file = pair.model, pair.file
    if not isinstance(model, str | list) or not isinstance(file, type(model)):
        return f"the model has {_short(model)}, the file {_short(file)}"
    at = next(
        (n for n, (a, b) in enumerate(zip(model, file, strict=False)) if a != b),
        min(len(model), len(file)),
    )
    piece = slice(max(at - 5, 0), at + 15)
    return f"at {at} the model has {_short(model[piece])}, the file {_short(file[piece])}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def end_of_turn(
    end: int, ends: Sequence[int], file_end: int, ends_here: Callable[[int], bool], vocabulary: int
) -> Check:
    """Whether the file ends an answer where the model does.

    Args:
        end: the tokenizer's end-of-turn id, -1 for none.
        ends: every id at which the model's generation stops.
        file_end: the file's `tokenizer.ggml.eos_token_id`.
        ends_here: whether llama.cpp ends an answer at an id.
        vocabulary: how many ids there are.
    """
    wrong = []
    if end < 0:
        wrong.append("the tokenizer names no eos_token")
    elif file_end != end:
        wrong.append(f"the file's end-of-turn token is {file_end}, the tokenizer's {end}")
    missing = [number for number in ends if not ends_here(number)]
    if missing:
        wrong.append(f"the file does not end an answer at {missing}")
    more = [n for n in range(vocabulary) if n not in ends and ends_here(n)]
    reason = "; ".join(wrong)
    return check("end_of_turn", file_end, end, not wrong, reason, ends=list(ends), also_ends=more)


def divergence(model: np.ndarray, file: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(KL(model || file) in nats, whether both like the same token best), each [places].

    Args:
        model: logits [places, vocabulary].
        file: logits of the same places.
    """
    kl = np.empty(len(model))
    for start in range(0, len(model), BLOCK):
        part = slice(start, start + BLOCK)
        p, q = _log_softmax(model[part]), _log_softmax(file[part])
        kl[part] = (np.exp(p) * (p - q)).sum(axis=1)
    return kl, model.argmax(axis=1) == file.argmax(axis=1)


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=1, keepdims=True)
    wide -= np.log(np.exp(wide).sum(axis=1, keepdims=True))
    return wide


def kl(rows: Sequence[tuple[np.ndarray, np.ndarray]], limit: float | None) -> Check:
    """Mean KL over the trained tokens of these rows (`divergence` of each); below the limit."""
    if not sum(len(row[0]) for row in rows):
        return skipped("kl", "no test row has a trained token")
    values, agree = (np.concatenate(parts) for parts in zip(*rows, strict=True))
    mean = float(values.mean())
    found = check(
        "kl", mean, limit, limit is not None and mean < limit,
        max=float(values.max()), top1=float(agree.mean()), tokens=len(values), rows=len(rows),
    )  # fmt: skip
    return reported(found, "no limit is declared for this quant") if limit is None else found


class Parting(NamedTuple):
    """The first token at which the model would not have gone on as the file did.

    Attributes:
        source: the row.
        place: its number in the answer, from 0.
        gap: the model's logit of its own choice less that of its second, in nats.
        within: whether the file took that second choice.
    """

    source: str
    place: int
    gap: float
    within: bool


def parting(source: str, answer: Sequence[int], logits: np.ndarray) -> Parting | None:
    """Where greedy answers part; None where they are equal.

    Args:
        source: the row.
        answer: the file's greedy ids, with the one that ended it.
        logits: [answer, vocabulary], the model's scores for each place of that answer.
    """
    for place, token in enumerate(answer):
        scores = logits[place]
        if int(scores.argmax()) != token:
            second, first = np.argsort(scores)[-2:].tolist()
            gap = float(scores[first] - scores[second])
            return Parting(source, place, gap, token == second)
    return None


def greedy(compared: int, found: Iterable[Parting | None], quant: str) -> Check:
    """How many greedy answers part elsewhere than at a tie; for f32 and f16 none may."""
    if not compared:
        return skipped("greedy", "there was no prompt to answer")
    partings = [part for part in found if part is not None]
    wrong = [part for part in partings if not (part.within and part.gap <= TIE)]
    words = [
        f"{part.source} parts at token {part.place} (top-2 gap {part.gap:.4f})"
        for part in (wrong or partings)[:3]
    ]
    ties = len(partings) - len(wrong)
    if ties:
        words.append(f"{ties} part at a tie (top-2 gap at most {TIE})")
    found_check = check(
        "greedy", len(wrong), 0, not wrong, "; ".join(words),
        compared=compared, equal=compared - len(partings), ties=ties,
        partings=[part._asdict() for part in partings],
    )  # fmt: skip
    return found_check if quant in EXACT else reported(found_check, "a rounded model may differ")


def share(name: str, good: int, total: int, limit: float, **more: Any) -> Check:
    """The share of prompts that went well; at least the limit."""
    if not total:
        return skipped(name, "there was no prompt to answer")
    value = good / total
    reason = "" if value >= limit else f"{total - good} of {total} did not"
    return check(name, value, limit, value >= limit, reason, prompts=total, **more)


def gates(
    at_least: dict[str, float], summaries: dict[str, dict[str, float]]
) -> list[dict[str, Any]]:
    """A verdict for each metric that must reach a mean, on the file's own answers."""
    found = []
    for metric, limit in sorted(at_least.items()):
        row: dict[str, Any] = {"gate": f"{metric} >= {limit:g}", "metric": metric, "limit": limit}
        if metric not in summaries:
            reason = "measured nothing: it applies to no test prompt"
            found.append(row | {"value": None, "outcome": "failed", "reason": reason})
            continue
        value = summaries[metric]["mean"]
        outcome = "passed" if value >= limit else "failed"
        found.append(row | {"value": value, "outcome": outcome, "reason": ""})
    return found


def show(key: str, report: dict[str, Any]) -> None:
    """Print the checks, the scores of the file's answers, and the gates, one line each."""
    print(f"{key}: {report['bytes'] / 1e6:,.1f} MB, sha256 {report['sha256'][:16]}…")
    for found in report["checks"]:
        limit = "" if found["limit"] is None else f"(limit {_number(found['limit'])})"
        head = f"  {found['outcome']:<9}{found['name']:<13}{_number(found['value']):>10}"
        print(f"{head} {limit:<16} {found['reason']}".rstrip())
    for name, score in report["scores"].items():
        mean, low, high = (f"{100 * score[part]:.1f}" for part in ("mean", "low", "high"))
        print(f"  score    {name:<13}{mean:>8} % ({low} to {high}, n {score['n']})")
    for gate in report["gates"]:
        value = _number(gate["value"])
        print(f"  {gate['outcome']:<9}gate {gate['gate']}: {value} {gate['reason']}".rstrip())


def _number(value: Any) -> str:
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
