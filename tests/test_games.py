"""The recipe `games`: boards replayed from events, whose decisions count, what is hidden."""

import json
import shutil

import pytest
from pydantic import ValidationError

from stages.core import dialogue
from stages.core.errors import TunesmithError
from stages.core.example import Example, Reject
from stages.recipes import games

BALANCE = {
    "unitStats": {
        "oracle": {"maxHp": 5, "movement": 2, "range": 3, "speed": 3},
        "specter": {"maxHp": 4, "movement": 3, "range": 1, "speed": 3},
    },
    "abilities": {
        "attack": {"damage": 1},
        "scan": {"damage": 2},
        "shadowStrike": {"damage": 1},
        "cloak": {"duration": 2},
        "breach": {"maxUses": 2, "cooldown": 2, "duration": 3, "range": 2},
    },
}


def unit(name, cls, side, x, y, hp=5, effects=(), prompt="Go."):
    return {
        "id": f"{side[0]}-{name}",
        "name": name,
        "class": cls,
        "side": side,
        "hp": hp,
        "maxHp": 5,
        "speed": 3,
        "position": {"x": x, "y": y},
        "facing": "N",
        "statusEffects": list(effects),
        "prompt": prompt,
    }


def decision(unit_id, first, second=None, thinking="So."):
    second = second or {"type": "wait"}
    return {
        "type": "agent_decision",
        "unitId": unit_id,
        "thinking": thinking,
        "firstAction": first,
        "secondAction": second,
        "durationMs": 1,
    }


def scan(x, y):
    return {"type": "ability", "ability": "scan", "target": {"x": x, "y": y}}


def write_log(folder, units, events, traps=(), end="player", name="training-v0.5.9-1.json", **top):
    start = {"type": "game_start", "grid": {"width": 6, "height": 6}, "units": units}
    order = [one["id"] for one in units]
    turn = {"type": "turn_start", "turn": 1, "side": "player", "units": units}
    log = {"gameId": "g1", "balance": BALANCE, **top}
    log["events"] = [
        {"type": "game_config", "player": {}, "opponent": {}, "agent": "cli"},
        {**start, "turnStack": order},
        {**turn, "traps": list(traps), "turnStack": order},
        *events,
        {"type": "game_end", "winner": end, "reason": "", "totalTurns": 1, "survivors": units},
    ]
    (folder / name).write_text(json.dumps(log))


def options(sides="winners", min_version="0.0.0", failed_actions="keep", pairs="none"):
    return games.Options(
        sides=sides, min_version=min_version, failed_actions=failed_actions, pairs=pairs
    )


def run(folder, **chosen):
    found = list(games.examples(folder, options(**chosen)))
    rejects = [one for one in found if isinstance(one, Reject)]
    return [one for one in found if isinstance(one, Example)], rejects


def asked(example):
    return example.messages[1]["content"]


def test_an_unrecorded_scan_is_on_the_board_of_the_next_decision(tmp_path):
    units = [unit("Ona", "oracle", "player", 0, 0), unit("Sid", "specter", "opponent", 0, 3, hp=4)]
    write_log(
        tmp_path,
        units,
        [decision("p-Ona", scan(0, 3)), decision("o-Sid", {"type": "wait"})],
    )
    made, _ = run(tmp_path, sides="all")
    assert "Sid (specter) at (0,3), HP 4/5" in asked(made[0])
    assert "You: Sid (specter) at (0,3), HP 2/5, facing N" in asked(made[1])


def test_an_unrecorded_addendum_is_read_from_the_snapshot_that_ends_the_round(tmp_path):
    units = [unit("Ona", "oracle", "player", 0, 0), unit("Sid", "specter", "player", 0, 1)]
    later = [units[0], units[1] | {"prompt": "Go.\nStay low."}]
    guide = {"type": "ability", "ability": "recalibrate", "target": {"x": 0, "y": 1}}
    snapshot = {"type": "turn_end", "turn": 1, "side": "player", "units": later, "traps": []}
    events = [decision("p-Ona", guide), decision("p-Sid", {"type": "wait"}), snapshot]
    write_log(tmp_path, units, events)
    made, _ = run(tmp_path)
    assert 'Your prompt: "Go.\nStay low."' in asked(made[1])


def test_a_legal_action_that_left_no_event_failed(tmp_path):
    units = [unit("Sid", "specter", "player", 0, 0), unit("Foe", "oracle", "opponent", 0, 1)]
    breach = {"type": "ability", "ability": "breach", "target": {"x": 0, "y": 1}}
    told = {"type": "breach", "attackerId": "p-Sid", "targetId": "o-Foe"}
    told |= {"oldPrompt": "Go.", "newPrompt": "Stop."}
    write_log(tmp_path, units, [decision("p-Sid", breach)])
    write_log(tmp_path, units, [decision("p-Sid", breach), told], name="training-v0.5.9-2.json")
    made, rejects = run(tmp_path, failed_actions="drop")
    assert [one.source for one in made] == ["training-v0.5.9-2.json#1"]
    assert [one.row() for one in rejects] == [
        {
            "source": "training-v0.5.9-1.json#1",
            "code": "failed_action",
            "reason": "The first action failed: nothing came of it.",
        }
    ]


