"""Recipe chats: anybody's own JSON lines -> examples, judged by their reference answers."""

from collections.abc import Iterator
from pathlib import Path, PurePath

from stages.core.errors import TunesmithError
from stages.core.example import Example, Reject
from stages.core.settings import Settings
from stages.recipes.chats import judging, lines, rows

STATS = ("format", "turns")
METRICS = judging.METRICS

judge = judging.judge


class Options(Settings):
    """Which files, and what every chat of them shares.

    Attributes:
        pattern: glob below the source folder, such as `*.jsonl` or `**/*.jsonl`.
        system: system message for rows that bring none of their own; "" for none.
        group_by: key of the row, or of its `meta`, whose equal values a split keeps on one
            side; "" makes each row a group of its own.
    """

    pattern: str
    system: str
    group_by: str


def examples(source: Path, options: Options) -> Iterator[Example | Reject]:
    """One example or reject a line, files in the order of their names.

    `source` of an example is `<file>#<line>`. Blank lines count as lines and yield nothing.

    Raises:
        TunesmithError: no such folder, no file of that pattern, or nothing but blank lines.
    """
    files = _files(source, options.pattern)
    found = False
    for path in files:
        name = path.relative_to(source).as_posix()
        for number, line in lines.read(path):
            found = True
            place = f"{name}#{number}"
            if isinstance(line, lines.Unreadable):
                yield Reject(place, line.code, line.reason)
            else:
                yield rows.example(line, place, options.system, options.group_by)
    if not found:
        raise _nothing(source, f"Its {len(files)} file(s) hold no line.")


def _files(source: Path, pattern: str) -> list[Path]:
    if not source.is_dir():
        raise _nothing(source, "There is no such folder.")
    if not pattern or PurePath(pattern).is_absolute() or ".." in PurePath(pattern).parts:
        raise _nothing(source, f"The pattern {pattern!r} does not stay inside it.")
    found = [path for path in source.glob(pattern) if path.is_file()]
    if not found:
        raise _nothing(source, f"No file in it fits the pattern {pattern!r}.")
    return sorted(found, key=lambda path: path.as_posix())


def _nothing(source: Path, what: str) -> TunesmithError:
    return TunesmithError(
        f"There are no chats to read. {what}",
        where=str(source),
        why="Without a single row there is nothing to learn.",
        do="Put your .jsonl files there, or mend `source` and `options.pattern` in params.yaml.",
    )
