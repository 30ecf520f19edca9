"""A match, a unit and its action in; the match after it, or why the game refused it, out."""

from collections.abc import Callable
from typing import Any

from stages.makers.games.engine import IllegalError, Match, Place, Unit, distance, has

DENIED = {"cloak", "breach", "scan", "precision_shot", "trap", "patch", "overclock"}
OWNERS = {
    "shield_wall": "sentinel",
    "intercept": "sentinel",
    "breach": "specter",
    "cloak": "specter",
    "shadow_strike": "specter",
    "scan": "oracle",
    "recalibrate": "oracle",
    "precision_shot": "striker",
    "suppressing_fire": "striker",
    "patch": "medic",
    "overclock": "medic",
    "trap": "vector",
    "pulse": "vector",
}
BACKS = {"N": (0, -1), "S": (0, 1), "E": (-1, 0), "W": (1, 0)}


def do(match: Match, unit: Unit, action: dict[str, Any], words: str) -> str | None:
    """Carry out an action; returns why it failed. `words` is what breach and recalibrate say."""
    try:
        if action["type"] == "move":
            match.move(unit, action["target"])
        elif action["type"] == "ability":
            _ability(match, unit, action, words)
        elif action["type"] != "wait":
            raise IllegalError("no such action")
    except IllegalError as reason:
        return str(reason)
    return None


def _ability(match: Match, unit: Unit, action: dict[str, Any], words: str) -> None:
    name = action["ability"]
    if name in DENIED:
        _refuse_denied(match, unit, name)
    if name not in ("cloak", "shadow_strike") and has(unit, "cloaked"):
        kept = [one for one in unit["statusEffects"] if one["type"] != "cloaked"]
        unit["statusEffects"] = kept
        broken = {"effectType": "cloaked", "reason": "ability_break"}
        match.emit("status_removed", unitId=unit["id"], **broken)
    if name != "attack" and OWNERS.get(name) != unit["class"]:
        raise IllegalError(f"not an ability of this unit: {name}")
    place: Place = action.get("target") or unit["position"]
    if name in WEAPONS:
        _weapon(match, unit, name, place)
    elif name == "shield_wall":
        wall = {"type": "shieldWall", "direction": action["direction"]}
        match.put_on(unit, wall, "shield_wall")
    elif name in ("breach", "recalibrate"):
        (_breach if name == "breach" else _recalibrate)(match, unit, place, words)
    else:
        OTHERS[name](match, unit, place)


def _refuse_denied(match: Match, unit: Unit, name: str) -> None:
    for other in match.living():
        near = distance(other["position"], unit["position"]) == 1
        if other["class"] == "vector" and other["side"] != unit["side"] and near:
            told = {"blockedAbility": name, "vectorId": other["id"]}
            match.emit("denial_blocked", unitId=unit["id"], **told)
            raise IllegalError("denied")


