"""Memories in; which of them count by their date, and which samples by a seeded draw, out.

Every choice is by a hash of the seed and the sample's own name, never by its place in the walk:
one memory more or less changes nothing for the others.
"""

import hashlib
import heapq
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

DAY = 24 * 60 * 60
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
RANGE = 1 << 63


def moment(record: dict[str, Any]) -> float | None:
    """Seconds since 1970 of the memory's ISO 8601 timestamp; without a zone it is UTC."""
    stamp = record.get("timestamp")
    if not isinstance(stamp, str):
        return None
    try:
        found = datetime.fromisoformat(stamp.strip())
    except ValueError:
        return None
    return ((found if found.tzinfo else found.replace(tzinfo=UTC)) - EPOCH).total_seconds()


def number(seed: int, purpose: str, name: str) -> int:
    """A number below 2**63, the same for the same words on every machine."""
    # A file name may hold surrogates only as escapes, so every name can be written as UTF-8.
    digest = hashlib.sha256(f"{seed}:{purpose}:{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def below(seed: int, purpose: str, name: str, share: float) -> bool:
    """Whether this name is drawn where `share` of all are."""
    return number(seed, purpose, name) < share * RANGE


def limit(numbers: Iterable[int], most: int) -> int:
    """The largest of the `most` smallest numbers; -1 where there are none.

    Memory grows with `most`, not with how many there are.
    """
    kept: list[int] = []
    for value in numbers:
        if len(kept) < most:
            heapq.heappush(kept, -value)
        elif kept and value < -kept[0]:
            heapq.heapreplace(kept, -value)
    return -kept[0] if kept else -1


def newest(moments: Iterator[float | None]) -> float | None:
    """The latest of the moments that are known."""
    return max((one for one in moments if one is not None), default=None)
