"""A dataset's name in; its checked chats in the order of their examples, and their columns, out."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stages.commands.export.tables import Columns
from stages.core import example, files, splits
from stages.core.errors import TunesmithError
from stages.core.example import Example

# The columns of SAIGE's own converter, in its order.
SAIGE = (
    *("harm_score", "buddhist_alignment", "weighted_score"),
    *("difficulty", "scenario_id", "experience_id"),
)


class Chats:
    """The chats of one split, or of all, read anew each time: nothing is held in memory.

    Args:
        dataset: an entry of `datasets`; `validate` must have run.
        split: all, train, valid or test.
        recipe: the dataset's; `rated_sqlite` has fixed columns.
    """

    def __init__(self, dataset: str, split: str, recipe: str) -> None:
        self.dataset, self.recipe = dataset, recipe
        folder = files.require_complete(files.chat_dir(dataset), f"validate@{dataset}")
        names = splits.NAMES if split == "all" else (split,)
        self._paths = [folder / f"{name}.jsonl" for name in names]

    def rows(self) -> Iterator[Example]:
        """Each chat once, in the order in which the recipe gave them.

        Where the examples are gone, one split after the other.
        """
        readers = [example.read_examples(path) for path in self._paths]
        heads = [next(reader, None) for reader in readers]
        for source in _sources(files.examples_dir(self.dataset)):
            for number, head in enumerate(heads):
                if head is not None and head.source == source:
                    heads[number] = next(readers[number], None)
                    yield head
                    break
        for head, reader in zip(heads, readers, strict=True):
            if head is not None:
                yield head
                yield from reader

    def columns(self) -> Columns:
        """The columns beside the text: SAIGE's own, or every key of `meta` in order of appearance.

        Raises:
            TunesmithError: a row of `rated_sqlite` lacks one.
        """
        if self.recipe != "rated_sqlite":
            return Columns.of(row.meta for row in self.rows())
        for row in self.rows():
            for name in SAIGE:
                if name not in row.meta:
                    raise TunesmithError(
                        f"This row has no {name!r} in its meta.",
                        where=row.source,
                        why="The file has the columns of SAIGE's own converter.",
                        do=f"dvc repro validate@{self.dataset}",
                    )
        return Columns.of({name: row.meta[name] for name in SAIGE} for row in self.rows())


def _sources(folder: Path) -> Iterator[str]:
    path = folder / "examples.jsonl"
    if path.is_file():
        yield from (row["source"] for _, row in example.read_lines(path))


def with_system(row: Example, policy: str) -> Example:
    """The chat with its system message as it is, in front of the first question, or left out."""
    first = row.messages[0]
    if policy == "template" or first.get("role") != "system":
        return row
    rest: list[dict[str, Any]] = list(row.messages[1:])
    if policy == "user":
        rest[0] = {**rest[0], "content": f"{first['content']}\n\n{rest[0]['content']}"}
    return Example(rest, row.source, row.group, row.meta, row.tools)
