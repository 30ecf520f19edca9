"""A small model and prompts in; whether MLX and torch answer them token for token, as a check."""

from collections.abc import Sequence
from pathlib import Path

from stages.commands.parity import backends
from stages.core import parity
from stages.core.parity import Check, Pair

NEW, BATCH = 16, 4


def compare(name: str, folder: Path, prompts: Sequence[Sequence[int]]) -> Check:
    """How many greedy answers differ: none may."""
    ours, theirs = (answers(backend, folder, prompts) for backend in ("torch", "mlx"))
    pairs = [
        Pair(f"prompt {number + 1}", one, two)
        for number, (one, two) in enumerate(zip(ours, theirs, strict=True))
    ]
    wrong = [pair for pair in pairs if pair.model != pair.file]
    first = next((parting(pair.model, pair.file) for pair in wrong), 0)
    reason = f"{wrong[0].name} first, at token {first + 1}" if wrong else f"{len(pairs)} prompts"
    return parity.check(f"greedy {name}", len(wrong), 0, not wrong, reason)


def answers(backend: str, folder: Path, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
    """The likeliest answer of each prompt, in order, of at most 16 tokens."""
    made = backends.part(f"{backend}.generate").generate(
        folder, prompts, max_new_tokens=NEW, temperature=0.0, seed=0, batch_size=BATCH
    )
    return [ids for _, ids, _ in sorted(made)]


def parting(one: Sequence[int], two: Sequence[int]) -> int:
    """The first place at which two lists differ."""
    same = [a == b for a, b in zip(one, two, strict=False)]
    return same.index(False) if False in same else len(same)
