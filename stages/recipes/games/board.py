"""Snapshots of a log in; the board as a replay changes it, and as one line of text, out."""

import re
from collections.abc import Mapping
from typing import Any

Numbers = Mapping[str, int]


class Unit:
    """One unit as it stands now; `effects` are status objects as the recorder writes them."""

    __slots__ = (
        *("id", "name", "cls", "side", "x", "y", "hp", "max_hp", "facing", "effects"),
        *("prompt", "original", "moved", "heals", "breaches", "cooldown", "breach_left"),
    )

    def __init__(self, row: Mapping[str, Any]) -> None:
        self.id: str = row["id"]
        self.name: str = row["name"]
        self.cls: str = row["class"]
        self.side: str = row["side"]
        self.x: int = row["position"]["x"]
        self.y: int = row["position"]["y"]
        self.hp: int = row["hp"]
        self.max_hp: int = row["maxHp"]
        self.facing: str = row["facing"]
        self.effects: list[dict[str, Any]] = list(row["statusEffects"])
        self.prompt: str = row["prompt"]
        self.original: str | None = row.get("originalPrompt")
        self.moved = bool(row.get("movedThisTurn"))
        self.heals: int = row.get("healsUsed") or 0
        self.breaches = self.cooldown = self.breach_left = 0

    def resync(self, row: Mapping[str, Any]) -> None:
        """Take over a later snapshot; a damaged one leaves what it lacks as it was."""
        place = row.get("position")
        if place is not None:
            self.x, self.y = place["x"], place["y"]
        self.hp = row.get("hp", self.hp)
        self.facing = row.get("facing", self.facing)
        self.cls = row.get("class", self.cls)
        if "statusEffects" in row:
            self.effects = list(row["statusEffects"])
        if "prompt" in row:
            self.prompt, self.original = row["prompt"], row.get("originalPrompt")
        self.moved = bool(row.get("movedThisTurn"))
        self.heals = row.get("healsUsed") or self.heals

    def has(self, effect: str) -> bool:
        """Whether a status effect of this type is on the unit."""
        return any(one["type"] == effect for one in self.effects)

    def copy(self) -> "Unit":
        """A twin whose list of effects is its own."""
        twin = object.__new__(Unit)
        for name in Unit.__slots__:
            setattr(twin, name, getattr(self, name))
        twin.effects = list(self.effects)
        return twin


class Board:
    """Grid, units in the recorder's order, and traps as (x, y, owner, side)."""

    __slots__ = ("height", "traps", "units", "width")

    def __init__(self, width: int, height: int, units: list[Unit], traps: list[Any]) -> None:
        self.width, self.height = width, height
        self.units, self.traps = units, traps

    def at(self, x: int, y: int) -> Unit | None:
        """The living unit on a tile."""
        for unit in self.units:
            if unit.x == x and unit.y == y and unit.hp > 0:
                return unit
        return None

    def holds(self, x: int, y: int) -> bool:
        """Whether the tile is on the grid."""
        return 0 <= x < self.width and 0 <= y < self.height

    def copy(self) -> "Board":
        """A board to try actions on."""
        return Board(self.width, self.height, [u.copy() for u in self.units], list(self.traps))


def class_numbers(balance: Mapping[str, Any] | None, cls: str) -> dict[str, int]:
    """The numbers of one class by flat name (`movement`, `breach.range`); empty without balance."""
    if not balance:
        return {}
    found = {key: int(value) for key, value in balance["unitStats"].get(cls, {}).items()}
    for ability, numbers in balance["abilities"].items():
        found |= {f"{ability}.{key}": int(value) for key, value in numbers.items()}
    return found


# A line that `unpack` can read: whole numbers where numbers are due, no mark inside a word.
WORD, WHOLE = "[^,;|+=]+", r"-?\d+"
UNIT = rf"{WORD},{WORD}(?:,{WHOLE}){{4}},{WORD}(?:,{WHOLE}){{3}},[01],(?:{WORD}(?:\+{WORD})*)?"
TRAP, NUMBER = rf"{WHOLE},{WHOLE},{WORD}", rf"{WORD}={WHOLE}"
PACKED = re.compile(
    rf"{WHOLE},{WHOLE}\|\d+\|{UNIT}(?:;{UNIT})*"
    rf"\|(?:{TRAP}(?:;{TRAP})*)?\|(?:{NUMBER}(?:;{NUMBER})*)?"
)


def pack(board: Board, unit: Unit, numbers: str) -> str:
    """The board as one line: grid | whose turn | units | traps | numbers, hidden things too.

    Raises:
        ValueError: the log gave something else where a number or a word is due.
    """
    units = ";".join(
        f"{u.cls},{u.side},{u.x},{u.y},{u.hp},{u.max_hp},{u.facing},{u.heals},{u.breaches},"
        f"{u.cooldown},{int(u.moved)},{'+'.join([e['type'] for e in u.effects])}"
        for u in board.units
    )
    traps = ";".join([f"{x},{y},{side}" for x, y, _, side in board.traps])
    line = f"{board.width},{board.height}|{board.units.index(unit)}|{units}|{traps}|{numbers}"
    words = (
        word for u in board.units for word in (u.id, u.name, u.prompt, u.cls, u.side, u.facing)
    )
    if not (PACKED.fullmatch(line) and all(isinstance(word, str) for word in words)):
        raise ValueError("the board has parts of the wrong type")
    return line


def pack_numbers(numbers: Numbers) -> str:
    """Numbers as `name=value` pairs."""
    return ";".join(f"{name}={value}" for name, value in numbers.items())


def unpack(line: str) -> tuple[Board, Unit, dict[str, int]]:
    """Board, acting unit and class numbers of a line that `pack` wrote."""
    grid, index, units, traps, numbers = line.split("|")
    width, height = (int(part) for part in grid.split(","))
    found = [_unpack_unit(str(n), part.split(",")) for n, part in enumerate(units.split(";"))]
    mines = []
    for part in traps.split(";") if traps else ():
        x, y, side = part.split(",")
        mines.append((int(x), int(y), "", side))
    pairs = (part.split("=") for part in numbers.split(";") if part)
    board = Board(width, height, found, mines)
    return board, found[int(index)], {name: int(value) for name, value in pairs}


def _unpack_unit(name: str, parts: list[str]) -> Unit:
    cls, side, x, y, hp, max_hp, facing, heals, breaches, cooldown, moved, effects = parts
    row = {"id": name, "name": name, "class": cls, "side": side, "hp": int(hp)}
    row |= {"position": {"x": int(x), "y": int(y)}, "maxHp": int(max_hp), "facing": facing}
    row |= {"statusEffects": [{"type": effect} for effect in effects.split("+") if effect]}
    unit = Unit(row | {"prompt": "", "healsUsed": int(heals), "movedThisTurn": moved == "1"})
    unit.breaches, unit.cooldown = int(breaches), int(cooldown)
    return unit
