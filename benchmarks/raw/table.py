"""Tables for the recipe table in any number of rows, and a plain way to convert them.

One row in fifty is spoilt: a field too many, a broken quote, or an empty answer.
"""

import csv
from pathlib import Path
from typing import Any

OPTIONS = {
    "pattern": "*",
    "query": "",
    "delimiter": ",",
    "encoding": "utf-8",
    "system": "You answer for the shop.",
    "user": "Shop {shop}: {question}",
    "assistant": "{answer}",
    "group_by": "",
    "meta": ["day"],
}
HEADER = ("shop", "question", "answer", "day")
QUERY = "SELECT shop, question, answer, day FROM rows ORDER BY number"


def make(rows: int, out: Path, kind: str = "csv") -> dict[str, Any]:
    """Write one table of so many rows into `out`; returns the recipe's options.

    `kind` is csv, parquet or sqlite; in the latter two only an empty answer is spoilt.
    """
    {"csv": _csv, "parquet": _parquet, "sqlite": _sqlite}[kind](rows, out / f"table.{kind}")
    return {**OPTIONS, "query": QUERY if kind == "sqlite" else ""}


def _row(number: int) -> tuple[int, str, str, int]:
    question = f'Is the "Müller" open\non day {number % 31} of this month, and until when?'
    answer = f"Yes, until {number % 12 + 8} o'clock; ring twice at door {number % 97}. " * 3
    return number, question, "" if number % 150 == 7 else answer, number % 31


def _csv(rows: int, path: Path) -> None:
    spoilt = {57: "1,2,3,4,5\n", 107: 'a,"b"c,d,1\n'}
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        for number in range(rows):
            if number % 150 in spoilt:
                file.write(spoilt[number % 150])
            else:
                writer.writerow(_row(number))


def _parquet(rows: int, path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = (pa.int64(), pa.string(), pa.string(), pa.int64())
    schema = pa.schema(list(zip(HEADER, kinds, strict=True)))
    with pq.ParquetWriter(path, schema) as writer:
        for first in range(0, rows, 100_000):
            part = [_row(number) for number in range(first, min(rows, first + 100_000))]
            columns = [list(column) for column in zip(*part, strict=True)]
            writer.write_table(pa.table(columns, schema=schema))


def _sqlite(rows: int, path: Path) -> None:
    import sqlite3

    base = sqlite3.connect(path)
    base.execute("CREATE TABLE rows (number INTEGER PRIMARY KEY, shop, question, answer, day)")
    numbered = ((number, *_row(number)) for number in range(rows))
    base.executemany("INSERT INTO rows VALUES (?, ?, ?, ?, ?)", numbered)
    base.commit()
    base.close()


def naive(source: Path) -> list[dict[str, Any]]:
    """Every row of the CSV file that can be told, all in memory."""
    import pandas

    rows = pandas.read_csv(source / "table.csv", on_bad_lines="skip", engine="python")
    return [
        {
            "messages": [
                {"role": "system", "content": OPTIONS["system"]},
                {"role": "user", "content": f"Shop {row.shop}: {row.question}"},
                {"role": "assistant", "content": row.answer},
            ],
            "meta": {"day": row.day},
        }
        for row in rows.itertuples()
    ]
