"""The recipe `games` on the shared samples: boards, failures and counts against the oracle."""

import json
from collections import Counter
from pathlib import Path

import pytest

from stages.core.example import Example, Reject
from stages.recipes import games
from stages.recipes.games.outcomes import failure
from stages.recipes.games.replay import Replay

SHARED = Path(__file__).parents[2] / "shared" / "samples" / "sibyl"
pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason="shared samples are not here")


def options(sides="winners", min_version="0.0.0", failed_actions="keep", pairs="none"):
    return games.Options(
        sides=sides, min_version=min_version, failed_actions=failed_actions, pairs=pairs
    )


def run(folder, **chosen):
    found = list(games.examples(folder, options(**chosen)))
    rejects = [one for one in found if isinstance(one, Reject)]
    return [one for one in found if isinstance(one, Example)], rejects


def truths():
    for path in sorted((SHARED / "games").glob("*.json")):
        log = json.loads(path.read_text())
        lines = (SHARED / "truth" / f"truth-{path.stem[9:]}.jsonl").read_text().splitlines()
        yield path.name, log, [json.loads(line) for line in lines]


def test_the_board_of_all_1196_decisions_is_the_oracles():
    wrong, seen = [], 0
    for name, log, truth in truths():
        replay = Replay(log["events"], log["balance"])
        for found, true in zip(replay.decisions(), truth, strict=True):
            seen += 1
            units = [
                (u.id, {"x": u.x, "y": u.y}, u.hp, u.facing, u.effects, u.prompt, u.heals)
                for u in replay.board.units
            ]
            wanted = [
                (
                    *(u["id"], u["position"], u["hp"], u["facing"], u["statusEffects"]),
                    *(u["prompt"], u.get("healsUsed", 0)),
                )
                for u in true["units"]
            ]
            traps = [
                {"position": {"x": x, "y": y}, "owner": owner, "side": side}
                for x, y, owner, side in replay.board.traps
            ]
            if (units, traps, found.round) != (wanted, true["traps"], true["round"]):
                wrong.append(f"{name}#{found.n}")
    assert (seen, wrong) == (1196, [])


def test_the_snapshot_of_the_rounds_start_is_stale_for_928_decisions_and_188_units_of_their_own():
    """What the seed shows: a board of the past, and enemies who were cloaked then."""
    keys = ("position", "hp", "facing", "statusEffects", "prompt")
    stale = Counter()
    for _, log, truth in truths():
        rows, shown = iter(truth), {}
        for event in log["events"]:
            if event["type"] == "turn_start":
                shown = {unit["id"]: unit for unit in event["units"]}
            elif event["type"] == "agent_decision":
                true = {unit["id"]: unit for unit in next(rows)["units"]}
                own = shown[event["unitId"]]
                old = {
                    one for one in true if any(shown[one].get(k) != true[one].get(k) for k in keys)
                }
                foes = [unit for unit in shown.values() if unit["side"] != own["side"]]
                cloaked = any(one["type"] == "cloaked" for u in foes for one in u["statusEffects"])
                stale += Counter(decisions=1, board=bool(old), own=own["id"] in old, foe=cloaked)
    assert stale == {"decisions": 1196, "board": 928, "own": 188, "foe": 94}


def test_the_decisions_with_a_failed_action_are_exactly_the_oracles_102():
    found_failed, truly_failed = [], []
    for name, log, truth in truths():
        replay = Replay(log["events"], log["balance"])
        for found, true in zip(replay.decisions(), truth, strict=True):
            assert found.unit is not None
            if failure(replay, found, found.unit):
                found_failed.append(f"{name}#{found.n}")
            if true["firstError"] or true["secondError"]:
                truly_failed.append(f"{name}#{found.n}")
    assert len(truly_failed) == 102
    assert found_failed == truly_failed


