"""Match logs for the recipe games in any number, and a plain way to convert them.

`make` plays 50 matches and links them under new numbers until there are enough decisions.
`naive` holds all logs and then all rows; its board is the one that the round began with.
"""

import json
import os
import re
from pathlib import Path
from typing import Any

PLAYED = 50
OPTIONS = {
    "sides": "winners",
    "min_version": "0.0.0",
    "failed_actions": "keep",
    "pairs": "none",
}


def make(rows: int, out: Path) -> dict[str, Any]:
    """Fill `out` with logs of at least so many decisions; returns the recipe's options."""
    from stages.makers import games

    played = out.parent / "played"
    played.mkdir()
    games.make(games.Options(seed=1, games=PLAYED), played)
    originals = sorted(played.glob("training-*.json"))
    decisions = [path.read_text().count('"agent_decision"') for path in originals]
    number = 0
    while rows > 0:
        original = originals[number % PLAYED]
        stem = re.sub(r"-\d+$", "", original.stem)
        os.link(original, out / f"{stem}-{number}.json")
        rows -= decisions[number % PLAYED]
        number += 1
    return OPTIONS


def naive(source: Path) -> list[dict[str, Any]]:
    """The winners' decisions of all logs, each with the board as its round began."""
    logs = [json.loads(path.read_text()) for path in sorted(source.glob("training-*.json"))]
    return [one for log in logs for one in _rows(log)]


def _rows(log: dict[str, Any]) -> list[dict[str, Any]]:
    events = log["events"]
    winner = next((e.get("winner") for e in events if e["type"] == "game_end"), None)
    turn, made = None, []
    for event in events:
        if event["type"] == "turn_start":
            turn = event
        if event["type"] == "agent_decision" and turn and winner in ("player", "opponent"):
            me = next(u for u in turn["units"] if u["id"] == event["unitId"])
            if me["side"] == winner:
                made.append(_row(turn, me, event))
    return made


def _row(turn: dict[str, Any], me: dict[str, Any], event: dict[str, Any]) -> dict[str, Any]:
    lines = [f"=== ROUND {turn['turn']} ===", f'Your prompt: "{me["prompt"]}"', _line(me, me)]
    lines += [_line(u, me) for u in turn["units"] if u["hp"] > 0 and u is not me]
    lines.append(" ".join(turn["turnStack"]))
    keys = ("thinking", "firstAction", "secondAction")
    answer = json.dumps({key: event[key] for key in keys}, ensure_ascii=False)
    said = {"system": f"You are {me['name']}.", "user": "\n".join(lines), "assistant": answer}
    return {"messages": [{"role": role, "content": text} for role, text in said.items()]}


def _line(u: dict[str, Any], me: dict[str, Any]) -> str:
    x, y = u["position"]["x"], u["position"]["y"]
    gap = abs(x - me["position"]["x"]) + abs(y - me["position"]["y"])
    status = ",".join(effect["type"] for effect in u["statusEffects"])
    return f"{u['name']} ({u['class']}) at ({x},{y}), HP {u['hp']}/{u['maxHp']}, {gap} [{status}]"
