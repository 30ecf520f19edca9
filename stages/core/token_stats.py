"""Marked rows in; their statistics, and one row to read with its trained tokens marked, out."""

from collections import Counter
from typing import Any

from stages.core.encoding import Encoder
from stages.core.masking import Marked
from stages.core.spread import Spread

OPEN, CLOSE = "⟦", "⟧"


class Tally:
    """Counts rows and tokens of one split; memory grows with the values of `by` only."""

    def __init__(self, by: tuple[str, ...]) -> None:
        self.rows = self.tokens = self.trained = self.turns = self.dropped = 0
        self.lengths = Spread()
        self.by: dict[str, dict[str, Counter[str]]] = {name: {} for name in by}

    def add(self, row: Marked) -> None:
        """Count one row, in all and under its values of the meta keys."""
        length, trained = row.length, row.trained_count
        self.rows += 1
        self.tokens += length
        self.trained += trained
        self.turns += len(row.spans)
        self.lengths.add(length)
        for name, values in self.by.items():
            value = str(row.example.meta.get(name, "none"))
            counts = values.setdefault(value, Counter())
            counts["rows"] += 1
            counts["tokens"] += length
            counts["trained_tokens"] += trained

    def report(self) -> dict[str, Any]:
        """The numbers for stats.json."""
        return {
            "rows": self.rows,
            "dropped": self.dropped,
            "tokens": self.tokens,
            "trained_tokens": self.trained,
            "assistant_turns": self.turns,
            "lengths": self.lengths.report(),
            "by": {
                name: {value: dict(counts) for value, counts in sorted(values.items())}
                for name, values in self.by.items()
                if set(values) - {"none"}
            },
        }


def view(row: Marked, encoder: Encoder) -> str:
    """One row to read: its text with the trained parts in ⟦ ⟧, then token by token.

    The marks are text, so they are there in a file, in a log and without colour.
    """
    ids, trained = row.numbers(), row.trained().tolist()
    spelt = [encoder.text(number) for number in ids]
    edges = dict(row.spans)
    closing = set(edges.values())
    marked = [
        f"{CLOSE if place in closing else ''}{OPEN if place in edges else ''}{text}"
        for place, text in enumerate(spelt)
    ]
    end = CLOSE if len(ids) in closing else ""
    table = [
        f"{place:>6} {number:>7} {'*' if flag else ' '} {text!r}"
        for place, (number, flag, text) in enumerate(zip(ids, trained, spelt, strict=True))
    ]
    head = f"{row.example.source}: {row.length} tokens, {row.trained_count} trained"
    return "\n".join(
        [
            f"{head} (between {OPEN} and {CLOSE} here, * below)",
            "",
            "".join(marked) + end,
            "",
            " place      id   text",
            *table,
            "",
        ]
    )
