"""A base's tokenizer.json and texts in; token ids out, the ids tokenizer.json itself gives."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from tokenizers import Tokenizer

from stages.core import template
from stages.core.errors import TunesmithError
from stages.core.spelling import Spelling
from stages.core.tokens import INT

# Pieces kept before a table is emptied, so that memory stays flat.
SEGMENTS, WORDS = 4_096, 100_000

# A word may start at a space after something that is no white space: see `separable`.
_BAD_CUT = re.compile(r" (?<![!-~\w] )|\0")
_CUT = re.compile(r"(?<=[!-~\w])(?= )")
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|"
# How the tokenizers of Qwen 2 to 3 and of Llama 3 split text before BPE.
SPLITS = tuple(_CONTRACTIONS + _WORDS % digits for digits in (r"\p{N}", r"\p{N}{1,3}"))


class Encoder:
    """A base's tokenizer, straight from `tokenizer.json`.

    Attributes:
        raw: the `tokenizers` object; it never truncates or pads.
        separable: texts are encoded in pieces, which are kept and used again.
        stops: ids that end a turn: `eos_token`, then `eos_token_id` of generation_config.json.
        bos: id of `bos_token`, -1 where there is none.
        is_stop: a bool for each id.
        special_text, stop_text: find the text of any control token, of any that ends a turn.
        special_json: finds the text of any control token in JSON that orjson wrote.
    """

    def __init__(self, base: Path) -> None:
        spec, self.raw = _read(base)
        config = template.read_config(base)
        vocabulary: dict[str, int] = self.raw.get_vocab(with_added_tokens=True)
        _same_added_tokens(config, self.raw, base)
        self.stops = _stops(base, config, vocabulary)
        bos = template.named_tokens(config).get("bos_token", "")
        self.bos = vocabulary.get(bos, -1)
        added: list[dict[str, Any]] = spec.get("added_tokens") or []
        special = {token["id"] for token in added if token["special"]} | set(self.stops)
        size = max(vocabulary.values()) + 1
        self.is_stop = _flags(self.stops, size)
        texts = sorted(text for text, number in vocabulary.items() if number in special)
        texts.sort(key=len, reverse=True)
        self.special_text = re.compile("|".join(map(re.escape, texts)))
        inside = [orjson.dumps(text)[1:-1] for text in texts]
        self.special_json = re.compile(b"|".join(map(re.escape, inside)))
        self.stop_text = re.compile(
            "|".join(re.escape(text) for text in texts if vocabulary[text] in self.stops)
        )
        self.separable = separable(spec)
        self._end = _segment_end(added, template.named_tokens(config)["eos_token"])
        self._spelling = Spelling(spec, vocabulary)
        self._segments: dict[str, bytes | None] = {}
        self._words: dict[str, bytes | None] = {}

    def text(self, number: int) -> str:
        """What one token spells; bytes that are no text show as a replacement character."""
        return self._spelling.bytes[number].decode(errors="replace")

    def whole(self, texts: list[str]) -> dict[str, bytes]:
        """The ids of each text as little-endian int32, each text encoded in one go."""
        found = self.raw.encode_batch_fast(texts, add_special_tokens=False)
        ids = (np.array(encoding.ids, INT).tobytes() for encoding in found)
        return dict(zip(texts, ids, strict=True))

    def encode(self, texts: list[str]) -> dict[str, bytes | None]:
        """The ids of each text as `whole`; None where they do not spell the text exactly."""
        if not self.separable:
            return self._exact(texts)
        rows = {text: self._segmented(text) for text in texts}
        self._learn([segment for row in rows.values() for segment in row])
        return {text: _joined(self._segments, row) for text, row in rows.items()}

    def _exact(self, texts: list[str]) -> dict[str, bytes | None]:
        exact = self._spelling.exact
        return {text: ids if exact(text, ids) else None for text, ids in self.whole(texts).items()}

    def _segmented(self, text: str) -> list[str]:
        """The text in pieces, each up to and with an end-of-turn token."""
        if not self._end or self._end not in text:
            return [text]
        *ended, rest = text.split(self._end)
        pieces = [piece + self._end for piece in ended]
        return [*pieces, rest] if rest else pieces

    def _learn(self, segments: list[str]) -> None:
        """Put together the ids of all segments not kept yet; their new words go in one batch."""
        if len(self._segments) > SEGMENTS:
            self._segments.clear()
        if len(self._words) > WORDS:
            self._words.clear()
        split = {piece: words(piece) for piece in segments if piece not in self._segments}
        new = [word for found in split.values() for word in found if word not in self._words]
        new = list(dict.fromkeys(new))
        self._words.update(self._exact(new))
        for piece, found in split.items():
            self._segments[piece] = _joined(self._words, found)


def _joined(known: dict[str, bytes | None], pieces: list[str]) -> bytes | None:
    found = [known[piece] for piece in pieces]
    return None if None in found else b"".join(found)  # type: ignore[arg-type]


def words(text: str) -> list[str]:
    """The text cut before spaces, wherever `separable` allows it."""
    if _BAD_CUT.search(text):
        return _CUT.split(text)
    return text.replace(" ", "\0 ").split("\0")


def separable(spec: dict[str, Any]) -> bool:
    """Whether encoding a text's `words` apart gives the ids of the whole text.

    BPE works inside one pre-token. Each alternative of `SPLITS` matches a space only as its
    first letter or inside a run of white space, and looks ahead only from such a run. So between
    a letter that is no white space and a space one match ends and another begins, whatever
    stands around them, and the run of white space stays in one piece. NFC joins nothing across
    that place. Added tokens are found first; none here holds a space or takes one in.
    """
    plain = all(
        not (token["lstrip"] or token["rstrip"] or token["single_word"] or " " in token["content"])
        for token in spec.get("added_tokens") or []
    )
    normalizer, model = spec.get("normalizer"), spec["model"]
    return (
        plain
        and (normalizer is None or normalizer == {"type": "NFC"})
        and model["type"] == "BPE"
        and not model.get("dropout")
        and _splits_as_known(spec.get("pre_tokenizer"))
    )


def _splits_as_known(pre_tokenizer: Any) -> bool:
    """Whether text is split by one of `SPLITS`, then spelt in bytes with no space put before."""
    if not isinstance(pre_tokenizer, dict) or pre_tokenizer.get("type") != "Sequence":
        return False
    parts = pre_tokenizer["pretokenizers"]
    if [part["type"] for part in parts] != ["Split", "ByteLevel"]:
        return False
    split, spell = parts
    return (
        split["pattern"].get("Regex") in SPLITS
        and split["behavior"] == "Isolated"
        and not split["invert"]
        and not spell["add_prefix_space"]
        and not spell["use_regex"]
    )


def _segment_end(added: list[dict[str, Any]], end: str) -> str:
    """`end` if it is an added token that no other one can overlap in a text, else nothing."""
    others = [token["content"] for token in added if token["content"] != end]
    alone = len(others) < len(added) and not any(_overlap(end, other) for other in others)
    return end if alone else ""


def _overlap(one: str, other: str) -> bool:
    if one in other or other in one:
        return True
    lengths = range(1, min(len(one), len(other)))
    return any(one[-n:] == other[:n] or other[-n:] == one[:n] for n in lengths)


def _flags(ids: Iterable[int], size: int) -> np.ndarray:
    flags = np.zeros(size, np.bool_)
    flags[list(ids)] = True
    return flags


def _read(base: Path) -> tuple[dict[str, Any], Tokenizer]:
    path = base / "tokenizer.json"
    if not path.is_file():
        raise TunesmithError(
            "This base has no tokenizer.json.",
            where=str(path),
            why="Its token ids are the only ones its weights know.",
            do="Use a base with a tokenizer.json, then: dvc repro base",
        )
    content = path.read_bytes()
    raw = Tokenizer.from_buffer(content)
    raw.no_truncation()
    raw.no_padding()
    return orjson.loads(content), raw


def _same_added_tokens(config: dict[str, Any], raw: Tokenizer, base: Path) -> None:
    """Refuse a configuration whose added tokens would change the ids of tokenizer.json."""
    known = raw.get_added_tokens_decoder()
    for number, token in (config.get("added_tokens_decoder") or {}).items():
        found = known.get(int(number))
        if found is None or found.content != token["content"]:
            raise TunesmithError(
                f"Token {number} is {token['content']!r} in tokenizer_config.json, and "
                f"{found.content if found else 'no added token'!r} in tokenizer.json.",
                where=f"{base}/tokenizer_config.json: added_tokens_decoder",
                why="Programs that read one file would give other ids than those that read both.",
                do="Make the two files agree, or take the base's own files again.",
            )


def _stops(base: Path, config: dict[str, Any], vocabulary: dict[str, int]) -> list[int]:
    """The ids at which generation ends, the tokenizer's own `eos_token` first."""
    end = template.named_tokens(config).get("eos_token")
    if end is None or end not in vocabulary:
        raise TunesmithError(
            f"The end-of-turn token of this base is {end!r}, which tokenizer.json does not know."
            if end
            else "tokenizer_config.json names no eos_token.",
            where=f"{base}/tokenizer_config.json: eos_token",
            why="Without it no row can teach the model to stop.",
            do="Name the token that ends an assistant turn in the base's template.",
        )
    path = base / "generation_config.json"
    more = orjson.loads(path.read_bytes()).get("eos_token_id") if path.is_file() else None
    listed = more if isinstance(more, list) else [] if more is None else [more]
    known = set(vocabulary.values())
    return list(dict.fromkeys([vocabulary[end], *(n for n in listed if n in known)]))
