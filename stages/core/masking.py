"""Examples in; their token ids out, each assistant turn marked, every row checked."""

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import orjson

from stages.core.encoding import Encoder
from stages.core.example import Example
from stages.core.template import ChatTemplate, RenderError, Turn
from stages.core.tokens import INT

# One row in so many is encoded a second time in one go, as a watch on `encoding.separable`.
WATCHED = 64


@dataclass(frozen=True, slots=True)
class Marked:
    """One row, ready to be trained on.

    Attributes:
        ids: token ids as little-endian int32.
        spans: token ranges [start, end) of the assistant turns, end-of-turn tokens included.
        text: the rendered chat.
        rejected: of a preference pair the same prompt with the answer not wanted, else None.
    """

    example: Example
    ids: bytes
    spans: list[tuple[int, int]]
    text: str
    rejected: "Marked | None" = None

    @property
    def length(self) -> int:
        return len(self.ids) // INT.itemsize

    @property
    def prompt_length(self) -> int:
        """Tokens before the last assistant turn."""
        return self.spans[-1][0]

    @property
    def trained_count(self) -> int:
        """Tokens that are trained."""
        return sum(end - start for start, end in self.spans)

    @property
    def prompt_ids(self) -> bytes:
        """The ids before the last assistant turn."""
        return self.ids[: self.prompt_length * INT.itemsize]

    def numbers(self) -> list[int]:
        """The token ids."""
        return list(np.frombuffer(self.ids, INT).tolist())

    def trained(self) -> np.ndarray:
        """uint8 [length]: 1 where the token is trained."""
        mask = np.zeros(self.length, np.uint8)
        for start, end in self.spans:
            mask[start:end] = 1
        return mask


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a row cannot be trained on.

    Attributes:
        code: `[a-z_]+`, counted; `over_length` is the one that the settings may let pass.
        length: tokens of the row, 0 where it never became tokens.
    """

    source: str
    code: str
    reason: str
    length: int = 0


class _RefusedError(Exception):
    """A row's code and reason, on the way to its `Fault`."""


def mark(
    examples: list[Example], template: ChatTemplate, encoder: Encoder, max_length: int
) -> Iterator[Marked | Fault]:
    """Each example as a checked row, or what is wrong with it, in order."""
    rendered = [_rendered(example, template, encoder) for example in examples]
    found = [item for item in rendered if not isinstance(item, Fault)]
    texts = [text for text, _ in found]
    known = encoder.encode([*texts, *(turn.prompt for _, turns in found for turn in turns)])
    watched = encoder.whole(texts[::WATCHED]) if encoder.separable else {}
    for example, item in zip(examples, rendered, strict=True):
        if isinstance(item, Fault):
            yield item
            continue
        text, turns = item
        try:
            ids = _ids(text, known, watched)
            spans = _spans(ids, text, turns, known, encoder)
            _refuse_doubled_bos(ids, encoder)
            yield _fitting(Marked(example, ids, spans, text), max_length)
        except _RefusedError as refused:
            yield Fault(example.source, *refused.args)


def mark_pairs(
    examples: list[Example], template: ChatTemplate, encoder: Encoder, max_length: int
) -> Iterator[Marked | Fault]:
    """Each preference pair as a checked row with its checked `rejected`, or what is wrong with it.

    Only the last turn of either is marked: what comes before is the prompt they share.
    """
    whole = [example for example in examples if example.rejected is not None]
    others = [
        replace(one, messages=[*one.messages[:-1], one.rejected])
        for one in whole
        if one.rejected is not None
    ]
    chosen = mark(whole, template, encoder, max_length)
    rejected = mark(others, template, encoder, max_length)
    for example in examples:
        if example.rejected is None:
            reason = "It has no rejected answer; method dpo learns from pairs alone."
            yield Fault(example.source, "no_pair", reason)
        else:
            yield _paired(next(chosen), next(rejected))


def _paired(chosen: Marked | Fault, rejected: Marked | Fault) -> Marked | Fault:
    if isinstance(chosen, Fault):
        return chosen
    if isinstance(rejected, Fault):
        return replace(rejected, reason=f"With its rejected answer: {rejected.reason}")
    chosen, rejected = (replace(row, spans=row.spans[-1:]) for row in (chosen, rejected))
    fault: tuple[str, str] | None = None
    if chosen.prompt_ids != rejected.prompt_ids:
        fault = "prompt", "The template renders another prompt before its rejected answer."
    elif chosen.ids == rejected.ids:
        fault = "same_answer", "Both of its answers are the same tokens: nothing to prefer."
    elif min(chosen.trained_count, rejected.trained_count) == 1:
        fault = "untrained", "One of its answers is no token but the end of the turn."
    if fault:
        return Fault(chosen.example.source, *fault)
    return replace(chosen, rejected=rejected)


