"""A text in; its sentences, words and stems, and what is said in it, out. For English."""

import re
from collections.abc import Iterable, Sequence
from math import ceil

from stages.recipes.rated_sqlite import phrases

SENTENCE = re.compile(r"[^.!?…\n]+[.!?…]*")
WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
ENDINGS = ("ing", "ed", "es", "s")
# A claim with a negation just before it claims the opposite: "it is not your fault".
NEGATED_WITHIN = 3
# So much of a statement's content must stand in one sentence: all of up to three words.
COVERED = 0.75


def words(text: str) -> list[str]:
    """Lower-case words, with straight apostrophes."""
    return [word.replace("’", "'").lower() for word in WORD.findall(text)]


def sentences(text: str) -> list[str]:
    """The sentences of three words or more, with their end marks."""
    found = (part.strip() for part in SENTENCE.findall(text))
    return [part for part in found if len(WORD.findall(part)) >= 3]


def stem(word: str) -> str:
    """The word without a common ending; number words as digits."""
    word = phrases.NUMBERS.get(word, word).removesuffix("'s")
    for ending in ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word


def stems(text: str) -> dict[str, None]:
    """The stems of the content words, each once, in order."""
    return {stem(word): None for word in words(text) if word not in phrases.FUNCTION_WORDS}


def hits(parts: Iterable[str], wanted: Sequence[str]) -> int:
    """How many of these phrases are claimed in the sentences, not counting negated ones."""
    lines = [_without(words(part), phrases.HARMLESS) for part in parts]
    return sum(any(_claimed(line, phrase.split()) for line in lines) for phrase in wanted)


def _without(line: list[str], phrases_: Sequence[str]) -> list[str]:
    text = f" {' '.join(line)} "
    for phrase in phrases_:
        text = text.replace(f" {phrase} ", " ")
    return text.split()


def _claimed(line: list[str], phrase: list[str]) -> bool:
    size = len(phrase)
    for at in range(len(line) - size + 1):
        if line[at : at + size] == phrase:
            before = line[max(0, at - NEGATED_WITHIN) : at]
            if not any(word in phrases.NEGATIONS for word in before):
                return True
    return False


def covered(item: str, parts: Sequence[str]) -> bool:
    """Whether one sentence says what the statement says, as far as words tell.

    Three quarters of its content words, rounded up, must stand in the sentence, and a negation
    among or just before them only where the statement has one.
    """
    wanted = stems(item)
    if not wanted:
        return True
    negated = any(word in phrases.NEGATIONS for word in words(item))
    return any(_says(wanted, negated, words(part)) for part in parts)


def _says(wanted: dict[str, None], negated: bool, said: list[str]) -> bool:
    places = {
        stem(word): at for at, word in reversed(list(enumerate(said))) if stem(word) in wanted
    }
    if len(places) < ceil(COVERED * len(wanted)):
        return False
    first, last = min(places.values()), max(places.values())
    among = said[max(0, first - 2) : last + 1]
    return any(word in phrases.NEGATIONS for word in among) == negated
