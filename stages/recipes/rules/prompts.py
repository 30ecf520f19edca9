"""A combo of the package in; the user's request for one like it, its answer and its facts out."""

import random
from collections.abc import Sequence
from typing import Any

from stages.recipes.rules.combos import Trick

SHORTEST, LONGEST = 2, 5  # the package's own range when no number is asked for
WORDS = {2: "two", 3: "three", 4: "four", 5: "five"}

OPENINGS = (
    ("Give me {}", "."),
    ("Make me {}", "."),
    ("Build {}", "."),
    ("Build me {}", "."),
    ("Show me {}", "."),
    ("Create {}", "."),
    ("Write {}", "."),
    ("Plan {}", "."),
    ("I want {}", "."),
    ("I need {}", "."),
    ("I would like {}", "."),
    ("Let me see {}", "."),
    ("Put together {}", "."),
    ("Please make {}", "."),
    ("Can you make {}", "?"),
    ("Could you show me {}", "?"),
    ("What is {}", "?"),
    ("Do you have {}", "?"),
)
COUNTED = (
    "a {n}-trick combo",
    "a combo of {n} tricks",
    "a combo with {n} tricks",
    "a {n}-trick line",
    "a line of {n} tricks",
    "a run of {n} tricks",
    "a sequence of {n} tricks",
    "{n} linked tricks",
    "{n} tricks in a row",
)
UNCOUNTED = ("a combo", "a wizard combo", "a line", "a run of tricks")
TAILS = (
    "",
    "to try",
    "to practise",
    "to film",
    "for today",
    "for tonight",
    "for a warm-up",
    "for the park",
    "for the street",
    "for my next session",
    "for my class",
    "for a friend",
)
REQUESTS = {
    "starts": ("that starts with {}", "starting with {}", "that opens with {}"),
    "includes": ("that includes {}", "with {} in it", "featuring {}"),
    "ends": ("that ends with {}", "ending with {}", "that closes with {}"),
}
GOING = ("that starts going {}", "that begins going {}", "entered going {}")
# Percentage of each kind of request among the constrained prompts: 60 say how a combo begins.
KINDS = {"starts": 45, "going": 15, "includes": 25, "ends": 15}
COUNTED_SHARE = 0.8


def simple(chance: random.Random, tricks: Sequence[Trick]) -> tuple[str, str, dict[str, Any]]:
    """(prompt, answer, meta) of a request for so many tricks."""
    ask = f"{_counted(chance, len(tricks))} {chance.choice(TAILS)}".rstrip()
    return _opened(chance, ask), _answer(tricks, ""), {"n": len(tricks)}


def constrained(chance: random.Random, tricks: Sequence[Trick]) -> tuple[str, str, dict[str, Any]]:
    """(prompt, answer, meta) of a request for what this combo happens to have.

    The request is made from the combo, not the combo from the request, so nothing is drawn
    again until it fits. Meta: `request` starts, includes or ends; `move`, `direction` and
    `stance` where asked for; `n` where a number of tricks is.
    """
    meta, wish = _wish(chance, tricks)
    if chance.random() < COUNTED_SHARE:
        meta["n"] = len(tricks)
        noun = _counted(chance, len(tricks))
    else:
        noun = chance.choice(UNCOUNTED)
    return _opened(chance, f"{noun} {wish}"), _answer(tricks, f" {wish}"), meta


def _wish(chance: random.Random, tricks: Sequence[Trick]) -> tuple[dict[str, Any], str]:
    """The constraint as meta and as words."""
    kind = chance.choices(list(KINDS), list(KINDS.values()))[0]
    if kind == "going":
        direction = tricks[0].entry
        wish = chance.choice(GOING).format(direction)
        return {"request": "starts", "direction": direction}, wish
    place = {"starts": 0, "ends": -1}.get(kind)
    trick = chance.choice(tricks) if place is None else tricks[place]
    meta = {"request": kind, "move": trick.move}
    named = trick.move
    if kind == "starts" and chance.random() < 0.5:  # half of them ask for the whole trick
        meta["direction"] = trick.entry
        meta |= {"stance": trick.stance} if trick.stance else {}
        named = line(trick)
    return meta, chance.choice(REQUESTS[kind]).format(named)


def _counted(chance: random.Random, n: int) -> str:
    return chance.choice(COUNTED).format(n=chance.choice((str(n), WORDS[n])))


def _opened(chance: random.Random, ask: str) -> str:
    form, end = chance.choice(OPENINGS)
    return form.format(ask) + end


def _answer(tricks: Sequence[Trick], wish: str) -> str:
    """A lead-in that says the request again, then the numbered list."""
    lines = [f"{number}. {line(trick)}" for number, trick in enumerate(tricks, 1)]
    return "\n".join([f"Here is a {len(tricks)}-trick combo{wish}:", "", *lines])


def line(trick: Trick) -> str:
    """The trick as the package writes it: direction word, stance if any, move."""
    return " ".join(part for part in (trick.word, trick.stance, trick.move) if part)
