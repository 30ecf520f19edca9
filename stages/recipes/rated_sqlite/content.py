"""A value of a column in; what an example needs of it, or why it is none, out."""

from typing import Any, NamedTuple

import orjson

from stages.recipes.rated_sqlite.database import Scenario

PRINCIPLES = ("ahimsa", "sacca", "karuna", "panna", "upekkha")
# Hundredths: 25 * 6 + … is exactly 600, where 0.25 * 6 + … may miss 6 by a bit.
WEIGHTS = dict(zip(PRINCIPLES, (25, 20, 25, 20, 10), strict=True))
MOST_CHARACTERS = 65_536


class BadValueError(ValueError):
    """Why a row is no example.

    Attributes:
        code: a short reason code.
    """

    def __init__(self, code: str, reason: str) -> None:
        self.code = code
        super().__init__(reason)


class Told(NamedTuple):
    """A scenario made ready: its prompt, and what the judge is to know, one item a line."""

    prompt: str
    id: str | int
    mood: str
    vulnerability: str
    facts: str
    critical: str
    difficulty: int


def told(row: Scenario, person_state: str) -> Told:
    """The prompt and facts of a scenario.

    Raises:
        BadValueError: a value of the row cannot be used.
    """
    prompt = text(row.context, "context", "empty_prompt")
    state = _json(row.person_state, "person_state", {})
    if not isinstance(state, dict):
        raise BadValueError("wrong_type", "Its scenario's person_state is not a JSON object.")
    mood, vulnerability = _state(state, "mood", "neutral"), _state(state, "vulnerability", "low")
    if person_state and (mood != "neutral" or vulnerability != "low"):
        prompt += "\n\n" + person_state.format(mood=mood, vulnerability=vulnerability)
    if type(row.difficulty) is not int or not 1 <= row.difficulty <= 5:
        reason = f"Its scenario's difficulty_level is {_shown(row.difficulty)}, not 1 to 5."
        raise BadValueError("difficulty", reason)
    facts = _items(_json(row.facts, "facts", []), "facts")
    critical = _items(_json(row.critical, "critical_info", []), "critical_info")
    return Told(
        *(prompt, identity(row.id, "Its scenario's id"), mood, vulnerability),
        *("\n".join(facts), "\n".join(critical), row.difficulty),
    )


def weighted(value: Any) -> float:
    """The weighted score, 0 to 10, of a `buddhist_scores` object; a missing principle is 0.

    .25 ahimsa + .20 sacca + .25 karuna + .20 panna + .10 upekkha, rounded to the 12th decimal.

    Raises:
        BadValueError: it is not a JSON object of numbers from 0 to 10.
    """
    if value is None:
        raise BadValueError("no_scores", "It has no buddhist_scores.")
    if not isinstance(value, str):
        raise BadValueError("scores_type", f"Its buddhist_scores are {_shown(value)}, not JSON.")
    try:
        scores = orjson.loads(value)
    except orjson.JSONDecodeError as problem:
        reason = f"Its buddhist_scores are broken JSON: {problem}."
        raise BadValueError("broken_scores", reason) from problem
    if not isinstance(scores, dict):
        raise BadValueError("scores_type", "Its buddhist_scores are not a JSON object.")
    total = 0.0
    for name, weight in WEIGHTS.items():
        points = scores.get(name, 0)
        if type(points) is not int and type(points) is not float:
            raise BadValueError("scores_type", f"Its score {name} is no number.")
        if not 0 <= points <= 10:
            raise BadValueError("scores_range", f"Its score {name} is {points}, not 0 to 10.")
        total += weight * points
    return round(total / 100, 12)


def harm(value: Any) -> float:
    """The harm, 0 to 1.

    Raises:
        BadValueError: it is no number from 0 to 1.
    """
    if value is None:
        raise BadValueError("no_harm", "It has no actual_harm.")
    if type(value) is not float and type(value) is not int:
        raise BadValueError("harm_type", f"Its actual_harm is {_shown(value)}, no number.")
    if not 0 <= value <= 1:
        raise BadValueError("harm_range", f"Its actual_harm is {value}, not 0 to 1.")
    return float(value)


def text(value: Any, column: str, empty: str) -> str:
    """Text that can be trained on, unchanged; `empty` is the code for a blank one.

    Raises:
        BadValueError: it is no text, not UTF-8, blank, too long or holds U+0000.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        raise BadValueError(empty, f"Its {column} is blank.")
    if not isinstance(value, str):
        raise BadValueError("wrong_type", f"Its {column} is {_shown(value)}, not text.")
    if not _is_utf8(value):
        raise BadValueError("not_utf8", f"Its {column} is not UTF-8.")
    if "\0" in value:
        reason = f"Its {column} holds the character U+0000, at which C programs stop reading."
        raise BadValueError("nul", reason)
    if len(value) > MOST_CHARACTERS:
        reason = f"Its {column} has {len(value):,} characters; {MOST_CHARACTERS:,} are allowed."
        raise BadValueError("too_long", reason)
    return value


def identity(value: Any, what: str) -> str | int:
    """An id as it is.

    Raises:
        BadValueError: it is neither a whole number nor text.
    """
    if type(value) is int or (isinstance(value, str) and value and _is_utf8(value)):
        return value
    raise BadValueError("bad_id", f"{what} is {_shown(value)}, neither a number nor text.")


def _json(value: Any, column: str, without: Any) -> Any:
    """The decoded JSON of a scenario's column; `without` where it is null."""
    if value is None:
        return without
    if not isinstance(value, str):
        reason = f"Its scenario's {column} is {_shown(value)}, not JSON."
        raise BadValueError("wrong_type", reason)
    if len(value) > MOST_CHARACTERS:
        raise BadValueError("too_long", f"Its scenario's {column} has {len(value):,} characters.")
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError as problem:
        reason = f"Its scenario's {column} is broken JSON: {problem}."
        raise BadValueError("broken_json", reason) from problem


def _state(state: dict[str, Any], key: str, without: str) -> str:
    value = state.get(key)
    if value is None or value == "":
        return without
    return text(value, f"scenario's {key}", "empty_prompt")


def _items(value: Any, column: str) -> list[str]:
    """The statements of a list, or of an object's values (`name: value`), each on one line."""
    if isinstance(value, dict):
        value = [f"{key}: {item}" if isinstance(item, str) else item for key, item in value.items()]
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise BadValueError("wrong_type", f"Its scenario's {column} are not a list of texts.")
    if any("\0" in item for item in value):
        raise BadValueError("nul", f"Its scenario's {column} hold the character U+0000.")
    return [" ".join(item.split()) for item in value if item.strip()]


def _is_utf8(value: str) -> bool:
    """Whether it can be written as UTF-8: it holds no lone surrogate."""
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(value: Any) -> str:
    """A value for a sentence: short, and never a whole blob."""
    if isinstance(value, bytes):
        return f"a blob of {len(value):,} bytes"
    return "null" if value is None else ascii(value)[:40]
