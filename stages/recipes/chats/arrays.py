"""A file's bytes that are one JSON array in; its items out, as lines.read gives lines.

Only one item is in memory at a time. Items are told apart by quotes and brackets alone, so a
broken one does not end the file.
"""

import re
from collections.abc import Iterator
from typing import BinaryIO

from stages.recipes.chats import lines
from stages.recipes.chats.lines import Row, Unreadable

CHUNK = 1 << 16
MARK = re.compile(rb'["\[\]{},]')
SPACE = b" \t\r\n"


def begins(head: bytes) -> bool:
    """Whether a file with these first bytes is an array."""
    return head.removeprefix(lines.BOM).lstrip(SPACE).startswith(b"[")


def read(file: BinaryIO) -> Iterator[tuple[int, Row]]:
    """(1-based place in the array, JSON object or why not) of each item."""
    number = 0
    items = _Items(file)
    for item in items:
        number += 1
        if not isinstance(item, bytes):
            yield number, item
        elif item:
            yield number, lines.row(item, "item")
        elif number > 1 or items.end != b"]":  # `[]` has no item
            yield number, Unreadable("broken_json", "Between two commas there is no item.")
    if items.end != b"]":
        yield number + 1, Unreadable("broken_json", "The file ends inside of its array.")
    elif items.rest():
        yield (
            number + 1,
            Unreadable("broken_json", "There is more text after the end of the array."),
        )


class _Items:
    """The items between the outer brackets, as bytes or as why they are too long.

    Attributes:
        end: what ended the last item: a comma, a bracket, or nothing at the end of the file.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._buffer = b""
        self._start = self._at = 0  # where the item begins, and how far it is read
        self._dropped = 0  # bytes of an item too long that are already forgotten
        self.end = b","

    def __iter__(self) -> Iterator[bytes | Unreadable]:
        while b"[" not in self._buffer and self._more(0):
            pass
        self._start = self._at = self._buffer.index(b"[") + 1
        while self.end == b",":
            self.end = self._find_end()
            item, size = self._buffer[self._start : self._at], self._dropped
            self._start = self._at = self._at + len(self.end)
            self._dropped = 0
            if size + len(item) > lines.MOST_BYTES:
                yield lines.too_long("item", size + len(item))
            elif self.end:
                yield item.strip(SPACE)

    def rest(self) -> bool:
        """Whether anything but whitespace follows the array; reads to the end of the file."""
        found = bool(self._buffer[self._start :].strip(SPACE))
        while not found and (chunk := self._file.read(CHUNK)):
            found = bool(chunk.strip(SPACE))
        return found

    def _find_end(self) -> bytes:
        """Go to the mark that ends the item, and return it; nothing at the end of the file."""
        depth = 0
        while True:
            found = MARK.search(self._buffer, self._at)
            if found is None:
                self._at = len(self._buffer)
                if not self._more(0):
                    return b""
                continue
            mark, self._at = found.group(), found.start()
            if depth == 0 and mark in (b",", b"]"):
                return mark
            self._at += 1
            if mark == b'"' and not self._pass_text():
                return b""
            depth = max(0, depth + (mark in (b"[", b"{")) - (mark in (b"]", b"}")))

    def _pass_text(self) -> bool:
        """Go behind the quote that ends the text; False where the file ends before."""
        while True:
            quote = self._buffer.find(b'"', self._at)
            if quote >= 0:
                before = self._buffer[self._at : quote]
                self._at = quote + 1
                if (len(before) - len(before.rstrip(b"\\"))) % 2 == 0:
                    return True
                continue
            tail = self._buffer[self._at :]
            odd = (len(tail) - len(tail.rstrip(b"\\"))) % 2
            self._at = len(self._buffer) - odd  # what a last backslash escapes is still to come
            if not self._more(odd):
                return False

    def _more(self, keep: int) -> bool:
        """Read on, twice as far each time; drop all but `keep` bytes of an item too long."""
        size = len(self._buffer) - self._start
        first = self._start
        if self._dropped + size > lines.MOST_BYTES:
            first = len(self._buffer) - keep
            self._dropped += first - self._start
        chunk = self._file.read(max(CHUNK, size))
        self._buffer = self._buffer[first:] + chunk
        self._start, self._at = 0, self._at - first
        return bool(chunk)
