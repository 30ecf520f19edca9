"""Recipe chats: anybody's own rows of chats -> examples, judged by their reference answers."""

from collections.abc import Iterator
from pathlib import Path, PurePath

from stages.core.errors import TunesmithError
from stages.core.example import Example, Reject
from stages.core.settings import Settings
from stages.recipes.chats import judging, reading, rows
from stages.recipes.chats.lines import Unreadable

STATS = ("format", "turns")
METRICS = judging.METRICS

judge = judging.judge


class Options(Settings):
    """Which files, and what every chat of them shares.

    Attributes:
        pattern: glob below the source folder, such as `*.jsonl` or `**/*.parquet`.
        system: system message for rows that bring none of their own; "" for none.
        group_by: key of the row, or of its `meta`, whose equal values a split keeps on one
            side; "" makes each row a group of its own.
    """

    pattern: str
    system: str
    group_by: str


def examples(source: Path, options: Options) -> Iterator[Example | Reject]:
    """One example or reject a row, files in the order of their names.

    `source` of an example is `<file>#<n>`, n the line, the place in the array, or the row of a
    Parquet file, from 1. Blank lines count as lines and yield nothing.

    Raises:
        TunesmithError: no such folder, no file of that pattern, or nothing but blank lines.
    """
    files = _files(source, options.pattern)
    keys = (*rows.KEYS, options.group_by)
    found = False
    for path in files:
        name = path.relative_to(source).as_posix()
        for number, row in reading.read(path, keys):
            found = True
            place = f"{name}#{number}"
            if isinstance(row, Unreadable):
                yield Reject(place, row.code, row.reason)
            else:
                yield rows.example(row, place, options.system, options.group_by)
    if not found:
        raise _nothing(source, f"Its {len(files)} file(s) hold no row.")


def _files(source: Path, pattern: str) -> list[Path]:
    if not source.is_dir():
        raise _nothing(source, "There is no such folder.")
    if not pattern or PurePath(pattern).is_absolute() or ".." in PurePath(pattern).parts:
        raise _nothing(source, f"The pattern {pattern!r} does not stay inside it.")
    try:
        found = [path for path in source.glob(pattern) if path.is_file()]
    except ValueError as problem:  # such as `a**`
        raise _nothing(source, f"The pattern {pattern!r} is none: {problem}.") from problem
    if not found:
        raise _nothing(source, f"No file in it fits the pattern {pattern!r}.")
    return sorted(found, key=lambda path: path.as_posix())


def _nothing(source: Path, what: str) -> TunesmithError:
    return TunesmithError(
        f"There are no chats to read. {what}",
        where=str(source),
        why="Without a single row there is nothing to learn.",
        do="Put your files there, or mend `source` and `options.pattern` in params.yaml.",
    )
