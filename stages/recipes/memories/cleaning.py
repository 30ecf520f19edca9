"""An answer in; the same without the filler it starts with, folded, and cut to so many words, out.

Seven kinds of filler are known: (1) ok, okay, sure, alright; (2) so; (3) let me start, think or
figure …; (4) I'm just here …; (5) as an AI …; (6) certainly; (7) here's what ….

A word is filler only as a whole word that a sign sets apart ("Sure, ", "Certainly! ", "OK: "),
and `so` also between a filler and a new sentence ("Alright, so No."). A clause is filler only up
to the colon or comma that ends it, never to the end of a sentence. Where that is in doubt the
text stays: a filler left in is counted by the report, a word taken out is lost.
"""

import re

# What sets a word apart: signs and then space or the end, or a dash with space around it.
APART = r"(?:\s*(?:[,!:;.…]+(?=\s|$)|\s[-–—]+(?=\s))\s*|\s*$)"
INNER = r"[^.!?:;,\n]{0,80}"
COLON = rf"{INNER}(?:,{INNER})?:(?=\s|$)\s*"
COMMA = rf"{INNER},(?=\s|$)\s*"
AI = r"as an? (?:ai|artificial intelligence|(?:large )?language model)\b(?: (?:model|assistant)\b)?"

WORD = re.compile(r"(?i:ok|okay|sure|alright|all right|so|certainly)\b")
ENDS = re.compile(APART)
CLAUSES = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"let me (?:start|think|figure)\b{COLON}",
        rf"i['’]m just (?:here|trying)\b(?:{COLON}|{COMMA})",
        rf"{AI}(?:,\s*|{COLON})",
        rf"here['’]s what\b{COLON}",
    )
)
# A comma ends this one only before a new sentence: "Let me start it, then call." is no filler.
LET_ME = re.compile(rf"let me (?:start|think|figure)\b{COMMA}", re.IGNORECASE)
SENTENCE = re.compile(r"\S+\s+\S")


def clean(text: str) -> str:
    """The text without leading fillers, runs of whitespace folded to one space.

    Returns "" where it was nothing but filler.
    """
    text = " ".join(text.split())
    found = False
    while end := _filler(text) or (found and _so(text)):
        text, found = text[end:], True
    return text


def starts_with_filler(text: str) -> bool:
    """Whether `clean` would take something off the start of the text."""
    return _filler(" ".join(text.split())) > 0


def cut(text: str, most: int) -> tuple[str, bool]:
    """The first `most` words and "..." where there are more; and whether it was cut."""
    words = text.split()
    return (" ".join(words[:most]) + "...", True) if len(words) > most else (text, False)


def _filler(text: str) -> int:
    """How many characters of filler the folded text starts with."""
    if word := WORD.match(text):
        apart = ENDS.match(text, word.end())
        return apart.end() if apart else 0
    for clause in CLAUSES:
        if found := clause.match(text):
            return found.end()
    found = LET_ME.match(text)
    return found.end() if found and _new_sentence(text[found.end() :]) else 0


def _so(text: str) -> int:
    """The length of `so ` before a new sentence."""
    return 3 if text[:3].lower() == "so " and _new_sentence(text[3:]) else 0


def _new_sentence(rest: str) -> bool:
    return rest[:1].isupper() and SENTENCE.match(rest) is not None
