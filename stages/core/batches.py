"""Row lengths and settings in, the rows of every optimizer step out: one order for all backends.

The order depends on its arguments alone: not on the backend, the number of processes, the hash
seed or the machine. Shuffling sorts by `random.random()` draws, the one part of Python's
generator whose sequence its documentation promises to keep.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from stages.core import tokens

Step = list[list[int]]
Array = np.ndarray[Any, Any]
Lengths = Sequence[int] | Array

WINDOW = 64  # steps sorted by length together
BLUR = 0.1  # lengths count as up to this much longer, so that rows meet others in every epoch


@dataclass(frozen=True)
class Rows:
    """Token rows laid end to end.

    Attributes:
        ids: all token ids.
        trained: as many; 1 where the token is trained.
        offsets: row n is `offsets[n]:offsets[n + 1]`.
        lengths: tokens of each row.
        targets: trained tokens of each row. A row's first token has nothing before it to be
            predicted from, so it never counts.
        rejected: of preference pairs, the same prompts with the answers not wanted, row by row.
    """

    ids: Array
    trained: Array
    offsets: Array
    rejected: "Rows | None" = None
    lengths: Array = field(init=False)
    targets: Array = field(init=False)

    def __post_init__(self) -> None:
        firsts = self.offsets[:-1]
        sums = np.add.reduceat(self.trained, firsts, dtype=np.int64) if len(firsts) else firsts
        object.__setattr__(self, "lengths", np.diff(self.offsets))
        object.__setattr__(self, "targets", sums - self.trained[firsts])

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def sizes(self) -> Array:
        """Tokens that each row takes in a batch: those of the longer answer of a pair."""
        return np.maximum(self.lengths, self.rejected.lengths) if self.rejected else self.lengths

    @property
    def trained_tokens(self) -> Array:
        """Trained tokens of each row, both answers of a pair counted."""
        return self.targets + (self.rejected.targets if self.rejected else 0)

    def padded(self, rows: Sequence[int]) -> tuple[Array, Array]:
        """These rows as [rows, longest] int64 ids and labels, padded on the right (0, -100)."""
        shape = (len(rows), int(max(self.lengths[row] for row in rows)))
        ids, labels = np.zeros(shape, np.int64), np.full(shape, tokens.IGNORED, np.int64)
        for place, row in enumerate(rows):
            piece = slice(self.offsets[row], self.offsets[row + 1])
            ids[place, : self.lengths[row]] = self.ids[piece]
            labels[place, : self.lengths[row]] = tokens.labels(self.ids[piece], self.trained[piece])
        return ids, labels


def load(folder: Path, split: str) -> Rows:
    """The rows of one split of a tokens folder, mapped and not read.

    Raises:
        TunesmithError: the folder is not whole, or its checks did not run to their end.
    """
    tokens.require_checked(folder)
    found, others = tokens.arrays(folder, split), tokens.rejected(folder, split)
    pairs = Rows(others.ids, others.trained, others.offsets) if others else None
    return Rows(found.ids, found.trained, found.offsets, pairs)


def plan(
    lengths: Lengths, batch_size: int, accumulate: int, epochs: int, max_steps: int, seed: int
) -> list[Step]:
    """The optimizer steps, in order; each is a list of micro-batches of row indices.

    Args:
        lengths: tokens of each row.
        batch_size: rows of a micro-batch, at most.
        accumulate: micro-batches of a step, at most. Which rows share a step depends only on
            `batch_size * accumulate`, so 8 x 1 and 4 x 2 train the same steps.
        epochs: how often every row is seen, exactly; used when `max_steps` is 0.
        max_steps: 0, or the number of steps, over as many epochs as they take.
        seed: of the order.

    Within an epoch, windows of shuffled rows are sorted by blurred length and cut into steps
    whose row counts differ by at most one; then the steps are shuffled.
    """
    if not len(lengths):
        return []
    found: list[Step] = []
    limit = max_steps or None
    for epoch in range(max_steps or epochs):  # an epoch holds at least one step
        rows = _epoch(lengths, batch_size * accumulate, random.Random(f"{seed}/{epoch}"))
        left = None if limit is None else limit - len(found)
        found.extend(_micro(step, batch_size) for step in islice(rows, left))
        if limit is not None and len(found) >= limit:
            break
    return found


def _epoch(lengths: Lengths, step_rows: int, draw: random.Random) -> Iterator[list[int]]:
    """Every row once, in steps of rows of like length."""
    order = _shuffled(list(range(len(lengths))), draw)
    blurred = [int(length) * (1 + BLUR * draw.random()) for length in lengths]
    count = -(-len(order) // step_rows)
    edges = [number * len(order) // count for number in range(count + 1)]
    steps: list[list[int]] = []
    for first in range(0, count, WINDOW):
        cuts = edges[first : first + WINDOW + 1]
        window = sorted(order[cuts[0] : cuts[-1]], key=blurred.__getitem__)
        steps += [window[a - cuts[0] : b - cuts[0]] for a, b in pairwise(cuts)]
    return iter(_shuffled(steps, draw))


def _shuffled(items: list[Any], draw: random.Random) -> list[Any]:
    keys = [draw.random() for _ in items]
    return [items[place] for place in sorted(range(len(items)), key=keys.__getitem__)]


def _micro(rows: list[int], batch_size: int) -> Step:
    return [rows[first : first + batch_size] for first in range(0, len(rows), batch_size)]


def by_length(lengths: Lengths, batch_size: int) -> Step:
    """All rows once, longest first, in batches: for validation and generation."""
    order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    return _micro(order, batch_size)
