"""Example and Reject: the two things a recipe yields, and their JSON lines."""

import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from stages.core.errors import TunesmithError

Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Example:
    """One chat with its source.

    Attributes:
        messages: OpenAI-style messages; tool-call `arguments` are objects, never JSON text.
        source: `<file>#<n>`, n the 1-based line, decision, row or turn in the file.
        group: what a split may not cut (one match, one conversation, one prompt).
        meta: flat facts about the example, for statistics and the judge.
        tools: JSON-schema tools offered in this chat, or None.
        rejected: the assistant message not wanted in place of the last one (a preference pair),
            or None. Only `method: dpo` trains on it.
    """

    messages: list[Message]
    source: str
    group: str
    meta: dict[str, Any] = field(default_factory=dict)
    tools: list[dict[str, Any]] | None = None
    rejected: Message | None = None

    def row(self) -> dict[str, Any]:
        """The JSON object of this example; `tools` and `rejected` only where there are some."""
        row: dict[str, Any] = {"messages": self.messages}
        if self.rejected is not None:
            row["rejected"] = self.rejected
        if self.tools:
            row["tools"] = self.tools
        return row | {"source": self.source, "group": self.group, "meta": self.meta}


@dataclass(frozen=True, slots=True)
class Reject:
    """One input that did not become an example.

    Attributes:
        source: `<file>#<n>` as in `Example`, or the file alone when it could not be read.
        code: a short reason code, `[a-z_]+`, counted in the statistics.
        reason: one sentence for a person.
    """

    source: str
    code: str
    reason: str

    def row(self) -> dict[str, Any]:
        return {"source": self.source, "code": self.code, "reason": self.reason}


def nfc(value: Any) -> Any:
    """`value` with every string in it in Unicode NFC (llama.cpp itself does not normalise)."""
    if isinstance(value, str):
        return value if value.isascii() else unicodedata.normalize("NFC", value)
    if isinstance(value, list):
        return [nfc(item) for item in value]
    if isinstance(value, dict):
        return {nfc(key): nfc(item) for key, item in value.items()}
    return value


def dumps(row: Any) -> bytes:
    """One compact JSON line, raw UTF-8, with its newline.

    Raises:
        TunesmithError: the row holds text that is not Unicode (a lone surrogate).
    """
    try:
        return orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError as problem:
        raise TunesmithError(
            f"A row cannot be written as JSON: {problem}.",
            where=str(row.get("source", "")) if isinstance(row, dict) else "",
            why="Every output is UTF-8 JSON; such text cannot be tokenised either.",
            do="Make the recipe reject this input, with its reason.",
        ) from problem


def write_lines(path: Path, rows: Iterable[Any]) -> int:
    """Write rows as JSON lines; returns how many."""
    count = 0
    with path.open("wb") as out:
        for row in rows:
            out.write(dumps(row))
            count += 1
    return count


def read_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (1-based line number, JSON object) of each non-blank line.

    Raises:
        TunesmithError: naming file and line, when a line is not a JSON object.
    """
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = orjson.loads(line)
            except orjson.JSONDecodeError as problem:
                raise bad_line(path, number, f"broken JSON ({problem})") from problem
            if not isinstance(row, dict):
                raise bad_line(path, number, f"a JSON {type(row).__name__}, not an object")
            yield number, row


def bad_line(path: Path, number: int, what: str) -> TunesmithError:
    """The error for a line that cannot be read."""
    return TunesmithError(
        f"This line is {what}.",
        where=f"{path}:{number}",
        why="A line that cannot be read would be lost without a word.",
        do="Repair or delete the line, then run the same command again.",
    )


def example_of(row: dict[str, Any]) -> Example:
    """The example written as this row."""
    return Example(
        row["messages"],
        row["source"],
        row["group"],
        row["meta"],
        row.get("tools"),
        row.get("rejected"),
    )


def read_examples(path: Path) -> Iterator[Example]:
    """The examples of a JSON-lines file, in order."""
    return (example_of(row) for _, row in read_lines(path))
