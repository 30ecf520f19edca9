"""Texts in; whether each is new out, in 16 to 32 bytes a text."""

from array import array
from hashlib import blake2b


class Seen:
    """A set of texts, kept as 64-bit hashes in a table of fixed size (open addressing).

    Of a million texts two have the same hash once in 37 million sets; the later one of them
    counts as seen, on every machine alike.
    """

    def __init__(self, most: int) -> None:
        """`most` is how many texts will be added at most."""
        self.mask = (1 << (2 * most).bit_length()) - 1
        self.slots = array("Q", bytes(8 * (self.mask + 1)))

    def add(self, text: str) -> bool:
        """Add a text; whether it is new."""
        digest = blake2b(text.encode("utf-8"), digest_size=8).digest()
        mark = int.from_bytes(digest, "big") or 1  # 0 is an empty slot
        place = mark & self.mask
        while self.slots[place]:
            if self.slots[place] == mark:
                return False
            place = (place + 1) & self.mask
        self.slots[place] = mark
        return True
