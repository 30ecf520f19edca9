"""The recipe `games` on damaged and unusual logs: every folder has a stated outcome."""

from collections import Counter
from pathlib import Path

import pytest

from stages.core.errors import TunesmithError
from stages.core.example import Example, Reject
from stages.recipes import games

BAD = Path(__file__).parents[2] / "shared" / "samples" / "sibyl" / "bad"
pytestmark = pytest.mark.skipif(not BAD.is_dir(), reason="shared samples are not here")

# folder -> options that differ from the default, examples, rejects by code
OUTCOMES = {
    "decision_before_turn_start": ({}, 17, {"before_turn_start": 1, "losing_side": 18}),
    "empty_events": ({}, 0, {"no_events": 1}),
    "min_version_short": (
        {"min_version": "0.6.0"},
        34,
        {"below_min_version": 1, "losing_side": 36},
    ),
    "no_events_key": ({}, 0, {"no_events": 1}),
    "no_game_config": ({}, 0, {"no_config": 1}),
    "no_game_end": ({}, 0, {"unfinished": 1}),
    "no_gameid": ({}, 17, {"losing_side": 18}),
    "no_model": ({}, 17, {"losing_side": 18}),
    "no_traps_key": ({}, 17, {"losing_side": 18}),
    "no_turnstack": ({}, 0, {"losing_side": 18, "no_turn_order": 17}),
    "no_winner": ({"sides": "all"}, 0, {"unfinished": 1}),
    "output_without_jsonl_ext": ({}, 17, {"losing_side": 18}),
    "second_action_missing": ({}, 0, {"losing_side": 18, "no_action": 17}),
    "thinking_missing": ({}, 0, {"losing_side": 18, "no_thinking": 17}),
    "thinking_null": ({}, 0, {"losing_side": 18, "no_thinking": 17}),
    "truncated_json": ({}, 17, {"broken_json": 1, "losing_side": 18}),
    "unit_without_position_round2": ({}, 17, {"losing_side": 18}),
    "unknown_action_kept": ({}, 0, {"losing_side": 18, "unknown_action": 17}),
    "unknown_class": ({}, 0, {"losing_side": 18, "unknown_class": 17}),
    "unknown_units": ({}, 0, {"unknown_unit": 35}),
    "unversioned_name_min_version": (
        {"min_version": "0.5.3"},
        0,
        {"below_min_version": 1, "unknown_version": 1},
    ),
    "version_order": ({"min_version": "0.5.10"}, 17, {"below_min_version": 1, "losing_side": 18}),
    "winner_draw_all_sides": ({"sides": "all"}, 0, {"draw": 1}),
    "winner_draw_winners": ({}, 0, {"draw": 1}),
}
DEFAULT = {
    "sides": "winners", "min_version": "0.0.0", "failed_actions": "keep", "pairs": "none",
}  # fmt: skip


def run(folder, **chosen):
    return list(games.examples(BAD / folder, games.Options(**(DEFAULT | chosen))))


def test_the_table_names_every_folder():
    assert {*OUTCOMES, "name_not_matching"} == {path.name for path in BAD.iterdir()}
    assert len(OUTCOMES) == 24


@pytest.mark.parametrize("folder", sorted(OUTCOMES))
def test_a_bad_folder_ends_as_stated(folder):
    chosen, examples, rejects = OUTCOMES[folder]
    found = run(folder, **chosen)
    assert sum(isinstance(one, Example) for one in found) == examples
    assert dict(Counter(one.code for one in found if isinstance(one, Reject))) == rejects
    assert all(one.reason.endswith(".") for one in found if isinstance(one, Reject))
    assert len({one.source for one in found}) == len(found)


def test_a_folder_without_any_log_is_the_users_mistake():
    with pytest.raises(TunesmithError, match="None of the 2 names in this folder is a match log"):
        run("name_not_matching")


def test_a_match_without_id_is_grouped_by_its_file():
    made = [one for one in run("no_gameid") if isinstance(one, Example)]
    assert {one.group for one in made} == {"training-v0.5.13-900.json"}


def test_a_log_without_model_has_none_in_its_meta():
    made = [one for one in run("no_model") if isinstance(one, Example)]
    assert not any("model" in one.meta for one in made)


def test_a_position_missing_from_one_snapshot_is_the_one_the_replay_knows():
    whole = [one.messages for one in run("no_model") if isinstance(one, Example)]
    mended = run("unit_without_position_round2")
    assert [one.messages for one in mended if isinstance(one, Example)] == whole
