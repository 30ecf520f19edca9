"""Units and what befalls them in; the board after it, and the recorder's events, out.

Written apart from the recipe's rules on purpose: each is the other's check in the tests.
"""

import copy
from typing import Any

Unit = dict[str, Any]
Place = dict[str, int]

KEPT = ("id", "name", "class", "side", "hp", "maxHp", "speed", "position", "facing")
LATER = ("originalPrompt", "movedThisTurn", "healsUsed")


class IllegalError(Exception):
    """The game refuses an action; what it did until then stays."""


def distance(a: Place, b: Place) -> int:
    return abs(a["x"] - b["x"]) + abs(a["y"] - b["y"])


def has(unit: Unit, effect: str) -> bool:
    return any(one["type"] == effect for one in unit["statusEffects"])


class Match:
    """Units, traps and the events so far, in the recorder's words."""

    def __init__(self, balance: dict[str, Any]) -> None:
        self.balance, self.numbers = balance, balance["abilities"]
        self.width, self.height = balance["grid"]["width"], balance["grid"]["height"]
        self.units: list[Unit] = []
        self.traps: list[dict[str, Any]] = []
        self.events: list[dict[str, Any]] = []

    def emit(self, kind: str, **fields: Any) -> None:
        """Record an event; fields that are None are left out."""
        told = {key: value for key, value in fields.items() if value is not None}
        self.events.append({"type": kind, **told})

    def place(self, side: str, member: dict[str, str], position: Place) -> None:
        """Put a new unit on the board."""
        stats = self.balance["unitStats"][member["class"]]
        unit: Unit = {"id": f"{side[0]}-{member['name']}", "name": member["name"]}
        unit |= {"class": member["class"], "side": side, "hp": stats["maxHp"]}
        unit |= {"maxHp": stats["maxHp"], "speed": stats["speed"], "position": position}
        unit |= {"facing": "N" if side == "player" else "S", "statusEffects": []}
        self.units.append(unit | {"prompt": member["prompt"]})
        where = {"class": member["class"], "position": dict(position)}
        self.emit("unit_placed", unitId=unit["id"], side=side, **where)

    def living(self, side: str | None = None) -> list[Unit]:
        """Units with hp left, of one side or of both."""
        return [u for u in self.units if u["hp"] > 0 and side in (None, u["side"])]

    def at(self, place: Place) -> Unit | None:
        """The living unit on a tile."""
        return next((u for u in self.living() if distance(u["position"], place) == 0), None)

    def snapshot(self, only_living: bool = False) -> list[Unit]:
        """The units as the recorder writes them, none of it shared with the board."""
        keys = (*KEPT, "statusEffects", "prompt", *LATER)
        units = self.living() if only_living else self.units
        return [{key: copy.deepcopy(u[key]) for key in keys if key in u} for u in units]

    def round_event(self, kind: str, turn: int, **more: Any) -> None:
        """A snapshot of everything; the recorder always writes `player` as its side."""
        traps = copy.deepcopy(self.traps)
        self.emit(kind, turn=turn, side="player", units=self.snapshot(), traps=traps, **more)

    def end_turn(self, unit: Unit) -> None:
        """What ends when a unit has acted, in the recorder's order of events."""
        for effect in list(unit["statusEffects"]):
            if effect["type"] == "cloaked":
                effect["turnsLeft"] -= 1
                if effect["turnsLeft"] <= 0:
                    self.take_off(unit, effect, "expired")
            elif effect["type"] in ("suppressed", "shieldWall", "overclocked"):
                self.take_off(unit, effect, "turn_end")
        unit["movedThisTurn"] = False
        unit["cooldown"] = max(0, unit.get("cooldown", 0) - 1)
        if unit.get("breached"):
            unit["breached"] -= 1
            if not unit["breached"]:
                unit["prompt"] = unit.pop("originalPrompt")
        if unit["class"] == "sentinel" and unit["hp"] > 0 and not has(unit, "fortified"):
            self.put_on(unit, {"type": "fortified"}, "passive")

    def put_on(self, unit: Unit, effect: dict[str, Any], source: str) -> None:
        """Add a status effect."""
        # The event shares the object, as in the recorder: a cloak's count goes on falling in it.
        unit["statusEffects"].append(effect)
        self.emit("status_applied", unitId=unit["id"], effect=effect, source=source)

    def take_off(self, unit: Unit, effect: dict[str, Any], reason: str) -> None:
        """Remove one status effect."""
        unit["statusEffects"] = [one for one in unit["statusEffects"] if one is not effect]
        self.emit("status_removed", unitId=unit["id"], effectType=effect["type"], reason=reason)

    def move(self, unit: Unit, target: Place) -> None:
        """Walk to a free tile in reach, into a trap perhaps.

        Raises:
            IllegalError: outside, too far or occupied.
        """
        start, steps = unit["position"], self.balance["unitStats"][unit["class"]]["movement"]
        if not (0 <= target["x"] < self.width and 0 <= target["y"] < self.height):
            raise IllegalError("outside")
        if distance(start, target) > (1 if has(unit, "suppressed") else steps):
            raise IllegalError("too far")
        if self.at(target):
            raise IllegalError("occupied")
        dx, dy = target["x"] - start["x"], target["y"] - start["y"]
        flat = abs(dx) > abs(dy)
        unit["facing"] = ("E" if dx > 0 else "W") if flat else ("N" if dy > 0 else "S")
        unit["position"], unit["movedThisTurn"] = dict(target), True
        damage = self._step_on(unit)
        moved = {"from": dict(start), "to": dict(target), "newFacing": unit["facing"]}
        hit = damage is not None
        self.emit("unit_moved", unitId=unit["id"], **moved, triggeredTrap=hit, trapDamage=damage)
        for effect in list(unit["statusEffects"]):
            if effect["type"] == "fortified":
                self.take_off(unit, effect, "moved")

    def _step_on(self, unit: Unit) -> int | None:
        for trap in self.traps:
            if trap["side"] != unit["side"] and distance(trap["position"], unit["position"]) == 0:
                break
        else:
            return None
        damage: int = self.numbers["trap"]["damage"]
        self.traps.remove(trap)
        unit["hp"] -= damage
        place = dict(unit["position"])
        told = {"position": place, "damage": damage, "unitHpAfter": unit["hp"]}
        self.emit("trap_triggered", unitId=unit["id"], **told)
        if unit["hp"] <= 0:
            self.emit("unit_killed", unitId=unit["id"], killerId=trap["owner"], ability="trap")
        return damage
