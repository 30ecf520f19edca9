"""A tokenizer.json and token ids in; the bytes those tokens spell out."""

import re
from typing import Any

import numpy as np

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


def _byte_letters() -> dict[str, int]:
    """The letter that stands for each byte in byte-level BPE (Radford et al. 2019, GPT-2)."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in shown]
    letters = {chr(byte): byte for byte in shown}
    return letters | {chr(0x100 + number): byte for number, byte in enumerate(hidden)}


class Spelling:
    """The bytes of every token, for byte-level BPE and for SentencePiece's `▁` and `<0xNN>`."""

    def __init__(self, spec: dict[str, Any], vocabulary: dict[str, int]) -> None:
        self.added = {token["id"]: token for token in spec.get("added_tokens") or []}
        spell = _byte_level if _mentions(spec.get("decoder"), "ByteLevel") else _sentencepiece
        self.bytes = [b""] * (max(vocabulary.values()) + 1)
        for text, number in vocabulary.items():
            self.bytes[number] = text.encode() if number in self.added else spell(text)
        # Such tokenizers write a space where a text or what follows a control token begins.
        self.leading_space = _mentions(spec.get("normalizer"), "Prepend") or _mentions(
            spec.get("pre_tokenizer"), "Metaspace"
        )
        swallows = any(token["lstrip"] or token["rstrip"] for token in self.added.values())
        self.loose = self.leading_space or swallows
        self._control = re.compile("|".join(map(_swallowing, self._longest_first())) or r"(?!)")

    def _longest_first(self) -> list[dict[str, Any]]:
        return sorted(self.added.values(), key=lambda token: (-len(token["content"]), token["id"]))

    def exact(self, text: str, ids: bytes) -> bool:
        """Whether the ids (little-endian int32) spell the text, byte for byte.

        Only white space that the tokenizer's own rules add after, or drop beside, a control
        token may differ.
        """
        numbers = np.frombuffer(ids, "<i4").tolist()
        if b"".join([self.bytes[number] for number in numbers]) == text.encode():
            return True
        return self.loose and self._loosely(text, numbers)

    def _loosely(self, text: str, numbers: list[int]) -> bool:
        spelt = [b""]
        for number in numbers:
            if number in self.added:
                spelt.append(b"")
            else:
                spelt[-1] += self.bytes[number]
        wanted = [part.encode() for part in self._control.split(text)]
        return len(spelt) == len(wanted) and all(
            got == want or (self.leading_space and got == b" " + want)
            for got, want in zip(spelt, wanted, strict=True)
        )


def _swallowing(token: dict[str, Any]) -> str:
    """The pattern of an added token with the white space it takes in on either side."""
    left, right = (r"\s*" if token[side] else "" for side in ("lstrip", "rstrip"))
    return f"{left}{re.escape(token['content'])}{right}"


_LETTERS = _byte_letters()


def _byte_level(text: str) -> bytes:
    if all(letter in _LETTERS for letter in text):
        return bytes(_LETTERS[letter] for letter in text)
    return text.encode()


def _sentencepiece(text: str) -> bytes:
    byte = _BYTE.fullmatch(text)
    return bytes([int(byte[1], 16)]) if byte else text.replace("▁", " ").encode()


def _mentions(part: Any, kind: str) -> bool:
    """Whether a component of tokenizer.json, or one in its sequence, is of this type."""
    if isinstance(part, list):
        return any(_mentions(item, kind) for item in part)
    if not isinstance(part, dict):
        return False
    inner = [part.get(name) for name in ("normalizers", "pretokenizers", "decoders")]
    return part.get("type") == kind or any(_mentions(item, kind) for item in inner)
