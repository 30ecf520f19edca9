"""Parity: this machine in; how far MLX and torch agree on it, check by check, out."""

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import orjson

from stages.commands.parity import (
    adapters,
    answers,
    backends,
    logits,
    machine,
    models,
    report,
    rows,
    training,
)
from stages.core import parity
from stages.core.errors import TunesmithError
from stages.core.parity import Check

# What is trained: an untied model with biases by every method; a tied one with caps and norms of
# its own; llama3's rotary embedding; one matrix for query, key and value.
TRAINED = (
    *(("qwen2", method) for method in training.METHODS),
    ("gemma2", "full"), ("llama3", "dora"), ("phi3", "lora"),
)  # fmt: skip
REPEATED = "qwen2"
# What MLX and torch raise where a device computes something else, or cannot.
BREAKS = (LookupError, OSError, RuntimeError, TunesmithError, TypeError, ValueError)


class Bench:
    """Small models with tokenizers and one folder of tokens, each made when first asked for."""

    def __init__(self, work: Path) -> None:
        self.work = work

    def base(self, name: str) -> Path:
        """The folder of an architecture's model."""
        folder = self.work / name
        if not folder.is_dir():
            rows.add_tokenizer(models.make(name, folder))
        return folder

    def tokens(self) -> Path:
        """The rows; all models have the same tokenizer."""
        folder = self.work / "tokens"
        return folder if folder.is_dir() else rows.write(self.base(REPEATED), folder)


class Job(NamedTuple):
    """A check to make in an empty folder."""

    name: str
    call: Callable[[Path], Check | list[Check]]


def run(steps: int, as_json: bool, output: str = "") -> None:
    """Make every check and print the report, line by line.

    Args:
        steps: optimizer steps of each training.
        as_json: print one JSON object instead, at the end.
        output: a file for the report, too, in the same form.

    Raises:
        SystemExit: with code 1, where a check failed or none could be made.
    """
    facts = machine.facts()
    lines = report.heading(facts, steps)
    if not as_json:
        print("\n".join(lines), flush=True)
    checks = []
    for check in measure(steps):
        checks.append(check)
        lines.append(report.line(check))
        if not as_json:
            print(lines[-1], flush=True)
    lines.append(report.closing(checks))
    fine = report.passed(checks)
    found = {"facts": facts, "steps": steps, "passed": fine, "checks": checks}
    told = orjson.dumps(found, option=orjson.OPT_INDENT_2).decode() if as_json else "\n".join(lines)
    print(told if as_json else lines[-1])
    if output:
        Path(output).write_text(f"{told}\n", encoding="utf-8")
    if not fine:
        raise SystemExit(1)


def measure(steps: int) -> Iterator[Check]:
    """The checks as they are made; where a backend is missing all are skipped, with the reason."""
    wanting = backends.wanting()
    with tempfile.TemporaryDirectory() as made:
        work = Path(made).resolve()
        for number, job in enumerate(jobs(Bench(work), steps)):
            if wanting:
                yield parity.skipped(job.name, wanting)
                continue
            place = work / f"check-{number}"
            place.mkdir()
            try:
                found = job.call(place)
            except BREAKS as problem:
                reason = said(problem, work)
                yield parity.check(job.name, None, None, False, reason)
                continue
            yield from found if isinstance(found, list) else [found]


def jobs(bench: Bench, steps: int) -> Iterator[Job]:
    """Every check, the quick ones first."""
    for name in models.ARCHITECTURES:
        for use in logits.LIMITS:
            yield Job(f"logits {use} {name}", partial(_logits, bench, name, use))
    for name in models.ARCHITECTURES:
        for variant in adapters.VARIANTS:
            yield Job(f"adapter {variant} {name}", partial(_adapter, bench, name, variant))
    for name in models.ARCHITECTURES:
        yield Job(f"greedy {name}", partial(_answers, bench, name))
    for name, method in TRAINED:
        yield Job(f"training {method} {name}", partial(_training, bench, name, method, steps))
    yield Job(f"same bytes {REPEATED}", partial(_repeat, bench, steps))


def _logits(bench: Bench, name: str, use: str, _: Path) -> Check:
    return logits.compare(name, bench.base(name), use)


def _adapter(bench: Bench, name: str, variant: str, place: Path) -> list[Check]:
    return adapters.compare(name, bench.base(name), variant, place)


def _answers(bench: Bench, name: str, _: Path) -> Check:
    return answers.compare(name, bench.base(name), rows.prompts(bench.tokens()))


def _training(bench: Bench, name: str, method: str, steps: int, place: Path) -> Check:
    return training.compare(name, bench.base(name), bench.tokens(), method, steps, place)


def _repeat(bench: Bench, steps: int, place: Path) -> list[Check]:
    return training.repeat(REPEATED, bench.base(REPEATED), bench.tokens(), steps, place)


def said(problem: BaseException, work: Path) -> str:
    """The first line of an error, without the folders of this machine."""
    text = problem.what if isinstance(problem, TunesmithError) else str(problem)
    for folder, name in ((work, "<work>"), (Path.cwd(), "<here>"), (Path.home(), "~")):
        text = text.replace(str(folder), name)
    return f"{type(problem).__name__}: {(text.splitlines() or [''])[0]}"
