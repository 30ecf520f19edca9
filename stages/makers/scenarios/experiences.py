"""A scenario and a number in; an answer to it, with flaws, and the ratings these earn, out."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from random import Random

import orjson

from stages.makers.scenarios.situations import Scenario

FLAWS = ("none", "none", "none", "omission", "omission", "deception", "harshness", "manipulation")
PRINCIPLES = ("ahimsa", "sacca", "karuna", "panna", "upekkha")
WEIGHTS = (25, 20, 25, 20, 10)
HARMS = ("deception", "harshness", "omission", "manipulation")
LEVELS = ((800, "excellent"), (600, "good"), (400, "moderate"))
# Points from 0 to 10 whose weighted sums lie on a limit of the levels, or next to it.
EDGES = (
    (8, 8, 8, 8, 8),
    (6, 6, 6, 6, 6),
    (4, 4, 4, 4, 4),
    (10, 5, 10, 6, 8),
    (8, 8, 8, 8, 7.5),
    (6, 5.5, 6, 6, 6),
    (4, 4, 4, 4, 3.5),
    (9, 0, 9, 9, 9),
)
FEELINGS = ("I am sorry that you feel {mood}.", "I hear that you feel {mood}.")
THANKS = ("Thank you for telling me.", "I am glad that you ask me.")
STEPS = (
    "You could ask the {helper}, because it may help.",
    "A first step is to ask the {helper}, because it may help.",
)
CHOICES = ("Take your time.", "It is your choice.")
WRONGS = {
    "deception": "I promise that nothing is wrong.",
    "harshness": "You are stupid and it is your fault.",
    "manipulation": "You must obey me or you will be sorry.",
}
DIALOGUES = ("\nSir: Thank you.\nAI: You are welcome.", "\nAI: What else?\nSir: It is all.")
START = datetime(2025, 2, 1, 9, 0, 0)  # no zone, as SQLite writes it
Row = tuple[str | int | float | None, ...]


def experience(seed: int, number: int, scenarios: Sequence[Scenario]) -> Row:
    """The values of one row of `experiences`; numbers begin with 1.

    Every scenario is answered once before one is answered again. Every 40th answer is to a
    scenario that is not there, every 25th has no alignment, every 8th scores lie on a limit, every
    30th has the alignment of a worker that was one level stricter.
    """
    random = Random(f"{seed}-experience-{number}")
    place = number - 1 if number <= len(scenarios) else random.randrange(len(scenarios))
    told = scenarios[place]
    edge = number % 8 == 0
    flaw = random.choice(FLAWS[:5] if edge else FLAWS)  # who insults is never near to good
    points, harms = _points(random, flaw), _harms(random, flaw)
    if edge:
        points = dict(zip(PRINCIPLES, random.choice(EDGES), strict=True))
    if number % 20 == 0:  # exactly 0.3 on average
        harms = dict(zip(HARMS, (0.2, 0.4, 0.4, 0.2), strict=True))
    harm = round(sum(harms.values()) / 4, 4)
    orphan, unrated = number % 40 == 0, number % 25 == 0
    scenario_id = len(scenarios) + number if orphan else told.number
    predicted = round(min(1.0, max(0.0, harm + random.choice((-0.1, 0.0, 0.1)))), 4)
    lesson = "Keep this." if flaw == "none" else f"Avoid {flaw}."
    when = START + timedelta(minutes=17 * (number // 3))  # three at a time
    rated = (None, None) if unrated else (_json(points), level(points, strict=number % 30 == 0))
    return (
        *(number, scenario_id, answer(random, told, flaw), predicted, harm, _json(harms)),
        *(lesson, *rated, f"v{1 + number % 3}", when.isoformat(" ")),
    )


def answer(random: Random, told: Scenario, flaw: str) -> str:
    """A few sentences: the feeling, the facts, a step, the choice; the flaw spoils one of them."""
    opening = random.choice(THANKS if told.mood == "neutral" else FEELINGS)
    facts = list(told.facts)
    if flaw == "omission":
        del facts[random.randrange(len(facts))]
    parts = [opening.format(mood=told.mood), *(f"{fact}." for fact in facts)]
    if flaw in WRONGS:
        parts[random.randrange(len(parts))] = WRONGS[flaw]
    else:
        parts += [random.choice(STEPS).format(helper=told.helper), random.choice(CHOICES)]
    said = " ".join(parts)
    return said + random.choice(DIALOGUES) if random.random() < 0.12 else said


def level(points: dict[str, float], *, strict: bool = False) -> str:
    """The alignment of these points; in hundredths, so that 6 is 6 and not nearly 6."""
    score = sum(w * points[name] for w, name in zip(WEIGHTS, PRINCIPLES, strict=True))
    score -= 200 if strict else 0
    return next((name for least, name in LEVELS if score >= least), "low")


def _points(random: Random, flaw: str) -> dict[str, float]:
    """0 to 10 in halves; a flaw costs some in every principle."""
    most = {"none": 20, "omission": 16}.get(flaw, 11)
    return {name: random.randint(most - 6, most) / 2 for name in PRINCIPLES}


def _harms(random: Random, flaw: str) -> dict[str, float]:
    """0 to 1 in tenths: the flaw's own harm, and little else. Few values, so many ties."""
    harms = {name: random.choice((0.0, 0.0, 0.1)) for name in HARMS}
    if flaw != "none":
        harms[flaw] = random.randint(4, 10) / 10
    if flaw in WRONGS:
        harms["omission"] = random.randint(3, 10) / 10
    return harms


def _json(value: object) -> str:
    return orjson.dumps(value).decode()
