"""An answer and what it answers in; whether it is sound text, no loop and no stray script, out."""

import unicodedata
from collections.abc import Sequence

from stages.core import dialogue

# Repetition counts as a loop from so many rounds and so many repeated words, or letters.
WORD_ROUNDS, WORD_RUN, WORD_PERIOD = 4, 8, 64
LETTER_ROUNDS, LETTER_RUN, LETTER_PERIOD = 10, 40, 16
FOREIGN = 0.05


def tidy(text: str, answer: str, context: str) -> bool:
    """Whether an answer is free of the signs of a model that learned garbage.

    Not tidy: nothing at all; control characters or marks of a chat template in its `text` (what is
    not a call); words or letters that go round in a loop which the `context` does not show; more
    than a twentieth of its letters, and more than two, in scripts that the context has none of.
    """
    if not answer.strip() or dialogue.CONTROL.search(text):
        return False
    if any(unicodedata.category(letter) in ("Cc", "Cn", "Co", "Cs") for letter in _odd(answer)):
        return False
    return not _loops(answer, context) and not _foreign(answer, context)


def _odd(text: str) -> set[str]:
    """The letters that are neither plain ASCII nor white space."""
    return {letter for letter in text if not (" " <= letter <= "~" or letter in "\n\r\t")}


def _loops(answer: str, context: str) -> bool:
    words = answer.split()
    for period in range(1, min(WORD_PERIOD, len(words) // 2) + 1):
        run, end = _run(words, period)
        if run >= max(WORD_RUN, (WORD_ROUNDS - 1) * period):
            return not _shown(" ".join(words[end - run : end]), context)
    letters = " ".join(words)
    for period in range(1, LETTER_PERIOD + 1):
        run, end = _run(letters, period)
        if run >= max(LETTER_RUN, (LETTER_ROUNDS - 1) * period):
            return not _shown(letters[end - run : end], context)
    return False


def _run(items: Sequence[str], period: int) -> tuple[int, int]:
    """The longest run of items equal to the one `period` before, and where it ends."""
    longest = end = run = 0
    for place in range(period, len(items)):
        run = run + 1 if items[place] == items[place - period] else 0
        if run > longest:
            longest, end = run, place + 1
    return longest, end


def _shown(text: str, context: str) -> bool:
    return text in " ".join(context.split())


def _foreign(answer: str, context: str) -> bool:
    known = {_script(letter) for letter in _odd(context)} | {"LATIN"}
    letters = [letter for letter in answer if letter.isalpha()]
    foreign = [
        letter for letter in letters if not letter.isascii() and _script(letter) not in known
    ]
    return len(foreign) > max(2, FOREIGN * len(letters))


def _script(letter: str) -> str:
    """The first word of a letter's Unicode name, which is its script."""
    return unicodedata.name(letter, "").partition(" ")[0]
