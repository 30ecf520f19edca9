"""A decision and the events after it in; which of its two actions failed, and why, out."""

from collections import Counter
from typing import Any

from stages.recipes.games import rules
from stages.recipes.games.board import Unit
from stages.recipes.games.replay import Decision, Event, Replay

TURN_OVER = ("agent_decision", "turn_start", "turn_end", "game_end")

# ability -> the event it must leave behind, and what that event's ability or source says
TRACES = {
    "attack": ("damage_dealt", "attack"),
    "shadow_strike": ("damage_dealt", "shadow_strike"),
    "precision_shot": ("damage_dealt", "precision_shot"),
    "patch": ("healing_done", ""),
    "overclock": ("status_applied", "overclock"),
    "cloak": ("status_applied", "cloak"),
    "shield_wall": ("status_applied", "shield_wall"),
    "breach": ("breach", ""),
    "trap": ("trap_placed", ""),
}

Trace = tuple[Any, ...]


def failure(replay: Replay, decision: Decision, acting: Unit) -> str | None:
    """Which action of the decision just replayed failed and why, or None.

    The log does not say it. An action that must leave an event failed if there is none;
    where that does not tell, because both actions would leave the same, the rules do.
    """
    seen = _traces(replay, decision.index)
    actions = decision.event["firstAction"], decision.event["secondAction"]
    wanted = [_trace_of(action) for action in actions]
    pairs = list(zip(actions, wanted, strict=True))
    if wanted[0] != wanted[1] and all(a["type"] == "wait" or w in seen for a, w in pairs):
        return None  # the common case, without trying the actions on a copy of the board
    board, numbers = replay.board.copy(), replay.numbers_of(acting.cls)
    unit = board.units[replay.board.units.index(acting)]
    for which, (action, trace) in zip(("first", "second"), pairs, strict=True):
        reason = rules.act(board, unit, action, numbers)
        if trace and wanted[0] != wanted[1] and trace in seen:
            reason = None
        if not reason and trace and seen[trace] < wanted.count(trace):
            reason = "nothing came of it"
        if reason:
            return f"The {which} action failed: {reason}."
    return None


def _traces(replay: Replay, index: int) -> Counter[Trace]:
    """What the events of the turn that begins at `index` show."""
    traces: Counter[Trace] = Counter()
    for event in replay.events[index + 1 :]:
        kind = event["type"]
        if kind in TURN_OVER:
            break
        if kind == "unit_moved":
            traces[kind, event["to"]["x"], event["to"]["y"]] += 1
        else:
            traces[kind, event.get("ability") or event.get("source") or ""] += 1
    return traces


def _trace_of(action: Event) -> Trace | None:
    """The event this action leaves when it succeeds, None where it need not leave any."""
    if action["type"] == "move":
        target = action.get("target") or {}
        return "unit_moved", target.get("x"), target.get("y")
    return TRACES.get(action.get("ability", "")) if action["type"] == "ability" else None
