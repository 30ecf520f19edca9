"""A Parquet file in; its rows out, as lines.read gives lines. Needs pyarrow."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stages.core.errors import MissingPackage
from stages.recipes.chats.lines import Row, Unreadable

ROWS = 256  # held at once; a chat may be long


def read(path: Path, keys: tuple[str, ...]) -> Iterator[tuple[int, Row]]:
    """(1-based row number, the row's values under `keys` or why not) of each row.

    A value that is null counts as absent, at any depth: Arrow gives each object all keys that
    any object of the column has. A damaged row group is one unreadable row; the next is read on.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError as missing:
        raise MissingPackage(missing.name or "pyarrow", "torch") from missing
    pyarrow.set_memory_pool(pyarrow.system_memory_pool())  # gives freed pages back at once
    try:
        file = pyarrow.parquet.ParquetFile(path, buffer_size=1 << 16)
        columns = [name for name in file.schema_arrow.names if name in keys]
        sizes = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
    except (pyarrow.ArrowException, OSError, ValueError) as problem:
        yield 1, _broken(problem)
        return
    with file:
        first = 0
        for group, size in enumerate(sizes):
            number = first
            try:
                for batch in file.iter_batches(
                    ROWS, row_groups=[group], columns=columns, use_threads=False
                ):
                    for row in _rows(batch):
                        number += 1
                        yield number, row
            except (pyarrow.ArrowException, OSError) as problem:
                yield number + 1, _broken(problem)
            first += size


def _broken(problem: Exception) -> Unreadable:
    """The reject for a damaged file; a failure of this machine's disk is raised again."""
    if getattr(problem, "errno", None) is not None:
        raise problem
    first = str(problem).partition("\n")[0]
    return Unreadable("broken_parquet", f"From here on the rows cannot be read: {first}")


def _rows(batch: Any) -> Iterator[Row]:
    """The rows of a batch, one by one where the whole holds text that is not UTF-8."""
    try:
        rows: list[Any] = batch.to_pylist()
    except ValueError:
        rows = [_row(batch.slice(number, 1)) for number in range(batch.num_rows)]
    return (row if isinstance(row, Unreadable) else _without_nulls(row) for row in rows)


def _row(single: Any) -> Any:
    try:
        return single.to_pylist()[0]
    except ValueError as problem:
        return Unreadable("encoding", f"The row cannot be read: {problem}.")


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value
