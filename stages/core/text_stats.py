"""Examples in, one at a time; how long they are, and how many of each kind, out."""

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from stages.core.example import Example, Message, dumps
from stages.core.spread import Spread

MEASURES = ("characters", "words", "answer_words", "messages", "token_guess")
MOST = 1000  # values of one meta key that are counted apart; further ones count together
MORE = "(further values)"
LONG = 10_000  # characters of a text that is not worth remembering


class Texts:
    """Lengths of examples and counts of their meta values; memory is bounded.

    `characters` and `words` are of all messages, tool calls as JSON among them; `answer_words`
    of the last one. `token_guess` is a quarter of the UTF-16 units, rounded up: what is said
    where no tokenizer is at hand.
    """

    def __init__(self, by: Iterable[str]) -> None:
        self.rows = 0
        self.lengths = {name: Spread() for name in MEASURES}
        self.by: dict[str, Counter[str]] = {name: Counter() for name in by}

    def add(self, row: Example) -> None:
        """Count one example."""
        self.rows += 1
        characters = words = answer = units = 0
        for message in row.messages:
            length, answer, utf16 = _measured(message)
            characters += length
            words += answer
            units += utf16
        measured = (characters, words, answer, len(row.messages), -(-units // 4))
        for spread, length in zip(self.lengths.values(), measured, strict=True):
            spread.add(length)
        for name, counts in self.by.items():
            value = str(row.meta.get(name, "none"))
            counts[value if value in counts or len(counts) < MOST else MORE] += 1

    def report(self) -> dict[str, Any]:
        """The numbers for a JSON file; both parts empty of a dataset without examples."""
        return {
            "lengths": {name: spread.report() for name, spread in self.lengths.items()},
            "by": {name: dict(sorted(counts.items())) for name, counts in self.by.items()},
        }


def rejects_table(stages: Mapping[str, Mapping[str, int]]) -> str:
    """A table to plot: a line for each stage and reason with the rows left out for it."""
    lines = ["stage\treason\trows"]
    lines += [
        f"{stage}\t{code}\t{count}"
        for stage, counts in stages.items()
        for code, count in sorted(counts.items())
    ]
    return "\n".join(lines) + "\n"


def _measured(message: Message) -> tuple[int, int, int]:
    """Characters, words and UTF-16 units of a message."""
    text, calls = message.get("content"), message.get("tool_calls")
    text = text if isinstance(text, str) else ""
    if calls:
        text = f"{text} {dumps(calls).decode().rstrip()}".lstrip()
    short = message.get("role") == "system" and len(text) < LONG
    return _size_again(text) if short else _size(text)


def _size(text: str) -> tuple[int, int, int]:
    units = len(text) if text.isascii() else len(text.encode("utf-16-le")) // 2
    return len(text), len(text.split()), units


_size_again = lru_cache(maxsize=32)(_size)  # most rows of a dataset share their system message
