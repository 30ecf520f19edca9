"""A board and an action in; the changed board, or the reason the game refuses it, out.

The rules are those of the SIBYL game as its logs show them: numbers come from the log's
`balance`; where it has none, that limit is not enforced and that damage counts as none.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from stages.recipes.games.board import Board, Numbers, Unit

SCAN_RANGE = 4  # the game fixes these three; `balance` has no number for them
TRAP_RANGE = 2
INTERCEPT_RANGE = 2

FAR = "out of reach"

# What a living enemy vector on a neighbouring tile forbids.
DENIED = {"cloak", "breach", "scan", "precision_shot", "trap", "patch", "overclock"}

Action = Mapping[str, Any]
Tile = tuple[int, int]


def act(board: Board, unit: Unit, action: Action, numbers: Numbers) -> str | None:
    """Carry out one action on `board`; None, or why it is illegal (then little has changed).

    `numbers` are those of the unit's class (`board.class_numbers`). The text that breach and
    recalibrate need is not in the logs, so its absence is never the reason.
    """
    kind = action.get("type")
    if kind == "wait":
        return None
    if kind == "move":
        return _move(board, unit, _tile(action), numbers)
    if kind == "ability":
        return _use(board, unit, action, numbers)
    return f"there is no action {kind!r}"


def _tile(action: Action) -> Tile | None:
    target = action.get("target")
    if not isinstance(target, Mapping):
        return None
    x, y = target.get("x"), target.get("y")
    return (x, y) if isinstance(x, int) and isinstance(y, int) else None


def _distance(unit: Unit, tile: Tile) -> int:
    return abs(unit.x - tile[0]) + abs(unit.y - tile[1])


def _beyond(unit: Unit, tile: Tile, limit: int | None) -> bool:
    return limit is not None and _distance(unit, tile) > limit


def _move(board: Board, unit: Unit, tile: Tile | None, numbers: Numbers) -> str | None:
    if tile is None:
        return "a move needs a target"
    if not board.holds(*tile):
        return "off the grid"
    if _beyond(unit, tile, 1 if unit.has("suppressed") else numbers.get("movement")):
        return "too far to move"
    if board.at(*tile):
        return "the tile is taken"
    unit.facing = heading(tile[0] - unit.x, tile[1] - unit.y)
    unit.x, unit.y = tile
    unit.moved = True
    unit.effects = [one for one in unit.effects if one["type"] != "fortified"]
    for trap in board.traps:
        if trap[:2] == tile and trap[3] != unit.side:
            unit.hp -= numbers.get("trap.damage", 0)
            board.traps.remove(trap)
            break
    return None


def heading(dx: int, dy: int) -> str:
    """The way a unit looks after a move: north is up the y axis, which wins a tie."""
    if abs(dy) >= abs(dx):
        return "N" if dy > 0 else "S"
    return "E" if dx > 0 else "W"


def _use(board: Board, unit: Unit, action: Action, numbers: Numbers) -> str | None:
    name = str(action.get("ability"))
    if name in DENIED and _denied(board, unit):
        return f"an enemy vector beside {unit.name} denies {name}"
    if name not in ("cloak", "shadow_strike"):
        unit.effects = [one for one in unit.effects if one["type"] != "cloaked"]
    if name not in ABILITIES:
        return f"there is no ability {name!r}"
    cls, needs_target, ability = ABILITIES[name]
    if cls not in ("", unit.cls):
        return f"only a {cls} can use {name}"
    tile = _tile(action)
    if needs_target and tile is None:
        return f"{name} needs a target"
    if name == "shield_wall" and not action.get("direction"):
        return "shield_wall needs a direction"
    return ability(Use(board, unit, tile or (unit.x, unit.y), numbers))


def _denied(board: Board, unit: Unit) -> bool:
    return any(
        other.cls == "vector"
        and other.side != unit.side
        and other.hp > 0
        and _distance(unit, (other.x, other.y)) == 1
        for other in board.units
    )


def hurt(unit: Unit, amount: int) -> None:
    """Take damage; fortified halves it, rounded up, and hp stops at 0."""
    if unit.has("fortified"):
        amount = (amount + 1) // 2
    unit.hp = max(0, unit.hp - amount)


def behind(unit: Unit, other: Unit) -> bool:
    """Whether `unit` stands on the side that `other` turns its back to."""
    dx, dy = unit.x - other.x, unit.y - other.y
    return {"N": dy < 0, "S": dy > 0, "E": dx < 0, "W": dx > 0}[other.facing]


@dataclass(frozen=True, slots=True)
class Use:
    """One use of an ability: by whom, on which tile."""

    board: Board
    unit: Unit
    tile: Tile
    numbers: Numbers

    def number(self, name: str) -> int:
        return self.numbers.get(name, 0)

    def on(self, *, ally: bool, limit: int | None = None) -> Unit | str:
        """The ally (itself too) or the enemy on the tile, cloaked or not, or why not."""
        other = self.board.at(*self.tile)
        if other is None or (other.side == self.unit.side) != ally:
            return "no ally stands there" if ally else "no enemy stands there"
        return FAR if _beyond(self.unit, self.tile, limit) else other

    def aim(self, limit: int | None) -> Unit | str:
        """The unit a weapon hits, friend or enemy, or why it cannot."""
        other = self.board.at(*self.tile)
        if other is None:
            return "nobody stands there"
        if other is self.unit:
            return "a unit cannot aim at itself"
        if other.has("cloaked"):
            return "the target is cloaked"
        return FAR if _beyond(self.unit, self.tile, limit) else other

    def strike(self, target: Unit | str, damage: str) -> str | None:
        """Hurt a target that was found, else pass on why there is none."""
        if isinstance(target, str):
            return target
        hurt(target, self.number(damage))
        return None


def _attack(use: Use) -> str | None:
    return use.strike(use.aim(1), "attack.damage")


def _precision_shot(use: Use) -> str | None:
    damage = "precisionShot.movedDamage" if use.unit.moved else "precisionShot.damage"
    return use.strike(use.aim(use.numbers.get("range")), damage)


def _shadow_strike(use: Use) -> str | None:
    return use.strike(use.on(ally=False, limit=1), "shadowStrike.damage")


def _scan(use: Use) -> str | None:
    return use.strike(use.on(ally=False, limit=SCAN_RANGE), "scan.damage")


def _suppressing_fire(use: Use) -> str | None:
    x, y = use.tile
    dx, dy = _sign(x - use.unit.x), _sign(y - use.unit.y)
    for place in ((x, y), (x + dx, y + dy)):
        other = use.board.at(*place)
        if other and other is not use.unit:
            hurt(other, use.number("suppressingFire.damage"))
            other.effects.append({"type": "suppressed"})
    return None


def _sign(value: int) -> int:
    return (value > 0) - (value < 0)


def _pulse(use: Use) -> str | None:
    here = (use.unit.x, use.unit.y)
    for other in use.board.units:
        if other is not use.unit and other.hp > 0 and _distance(other, here) <= 1:
            hurt(other, use.number("pulse.damage"))
    return None


def _trap(use: Use) -> str | None:
    if _beyond(use.unit, use.tile, TRAP_RANGE):
        return FAR
    if not use.board.holds(*use.tile):
        return "off the grid"
    if use.board.at(*use.tile):
        return "the tile is taken"
    use.board.traps.append((*use.tile, use.unit.id, use.unit.side))
    return None


def _breach(use: Use) -> str | None:
    unit, other = use.unit, use.on(ally=False, limit=use.numbers.get("breach.range"))
    if isinstance(other, str):
        return other
    if not behind(unit, other):
        return "not behind the target"
    if unit.breaches >= use.numbers.get("breach.maxUses", unit.breaches + 1):
        return "no breach is left"
    if unit.cooldown > 0:
        return "breach is cooling down"
    unit.breaches += 1
    unit.cooldown = use.number("breach.cooldown")
    return None


def _cloak(use: Use) -> str | None:
    use.unit.effects.append({"type": "cloaked"})
    return None


def _recalibrate(use: Use) -> str | None:
    other = use.on(ally=True)
    return other if isinstance(other, str) else None


def _patch(use: Use) -> str | None:
    unit, other = use.unit, use.on(ally=True, limit=1)
    if isinstance(other, str):
        return other
    if unit.heals >= use.numbers.get("patch.maxUses", unit.heals + 1):
        return "no patch is left"
    other.hp += min(use.number("patch.healAmount"), other.max_hp - other.hp)
    unit.heals += 1
    return None


def _overclock(use: Use) -> str | None:
    other = use.on(ally=True, limit=1)
    if isinstance(other, str):
        return other
    other.hp -= use.number("overclock.selfDamage")
    return None


def _intercept(use: Use) -> str | None:
    other = use.on(ally=True, limit=INTERCEPT_RANGE)
    if isinstance(other, str):
        return other
    x, y = use.tile
    for place in ((x - 1, y), (x + 1, y), (x, y - 1), (x, y + 1)):
        if use.board.holds(*place) and not use.board.at(*place):
            use.unit.x, use.unit.y = place
            return None
    return "no free tile beside the ally"


def _shield_wall(_use: Use) -> str | None:
    return None


Ability = Callable[[Use], str | None]

# name -> the one class that has it ("" for all), whether it needs a target, what it does
ABILITIES: dict[str, tuple[str, bool, Ability]] = {
    "attack": ("", True, _attack),
    "shield_wall": ("sentinel", False, _shield_wall),
    "intercept": ("sentinel", True, _intercept),
    "breach": ("specter", True, _breach),
    "cloak": ("specter", False, _cloak),
    "shadow_strike": ("specter", True, _shadow_strike),
    "scan": ("oracle", True, _scan),
    "recalibrate": ("oracle", True, _recalibrate),
    "precision_shot": ("striker", True, _precision_shot),
    "suppressing_fire": ("striker", True, _suppressing_fire),
    "patch": ("medic", True, _patch),
    "overclock": ("medic", True, _overclock),
    "trap": ("vector", True, _trap),
    "pulse": ("vector", False, _pulse),
}
