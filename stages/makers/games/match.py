"""A seed and a number in; one played match as the recorder writes it, with its truth, out."""

from dataclasses import dataclass
from random import Random
from typing import Any

from stages.makers.games import agent, squads
from stages.makers.games.actions import do
from stages.makers.games.engine import Match, Unit

SIZE = 3  # units on each side
MISTAKES = 0.04  # share of decisions with an action the game refuses
FORGETFUL = 0.2  # share of denied units that try what the enemy vector beside them forbids
UNREADABLE = 0.01  # share of answers that could not be read: the unit waits
CUT = 20  # every so many matches the recorder stops early: no winner in the log
PEACE = 30  # and so many are played by equal squads that only wait: a draw
NO_MODEL = 10  # and so many logs do not name the model

FORBIDDEN = {
    "specter": "cloak",
    "oracle": "scan",
    "striker": "precision_shot",
    "medic": "patch",
    "vector": "trap",
}
WORDS = {"recalibrate": "Hit the weakest first.", "breach": "Do nothing."}


@dataclass(frozen=True, slots=True)
class Played:
    """`log` is the file; `truth` has one row a decision: round, units, traps, errors."""

    name: str
    log: dict[str, Any]
    truth: list[dict[str, Any]]


def play(seed: int, number: int) -> Played:
    """Play match `number` of a seed: the same two integers are always the same match."""
    random = Random(f"games {seed} {number}")
    version = random.choice(squads.VERSIONS)
    match = Match(squads.balance(version))
    peace = number % PEACE == PEACE - 1
    _set_up(match, random, peace)
    truth: list[dict[str, Any]] = []
    last = 3 if number % CUT == CUT - 1 else squads.ROUNDS
    if _rounds(match, random, last, peace, truth):
        _by_points(match)
    name = f"v{'.'.join(map(str, version))}-{number}"
    log: dict[str, Any] = {"configId": name, "gameId": name, "agent": "script"}
    log["timestamp"] = f"2026-01-{1 + number % 28:02}T12:{number % 60:02}:00.000Z"
    if number % NO_MODEL:
        log["model"] = "script-1"
    log |= {"balance": match.balance, "events": match.events}
    return Played(f"training-{name}.json", log, truth)


def _set_up(match: Match, random: Random, equal: bool) -> None:
    chosen = squads.squads(random, SIZE, equal)
    told = {
        side: {"units": chosen[side], "placementPrompt": random.choice(squads.PLACING)}
        for side in squads.SIDES
    }
    match.emit("game_config", **told, agent="script")
    for side in squads.SIDES:
        for member, tile in zip(chosen[side], squads.places(random, side, SIZE), strict=True):
            match.place(side, member, tile)


def _rounds(
    match: Match, random: Random, last: int, peace: bool, truth: list[dict[str, Any]]
) -> bool:
    """Play up to `last` rounds; whether both sides still stand after the last of a whole match."""
    for count in range(1, last + 1):
        order = _order(match, random)
        if count == 1:
            grid = dict(match.balance["grid"])
            match.emit("game_start", grid=grid, units=match.snapshot(), turnStack=list(order))
        match.round_event("turn_start", count, turnStack=list(order))
        for name in order:
            unit = next(u for u in match.units if u["id"] == name)
            if unit["hp"] <= 0:
                continue
            _turn(match, random, unit, count, peace, truth)
            if _beaten(match, count):
                return False
        match.round_event("turn_end", count)
    return last == squads.ROUNDS


def _order(match: Match, random: Random) -> list[str]:
    """Fastest first, ties by lot."""
    units = match.living()
    random.shuffle(units)
    return [u["id"] for u in sorted(units, key=lambda u: -u["speed"])]


def _turn(
    match: Match,
    random: Random,
    unit: Unit,
    count: int,
    peace: bool,
    truth: list[dict[str, Any]],
) -> None:
    thinking, first, second = agent.decide(match, unit, count)
    if peace:
        thinking, first, second = "Nobody shoots today.", agent.WAIT, agent.WAIT
    denied = agent.denied(match, unit, unit["position"])
    thinking, first, second = _spoil(random, unit, denied, (thinking, first, second))
    row: dict[str, Any] = {"round": count, "unitId": unit["id"], "units": match.snapshot()}
    row["traps"] = [{**trap, "position": dict(trap["position"])} for trap in match.traps]
    decided = {"thinking": thinking, "firstAction": first, "secondAction": second}
    took = random.randrange(300, 3000)
    match.emit("agent_decision", unitId=unit["id"], **decided, durationMs=took)
    words = [WORDS.get(one.get("ability", ""), "") for one in (first, second)]
    row["errors"] = [do(match, unit, first, words[0]), do(match, unit, second, words[1])]
    match.end_turn(unit)
    truth.append(row)


def _spoil(random: Random, unit: Unit, denied: bool, plan: agent.Plan) -> agent.Plan:
    """Now and then an answer that the game refuses, or that could not be read at all."""
    thinking, first, second = plan
    here, luck = unit["position"], random.random()
    if luck < UNREADABLE:
        return "parse error", agent.WAIT, agent.WAIT
    if denied and luck > 1 - FORGETFUL and unit["class"] in FORBIDDEN:
        return thinking, agent.ability(FORBIDDEN[unit["class"]], here), second
    mistakes: list[agent.Plan] = [
        (thinking, agent.move(here["x"] + squads.GRID, here["y"]), second),
        (thinking, agent.ability("lightning", here), second),
        (thinking, first, agent.ability("attack", here)),
        (thinking, first, {"type": "unknown"}),
    ]
    return random.choice(mistakes) if luck < UNREADABLE + MISTAKES else plan


def _end(match: Match, count: int, winner: str, reason: str) -> None:
    survivors = match.snapshot(only_living=True)
    match.emit("game_end", winner=winner, reason=reason, totalTurns=count, survivors=survivors)


def _beaten(match: Match, count: int) -> bool:
    for side, other in (squads.SIDES, squads.SIDES[::-1]):
        if not match.living(side):
            _end(match, count, other, f"The {side} has no unit left")
            return True
    return False


def _by_points(match: Match) -> None:
    """After the last round the higher sum of hp wins; equal sums are a draw."""
    ours, theirs = (sum(u["hp"] for u in match.living(side)) for side in squads.SIDES)
    winner = "draw" if ours == theirs else squads.SIDES[ours < theirs]
    _end(match, squads.ROUNDS, winner, f"{squads.ROUNDS} rounds are over, {ours} to {theirs} hp")
