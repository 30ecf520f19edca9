"""The events of one log in; each decision with the true board at that moment out.

A `turn_start` snapshot is the board as the round began. Between snapshots the recorded events
change it; what the recorder leaves out (scan damage, intercept's move, recalibrate, what ends
with a unit's turn) is worked out by the rules, and `turn_end` sets everything right again.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stages.recipes.games import rules
from stages.recipes.games.board import Board, Unit, class_numbers

Event = Mapping[str, Any]

UNRECORDED = ("scan", "recalibrate", "intercept")


@dataclass(frozen=True, slots=True)
class Decision:
    """One `agent_decision`: n counts from 1 in the log, round is 0 before the first round.

    `unit` is None for an id that is not on the board; `order` is the round's turn order.
    """

    n: int
    round: int
    unit: Unit | None
    order: Sequence[str] | None
    event: Event
    index: int


class Replay:
    """The board of one log, moved on event by event."""

    def __init__(self, events: Sequence[Event], balance: Mapping[str, Any] | None) -> None:
        self.events, self.balance = events, balance
        self.board = Board(0, 0, [], [])
        self.units: dict[str, Unit] = {}
        self.round, self.index = 0, 0
        self.order: Sequence[str] | None = None
        self.acting: Unit | None = None
        self.late: Event | None = None
        self.numbers: dict[str, dict[str, int]] = {}

    def decisions(self) -> Iterator[Decision]:
        """Yield each decision; `board` is as the unit found it until the next is asked for."""
        n = 0
        for index, event in enumerate(self.events):
            self.index = index
            if event["type"] != "agent_decision":
                apply = APPLY.get(event["type"])
                if apply:
                    apply(self, event)
                continue
            self._end_turn()
            n += 1
            unit = self.units.get(event.get("unitId", ""))
            yield Decision(n, self.round, unit, self.order, event, self.index)
            self._begin_turn(unit, event)

    def numbers_of(self, cls: str) -> dict[str, int]:
        """The class's numbers from `balance`, {} where the log has none."""
        if cls not in self.numbers:
            self.numbers[cls] = class_numbers(self.balance, cls)
        return self.numbers[cls]

    def _begin_turn(self, unit: Unit | None, event: Event) -> None:
        self.acting, self.late = unit, None
        if unit is None or not self.round:
            return
        if _unrecorded(event.get("firstAction")):
            self._carry_out(unit, event["firstAction"])
        if _unrecorded(event.get("secondAction")):
            self.late = event["secondAction"]

    def _carry_out(self, unit: Unit, action: Event) -> None:
        """An action that leaves no event, or not all of it, changes the board by the rules."""
        if rules.act(self.board, unit, action, self.numbers_of(unit.cls)):
            return
        target = self.board.at(action["target"]["x"], action["target"]["y"])
        if action["ability"] == "recalibrate" and target:
            target.prompt += self._addendum(target)
        elif action["ability"] == "scan" and target and not self.balance:
            self._scan_without_number(target)

    def _scan_without_number(self, target: Unit) -> None:
        """Where no `balance` tells the damage, the target's next known hp does."""
        for event in self.events[self.index + 1 :]:
            known = _hp_before(event, target.id)
            if known is not None:
                target.hp = min(target.hp, known)
                return

    def _addendum(self, ally: Unit) -> str:
        """What recalibrate added to a prompt: the next record of that prompt holds it."""
        place = {"x": ally.x, "y": ally.y}
        further = 0
        for event in self.events[self.index + 1 :]:
            known = _prompt_in(event, ally.id)
            if known is not None:
                added = known.removeprefix(ally.prompt) if known.startswith(ally.prompt) else ""
                lines = added.split("\n")
                return "\n".join(lines[: max(2, len(lines) - further)]) if further else added
            for action in (event.get("firstAction"), event.get("secondAction")):
                if isinstance(action, Mapping) and action.get("ability") == "recalibrate":
                    further += action.get("target") == place
        return ""

    def _end_turn(self) -> None:
        """What ends with a unit's own turn, none of it recorded but a cloak that runs out."""
        unit, self.acting = self.acting, None
        if unit is None:
            return
        if self.late:
            self._carry_out(unit, self.late)
            self.late = None
        for effect in unit.effects:
            if effect["type"] == "cloaked" and effect["turnsLeft"] > 1:
                effect["turnsLeft"] -= 1
        unit.moved = False
        unit.cooldown = max(0, unit.cooldown - 1)
        unit.breach_left -= unit.breach_left > 0
        if unit.original is not None and unit.breach_left == 0:
            unit.prompt, unit.original = unit.original, None

    def _game_start(self, event: Event) -> None:
        grid = event["grid"]
        self.board.width, self.board.height = grid["width"], grid["height"]
        self._snapshot(event)

    def _turn_start(self, event: Event) -> None:
        self._end_turn()
        self.round, self.order = event["turn"], event.get("turnStack")
        if not isinstance(self.round, int) or not isinstance(self.order, list | None):
            raise TypeError("turn is no number, or turnStack no list")
        self._snapshot(event)

    def _turn_end(self, event: Event) -> None:
        self._end_turn()
        self._snapshot(event)

    def _snapshot(self, event: Event) -> None:
        """Set units and traps as a snapshot says; what it lacks stays as the replay has it."""
        for row in event["units"]:
            unit = self.units.get(row["id"])
            if unit:
                unit.resync(row)
            else:
                self.units[row["id"]] = unit = Unit(row)
                self.board.units.append(unit)
        if "traps" in event:
            self.board.traps[:] = [
                (t["position"]["x"], t["position"]["y"], t["owner"], t["side"])
                for t in event["traps"]
            ]

    def _unit_moved(self, event: Event) -> None:
        unit = self.units[event["unitId"]]
        unit.x, unit.y = event["to"]["x"], event["to"]["y"]
        unit.facing, unit.moved = event["newFacing"], True

    def _hp_after(self, event: Event) -> None:
        self.units[event["targetId"]].hp = event["targetHpAfter"]

    def _healing_done(self, event: Event) -> None:
        self.units[event["targetId"]].hp = event["targetHpAfter"]
        self.units[event["sourceId"]].heals += 1

    def _status_applied(self, event: Event) -> None:
        effect = dict(event["effect"])
        if effect["type"] == "cloaked":
            # The recorder writes a status as it is when the match ends, so the count is stale.
            full = self.numbers_of("specter").get("cloak.duration", effect["turnsLeft"])
            effect["turnsLeft"] = max(full, 1)
        self.units[event["unitId"]].effects.append(effect)

    def _status_removed(self, event: Event) -> None:
        unit, kind = self.units[event["unitId"]], event["effectType"]
        effects = unit.effects
        if event["reason"] in ("expired", "turn_end"):  # one event for each effect, oldest first
            gone = next((one for one in effects if one["type"] == kind), None)
            unit.effects = [one for one in effects if one is not gone]
        else:
            unit.effects = [one for one in effects if one["type"] != kind]

    def _unit_killed(self, event: Event) -> None:
        unit = self.units[event["unitId"]]
        unit.hp = min(unit.hp, 0)

    def _trap_placed(self, event: Event) -> None:
        owner, place = self.units[event["unitId"]], event["position"]
        self.board.traps.append((place["x"], place["y"], owner.id, owner.side))

    def _trap_triggered(self, event: Event) -> None:
        unit, place = self.units[event["unitId"]], event["position"]
        unit.hp = event["unitHpAfter"]
        for trap in self.board.traps:
            if trap[0] == place["x"] and trap[1] == place["y"] and trap[3] != unit.side:
                self.board.traps.remove(trap)
                break

    def _breach(self, event: Event) -> None:
        unit, target = self.units[event["attackerId"]], self.units[event["targetId"]]
        numbers = self.numbers_of("specter")
        if target.original is None:
            target.original = event["oldPrompt"]
        target.prompt = event["newPrompt"]
        # Without balance only the next snapshot tells when it fades: -1 never counts down to 0.
        target.breach_left = numbers.get("breach.duration", -1)
        unit.breaches += 1
        unit.cooldown = numbers.get("breach.cooldown", 0)


