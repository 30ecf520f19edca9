"""A text with `{column}` places in; the same with a row's values in them out."""

import difflib
import re
from collections.abc import Iterable, Mapping

from stages.core.errors import TunesmithError

# A name is taken as it stands: no attributes, indexes or formats, whatever a column is called.
PLACE = re.compile(r"\{\{|\}\}|\{([^{}]+)\}|[{}]")


class Template:
    """A text whose `{name}` is replaced by the column of that name; `{{` and `}}` are braces.

    Raises:
        ValueError: a brace that is neither doubled nor part of a place.
    """

    def __init__(self, text: str) -> None:
        self._parts: list[tuple[str, str]] = []  # (text, the column behind it or "")
        at, plain = 0, ""
        for found in PLACE.finditer(text):
            plain += text[at : found.start()]
            at = found.end()
            name, sign = found.group(1), found.group()
            if name:
                self._parts.append((plain, name))
                plain = ""
            elif len(sign) == 2:
                plain += sign[0]
            else:
                place = found.start() + 1
                raise ValueError(
                    f"a {sign!r} at character {place} stands alone; double it: {sign * 2}"
                )
        self._parts.append((plain + text[at:], ""))

    @property
    def columns(self) -> list[str]:
        """The names of the columns, in order."""
        return list(dict.fromkeys(name for _, name in self._parts if name))

    def fill(self, row: Mapping[str, str]) -> str:
        """The text with the row's values."""
        return "".join(text + (row[name] if name else "") for text, name in self._parts)


def require_columns(wanted: Iterable[str], found: list[str], where: str) -> None:
    """Refuse a table that lacks a column, or whose columns cannot be told apart.

    Raises:
        TunesmithError: a column without a name, two of one name, or none of a wanted name.
    """
    for number, name in enumerate(found, 1):
        if not name.strip():
            raise _unclear(f"Column {number} has no name.", where)
        if found.index(name) != number - 1:
            raise _unclear(f"Two columns are called {name!r}.", where)
    for name in wanted:
        if name not in found:
            close = difflib.get_close_matches(name, found, n=1, cutoff=0.5)
            hint = f"Did you mean {close[0]!r}? " if close else ""
            raise TunesmithError(
                f"There is no column {name!r}.",
                where=where,
                why="The options of the recipe table ask for it.",
                do=f"{hint}Columns: {', '.join(found)}.",
            )


def _unclear(what: str, where: str) -> TunesmithError:
    return TunesmithError(
        what,
        where=where,
        why="The first line of a table, or the query, names each column once.",
        do="Give every column a name of its own; in a query with AS.",
    )
