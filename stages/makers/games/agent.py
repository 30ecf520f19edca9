"""What a unit sees in; its thinking and two actions, by a fixed policy, out.

The policy is regular on purpose: nearest enemy, hit it where the class can, else walk straight
to it and get ready. A small model can learn that from a thousand decisions.
"""

from collections.abc import Callable
from typing import Any

from stages.makers.games.engine import Match, Place, Unit, distance, has

Action = dict[str, Any]
Plan = tuple[str, Action, Action]

WAIT: Action = {"type": "wait"}
HEADINGS = (("x", 1, "E"), ("x", -1, "W"), ("y", 1, "N"), ("y", -1, "S"))
REACH = {"oracle": 4, "striker": 3}


def move(x: int, y: int) -> Action:
    return {"type": "move", "target": {"x": x, "y": y}}


def ability(name: str, target: Place | None = None) -> Action:
    aimed = {"target": dict(target)} if target else {}
    return {"type": "ability", "ability": name, **aimed}


def decide(match: Match, unit: Unit, number: int) -> Plan:
    """Thinking, first and second action; `number` is the round, from 1."""
    foes = [u for u in match.living() if u["side"] != unit["side"] and not has(u, "cloaked")]
    if not foes:
        return "No enemy in sight. Wait.", WAIT, WAIT
    foe = min(foes, key=lambda one: distance(one["position"], unit["position"]))
    far = distance(foe["position"], unit["position"])
    spot = f"({foe['position']['x']},{foe['position']['y']})"
    seen = f"Nearest enemy {foe['name']} at {spot}, dist={far}."
    care = _care(match, unit, number)
    if care:
        return f"{seen} {care[0]}", *care[1:]
    if far <= REACH.get(unit["class"], 1):
        text, first, second = _strike(match, unit, foe)
        return f"{seen} {text}", first, second
    walk = _walk(match, unit, foe["position"])
    if walk is None:
        return f"{seen} No way there. Wait.", WAIT, WAIT
    goal = walk["target"]
    ready = _ready(match, unit, foe, goal)
    return f"{seen} Go to ({goal['x']},{goal['y']}), then {_name(ready)}.", walk, ready


def _name(action: Action) -> str:
    return str(action.get("ability", action["type"]))


def _care(match: Match, unit: Unit, number: int) -> Plan | None:
    """What comes before fighting: orders in the first round, friends in need."""
    allies = [u for u in match.living(unit["side"]) if u is not unit]
    if unit["class"] == "oracle" and number == 1 and allies:
        ally = allies[0]
        return f"Guide {ally['name']}.", ability("recalibrate", ally["position"]), WAIT
    for ally in allies:
        gap = distance(ally["position"], unit["position"])
        hurt = ally["hp"] <= ally["maxHp"] // 2
        if unit["class"] == "medic" and gap == 1 and not denied(match, unit, unit["position"]):
            left = match.numbers["patch"]["maxUses"] - unit.get("healsUsed", 0)
            if hurt and left:
                return f"Patch {ally['name']}.", ability("patch", ally["position"]), WAIT
            if number == 2 and ally["hp"] == ally["maxHp"]:
                return f"Push {ally['name']}.", ability("overclock", ally["position"]), WAIT
        if unit["class"] == "sentinel" and gap == 2 and hurt:
            return f"Guard {ally['name']}.", ability("intercept", ally["position"]), WAIT
    return None


def denied(match: Match, unit: Unit, place: Place) -> bool:
    """Whether a vector that the unit can see denies abilities on that tile."""
    return any(
        other["class"] == "vector"
        and other["side"] != unit["side"]
        and not has(other, "cloaked")
        and distance(other["position"], place) == 1
        for other in match.living()
    )


