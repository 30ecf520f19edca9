"""Rows of one text and some columns in; CSV, JSON lines or Parquet out, written as they come."""

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from stages.core.errors import MissingPackage
from stages.core.example import Example, write_lines

FORMATS = ("csv", "jsonl", "parquet")
BATCH = 1000
WIDEST = 1 << 63  # a column of whole numbers holds 64 bits


@dataclass(frozen=True, slots=True)
class Columns:
    """Names of `meta` keys and what each holds: bool, int, float or str."""

    kinds: dict[str, type]

    @classmethod
    def of(cls, metas: Iterable[dict[str, Any]]) -> "Columns":
        """The columns of these rows; one with values of several kinds holds text."""
        kinds: dict[str, type] = {}
        for meta in metas:
            for key, value in meta.items():
                kinds[key] = _joined(kinds.get(key, type(None)), _kind(value))
        return cls({key: str if kind is type(None) else kind for key, kind in kinds.items()})

    @property
    def names(self) -> list[str]:
        """The header, the text first; a `meta` key named text becomes meta_text."""
        return ["text", *map(_name, self.kinds)]

    def values(self, row: Example) -> dict[str, Any]:
        """A row's values by column, absent ones None."""
        found = ((key, kind, row.meta.get(key)) for key, kind in self.kinds.items())
        return {_name(key): _as(kind, value) for key, kind, value in found}


def _name(key: str) -> str:
    return "meta_text" if key == "text" else key


def _kind(value: Any) -> type:
    if isinstance(value, int) and not -WIDEST <= value < WIDEST:
        return str
    return type(value) if isinstance(value, bool | int | float | None) else str


def _joined(one: type, other: type) -> type:
    if type(None) in (one, other) or one is other:
        return other if one is type(None) else one
    return float if {one, other} == {int, float} else str


def _as(kind: type, value: Any) -> Any:
    if value is None or isinstance(value, str):
        return value
    if kind is str:
        return orjson.dumps(value).decode()
    return kind(value)


def write(path: Path, form: str, columns: Columns, rows: Iterable[dict[str, Any]]) -> int:
    """Write the rows; returns how many.

    CSV is UTF-8 with CRLF line ends and quotes only where needed (RFC 4180); a value that is
    not there is empty.

    Raises:
        MissingPackage: Parquet is asked for and pyarrow is not installed.
    """
    if form == "jsonl":
        return write_lines(path, rows)
    return _csv(path, columns, rows) if form == "csv" else _parquet(path, columns, rows)


def _csv(path: Path, columns: Columns, rows: Iterable[dict[str, Any]]) -> int:
    count = 0
    with path.open("w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, columns.names, lineterminator="\r\n")
        writer.writeheader()
        for count, row in enumerate(rows, 1):  # noqa: B007 (the last number is returned)
            writer.writerow({name: _cell(value) for name, value in row.items()})
    return count


def _cell(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else value


def _parquet(path: Path, columns: Columns, rows: Iterable[dict[str, Any]]) -> int:
    try:
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError as missing:
        raise MissingPackage(missing.name or "pyarrow", "torch") from missing
    kinds = {
        bool: pyarrow.bool_(), int: pyarrow.int64(),
        float: pyarrow.float64(), str: pyarrow.string(),
    }  # fmt: skip
    fields = [("text", kinds[str]), *((_name(k), kinds[t]) for k, t in columns.kinds.items())]
    form, count = pyarrow.schema(fields), 0
    with parquet.ParquetWriter(path, form) as out:
        for batch in _batches(rows):
            out.write_table(pyarrow.Table.from_pylist(batch, form))
            count += len(batch)
    return count


def _batches(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    waiting = iter(rows)
    while batch := list(islice(waiting, BATCH)):
        yield batch