APPLY = {
    "game_start": Replay._game_start,
    "turn_start": Replay._turn_start,
    "turn_end": Replay._turn_end,
    "unit_moved": Replay._unit_moved,
    "damage_dealt": Replay._hp_after,
    "healing_done": Replay._healing_done,
    "status_applied": Replay._status_applied,
    "status_removed": Replay._status_removed,
    "unit_killed": Replay._unit_killed,
    "trap_placed": Replay._trap_placed,
    "trap_triggered": Replay._trap_triggered,
    "breach": Replay._breach,
}


def _unrecorded(action: Any) -> bool:
    return isinstance(action, Mapping) and action.get("ability") in UNRECORDED


def _row(event: Event, unit: str) -> Mapping[str, Any] | None:
    """The unit's row in a snapshot."""
    rows = event.get("units") or event.get("survivors") or ()
    return next((row for row in rows if row["id"] == unit), None)


def _hp_before(event: Event, unit: str) -> int | None:
    """The hp that `event` says the unit had before it, where it says."""
    known: int | None = None
    if event.get("targetId") == unit and "targetHpAfter" in event:
        change = event["amount"] if event["type"] == "damage_dealt" else -event["amount"]
        known = event["targetHpAfter"] + change
    elif event["type"] == "trap_triggered" and event["unitId"] == unit:
        known = event["unitHpAfter"] + event["damage"]
    elif row := _row(event, unit):
        known = row["hp"]
    elif event["type"] == "game_end":  # it names the survivors only
        known = 0
    return known


def _prompt_in(event: Event, unit: str) -> str | None:
    """The prompt that `event` says the unit had before it, where it says."""
    if event["type"] == "breach" and event["targetId"] == unit:
        return str(event["oldPrompt"])
    row = _row(event, unit)
    return str(row["prompt"]) if row else None
