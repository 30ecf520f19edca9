"""Recipe table: CSV, Parquet, or a query to SQLite, and templates -> examples, judged by them."""

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from stages.core.errors import TunesmithError
from stages.core.example import Example, Reject
from stages.core.settings import Settings
from stages.recipes.table import cells, columns, database, delimited, judging
from stages.recipes.table.cells import BadRowError, Value
from stages.recipes.table.templates import Template

STATS = ("format",)
METRICS = judging.METRICS

judge = judging.judge

Row = Mapping[str, Value] | BadRowError


class Options(Settings):
    """Which tables, and how a row becomes a question and an answer.

    `system`, `user` and `assistant` are templates: `{name}` is the row's value in that column,
    `{{` and `}}` are braces.

    Attributes:
        pattern: glob below the source folder, such as `*.csv`; `.parquet` files are read as such.
        query: one SELECT, which is asked of every file as of a SQLite database; "" for none.
        delimiter: between the fields of a line: `,` or `;` or a tab (YAML: "\\t").
        encoding: of CSV files, a codec of Python such as utf-8, utf-16 or cp1252.
        system: the system message; "" for none.
        user: the question.
        assistant: the answer.
        group_by: column whose equal values a split keeps on one side; "" makes each row a group
            of its own.
        meta: columns kept as facts about the example.
    """

    pattern: Annotated[str, Field(min_length=1)]
    query: str
    delimiter: Annotated[str, Field(min_length=1, max_length=1)]
    encoding: str
    system: str
    user: Annotated[str, Field(min_length=1)]
    assistant: Annotated[str, Field(min_length=1)]
    group_by: str
    meta: list[str]

    @field_validator("system", "user", "assistant")
    @classmethod
    def _template(cls, text: str) -> str:
        Template(text)
        return text

    @field_validator("delimiter")
    @classmethod
    def _divides(cls, sign: str) -> str:
        if sign in '"\r\n\0 ':
            raise ValueError("a delimiter is one sign other than quote, space and line end")
        return sign

    @field_validator("encoding")
    @classmethod
    def _is_known(cls, name: str) -> str:
        delimited.require_text_codec(name)
        return name

    @model_validator(mode="after")
    def _learns_something(self) -> "Options":
        if not Template(self.assistant).columns:
            raise ValueError("`assistant` names no {column}: all answers would be the same")
        if "format" in self.meta:
            raise ValueError("`meta` cannot take a column `format`; the kind of file stands there")
        return self

    @property
    def needed(self) -> list[str]:
        """The columns without which a row cannot be used."""
        texts = (self.system, self.user, self.assistant)
        names = [name for text in texts for name in Template(text).columns]
        return list(dict.fromkeys([*names, *([self.group_by] if self.group_by else [])]))


def examples(source: Path, options: Options) -> Iterator[Example | Reject]:
    """One example or reject a row, files in the order of their names.

    `source` of an example is `<file>#<n>`, n the line where its record begins (the header is line
    1), or the row of a Parquet file or of the query's answer, from 1.

    Raises:
        TunesmithError: no such folder, no file of that pattern, no row in them, a column that is
            not there, or a query that cannot be run.
    """
    files = _files(source, options.pattern)
    maker = _Maker(options)
    found = False
    for path in files:
        name = path.relative_to(source).as_posix()
        kind, rows = _read(path, options)
        for number, row in rows:
            found = True
            yield maker.example(row, f"{name}#{number}", kind)
    if not found:
        raise _nothing(source, f"Its {len(files)} file(s) hold no row.")


def _read(path: Path, options: Options) -> tuple[str, Iterator[tuple[int, Row]]]:
    """The kind of a file, and its rows."""
    wanted = list(dict.fromkeys([*options.needed, *options.meta]))
    if options.query:
        return "sqlite", database.read(path, options.query, wanted)
    if path.suffix == ".parquet":
        return "parquet", columns.read(path, wanted)
    return "text", delimited.read(path, options.delimiter, options.encoding, wanted)


class _Maker:
    """The templates of the options, taken apart once for all rows."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._needed = options.needed
        texts = {"user": options.user, "assistant": options.assistant}
        if options.system:
            texts = {"system": options.system, **texts}
        self._templates = {role: Template(text) for role, text in texts.items()}

    def example(self, row: Row, source: str, kind: str) -> Example | Reject:
        """The example of a row, or its Reject."""
        try:
            if isinstance(row, BadRowError):
                raise row
            texts = cells.texts(row, self._needed)
            meta = cells.facts(row, self._options.meta)
        except BadRowError as problem:
            return Reject(source, problem.code, str(problem))
        messages = [
            {"role": role, "content": template.fill(texts)}
            for role, template in self._templates.items()
        ]
        key = self._options.group_by
        group = f"{key}:{texts[key]}" if key else source
        return Example(messages, source, group, meta | {"format": kind})


def _files(source: Path, pattern: str) -> list[Path]:
    if not source.is_dir():
        raise _nothing(source, "There is no such folder.")
    if PurePath(pattern).is_absolute() or ".." in PurePath(pattern).parts:
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
        f"There is no table to read. {what}",
        where=str(source),
        why="Without a single row there is nothing to learn.",
        do="Put your tables there, or mend `source` and `options.pattern` in params.yaml.",
    )