def test_a_prompt_has_the_units_view_line_by_line(tmp_path):
    hidden = {"type": "cloaked", "turnsLeft": 1}
    units = [
        unit("Ona", "oracle", "player", 2, 0, effects=[{"type": "suppressed"}]),
        unit("Ally", "specter", "player", 2, 3, hp=3),
        unit("Foe", "oracle", "opponent", 5, 0, effects=[{"type": "suppressed"}]),
        unit("Ghost", "specter", "opponent", 1, 1, effects=[hidden]),
        unit("Dead", "specter", "opponent", 4, 4, hp=0),
    ]
    traps = [
        {"position": {"x": 1, "y": 2}, "owner": "p-Ally", "side": "player"},
        {"position": {"x": 3, "y": 3}, "owner": "o-Foe", "side": "opponent"},
    ]
    write_log(tmp_path, units, [decision("p-Ona", {"type": "wait"})], traps=traps)
    made, _ = run(tmp_path)
    assert asked(made[0]).splitlines() == [
        "=== ROUND 1 ===",
        'Your prompt: "Go."',
        "",
        "You: Ona (oracle) at (2,0), HP 5/5, facing N",
        "  Status: suppressed",
        "",
        "Allies:",
        "  Ally (specter) at (2,3), HP 3/5, dist=3",
        "",
        "Enemies:",
        "  Foe (oracle) at (5,0), HP 5/5, dist=3 [suppressed]",
        "",
        "Your traps: (1,2)",
        "Turn order: p-Ona → p-Ally → o-Foe",
    ]
    assert made[0].messages[2]["content"] == (
        '{"thinking":"So.","firstAction":{"type":"wait"},"secondAction":{"type":"wait"}}'
    )
    assert (made[0].source, made[0].group) == ("training-v0.5.9-1.json#1", "g1")


def test_the_class_numbers_in_the_system_text_come_from_the_logs_own_balance(tmp_path):
    units = [unit("Ona", "oracle", "player", 2, 0)]
    write_log(tmp_path, units, [decision("p-Ona", {"type": "wait"})])
    made, _ = run(tmp_path)
    system = made[0].messages[0]["content"]
    assert "You are Ona, class oracle. 5 hp, moves 2, range 3, speed 3." in system
    assert "within 4 tiles, 2 damage" in system


def test_without_balance_no_number_is_invented_and_legality_is_not_scored(tmp_path):
    units = [unit("Ona", "oracle", "player", 2, 0)]
    write_log(tmp_path, units, [decision("p-Ona", {"type": "wait"})], balance=None)
    made, _ = run(tmp_path)
    told = made[0].messages[0]["content"].splitlines()[1]
    assert told.endswith("numbers of your class. Abilities: attack, scan, recalibrate.")
    assert not any(letter.isdigit() for letter in told)
    assert "legal" not in games.judge(made[0], made[0].messages[-1]["content"])


def test_a_new_version_sorts_after_an_old_one_and_not_by_its_spelling(tmp_path):
    units = [unit("Ona", "oracle", "player", 2, 0)]
    waits = [decision("p-Ona", {"type": "wait"})]
    for name in ("training-v0.5.10-2", "training-v0.5.9-11", "training-v0.5.9-2", "training-x"):
        write_log(tmp_path, units, waits, name=f"{name}.json")
    made, _ = run(tmp_path)
    assert [one.source for one in made] == [
        "training-x.json#1",
        "training-v0.5.9-2.json#1",
        "training-v0.5.9-11.json#1",
        "training-v0.5.10-2.json#1",
    ]


def test_a_bad_min_version_is_refused_by_the_name_of_its_field():
    with pytest.raises(ValidationError, match="min_version"):
        options(min_version="0.6")


def test_an_unknown_side_is_refused_by_the_name_of_its_field():
    with pytest.raises(ValidationError, match="sides"):
        options(sides="both")


def test_a_missing_folder_says_where_and_what_to_do(tmp_path):
    with pytest.raises(TunesmithError, match=r"no folder of match logs(.|\n)*do .*source"):
        run(tmp_path / "nowhere")


def test_one_broken_file_is_a_reject_and_the_next_one_is_used(tmp_path):
    units = [unit("Ona", "oracle", "player", 2, 0)]
    write_log(tmp_path, units, [decision("p-Ona", {"type": "wait"})])
    lost = [{"type": "unit_moved", "unitId": "p-Ona"}, decision("p-Ona", {"type": "wait"})]
    write_log(tmp_path, units, lost, name="training-v0.5.9-2.json")
    shutil.copy(tmp_path / "training-v0.5.9-1.json", tmp_path / "training-v0.5.9-3.json")
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / ".complete.json").write_text("{}")
    made, rejects = run(tmp_path)
    assert [one.source for one in made] == ["training-v0.5.9-1.json#1", "training-v0.5.9-3.json#1"]
    assert [(one.source, one.code) for one in rejects] == [
        ("notes.txt", "not_a_log"),
        ("training-v0.5.9-2.json", "broken_event"),
    ]
    assert rejects[1].reason == "Event 4 (unit_moved) is damaged: KeyError('to')."


