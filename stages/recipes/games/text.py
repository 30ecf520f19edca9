"""A board and a decision in; the system and user text of its chat, and the answer, out."""

import re
from collections.abc import Mapping
from typing import Any

import orjson

from stages.recipes.games.board import Board, Numbers, Unit
from stages.recipes.games.replay import Decision

NUMBER = re.compile(r"\[([\w.]+)\]")

PROFILE = "[maxHp] hp, moves [movement], range [range], speed [speed]"
ATTACK = "attack: a unit beside you, [attack.damage] damage."

# [name] is a number of the class from the match's own `balance`
ABILITIES = {
    "sentinel": (
        "shield_wall: guards one direction until your turn ends.",
        "intercept: jump beside an ally within 2 tiles.",
        "fortified while you stand still: half damage.",
    ),
    "specter": (
        "cloak: unseen for [cloak.duration] turns.",
        "shadow_strike: an enemy beside you, [shadowStrike.damage] damage, keeps the cloak.",
        "breach: from behind an enemy within [breach.range], rewrites its orders for "
        "[breach.duration] turns, [breach.maxUses] a match, [breach.cooldown] turns apart.",
    ),
    "oracle": (
        "scan: an enemy within 4 tiles, [scan.damage] damage, shows its orders.",
        "recalibrate: adds to an ally's orders.",
    ),
    "striker": (
        "precision_shot: within [range], [precisionShot.damage] damage, "
        "[precisionShot.movedDamage] after a move.",
        "suppressing_fire: two tiles in line, [suppressingFire.damage] damage, slows to 1 tile.",
    ),
    "medic": (
        "patch: heals an ally beside you by [patch.healAmount], [patch.maxUses] a match.",
        "overclock: an ally beside you acts harder, costs it [overclock.selfDamage] hp.",
    ),
    "vector": (
        "trap: within 2 tiles, [trap.damage] damage to an enemy who steps on it.",
        "pulse: everybody beside you, [pulse.damage] damage.",
        "Enemies beside you are denied most abilities.",
    ),
}

ANSWER = """\
Take two actions. Answer with one JSON object and nothing else:
{"thinking":"...","firstAction":ACTION,"secondAction":ACTION}
ACTION is {"type":"move","target":{"x":0,"y":0}} or {"type":"ability","ability":"attack",\
"target":{"x":0,"y":0}} (shield_wall: "direction":"N") or {"type":"wait"}."""

UNKNOWN = "The log of this match does not tell the numbers of your class."


def system(unit: Unit, board: Board, numbers: Numbers) -> str:
    """Who the unit is, what its class can do, and how to answer."""
    lines = (
        f"SIBYL, a tactics game on a {board.width}x{board.height} grid: "
        "(0,0) is bottom left, N is y+1, E is x+1.",
        f"You are {unit.name}, class {unit.cls}. {abilities(unit.cls, numbers)}",
        ANSWER,
    )
    return "\n".join(lines)


def abilities(cls: str, numbers: Numbers) -> str:
    """The class in one line; only names where a number it needs is not known."""
    texts = (f"{PROFILE}.", ATTACK, *ABILITIES[cls])
    needed = [name for text in texts for name in NUMBER.findall(text)]
    if all(name in numbers for name in needed):
        return NUMBER.sub(lambda found: str(numbers[found[1]]), " ".join(texts))
    names = ["attack", *(text.split(":")[0] for text in ABILITIES[cls] if ":" in text)]
    return f"{UNKNOWN} Abilities: {', '.join(names)}."


def user(board: Board, unit: Unit, decision: Decision) -> str:
    """The board as the unit sees it: no cloaked enemy, no enemy trap, nobody else's orders."""
    lines = [f"=== ROUND {decision.round} ===", f'Your prompt: "{unit.prompt}"', ""]
    lines.append(f"You: {_line(unit)}, facing {unit.facing}")
    if unit.effects:
        lines.append(f"  Status: {', '.join([one['type'] for one in unit.effects])}")
    living = [other for other in board.units if other.hp > 0]
    allies = [other for other in living if other.side == unit.side and other is not unit]
    foes = [other for other in living if other.side != unit.side and not other.has("cloaked")]
    lines += ["", "Allies:" if allies else "Allies: none"]
    lines += [f"  {_line(other)}, dist={_distance(unit, other)}" for other in allies]
    lines += ["", "Enemies:" if foes else "Enemies: none in sight"]
    lines += [f"  {_line(foe)}, dist={_distance(unit, foe)}{_effects(foe)}" for foe in foes]
    lines.append("")
    traps = [f"({x},{y})" for x, y, _, side in board.traps if side == unit.side]
    if traps:
        lines.append(f"Your traps: {', '.join(traps)}")
    seen = {unit.id, *(other.id for other in allies), *(foe.id for foe in foes)}
    lines.append(f"Turn order: {' → '.join([one for one in decision.order or () if one in seen])}")
    return "\n".join(lines)


def assistant(event: Mapping[str, Any]) -> str:
    """The recorded answer as compact JSON; the keys inside an action stay as recorded."""
    keys = ("thinking", "firstAction", "secondAction")
    return orjson.dumps({key: event[key] for key in keys}).decode()


def _line(unit: Unit) -> str:
    return f"{unit.name} ({unit.cls}) at ({unit.x},{unit.y}), HP {unit.hp}/{unit.max_hp}"


def _distance(unit: Unit, other: Unit) -> int:
    return abs(unit.x - other.x) + abs(unit.y - other.y)


def _effects(unit: Unit) -> str:
    return f" [{','.join([one['type'] for one in unit.effects])}]" if unit.effects else ""
