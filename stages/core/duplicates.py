"""Texts in, for each the earlier text that it repeats: exactly, or nearly by Jaccard similarity."""

import math
import re
from collections import Counter
from collections.abc import Sequence

SHINGLE = 3
ROUNDING = 1e-9  # 0.56 * 25 is a little more than 14 in floating point


def near(texts: Sequence[str], threshold: float) -> list[int | None]:
    """For each text the index of an earlier kept text at least `threshold` similar, or None.

    Similarity is |A & B| / |A | B| over sets of word 3-grams, found exactly: two sets that
    similar must share one of their rarest few 3-grams (prefix filter, Bayardo et al. 2007).
    A threshold of 1.0 looks for nothing; exact copies are `exact`'s work.
    """
    if threshold >= 1.0:
        return [None] * len(texts)
    sets = _ordered_sets(texts)
    index: dict[int, list[int]] = {}
    found: list[int | None] = []
    for number, items in enumerate(sets):
        prefix = items[: len(items) - math.ceil(threshold * len(items) - ROUNDING) + 1]
        match = _match(items, prefix, sets, index, threshold)
        found.append(match)
        if match is None:
            for item in prefix:
                index.setdefault(item, []).append(number)
    return found


def exact(texts: Sequence[str]) -> list[int | None]:
    """For each text the index of its first earlier copy, or None."""
    first: dict[str, int] = {}
    return [None if (at := first.setdefault(text, n)) == n else at for n, text in enumerate(texts)]


def _ordered_sets(texts: Sequence[str]) -> list[list[int]]:
    """Each text's 3-grams as numbers, rarest first; equal counts in order of appearance."""
    numbers: dict[tuple[str, ...], int] = {}
    sets: list[list[int]] = []
    counts: Counter[int] = Counter()
    for text in texts:
        words = re.findall(r"\w+", text.casefold())
        grams = [tuple(words[i : i + SHINGLE]) for i in range(max(1, len(words) - SHINGLE + 1))]
        grams = grams if words else [(text,)]  # signs alone: a copy is the same signs
        items = list(dict.fromkeys(numbers.setdefault(gram, len(numbers)) for gram in grams))
        counts.update(items)
        sets.append(items)
    return [sorted(items, key=lambda item: (counts[item], item)) for items in sets]


def _match(
    items: list[int],
    prefix: list[int],
    sets: list[list[int]],
    index: dict[int, list[int]],
    threshold: float,
) -> int | None:
    candidates = sorted({n for item in prefix for n in index.get(item, ())})
    mine = set(items)
    for number in candidates:
        other = sets[number]
        if min(len(mine), len(other)) < threshold * max(len(mine), len(other)) - ROUNDING:
            continue
        shared = len(mine.intersection(other))
        if shared >= threshold * (len(mine) + len(other) - shared) - ROUNDING:
            return number
    return None
