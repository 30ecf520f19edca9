"""One line of a combo or a whole answer in; direction, stance and move, and broken rules out."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from stages.recipes.rules.package import Grammar

BACK = {"back": "back", "fakie": "back", "front": "front", "forward": "front"}
FAKIE_WORDS = {"front": "forward", "back": "fakie"}
TURNED = {"front": "back", "back": "front"}
STANCES = ("open", "closed")

# A numbered line, its number or text perhaps in bold: `1. x`, `  2) x`, `**3.** x`, `**4. x**`.
BOLD = r"[*_]{0,3}"
LINE = re.compile(rf"^[ \t]*{BOLD}(\d{{1,2}}){BOLD}[.)]{BOLD}[ \t]+(\S.*?)[ \t\r]*$", re.MULTILINE)
# What may stand where a move should: one to three words, no punctuation inside.
NAME = re.compile(r"[a-z0-9'-]+(?: [a-z0-9'-]+){0,2}")


@dataclass(frozen=True, slots=True)
class Trick:
    """One line of a combo.

    Attributes:
        word: the direction word as written (front, back, forward, fakie), or "".
        stance: open, closed, or "".
        move: the rest; a known move or not.
    """

    word: str
    stance: str
    move: str

    @property
    def entry(self) -> str:
        """The direction in which the trick is entered, front or back; "" when not said."""
        return BACK.get(self.word, "")

    def exit(self, grammar: Grammar) -> str:
        """The direction in which it is left; "" when it cannot be known."""
        if not self.entry or self.move not in grammar.moves:
            return ""
        return TURNED[self.entry] if self.move in grammar.rotating else self.entry


def parse_trick(text: str, grammar: Grammar) -> Trick | None:
    """The trick that a line's text names, or None when the text is not of a trick's form.

    The form is `<direction> <stance> <move>`. A line without direction counts only when the
    rest is a known move, else prose of a few words would pass for a trick.
    """
    words = re.sub(r"[*_`]", "", text).lower().rstrip(" .,;").split()
    rest = " ".join(words)
    word = stance = ""
    if rest not in grammar.moves and words and words[0] in BACK:  # "back slide" is a move
        word, rest = words[0], " ".join(words[1:])
    first, _, after = rest.partition(" ")
    if first in STANCES:
        stance, rest = first, after
    if rest in grammar.moves or (word and NAME.fullmatch(rest)):
        return Trick(word, stance, rest)
    return None


def parse_combo(answer: str, grammar: Grammar) -> list[Trick] | None:
    """The tricks of an answer's numbered list, or None when there is no such list.

    Text before and after the list may stand; every numbered line must be a trick, the numbers
    must run 1, 2, 3, …, and one move at least must be known: numbered prose is no combo.
    """
    found = LINE.findall(answer)
    tricks = [parse_trick(text, grammar) for _, text in found]
    if [int(number) for number, _ in found] != list(range(1, len(found) + 1)):
        return None
    known = [trick for trick in tricks if trick is not None]
    if len(known) < len(found) or not any(trick.move in grammar.moves for trick in known):
        return None
    return known


def broken(tricks: Sequence[Trick], grammar: Grammar) -> Iterator[tuple[str, str]]:
    """(rule, sentence) for every rule that a combo breaks.

    Rules: `valid_moves` (all known), `only_first` (such a move stands first or not at all),
    `linking` (each entry is the exit before it, two tricks at least), `stance` (one where the
    move takes one, none elsewhere), `fakie` (forward and fakie with the moves that use these
    words and with no other, and the word of the direction the skater comes in).
    """
    if len(tricks) < 2:
        yield "linking", "A combo has two tricks at least."
    for number, trick in enumerate(tricks, 1):
        before = tricks[number - 2] if number > 1 else None
        if trick.move not in grammar.moves:
            yield "valid_moves", f"Trick {number}: there is no move {trick.move!r}."
        if before and trick.move in grammar.only_first:
            yield "only_first", f"Trick {number}: {trick.move} may only come first."
        if before and (not trick.entry or trick.entry != before.exit(grammar)):
            comes = before.exit(grammar) or "nowhere known"
            yield "linking", f"Trick {number}: it starts {trick.word!r} after leaving {comes}."
        yield from _wrong_stance(number, trick, grammar)
        yield from _wrong_word(number, trick, before, grammar)


def _wrong_stance(number: int, trick: Trick, grammar: Grammar) -> Iterator[tuple[str, str]]:
    if trick.move not in grammar.moves:
        yield "stance", f"Trick {number}: an unknown move has no right stance."
    elif trick.stance and trick.move in grammar.no_stance:
        yield "stance", f"Trick {number}: {trick.move} takes no stance."
    elif not trick.stance and trick.move not in grammar.no_stance:
        yield "stance", f"Trick {number}: {trick.move} needs open or closed."


def _wrong_word(
    number: int, trick: Trick, before: Trick | None, grammar: Grammar
) -> Iterator[tuple[str, str]]:
    if not trick.word or trick.move not in grammar.moves:
        yield "fakie", f"Trick {number}: no direction word, or no known move to go with it."
        return
    comes = (before.exit(grammar) if before else "") or trick.entry
    due = FAKIE_WORDS[comes] if trick.move in grammar.fakie else trick.entry
    if trick.word != due:
        yield "fakie", f"Trick {number}: {trick.word} {trick.move} should be {due} {trick.move}."