def _rendered(
    example: Example, template: ChatTemplate, encoder: Encoder
) -> tuple[str, list[Turn]] | Fault:
    """The text of the chat, and its assistant turns."""
    try:
        _refuse_control_text(example, encoder)
        text, turns = template.turns(example.messages, example.tools)
    except RenderError as failure:
        return Fault(example.source, "template", f"The template cannot render it: {failure}.")
    except _RefusedError as refused:
        return Fault(example.source, *refused.args)
    for number, turn in enumerate(turns, 1):
        if not text.startswith(turn.prompt):
            reason = (
                "The template is not prefix-stable: the text of the chat does not begin with "
                f"the prompt for assistant turn {number}."
            )
            return Fault(example.source, "prefix", reason)
    return text, turns


def _refuse_control_text(example: Example, encoder: Encoder) -> None:
    """Refuse text that would become a control token: it could end a turn or open another."""
    packed = orjson.dumps([example.messages, example.tools])
    if not encoder.special_json.search(packed):
        return
    for number, message in enumerate(example.messages, 1):
        for found in filter(None, map(encoder.special_text.search, _strings(message))):
            reason = f"Message {number} holds the control token {found[0]} as text."
            raise _RefusedError("control_text", reason)
    for found in filter(None, map(encoder.special_text.search, _strings(example.tools))):
        raise _RefusedError("control_text", f"Its tools hold the control token {found[0]} as text.")


def _strings(value: Any) -> Iterator[str]:
    """Every string in a JSON value, the keys of objects included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)


def _ids(text: str, known: dict[str, bytes | None], watched: dict[str, bytes]) -> bytes:
    ids = known[text]
    if ids is None:
        raise _RefusedError("spelling", "Its tokens do not decode back to its text (is it NFC?).")
    if watched.get(text, ids) != ids:
        raise _RefusedError("ids", "Its ids are not those tokenizer.json gives for the whole text.")
    return ids


def _spans(
    ids: bytes, text: str, turns: list[Turn], known: dict[str, bytes | None], encoder: Encoder
) -> list[tuple[int, int]]:
    """The token ranges of the assistant turns, each up to and with its end-of-turn token."""
    ends = np.flatnonzero(encoder.is_stop[np.frombuffer(ids, INT)]).tolist()
    spans = []
    for number, turn in enumerate(turns, 1):
        prompt = known[turn.prompt]
        if prompt is None or not ids.startswith(prompt):
            reason = f"Assistant turn {number} begins inside a token of its prompt"
            raise _RefusedError("boundary", f"{reason} (white space at its start?).")
        start = len(prompt) // INT.itemsize
        place = bisect_left(ends, start)
        # The n-th such token is the n-th such text: place and limit are compared by counting.
        if place == len(ends) or place >= _stops_before(turn.limit, text, encoder):
            reason = f"Assistant turn {number} ends without an end-of-turn token"
            raise _RefusedError("end_of_turn", f"{reason}: nothing would teach the model to stop.")
        spans.append((start, ends[place] + 1))
    if all(end - start == 1 for start, end in spans):
        raise _RefusedError("untrained", "No token of it would be trained but the end of a turn.")
    return spans


def _stops_before(limit: int, text: str, encoder: Encoder) -> int:
    return sum(1 for _ in encoder.stop_text.finditer(text, 0, limit))


def _refuse_doubled_bos(ids: bytes, encoder: Encoder) -> None:
    if encoder.bos < 0:
        return
    array = np.frombuffer(ids, INT)
    twice = (array[:-1] == encoder.bos) & (array[1:] == encoder.bos)
    # Where one token both begins and ends, two of them in a row inside a chat are rightful.
    if (twice[:1] if encoder.bos in encoder.stops else twice).any():
        text = encoder.text(encoder.bos)
        raise _RefusedError("doubled_bos", f"It holds {text} twice in a row: a doubled BOS.")


def _fitting(row: Marked, max_length: int) -> Marked:
    if row.length > max_length:
        reason = f"It has {row.length} tokens; max_length is {max_length}."
        raise _RefusedError("over_length", reason, row.length)
    return row
