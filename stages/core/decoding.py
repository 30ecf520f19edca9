"""Prompts and an engine that says what follows in; new ids out: what generation shares."""

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from stages.core import batches, files
from stages.core.errors import TunesmithError

Prompts = Sequence[Sequence[int]]
Draws = list[random.Random] | None


class Batch(Protocol):
    """Rows that are being answered, as an engine holds them."""

    def following(self, draws: Draws) -> list[int]:
        """The next token of each row: the likeliest, or the one that the row's draw falls on."""

    def go_on(self, keep: list[int], last: list[int]) -> None:
        """Keep the rows at these places alone, each with one token more."""


def generate(
    prompts: Prompts,
    begin: Callable[[Prompts], Batch],
    *,
    stops: Sequence[int],
    most: int,
    drawn: bool,
    seed: int,
    batch_size: int,
) -> Iterator[tuple[int, list[int], bool]]:
    """Yield (index of the prompt, its new ids, whether it stopped by itself), batch by batch.

    The token that stops is not among the ids, of which there are `most` at most. Each draw is one
    uniform number that depends on seed, index and position alone, so the batch a prompt is in
    does not change its draws.
    """
    for rows in batches.by_length([len(prompt) for prompt in prompts], batch_size):
        draws = [random.Random(f"{seed}/{row}") for row in rows] if drawn else None
        made = _answers(begin([prompts[row] for row in rows]), len(rows), most, draws, stops)
        for row, (ids, stopped) in zip(rows, made, strict=True):
            yield row, ids, stopped


def _answers(
    batch: Batch, count: int, most: int, draws: Draws, stops: Sequence[int]
) -> list[tuple[list[int], bool]]:
    """The answers of one batch; rows that stop leave it, so the others go on faster."""
    found: list[list[int]] = [[] for _ in range(count)]
    stopped = [False] * count
    live = list(range(count))
    for _ in range(most):
        picked = batch.following(draws and [draws[row] for row in live])
        for row, token in zip(live, picked, strict=True):
            stopped[row] = token in stops
            if not stopped[row]:
                found[row].append(token)
        keep = [place for place, row in enumerate(live) if not stopped[row]]
        if not keep:
            break
        live = [live[place] for place in keep]
        batch.go_on(keep, [found[row][-1] for row in live])
    return list(zip(found, stopped, strict=True))


def require_tokens(prompts: Sequence[Sequence[int]]) -> None:
    """Refuse a prompt that nothing can go on from."""
    if not all(prompts):
        raise TunesmithError(
            f"Prompt {[bool(prompt) for prompt in prompts].index(False)} has no tokens.",
            why="A model needs at least one token to go on from.",
            do="Give every row a user message before its answer.",
        )


def stop_ids(model: Path) -> list[int]:
    """The ids that end an answer: generation_config.json's, or the ones in config.json.

    Raises:
        TunesmithError: neither file names one.
    """
    for name in ("generation_config.json", "config.json"):
        path = model / name
        found = files.read_json(path).get("eos_token_id") if path.is_file() else None
        if found is not None:
            return sorted(found if isinstance(found, list) else [found])
    raise TunesmithError(
        "The model names no token that ends an answer.",
        where=f"{model}/generation_config.json: eos_token_id",
        why="It would write to the token limit every time.",
        do="Use a base whose generation_config.json holds eos_token_id.",
    )
