"""Parity: this machine in; how far MLX and torch agree on it, check by check, out."""

import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import orjson

from stages.commands.parity import (
    adapters,
    alone,
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
    *(("qwen2", method, "fp32") for method in training.METHODS),
    ("gemma2", "full", "fp32"), ("llama3", "dora", "fp32"), ("phi3", "lora", "fp32"),
)  # fmt: skip
# In half as many steps: preference pairs, and bf16, which `auto` is on Metal.
HALF = (
    ("qwen2", "dpo", "fp32"), ("qwen2", "lora", "bf16"), ("qwen2", "full", "bf16"),
    ("gemma2", "lora", "bf16"),
)  # fmt: skip
REPEATED = "qwen2"
# What MLX alone does, in a quarter of the steps.
RECOMPUTED = (("qwen2", "lora"), ("qwen2", "full"))
HELD = "qwen2"
LEAST = 5  # steps of a training
INNER, WIDE = models.INNER, 128  # intermediate_size; weights in few bits need multiples of 64
# What MLX and torch raise where a device computes something else, or cannot.
BREAKS = (LookupError, OSError, RuntimeError, TunesmithError, TypeError, ValueError)


class Bench:
    """Small models with tokenizers and one folder of tokens, each made when first asked for."""

    def __init__(self, work: Path) -> None:
        self.work = work

    def base(self, name: str, inner: int = INNER) -> Path:
        """The folder of an architecture's model, of this intermediate_size."""
        folder = self.work / (name if inner == INNER else f"{name}-{inner}")
        if not folder.is_dir():
            rows.add_tokenizer(models.make(name, folder, inner=inner))
        return folder

    def tokens(self, *, paired: bool = False) -> Path:
        """The rows, or preference pairs; all models have the same tokenizer."""
        folder = self.work / ("pairs" if paired else "tokens")
        if folder.is_dir():
            return folder
        return rows.write(self.base(REPEATED), folder, paired=paired)

    def place(self, name: str, steps: int, work: Path, inner: int = INNER) -> alone.Place:
        """All that a training with MLX alone needs."""
        return alone.Place(name, self.base(name, inner), self.tokens(), steps, work)


class Job(NamedTuple):
    """A check to make in an empty folder."""

    name: str
    call: Callable[[Path], Check | list[Check]]


def run(steps: int, as_json: bool, output: str = "") -> None:
    """Make every check and print the report, line by line.

    Args:
        steps: optimizer steps of a training in fp32; others have half or a quarter of them.
        as_json: print one JSON object instead, at the end.
        output: a file for the report, too, in the same form.

    Raises:
        TunesmithError: no file can be written to `output`.
        SystemExit: with code 1, where a check failed or none could be made.
    """
    require_file(output)
    facts = machine.facts()
    lines = report.heading(facts, steps)
    if not as_json:
        print("\n".join(lines), flush=True)
    checks = []
    with warnings.catch_warnings():
        # trl and peft use older names of transformers' and torch's; none is this machine's fault
        warnings.simplefilter("ignore", FutureWarning)
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


def require_file(output: str) -> None:
    """Refuse, before minutes of work, a report that could not be written; empty asks for none.

    Raises:
        TunesmithError: it is a folder, its folder is not there, or writing is not allowed.
    """
    path = Path(output)
    what = ""
    if path.is_dir():
        what = "is a folder"
    elif not path.parent.is_dir():
        what = f"cannot be written: there is no folder {path.parent}"
    elif not os.access(path if path.exists() else path.parent, os.W_OK):
        what = "may not be written"
    if output and what:
        raise TunesmithError(
            f"{output} {what}.",
            where="--output",
            why="The report is written when every check has been made, minutes from now.",
            do="Name a file in a folder that is there, such as --output parity.txt",
        )


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
    half, quarter = (max(LEAST, steps // part) for part in (2, 4))
    for chosen, count in ((TRAINED, steps), (HALF, half)):
        for name, method, use in chosen:
            call = partial(_training, bench, name, method, use, count)
            yield Job(training.label(name, method, use), call)
    yield Job(f"same bytes {REPEATED}", partial(_repeat, bench, steps))
    yield Job(f"same bytes dropout {REPEATED}", partial(_dropout, bench, quarter))
    for name, method in RECOMPUTED:
        call = partial(_checkpointing, bench, name, method, quarter)
        yield Job(f"checkpointing {method} {name}", call)
    for kind, use in alone.KINDS:
        yield Job(f"held {kind} {use} {HELD}", partial(_held, bench, kind, use, quarter))


def _logits(bench: Bench, name: str, use: str, _: Path) -> Check:
    return logits.compare(name, bench.base(name), use)


def _adapter(bench: Bench, name: str, variant: str, place: Path) -> list[Check]:
    return adapters.compare(name, bench.base(name), variant, place)


def _answers(bench: Bench, name: str, _: Path) -> Check:
    return answers.compare(name, bench.base(name), rows.prompts(bench.tokens()))


def _training(bench: Bench, name: str, method: str, use: str, steps: int, work: Path) -> Check:
    tokens = bench.tokens(paired=method == "dpo")
    return training.compare(name, bench.base(name), tokens, method, use, steps, work)


def _repeat(bench: Bench, steps: int, work: Path) -> list[Check]:
    return alone.repeat(bench.place(REPEATED, steps, work))


def _dropout(bench: Bench, steps: int, work: Path) -> Check:
    return alone.dropout(bench.place(REPEATED, steps, work))


def _checkpointing(bench: Bench, name: str, method: str, steps: int, work: Path) -> Check:
    return alone.checkpointing(bench.place(name, steps, work), method)


def _held(bench: Bench, kind: str, use: str, steps: int, work: Path) -> list[Check]:
    return alone.held(bench.place(HELD, steps, work, WIDE), kind, use)


def said(problem: BaseException, work: Path) -> str:
    """The first line of an error, without the folders of this machine."""
    text = problem.what if isinstance(problem, TunesmithError) else str(problem)
    for folder, name in ((work, "<work>"), (Path.cwd(), "<here>"), (Path.home(), "~")):
        text = text.replace(str(folder), name)
    return f"{type(problem).__name__}: {(text.splitlines() or [''])[0]}"
