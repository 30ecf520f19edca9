"""An example and an answer in; whether it parses, is legal and agrees with the record out."""

from typing import Any

import orjson

from stages.core.example import Example
from stages.recipes.games import rules
from stages.recipes.games.board import unpack

KEYS = {"thinking", "firstAction", "secondAction"}
DIRECTIONS = ("N", "E", "S", "W")


def judge(example: Example, answer: str) -> dict[str, float]:
    """Scores of one answer.

    json: one JSON object of the right shape, nothing around it. legal: both actions can be
    carried out one after the other on the true board; absent where the log had no `balance`.
    agreement: both actions are the recorded ones; first_agreement: the first one is.
    """
    actions = parse(answer)
    recorded = orjson.loads(example.messages[-1]["content"])
    board, unit, numbers = unpack(example.meta["board"])
    scores = {"json": float(actions is not None)}
    if numbers:
        legal = actions and not any(rules.act(board, unit, one, numbers) for one in actions)
        scores["legal"] = float(bool(legal))
    wanted = recorded["firstAction"], recorded["secondAction"]
    scores["agreement"] = float(actions == wanted)
    scores["first_agreement"] = float(actions is not None and actions[0] == wanted[0])
    return scores


def parse(answer: str) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """The two actions of an answer of the right shape, else None."""
    try:
        row = orjson.loads(answer)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(row, dict) or set(row) != KEYS or not isinstance(row["thinking"], str):
        return None
    first, second = row["firstAction"], row["secondAction"]
    return (first, second) if shaped(first) and shaped(second) else None


def shaped(action: Any) -> bool:
    """Whether this is an action by its form: known type, named ability, whole coordinates."""
    if not isinstance(action, dict) or set(action) - {"type", "ability", "target", "direction"}:
        return False
    if "target" in action and not _is_tile(action["target"]):
        return False
    if action.get("direction", "N") not in DIRECTIONS:
        return False
    kind = action.get("type")
    if kind == "ability":
        return isinstance(action.get("ability"), str)
    return kind == "wait" or (kind == "move" and "target" in action)


def _is_tile(target: Any) -> bool:
    return (
        isinstance(target, dict)
        and set(target) == {"x", "y"}
        and all(type(value) is int for value in target.values())
    )
