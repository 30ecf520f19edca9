"""A file of JSON lines, a JSON array or Parquet in; its rows, numbered, out."""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from stages.recipes.chats import arrays, lines, parquet
from stages.recipes.chats.lines import Row, Unreadable

HEAD = 4096


def read(path: Path, keys: tuple[str, ...]) -> Iterator[tuple[int, Row]]:
    """(1-based number, JSON object or why it is none) of each row.

    `.parquet` is read as such, for the columns in `keys`; `.json` that begins with `[` as one
    array; all else as JSON lines. `.gz` behind that is unpacked as it is read.
    """
    if path.suffix == ".parquet":
        yield from parquet.read(path, keys)
    elif path.suffix == ".gz":
        yield from _unpacked(path)
    else:
        with path.open("rb") as file:
            yield from _json(file, path.suffix)


def _json(file: BinaryIO, suffix: str) -> Iterator[tuple[int, Row]]:
    array = suffix == ".json" and arrays.begins(file.read(HEAD))
    file.seek(0)
    yield from (arrays if array else lines).read(file)


def _unpacked(path: Path) -> Iterator[tuple[int, Row]]:
    number = 0
    try:
        with gzip.GzipFile(path) as file:
            for number, row in _json(cast("BinaryIO", file), path.with_suffix("").suffix):
                yield number, row
    except (gzip.BadGzipFile, EOFError, zlib.error) as problem:
        text = f"From here on the file cannot be unpacked: {problem}."
        yield number + 1, Unreadable("broken_gzip", text)