@pytest.mark.parametrize(
    ("run_of_reference", "min_version", "count", "matches"),
    [(0, "0.0.0", 500, 21), (2, "0.5.3", 444, 19), (3, "0.5.10", 223, 10)],
)
def test_winners_decisions_are_the_references_by_class_side_round_and_game(
    run_of_reference, min_version, count, matches
):
    facts = json.loads((SHARED / "facts.json").read_text())["reference_converter"]
    reference = facts["runs"][run_of_reference]
    made, _ = run(SHARED / "games", min_version=min_version)
    assert (len(made), len({one.group for one in made})) == (count, matches)
    for ours, theirs in (("class", "by_class"), ("side", "by_side"), ("round", "by_round")):
        counts = Counter(str(one.meta[ours]) for one in made)
        assert dict(counts) == reference[theirs]
    assert dict(Counter(one.group for one in made)) == reference["by_game"]
    assert {one.meta["won"] for one in made} == {True}


def test_all_sides_are_the_decided_matches_and_in_plus_out_adds_up():
    made, rejects = run(SHARED / "games", sides="all")
    decided = [log for _, log, _ in truths() if log["events"][-1].get("winner") in games.logs.SIDES]
    decisions = sum(event["type"] == "agent_decision" for log in decided for event in log["events"])
    assert len(made) == decisions == 914
    assert Counter(one.code for one in rejects) == {"draw": 2, "unfinished": 2}
    assert len(decided) + len(rejects) == 25


def test_dropping_failed_actions_leaves_only_legal_answers():
    made, rejects = run(SHARED / "games", sides="all", failed_actions="drop")
    codes = Counter(one.code for one in rejects)
    assert codes == {"failed_action": 95, "parse_error": 19, "draw": 2, "unfinished": 2}
    assert len(made) + codes["failed_action"] + codes["parse_error"] == 914
    for one in made:
        scores = games.judge(one, one.messages[-1]["content"])
        assert set(scores.values()) == {1.0}, one.source


def test_no_prompt_shows_a_cloaked_enemy_an_enemy_trap_or_anothers_orders():
    cloaked = 0
    made, _ = run(SHARED / "games", sides="all")
    truth = {name: rows for name, _, rows in truths()}
    for one in made:
        name, n = one.source.split("#")
        row = truth[name][int(n) - 1]
        side, text = one.meta["side"], one.messages[1]["content"].split("\nYou: ")[1]
        for other in row["units"]:
            hidden = any(effect["type"] == "cloaked" for effect in other["statusEffects"])
            if other["side"] != side and other["hp"] > 0 and hidden:
                cloaked += 1
                assert f"{other['name']} ({other['class']}) at" not in text.split("Enemies:")[1]
                assert other["id"] not in text
            if other["id"] != one.meta["unitId"]:
                assert other["prompt"] not in text
        own = [trap for trap in row["traps"] if trap["side"] == side]
        line = [part for part in text.splitlines() if part.startswith("Your traps:")]
        assert len(line) == bool(own)
        assert sum(part.count("(") for part in line) == len(own)
    assert cloaked == 95


def test_without_balance_all_but_three_boards_are_still_the_oracles():
    wrong = 0
    for _, log, truth in truths():
        replay = Replay(log["events"], None)
        for _, true in zip(replay.decisions(), truth, strict=True):
            ours = [(u.x, u.y, u.hp, u.effects, u.prompt) for u in replay.board.units]
            wrong += ours != [
                (*u["position"].values(), u["hp"], u["statusEffects"], u["prompt"])
                for u in true["units"]
            ]
    assert wrong == 3


def test_of_the_sample_games_every_winners_decision_is_a_pair_or_a_counted_reject():
    plain, _ = run(SHARED / "games")
    made, rejects = run(SHARED / "games", pairs="winner_loser")
    alone = [one for one in rejects if one.code == "no_pair"]
    assert (len(made), len(alone)) == (237, 263)
    assert len(plain) == 500
    assert {one.source for one in made} | {one.source for one in alone} == {
        one.source for one in plain
    }
    for one in made:
        assert one.rejected["content"] != one.messages[-1]["content"]
        assert games.judge(one, one.rejected["content"])["json"] == 1.0
        assert one.meta["rejectedSource"].split("#")[0] == one.source.split("#")[0]
