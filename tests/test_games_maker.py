"""The maker `games`: logs in the recorder's format, equal to the recipe's reading of them."""

from collections import Counter

import orjson
import pytest

from stages.core.example import Example, dumps
from stages.makers import games as maker
from stages.makers.games.actions import do
from stages.makers.games.engine import Match
from stages.makers.games.squads import balance
from stages.recipes import games
from stages.recipes.games import rules
from stages.recipes.games.outcomes import failure
from stages.recipes.games.replay import Replay

MATCHES = 60

# The keys of each event as the recorder writes them, in its order
EVENT_KEYS = {
    "game_config": "type player opponent agent",
    "unit_placed": "type unitId side class position",
    "game_start": "type grid units turnStack",
    "turn_start": "type turn side units traps turnStack",
    "agent_decision": "type unitId thinking firstAction secondAction durationMs",
    "unit_moved": "type unitId from to newFacing triggeredTrap",
    "damage_dealt": "type sourceId targetId amount ability targetHpAfter",
    "healing_done": "type sourceId targetId amount targetHpAfter healsRemaining",
    "status_applied": "type unitId effect source",
    "status_removed": "type unitId effectType reason",
    "unit_killed": "type unitId killerId ability",
    "trap_placed": "type unitId position",
    "trap_triggered": "type unitId position damage unitHpAfter",
    "breach": "type attackerId targetId oldPrompt newPrompt",
    "denial_blocked": "type unitId blockedAbility vectorId",
    "turn_end": "type turn side units traps",
    "game_end": "type winner reason totalTurns survivors",
}


@pytest.fixture(scope="module")
def played():
    return [maker.play(3, number) for number in range(MATCHES)]


def replayed(match):
    """The recipe's replay of the file's bytes: a snapshot there shares nothing with another."""
    log = orjson.loads(orjson.dumps(match.log))
    return Replay(log["events"], log["balance"])


def test_the_recipe_replays_every_board_to_the_byte_of_the_makers_truth(played):
    keys = ("id", "position", "hp", "facing", "statusEffects", "prompt")
    for match in played:
        replay = replayed(match)
        for found, true in zip(replay.decisions(), match.truth, strict=True):
            units = [
                {
                    "id": u.id,
                    "position": {"x": u.x, "y": u.y},
                    "hp": u.hp,
                    "facing": u.facing,
                    "statusEffects": u.effects,
                    "prompt": u.prompt,
                }
                for u in replay.board.units
            ]
            traps = [
                {"position": {"x": x, "y": y}, "owner": owner, "side": side}
                for x, y, owner, side in replay.board.traps
            ]
            wanted = [{key: unit[key] for key in keys} for unit in true["units"]]
            place = f"{match.name}#{found.n}"
            assert orjson.dumps([place, found.round, units, traps]) == orjson.dumps(
                [place, true["round"], wanted, true["traps"]]
            )


def test_the_recipe_finds_the_failed_actions_the_maker_knows(played):
    failed = 0
    for match in played:
        replay = replayed(match)
        for found, true in zip(replay.decisions(), match.truth, strict=True):
            assert found.unit is not None
            reason = failure(replay, found, found.unit)
            assert bool(reason) == any(true["errors"]), (match.name, found.n, reason)
            failed += bool(reason)
    assert failed > 20


def test_judge_and_maker_agree_on_the_legality_of_every_action(played):
    for match in played:
        replay = replayed(match)
        for found, true in zip(replay.decisions(), match.truth, strict=True):
            assert found.unit is not None
            board = replay.board.copy()
            unit = board.units[replay.board.units.index(found.unit)]
            numbers = replay.numbers_of(unit.cls)
            for key, error in zip(("firstAction", "secondAction"), true["errors"], strict=True):
                refused = rules.act(board, unit, found.event[key], numbers)
                assert bool(refused) == bool(error), (match.name, found.n, key, refused, error)


def test_examples_of_made_logs_are_legal_and_pass_the_check(tmp_path):
    maker.make(maker.Options(seed=5, games=20), tmp_path)
    options = games.Options(sides="all", min_version="0.0.0", failed_actions="drop", pairs="none")
    made = [one for one in games.examples(tmp_path, options) if isinstance(one, Example)]
    assert len(made) > 300
    for one in made:
        assert games.check(one) is None
        assert set(games.judge(one, one.messages[-1]["content"]).values()) == {1.0}
        assert sum(len(message["content"]) for message in one.messages) < 1700


def test_all_classes_abilities_effects_and_endings_occur(played):
    seen = Counter()
    for match in played:
        events = match.log["events"]
        seen[events[-1].get("winner", "stopped")] += 1
        for event in events:
            seen[event["type"]] += 1
            if event["type"] == "status_applied":
                seen[event["effect"]["type"]] += 1
            for key in ("firstAction", "secondAction"):
                if key in event:
                    seen[event[key].get("ability", event[key]["type"])] += 1
            seen.update(unit["class"] for unit in event.get("units", []))
    wanted = {*rules.ABILITIES, *games.text.ABILITIES, "move", "wait", "unknown"}
    wanted |= {"cloaked", "suppressed", "shieldWall", "overclocked", "fortified"}
    wanted |= {"player", "opponent", "draw", "stopped", *EVENT_KEYS}
    assert wanted - set(seen) == set()
    assert len({match.log["balance"]["version"] for match in played}) == 5


def test_events_have_the_recorders_keys_in_its_order(played):
    for match in played:
        for event in match.log["events"]:
            keys = EVENT_KEYS[event["type"]].split()
            if event.get("triggeredTrap"):
                keys.append("trapDamage")
            assert list(event) == keys


def test_the_same_seed_makes_the_same_bytes_and_another_seed_others(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        (tmp_path / name).mkdir()
        maker.make(maker.Options(seed=seed, games=3), tmp_path / name)
    files = {
        name: {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        for name in "abc"
    }
    assert len(files["a"]) == 3
    assert files["a"] == files["b"]
    assert not set(files["a"].values()) & set(files["c"].values())


def test_a_breached_unit_has_its_orders_back_after_three_turns():
    match = Match(balance((0, 5, 2)))
    match.place("player", {"name": "A", "class": "specter", "prompt": "Go."}, {"x": 0, "y": 2})
    match.place("opponent", {"name": "B", "class": "medic", "prompt": "Heal."}, {"x": 0, "y": 1})
    me, foe = match.units
    breach = {"type": "ability", "ability": "breach", "target": {"x": 0, "y": 1}}
    assert do(match, me, breach, "Sleep.") is None
    orders = []
    for _ in range(3):
        orders.append(foe["prompt"])
        match.end_turn(foe)
    assert [*orders, foe["prompt"]] == ["Sleep.", "Sleep.", "Sleep.", "Heal."]
    assert "originalPrompt" not in foe


def test_a_match_does_not_depend_on_how_many_are_made():
    assert dumps(maker.play(1, 7).log) == dumps(maker.play(1, 7).log)
    assert maker.play(1, 7).name.endswith("-7.json")
