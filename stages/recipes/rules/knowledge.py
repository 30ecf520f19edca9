"""A folder's two knowledge files in; moves, tiers and tips that agree with the package out."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import orjson
from pydantic import Field, ValidationError

from stages.core.errors import TunesmithError
from stages.core.mistakes import explain
from stages.core.settings import Settings
from stages.recipes.rules.package import Grammar

MOVES_FILE = "trick_descriptions.json"
TIERS_FILE = "learning_progressions.json"

Form = TypeVar("Form", bound=Settings)
Rule = Literal["ONLY_FIRST", "USE_FAKIE", "EXCLUDE_STANCE_BASE", "ROTATING_MOVES"]


class Move(Settings):
    """One entry of trick_descriptions.json."""

    name: str
    description: str = Field(min_length=1)
    difficulty: Literal["beginner", "intermediate", "advanced", "expert"]
    category: Literal["stance", "transition", "press", "roll", "spin", "slide", "pivot"]
    notes: str
    rules: list[Rule] = Field(default_factory=list)


class Descriptions(Settings):
    """All of trick_descriptions.json, which has no outer key of its own."""

    moves: dict[str, Move]


class Tier(Settings):
    """One level of learning_progressions.json."""

    level: int
    name: str = Field(min_length=1)
    description: str = Field(min_length=1)
    moves: list[str] = Field(min_length=1)
    skills: list[str] = Field(min_length=1)
    suggested_combos: list[str] = Field(min_length=1)


class Progressions(Settings):
    """All of learning_progressions.json."""

    tiers: list[Tier] = Field(min_length=1)
    progression_tips: list[str] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What may be asked about; moves in the package's order, tiers by level."""

    moves: dict[str, Move]
    tiers: list[Tier]
    tips: list[str]

    def tier_of(self, move: str) -> Tier:
        return next(tier for tier in self.tiers if move in tier.moves)


def load(source: Path, grammar: Grammar) -> Knowledge:
    """Read and check both files of a folder.

    Raises:
        TunesmithError: naming file and key: a file missing or broken, a value outside its
            enumeration, a move described but unknown or known but not described, a tier's
            move unknown or in two tiers, rules other than the package's.
    """
    moves_file, tiers_file = source / MOVES_FILE, source / TIERS_FILE
    described = _valid(Descriptions, {"moves": _read(moves_file)}, moves_file, "moves.").moves
    progressions = _valid(Progressions, _read(tiers_file), tiers_file)
    _check_moves(moves_file, described, grammar)
    _check_tiers(tiers_file, progressions.tiers, grammar)
    moves = {move: described[move] for move in grammar.moves}
    return Knowledge(moves, progressions.tiers, progressions.progression_tips)


def _read(path: Path) -> Any:
    if not path.is_file():
        raise _wrong(path, "", "This knowledge file is missing.")
    try:
        return orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as problem:
        raise _wrong(path, "", f"This file is not JSON: {problem}.") from problem


def _valid(form: type[Form], value: Any, path: Path, prefix: str = "") -> Form:
    """The value in this form; `prefix` is what to cut from the keys in a message."""
    try:
        return form.model_validate(value)
    except ValidationError as failure:
        key, text = next(iter(explain(failure, form)))
        raise _wrong(path, key.removeprefix(prefix), f"This value is wrong: {text}") from failure


def _check_moves(path: Path, described: dict[str, Move], grammar: Grammar) -> None:
    for key in described:
        if key not in grammar.moves:
            raise _wrong(path, key, f"The package knows no move {key!r}.")
    for move in grammar.moves:
        if move not in described:
            raise _wrong(path, move, f"The move {move!r} is not described.")
        if described[move].name != move:
            raise _wrong(path, f"{move}.name", f"It is named {described[move].name!r}.")
        given, due = described[move].rules, grammar.rules_of(move)
        if sorted(given) != sorted(due):
            text = f"It gives {given}, and the package's rules for it are {list(due)}."
            raise _wrong(path, f"{move}.rules", text)


def _check_tiers(path: Path, tiers: list[Tier], grammar: Grammar) -> None:
    owner: dict[str, int] = {}
    for number, tier in enumerate(tiers, 1):
        place = f"tiers[{number - 1}]"
        if tier.level != number:
            raise _wrong(path, f"{place}.level", f"It is {tier.level} where {number} is due.")
        for move in tier.moves:
            if move not in grammar.moves:
                raise _wrong(path, f"{place}.moves", f"The package knows no move {move!r}.")
            if move in owner:
                text = f"The move {move!r} stands in level {owner[move]} too."
                raise _wrong(path, f"{place}.moves", text)
            owner[move] = number
    for move in grammar.moves:
        if move not in owner:
            raise _wrong(path, "tiers", f"No tier holds the move {move!r}.")


def _wrong(path: Path, key: str, what: str) -> TunesmithError:
    return TunesmithError(
        what,
        where=f"{path}: {key}" if key else str(path),
        why="A model would learn from it what the package's combos contradict.",
        do=f"Mend {path.name}; its form is described in docs/recipes.md.",
    )
