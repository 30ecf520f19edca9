"""A row's values in; their texts for the templates, or why the row cannot be used, out."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

Value = str | int | float | bool | bytes | None


class BadRowError(ValueError):
    """Why a row is no example.

    Attributes:
        code: a short reason code.
    """

    def __init__(self, code: str, reason: str) -> None:
        self.code = code
        super().__init__(reason)


def texts(row: Mapping[str, Value], needed: Iterable[str]) -> dict[str, str]:
    """The text of every needed column.

    Raises:
        BadRowError: a value that is missing, no text, or not to be written.
    """
    return {name: _text(name, row[name]) for name in needed}


def _text(name: str, value: Value) -> str:
    if is_missing(value):
        raise BadRowError("missing_value", f"Its column {name!r} is empty.")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes):
        raise BadRowError("wrong_type", f"Its column {name!r} holds bytes, not text.")
    text = str(value)
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as problem:
            reason = f"Its column {name!r} holds bytes that are not in the table's encoding."
            raise BadRowError("encoding", reason) from problem
    if "\0" in text:
        reason = f"Its column {name!r} holds the character U+0000, at which C programs stop."
        raise BadRowError("nul", reason)
    return text


def is_missing(value: Value) -> bool:
    """Whether a value says nothing: null, blank text, or a number that is none."""
    if isinstance(value, str):
        return not value or value.isspace()
    return value is None or (isinstance(value, float) and not math.isfinite(value))


def facts(row: Mapping[str, Value], names: Iterable[str]) -> dict[str, Any]:
    """The values for `meta`, numbers as such; what is missing is left out."""
    found: dict[str, Any] = {}
    for name in names:
        value = row[name]
        if not is_missing(value):
            number = isinstance(value, bool | int | float)
            found[name] = value if number else _text(name, value)
    return found