def _hurt(match: Match, unit: Unit, other: Unit, damage: int, ability: str) -> None:
    """Damage, halved and rounded up by fortified; scan's is not recorded, its kills neither."""
    if has(other, "fortified"):
        damage = -(-damage // 2)
    other["hp"] = max(0, other["hp"] - damage)
    if ability == "scan":
        return
    told = {"amount": damage, "ability": ability, "targetHpAfter": other["hp"]}
    match.emit("damage_dealt", sourceId=unit["id"], targetId=other["id"], **told)
    if ability != "suppressing_fire":
        _killed(match, unit, other, ability)


def _killed(match: Match, unit: Unit, other: Unit, ability: str) -> None:
    if other["hp"] <= 0:
        match.emit("unit_killed", unitId=other["id"], killerId=unit["id"], ability=ability)


# ability -> number in `balance`, reach (None: the unit's range), hits friends, hits the cloaked
WEAPONS: dict[str, tuple[str, int | None, bool, bool]] = {
    "attack": ("attack", 1, True, False),
    "precision_shot": ("precisionShot", None, True, False),
    "shadow_strike": ("shadowStrike", 1, False, True),
    "scan": ("scan", 4, False, True),
}


def _weapon(match: Match, unit: Unit, name: str, place: Place) -> None:
    key, reach, friends, cloaked = WEAPONS[name]
    other = match.at(place)
    if other is None or other is unit or (other["side"] == unit["side"] and not friends):
        raise IllegalError("no target")
    if has(other, "cloaked") and not cloaked:
        raise IllegalError("unseen target")
    if reach is None:
        reach = match.balance["unitStats"][unit["class"]]["range"]
    if distance(unit["position"], place) > reach:
        raise IllegalError("too far")
    numbers = match.numbers[key]
    shot_after_move = name == "precision_shot" and unit.get("movedThisTurn")
    _hurt(match, unit, other, numbers["movedDamage" if shot_after_move else "damage"], name)


def _breach(match: Match, unit: Unit, place: Place, words: str) -> None:
    numbers, other = match.numbers["breach"], match.at(place)
    if other is None or other["side"] == unit["side"]:
        raise IllegalError("no target")
    if distance(unit["position"], place) > numbers["range"]:
        raise IllegalError("too far")
    dx, dy = BACKS[other["facing"]]
    apart = unit["position"]["x"] - place["x"], unit["position"]["y"] - place["y"]
    if apart[0] * dx + apart[1] * dy <= 0:
        raise IllegalError("not behind")
    if unit.get("breaches", 0) >= numbers["maxUses"] or unit.get("cooldown"):
        raise IllegalError("not ready")
    old = other["prompt"]
    other.setdefault("originalPrompt", old)
    other["prompt"], other["breached"] = words, numbers["duration"]
    unit["breaches"], unit["cooldown"] = unit.get("breaches", 0) + 1, numbers["cooldown"]
    told = {"targetId": other["id"], "oldPrompt": old, "newPrompt": words}
    match.emit("breach", attackerId=unit["id"], **told)


def _ally(match: Match, unit: Unit, place: Place, reach: int | None) -> Unit:
    other = match.at(place)
    if other is None or other["side"] != unit["side"]:
        raise IllegalError("no ally")
    if reach is not None and distance(unit["position"], place) > reach:
        raise IllegalError("too far")
    return other


def _recalibrate(match: Match, unit: Unit, place: Place, words: str) -> None:
    _ally(match, unit, place, None)["prompt"] += f"\n{words}"


def _intercept(match: Match, unit: Unit, place: Place) -> None:
    _ally(match, unit, place, 2)
    for dx, dy in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        spot = {"x": place["x"] + dx, "y": place["y"] + dy}
        inside = 0 <= spot["x"] < match.width and 0 <= spot["y"] < match.height
        if inside and not match.at(spot):
            unit["position"] = spot
            unit["statusEffects"].append({"type": "shieldWall", "direction": unit["facing"]})
            return
    raise IllegalError("no room")


def _cloak(match: Match, unit: Unit, _place: Place) -> None:
    turns = match.numbers["cloak"]["duration"]
    match.put_on(unit, {"type": "cloaked", "turnsLeft": turns}, "cloak")


def _suppressing_fire(match: Match, unit: Unit, place: Place) -> None:
    step = {}
    for axis in ("x", "y"):
        gap = place[axis] - unit["position"][axis]
        step[axis] = place[axis] + (gap > 0) - (gap < 0)
    for spot in (place, step):
        other = match.at(spot)
        if other is None or other is unit:
            continue
        damage = match.numbers["suppressingFire"]["damage"]
        _hurt(match, unit, other, damage, "suppressing_fire")
        match.put_on(other, {"type": "suppressed"}, "suppressing_fire")
        _killed(match, unit, other, "suppressing_fire")


def _patch(match: Match, unit: Unit, place: Place) -> None:
    other, numbers = _ally(match, unit, place, 1), match.numbers["patch"]
    left = numbers["maxUses"] - unit.get("healsUsed", 0)
    if left <= 0:
        raise IllegalError("used up")
    healed = min(numbers["healAmount"], other["maxHp"] - other["hp"])
    other["hp"] += healed
    unit["healsUsed"] = unit.get("healsUsed", 0) + 1
    told = {"amount": healed, "targetHpAfter": other["hp"], "healsRemaining": left - 1}
    match.emit("healing_done", sourceId=unit["id"], targetId=other["id"], **told)


def _overclock(match: Match, unit: Unit, place: Place) -> None:
    other, cost = _ally(match, unit, place, 1), match.numbers["overclock"]["selfDamage"]
    other["hp"] -= cost
    told = {"amount": cost, "ability": "overclock", "targetHpAfter": other["hp"]}
    match.emit("damage_dealt", sourceId=unit["id"], targetId=other["id"], **told)
    match.put_on(other, {"type": "overclocked"}, "overclock")


def _trap(match: Match, unit: Unit, place: Place) -> None:
    inside = 0 <= place["x"] < match.width and 0 <= place["y"] < match.height
    if not inside or distance(unit["position"], place) > 2 or match.at(place):
        raise IllegalError("no place for a trap")
    match.traps.append({"position": dict(place), "owner": unit["id"], "side": unit["side"]})
    match.emit("trap_placed", unitId=unit["id"], position=dict(place))


def _pulse(match: Match, unit: Unit, _place: Place) -> None:
    for other in match.living():
        if other is not unit and distance(other["position"], unit["position"]) <= 1:
            _hurt(match, unit, other, match.numbers["pulse"]["damage"], "pulse")


OTHERS: dict[str, Callable[[Match, Unit, Place], None]] = {
    "intercept": _intercept,
    "cloak": _cloak,
    "suppressing_fire": _suppressing_fire,
    "patch": _patch,
    "overclock": _overclock,
    "trap": _trap,
    "pulse": _pulse,
}