def _strike(match: Match, unit: Unit, foe: Unit) -> Plan:
    """Hit the enemy that is in reach, then what the class does after it."""
    place, name = foe["position"], foe["name"]
    near = distance(place, unit["position"]) == 1
    if denied(match, unit, unit["position"]) and unit["class"] in ("oracle", "striker"):
        return _denied_strike(unit, foe, near)
    if unit["class"] == "sentinel":
        wall = {"type": "ability", "ability": "shield_wall", "direction": _toward(unit, foe)}
        return f"Hit {name}, then shield.", ability("attack", place), wall
    if unit["class"] == "specter":
        ready = unit.get("breaches", 0) < 1 and not denied(match, unit, unit["position"])
        if ready and _at_back(unit, foe):
            return f"Breach {name}.", ability("breach", place), ability("attack", place)
        return f"Strike {name}.", ability("shadow_strike", place), WAIT
    if unit["class"] == "oracle":
        return f"Scan {name}.", ability("scan", place), WAIT
    if unit["class"] == "striker":
        if near:
            return f"Pin {name}.", ability("suppressing_fire", place), WAIT
        return f"Shoot {name}.", ability("precision_shot", place), WAIT
    if unit["class"] == "vector":
        return f"Pulse at {name}.", ability("pulse"), WAIT
    return f"Hit {name}.", ability("attack", place), WAIT


def _denied_strike(unit: Unit, foe: Unit, near: bool) -> Plan:
    place, name = foe["position"], foe["name"]
    if unit["class"] == "striker":
        return f"Denied. Pin {name}.", ability("suppressing_fire", place), WAIT
    if near:
        return f"Denied. Hit {name}.", ability("attack", place), WAIT
    return "Denied. Wait.", WAIT, WAIT


def _toward(unit: Unit, foe: Unit) -> str:
    dx = foe["position"]["x"] - unit["position"]["x"]
    dy = foe["position"]["y"] - unit["position"]["y"]
    if abs(dx) > abs(dy):
        return "E" if dx > 0 else "W"
    return "N" if dy > 0 else "S"


def _at_back(unit: Unit, foe: Unit) -> bool:
    return distance(unit["position"], foe["position"]) == 1 and _toward(unit, foe) == foe["facing"]


def _walk(match: Match, unit: Unit, goal: Place) -> Action | None:
    """Straight along the longer axis, as far as it leads nearer; else along the other one."""
    here = unit["position"]
    steps = match.balance["unitStats"][unit["class"]]["movement"]
    steps = 1 if has(unit, "suppressed") else steps
    gaps = {"x": goal["x"] - here["x"], "y": goal["y"] - here["y"]}
    for axis in sorted(gaps, key=lambda one: -abs(gaps[one])):
        for length in range(min(steps, abs(gaps[axis])), 0, -1):
            place = dict(here)
            place[axis] += length if gaps[axis] > 0 else -length
            if not _looks_taken(match, unit, place):
                return move(place["x"], place["y"])
    return None


def _looks_taken(match: Match, unit: Unit, place: Place) -> bool:
    """Whether the unit sees somebody on the tile: a cloaked enemy is not seen."""
    other = match.at(place)
    return other is not None and (other["side"] == unit["side"] or not has(other, "cloaked"))


def _ready(match: Match, unit: Unit, foe: Unit, goal: Place) -> Action:
    """The second action after a walk to `goal`."""
    gap = distance(goal, foe["position"])
    forbidden = denied(match, unit, goal)
    later: dict[str, Callable[[], Action]] = {
        "sentinel": lambda: {
            "type": "ability",
            "ability": "shield_wall",
            "direction": _toward(unit, foe),
        },
        "specter": lambda: WAIT if forbidden or has(unit, "cloaked") else ability("cloak"),
        "vector": lambda: WAIT if forbidden else _mine(match, unit, foe, goal),
    }
    if gap == 1 and unit["class"] in ("sentinel", "medic"):
        return ability("attack", foe["position"])
    if gap == 1 and unit["class"] == "specter":
        return ability("shadow_strike", foe["position"])
    if gap == 1 and unit["class"] == "vector":
        return ability("pulse")
    if gap <= REACH.get(unit["class"], 0) and not forbidden:
        shot = "scan" if unit["class"] == "oracle" else "precision_shot"
        return ability(shot, foe["position"])
    return later.get(unit["class"], lambda: WAIT)()


def _mine(match: Match, unit: Unit, foe: Unit, goal: Place) -> Action:
    """A trap on the next tile toward the enemy, where it is free."""
    way = _toward({"position": goal}, foe)
    axis, sign, _ = next(one for one in HEADINGS if one[2] == way)
    place = dict(goal)
    place[axis] += sign
    taken = _looks_taken(match, unit, place) or place == unit["position"]
    return WAIT if taken else ability("trap", place)
