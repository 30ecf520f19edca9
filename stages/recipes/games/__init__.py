"""SIBYL match logs in; one chat for each decision out: the board asks, the recorded move answers.

Every decision of a decided match becomes an example or a reject `<file>#<n>`, n its number in
the file from 1; every other file is one reject under its name. Reject codes of files:
`not_a_log`, `below_min_version`, `unknown_version`, `broken_json`, `no_events`, `broken_event`,
`no_config`, `unfinished`, `draw`, `no_decisions`. Of decisions: `before_turn_start`,
`unknown_unit`, `losing_side`, `unknown_class`, `no_turn_order`, `no_thinking`, `no_action`,
`unknown_action`, with `failed_actions: drop` also `parse_error` and `failed_action`, and with
`pairs: winner_loser` also `no_pair`.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from stages.core.example import Example, Reject
from stages.core.settings import Settings
from stages.recipes.games import logs, pairs, text
from stages.recipes.games.board import Unit, pack, pack_numbers, unpack
from stages.recipes.games.judge import judge, parse, shaped
from stages.recipes.games.outcomes import failure
from stages.recipes.games.replay import Decision, Replay

__all__ = ["METRICS", "STATS", "Options", "check", "examples", "judge"]

STATS = ("class", "side", "round", "version", "won")
METRICS = ("json", "legal", "agreement", "first_agreement")

ACTIONS = ("firstAction", "secondAction")


class Options(Settings):
    """Whose decisions, from which version on, whether failed ones stay, and which pairs to make.

    `min_version` is three integers with dots; "0.0.0" keeps all, files without version too.
    `pairs: winner_loser` gives each of the winner's decisions an answer of the loser's to reject.
    """

    sides: Literal["winners", "all"]
    min_version: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")]
    failed_actions: Literal["keep", "drop"]
    pairs: Literal["none", "winner_loser"]

    @model_validator(mode="after")
    def _sides_fit_pairs(self) -> Self:
        if self.pairs == "winner_loser" and self.sides != "winners":
            raise ValueError("pairs: winner_loser prompts with winners' boards: sides: winners")
        return self


def examples(source: Path, options: Options) -> Iterator[Example | Reject]:
    """Yield the examples and rejects of a folder of logs, one log in memory at a time.

    Raises:
        TunesmithError: no such folder, or no log in it.
    """
    for log in logs.read(source, options.min_version):
        if isinstance(log, Reject):
            yield log
        else:
            yield from _match(log, options)


def check(example: Example) -> str | None:
    """Why the board of this example cannot be: two units on a tile, or one off the grid."""
    board, unit, _ = unpack(example.meta["board"])
    living = [(one.x, one.y) for one in board.units if one.hp > 0]
    if len(set(living)) < len(living):
        return "Two living units stand on one tile."
    if not all(board.holds(*tile) for tile in living):
        return "A living unit stands off the grid."
    return None if unit.hp > 0 else "The unit that acts is dead."


def _match(log: logs.Log, options: Options) -> list[Example | Reject]:
    """All decisions of one log; a damaged event makes the whole log one reject."""
    replay = Replay(log.data["events"], log.data.get("balance"))
    found: list[Example | Reject] = []
    losers: list[pairs.Loser] = []
    try:
        for decision in replay.decisions():
            source = f"{log.name}#{decision.n}"
            made = _decision(log, replay, decision, options)
            found.append(Reject(source, *made) if isinstance(made, tuple) else made)
            if options.pairs == "winner_loser" and isinstance(made, tuple):
                losers += _loser(log, replay, decision, options)
    except (KeyError, TypeError, ValueError, AttributeError) as problem:
        kind = log.data["events"][replay.index]["type"]
        reason = f"Event {replay.index + 1} ({kind}) is damaged: {problem!r}."
        return [Reject(log.name, "broken_event", reason)]
    return pairs.paired(found, losers) if options.pairs == "winner_loser" else found


def _decision(
    log: logs.Log, replay: Replay, decision: Decision, options: Options
) -> Example | tuple[str, str]:
    """The example, or code and reason why this decision becomes none."""
    unit, event = decision.unit, decision.event
    if not decision.round:
        return "before_turn_start", "It stands before the first round, so no board is known."
    if unit is None:
        return "unknown_unit", f"No unit {event.get('unitId')!r} is on the board."
    if options.sides == "winners" and unit.side != log.winner:
        return "losing_side", f"{unit.name} is on the side that lost."
    if unit.cls not in text.ABILITIES:
        return "unknown_class", f"The game has no class {unit.cls!r}."
    if not decision.order:
        return "no_turn_order", f"Round {decision.round} has no turnStack."
    refused = _refused(event)
    if refused is None and options.failed_actions == "drop":
        refused = _failed(replay, decision, unit)
    return refused or _example(log, replay, decision, unit)


def _loser(
    log: logs.Log, replay: Replay, decision: Decision, options: Options
) -> Iterator[pairs.Loser]:
    """The decision as an answer to reject, if it is the losing side's and would have counted."""
    unit = decision.unit
    if not decision.round or unit is None or unit.side == log.winner or _refused(decision.event):
        return
    if options.failed_actions == "drop" and _failed(replay, decision, unit):
        return
    answer = text.assistant(decision.event)
    actions = parse(answer)
    if actions:  # an unreadable turn was recorded as `unknown`, which no unit may answer
        source = f"{log.name}#{decision.n}"
        yield pairs.Loser(unit.cls, decision.round, decision.n, source, answer, actions)


def _refused(event: Mapping[str, Any]) -> tuple[str, str] | None:
    """Code and reason why the recorded answer has not the form of an answer."""
    if not isinstance(event.get("thinking"), str):
        return "no_thinking", "The decision has no thinking text."
    for key in ACTIONS:
        action = event.get(key)
        if not isinstance(action, Mapping):
            return "no_action", f"The decision has no {key}."
        if action != {"type": "unknown"} and not shaped(action):
            return "unknown_action", f"{key} is not an action of the game: {dict(action)}."
    return None


def _failed(replay: Replay, decision: Decision, unit: Unit) -> tuple[str, str] | None:
    """Code and reason where the answer could not be read, or not carried out, at the time."""
    event = decision.event
    kinds = [event[key]["type"] for key in ACTIONS]
    waited = kinds == ["wait", "wait"] and "parse error" in event["thinking"].lower()
    if waited or "unknown" in kinds:
        return "parse_error", "The recorded answer could not be read, so the unit waited."
    reason = failure(replay, decision, unit)
    return ("failed_action", reason) if reason else None


def _example(log: logs.Log, replay: Replay, decision: Decision, unit: Unit) -> Example:
    board, numbers = replay.board, replay.numbers_of(unit.cls)
    messages = [
        {"role": "system", "content": text.system(unit, board, numbers)},
        {"role": "user", "content": text.user(board, unit, decision)},
        {"role": "assistant", "content": text.assistant(decision.event)},
    ]
    meta: dict[str, Any] = {"gameId": log.group, "unitId": unit.id, "class": unit.cls}
    meta |= {"side": unit.side, "round": decision.round, "won": unit.side == log.winner}
    if isinstance(log.data.get("model"), str):
        meta["model"] = log.data["model"]
    meta |= {"version": log.version, "board": pack(board, unit, pack_numbers(numbers))}
    return Example(messages, f"{log.name}#{decision.n}", log.group, meta)
