"""Whole numbers in, one at a time; their distribution out, in memory that does not grow."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

PERCENTILES = (5, 25, 50, 75, 95, 99)
EXACT = 10_000  # from here on a value is kept to three digits, so that there are few of them


class Spread:
    """Counts of values from 0 up; least, most and sum are exact, percentiles to three digits."""

    __slots__ = ("counts", "least", "most", "sum")

    def __init__(self) -> None:
        self.counts: Counter[int] = Counter()
        self.sum = self.most = 0
        self.least: int | None = None

    def add(self, value: int) -> None:
        self.sum += value
        if value > self.most:
            self.most = value
        if self.least is None or value < self.least:
            self.least = value
        self.counts[value if value < EXACT else _rounded(value)] += 1

    def report(self) -> dict[str, Any]:
        """Least, most, mean, sum, percentiles (nearest rank) and a histogram by powers of two."""
        if self.least is None:
            return {}
        total = self.counts.total()
        histogram: Counter[int] = Counter()
        for value, count in self.counts.items():
            histogram[1 << (value - 1).bit_length() if value else 0] += count
        return {
            "min": self.least,
            "max": self.most,
            "mean": self.sum / total,
            "sum": self.sum,
            **dict(zip((f"p{p}" for p in PERCENTILES), self._at(*PERCENTILES), strict=True)),
            "histogram": {f"<={edge}": histogram[edge] for edge in sorted(histogram)},
        }

    def _at(self, *percents: int) -> list[int]:
        """The value at each of these percents, in rising order, by nearest rank."""
        total = self.counts.total()
        values = iter(sorted(self.counts.items()))
        found, seen, value = [], 0, 0
        for percent in percents:
            rank = max(1, -(-percent * total // 100))
            while seen < min(rank, total):
                value, count = next(values)
                seen += count
            found.append(self._exact(value))
        return found

    def _exact(self, value: int) -> int:
        """A rounded value never leaves the range of those that were counted."""
        return min(max(value, self.least or 0), self.most)


def _rounded(value: int) -> int:
    step = int(10 ** (len(str(value)) - 3))
    return (value + step // 2) // step * step


def series(reports: Mapping[str, Mapping[str, Any]]) -> str:
    """A table to plot from reports: a line for each percent, a column for each distribution."""
    names = {0: "min", **{percent: f"p{percent}" for percent in PERCENTILES}, 100: "max"}
    lines = ["\t".join(("percent", *reports))]
    for percent, name in names.items():
        values = [report.get(name, 0) for report in reports.values()]
        lines.append("\t".join(map(str, (percent, *values))))
    return "\n".join(lines) + "\n"