def test_an_impossible_board_does_not_pass_the_check(tmp_path):
    units = [unit("Ona", "oracle", "player", 2, 0), unit("Sid", "specter", "opponent", 2, 0)]
    write_log(tmp_path, units, [decision("p-Ona", {"type": "wait"})])
    made, _ = run(tmp_path)
    assert games.check(made[0]) == "Two living units stand on one tile."


STEP = {"type": "move", "target": {"x": 1, "y": 0}}
FAR = {"type": "move", "target": {"x": 5, "y": 5}}
WAIT = {"type": "wait"}


def write_duel(folder, *events, **chosen):
    """Ona wins; Lou is an oracle and Sid a specter of the side that loses."""
    units = [
        unit("Ona", "oracle", "player", 0, 0),
        unit("Lou", "oracle", "opponent", 4, 4),
        unit("Sid", "specter", "opponent", 5, 5),
    ]
    turn = {"type": "turn_start", "side": "player", "units": units, "traps": []}
    order = [one["id"] for one in units]
    rounds = [
        turn | {"turn": one, "turnStack": order} if type(one) is int else one for one in events
    ]
    write_log(folder, units, rounds, **chosen)


def paired(folder, **chosen):
    made, rejects = run(folder, pairs="winner_loser", **chosen)
    return made, [(one.source.split("#")[1], one.code) for one in rejects]


def test_a_pair_is_the_winners_board_and_answer_against_the_nearest_loser_of_its_class(tmp_path):
    write_duel(
        tmp_path,
        decision("o-Lou", scan(1, 1)), 2, decision("o-Lou", scan(2, 2)), 3,
        decision("p-Ona", STEP), decision("o-Sid", STEP), 4, decision("o-Lou", scan(3, 3)),
    )  # fmt: skip
    plain, _ = run(tmp_path)
    (made,), rejects = paired(tmp_path)
    # rounds 2 and 4 are as near to 3: the earlier decision is taken
    assert json.loads(made.rejected["content"])["firstAction"] == scan(2, 2)
    assert made.rejected["role"] == "assistant"
    assert made.messages == plain[0].messages
    told = {"rejectedSource": "training-v0.5.9-1.json#2", "rejectedRound": 2}
    assert made.meta == plain[0].meta | told
    assert rejects == [("1", "losing_side"), ("2", "losing_side"), ("4", "losing_side"),
                       ("5", "losing_side")]  # fmt: skip


def test_who_acted_the_same_or_in_another_class_is_no_partner(tmp_path):
    same = decision("o-Lou", STEP, thinking="Another thought.")
    write_duel(tmp_path, decision("p-Ona", STEP), same, decision("o-Sid", FAR))
    assert paired(tmp_path) == ([], [("1", "no_pair"), ("2", "losing_side"), ("3", "losing_side")])


def test_answers_that_were_never_read_are_not_rejected_in_a_pair(tmp_path):
    write_duel(tmp_path, decision("p-Ona", STEP), decision("o-Lou", {"type": "unknown"}))
    assert paired(tmp_path)[1] == [("1", "no_pair"), ("2", "losing_side")]


def test_failed_actions_are_dropped_on_both_sides_of_a_pair(tmp_path):
    moved = {"type": "unit_moved", "unitId": "p-Ona", "newFacing": "E"}
    moved |= {"to": {"x": 1, "y": 0}, "from": {"x": 0, "y": 0}}
    write_duel(tmp_path, decision("p-Ona", STEP), moved, decision("o-Lou", FAR))
    assert paired(tmp_path, failed_actions="drop")[1][0] == ("1", "no_pair")
    assert len(paired(tmp_path, failed_actions="keep")[0]) == 1
    write_duel(tmp_path, decision("p-Ona", STEP), moved, decision("o-Lou", WAIT))
    assert len(paired(tmp_path, failed_actions="drop")[0]) == 1
    write_duel(tmp_path, decision("p-Ona", FAR), decision("o-Lou", WAIT))
    assert paired(tmp_path, failed_actions="drop")[1][0] == ("1", "failed_action")
    assert len(paired(tmp_path, failed_actions="keep")[0]) == 1


def test_a_pair_passes_the_rules_of_chats_and_says_the_same_twice_over(tmp_path):
    write_duel(tmp_path, decision("p-Ona", STEP), decision("o-Lou", scan(1, 1)))
    (made,), _ = paired(tmp_path)
    assert dialogue.problem(made) is None
    assert paired(tmp_path)[0] == [made]


def test_pairs_of_both_sides_are_refused(tmp_path):
    with pytest.raises(ValidationError, match="pairs: winner_loser prompts with winners' boards"):
        options(sides="all", pairs="winner_loser")
