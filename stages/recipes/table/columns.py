"""A Parquet file in; the wanted columns of its rows, numbered, out. Needs pyarrow."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stages.core.errors import MissingPackage, TunesmithError
from stages.recipes.table.cells import BadRowError, Value
from stages.recipes.table.templates import require_columns

ROWS = 256  # held at once

Record = dict[str, Value] | BadRowError


def read(path: Path, wanted: list[str]) -> Iterator[tuple[int, Record]]:
    """(1-based row number, values by column or why not) of each row.

    Dates, times and decimals come as text. A damaged row group is one reject; the next is read.

    Raises:
        TunesmithError: a wanted column is missing, or holds lists, objects or bytes.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError as missing:
        raise MissingPackage(missing.name or "pyarrow", "torch") from missing
    pyarrow.set_memory_pool(pyarrow.system_memory_pool())  # gives freed pages back at once
    try:
        file = pyarrow.parquet.ParquetFile(path, buffer_size=1 << 16)
        sizes = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
        schema = file.schema_arrow
    except (pyarrow.ArrowException, OSError, ValueError) as problem:
        yield 1, _broken(problem)
        return
    with file:
        require_columns(wanted, schema.names, str(path))
        casts = {name: _text_type(schema.field(name).type, name, path) for name in wanted}
        first = 0
        for group, size in enumerate(sizes):
            number = first
            try:
                for batch in file.iter_batches(
                    ROWS, row_groups=[group], columns=wanted, use_threads=False
                ):
                    for row in _rows(batch, casts):
                        number += 1
                        yield number, row
            except (pyarrow.ArrowException, OSError) as problem:
                yield number + 1, _broken(problem)
            first += size


def _broken(problem: Exception) -> BadRowError:
    """The reject for a damaged file; a failure of this machine's disk is raised again."""
    if getattr(problem, "errno", None) is not None:
        raise problem
    first = str(problem).partition("\n")[0]
    return BadRowError("broken_parquet", f"From here on the rows cannot be read: {first}")


def _text_type(kind: Any, name: str, path: Path) -> Any:
    """The type to cast a column to before it is read, or None for none."""
    import pyarrow.types as types

    if types.is_dictionary(kind):
        return _text_type(kind.value_type, name, path) or kind.value_type
    if types.is_temporal(kind) or types.is_decimal(kind):
        import pyarrow

        return pyarrow.string()
    plain = ("is_string", "is_large_string", "is_string_view", "is_integer", "is_floating")
    if any(getattr(types, known)(kind) for known in (*plain, "is_boolean", "is_null")):
        return None
    raise TunesmithError(
        f"Column {name!r} is of type {kind}, which is no text, number or date.",
        where=str(path),
        why="A template takes one plain value for each place.",
        do="Name another column; rows of whole chats are read by the recipe chats.",
    )


def _rows(batch: Any, casts: dict[str, Any]) -> Iterator[Record]:
    columns = {}
    for name, kind in casts.items():
        column = batch.column(name)
        columns[name] = _values(column.cast(kind) if kind is not None else column)
    for number in range(batch.num_rows):
        yield {name: values[number] for name, values in columns.items()}


def _values(column: Any) -> list[Any]:
    """The values as Python's; where text is not UTF-8, its bytes become lone surrogates."""
    try:
        values: list[Any] = column.to_pylist()
    except UnicodeDecodeError:
        values = [_text(scalar) for scalar in column]
    return values


def _text(scalar: Any) -> str | None:
    content = scalar.as_buffer()
    return None if content is None else content.to_pybytes().decode("utf-8", "surrogateescape")
