"""Progress for everything longer than a few seconds: a bar on a terminal, lines elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from stages.core import inside

T = TypeVar("T")

SECONDS_BETWEEN_LINES = 5.0


class Progress:
    """Counts steps of one piece of work and shows them.

    On a terminal the line redraws in place; elsewhere (DVC's queue, CI) a line every few seconds.
    """

    def __init__(self, what: str, total: int | None = None) -> None:
        self.what, self.total = what, total
        self.count, self.note = 0, ""
        self.start = self.shown = time.monotonic()
        self.tty = inside.terminal()

    def step(self, by: int = 1, note: str = "") -> None:
        """Count `by` more; `note` is a short text shown behind the count (a loss, say)."""
        self.count += by
        self.note = note or self.note
        now = time.monotonic()
        if now - self.shown >= (0.1 if self.tty else SECONDS_BETWEEN_LINES):
            self.shown = now
            self._show(end="\r" if self.tty else "\n")

    def close(self) -> None:
        """Show the last state and end the line, if anything was shown before."""
        if self.shown > self.start:
            self._show(end="\n")

    def _show(self, end: str) -> None:
        seconds = time.monotonic() - self.start
        done = f"{self.count:,}"
        if self.total:
            left = seconds / max(self.count, 1) * (self.total - self.count)
            done += f"/{self.total:,} {100 * self.count // self.total:3d} % {left:4.0f} s left"
        text = f"  {self.what}: {done}  {self.note}"
        print(f"{text:<78}" if self.tty else text.rstrip(), end=end, file=sys.stderr, flush=True)


def track(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """Yield the items, showing progress."""
    progress = Progress(what, total)
    for item in items:
        yield item
        progress.step()
    progress.close()
