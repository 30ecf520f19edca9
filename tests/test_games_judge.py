"""The judge of `games`: form, legality on the true board, agreement with the record."""

import json

import pytest

from stages.core.example import Example
from stages.recipes.games import judge
from stages.recipes.games.board import Board, Unit, pack, pack_numbers, unpack

NUMBERS = {
    "movement": 2,
    "range": 3,
    "attack.damage": 1,
    "precisionShot.damage": 2,
    "precisionShot.movedDamage": 1,
    "breach.range": 2,
    "breach.maxUses": 2,
    "breach.cooldown": 2,
    "patch.maxUses": 2,
    "patch.healAmount": 1,
    "trap.damage": 1,
}
WAIT = {"type": "wait"}


def unit(cls, side, x, y, hp=5, facing="N", effects=(), **more):
    row = {"id": cls, "name": cls, "class": cls, "side": side, "hp": hp, "maxHp": 5}
    row |= {"position": {"x": x, "y": y}, "facing": facing, "prompt": ""}
    row |= {"statusEffects": [{"type": effect} for effect in effects]}
    made = Unit(row)
    for name, value in more.items():
        setattr(made, name, value)
    return made


def move(x, y):
    return {"type": "move", "target": {"x": x, "y": y}}


def use(ability, x=None, y=None, **more):
    target = {} if x is None else {"target": {"x": x, "y": y}}
    return {"type": "ability", "ability": ability, **target, **more}


def answer(first, second=WAIT, thinking="Now."):
    return json.dumps({"thinking": thinking, "firstAction": first, "secondAction": second})


def asked(units, recorded=None, numbers=NUMBERS):
    board = Board(6, 6, units, [])
    meta = {"board": pack(board, units[0], pack_numbers(numbers))}
    said = {"role": "assistant", "content": recorded or answer(WAIT)}
    return Example([said], "m.json#1", "m", meta)


def legal(units, first, second=WAIT):
    return judge(asked(units), answer(first, second))["legal"]


FAR = unit("medic", "opponent", 5, 5)


@pytest.mark.parametrize(
    ("me", "others", "action", "verdict"),
    [
        (unit("striker", "player", 1, 1), [FAR], move(1, 3), 1.0),
        (unit("striker", "player", 1, 1), [FAR], move(1, 4), 0.0),
        (unit("striker", "player", 1, 1, effects=["suppressed"]), [FAR], move(1, 3), 0.0),
        (unit("striker", "player", 0, 1), [FAR], move(-1, 1), 0.0),
        (unit("striker", "player", 1, 1), [FAR], move(1, 1), 0.0),
        (unit("striker", "player", 1, 1), [unit("medic", "player", 1, 2)], move(1, 2), 0.0),
        (unit("striker", "player", 1, 1), [unit("medic", "player", 1, 2, hp=0)], move(1, 2), 1.0),
        (unit("striker", "player", 1, 1), [FAR], use("attack", 1, 2), 0.0),
        (unit("striker", "player", 1, 1), [FAR], use("attack", 1, 1), 0.0),
        (
            unit("striker", "player", 1, 1),
            [unit("medic", "player", 1, 2)],
            use("attack", 1, 2),
            1.0,
        ),
        (
            unit("striker", "player", 1, 1),
            [unit("specter", "opponent", 1, 2, effects=["cloaked"])],
            use("attack", 1, 2),
            0.0,
        ),
        (unit("striker", "player", 5, 2), [FAR], use("precision_shot", 5, 5), 1.0),
        (unit("striker", "player", 5, 1), [FAR], use("precision_shot", 5, 5), 0.0),
        (unit("striker", "player", 5, 1), [FAR], use("suppressing_fire", 0, 0), 1.0),
        (unit("striker", "player", 5, 2), [FAR], use("scan", 5, 5), 0.0),
        (unit("striker", "player", 5, 2), [FAR], use("lightning", 5, 5), 0.0),
        (
            unit("striker", "player", 1, 1),
            [unit("vector", "opponent", 1, 2)],
            use("precision_shot", 1, 2),
            0.0,
        ),
        (
            unit("striker", "player", 1, 1),
            [unit("vector", "opponent", 1, 2, hp=0), unit("medic", "opponent", 1, 3)],
            use("precision_shot", 1, 3),
            1.0,
        ),
        (unit("oracle", "player", 5, 1), [FAR], use("scan", 5, 5), 1.0),
        (unit("oracle", "player", 5, 0), [FAR], use("scan", 5, 5), 0.0),
        (unit("oracle", "player", 0, 0), [FAR], use("recalibrate", 0, 0), 1.0),
        (unit("oracle", "player", 0, 0), [FAR], use("recalibrate", 5, 5), 0.0),
        (unit("sentinel", "player", 0, 0), [FAR], use("shield_wall", direction="N"), 1.0),
        (unit("sentinel", "player", 0, 0), [FAR], use("shield_wall"), 0.0),
        (unit("medic", "player", 0, 0), [unit("oracle", "player", 0, 1)], use("patch", 0, 1), 1.0),
        (
            unit("medic", "player", 0, 0, heals=2),
            [unit("oracle", "player", 0, 1)],
            use("patch", 0, 1),
            0.0,
        ),
        (unit("medic", "player", 0, 0), [unit("oracle", "player", 0, 2)], use("patch", 0, 2), 0.0),
        (unit("specter", "player", 5, 4), [FAR], use("breach", 5, 5), 1.0),
        (unit("specter", "player", 5, 4, cooldown=1), [FAR], use("breach", 5, 5), 0.0),
        (unit("specter", "player", 5, 4, breaches=2), [FAR], use("breach", 5, 5), 0.0),
        (unit("specter", "player", 4, 5), [FAR], use("breach", 5, 5), 0.0),
        (unit("vector", "player", 0, 0), [FAR], use("trap", 0, 2), 1.0),
        (unit("vector", "player", 0, 0), [FAR], use("trap", 0, 3), 0.0),
        (unit("vector", "player", 0, 0), [FAR], use("trap", 0, -1), 0.0),
        (unit("vector", "player", 0, 0), [FAR], use("pulse"), 1.0),
    ],
)
def test_an_action_is_legal_where_the_game_allows_it(me, others, action, verdict):
    assert legal([me, *others], action) == verdict


def test_the_second_action_is_judged_on_the_board_the_first_one_leaves():
    me, foe = unit("medic", "player", 0, 0), unit("vector", "opponent", 2, 1, hp=1)
    assert legal([me, foe], use("attack", 2, 1), move(1, 1)) == 0.0
    assert legal([me, foe], move(1, 1), use("attack", 2, 1)) == 1.0
    near = unit("vector", "opponent", 0, 1, hp=1)
    assert legal([me, near], use("attack", 0, 1), move(0, 1)) == 1.0
    assert legal([me, unit("vector", "opponent", 0, 1, hp=2)], use("attack", 0, 1), move(0, 1)) == 0


def test_a_fortified_unit_takes_half_rounded_up():
    me = unit("striker", "player", 0, 0)
    wall = unit("sentinel", "opponent", 0, 2, hp=2, effects=["fortified"])
    assert legal([me, wall], use("precision_shot", 0, 2), move(0, 2)) == 0.0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Move north.",
        answer(WAIT) + " ok",
        "```json\n" + answer(WAIT) + "\n```",
        "[]",
        '{"thinking":"a","firstAction":{"type":"wait"}}',
        answer({"type": "fly"}),
        answer({"type": "move"}),
        answer(move(1.5, 0)),
        answer(move(True, 0)),
        answer({"type": "ability"}),
        answer(use("shield_wall", direction="up")),
        answer({"type": "wait", "why": 1}),
        answer(WAIT, thinking=None),
    ],
)
def test_an_answer_of_another_form_scores_0_in_everything(text):
    scores = judge(asked([unit("medic", "player", 0, 0)]), text)
    assert scores == {"json": 0.0, "legal": 0.0, "agreement": 0.0, "first_agreement": 0.0}


def test_agreement_needs_both_actions_and_no_thinking():
    example = asked([unit("medic", "player", 0, 0)], answer(move(0, 1), WAIT, "One."))
    same = judge(example, answer(move(0, 1), WAIT, "Two."))
    half = judge(example, answer(move(0, 1), use("attack", 3, 3)))
    assert (same["agreement"], same["first_agreement"]) == (1.0, 1.0)
    assert (half["agreement"], half["first_agreement"], half["legal"]) == (0.0, 1.0, 0.0)


def test_legality_does_not_apply_where_the_class_numbers_are_unknown():
    example = asked([unit("medic", "player", 0, 0)], numbers={})
    assert "legal" not in judge(example, answer(WAIT))


def test_a_board_survives_being_written_as_a_line():
    one = unit("specter", "opponent", 4, 2, hp=-1, effects=["cloaked", "suppressed"], breaches=1)
    me = unit("medic", "player", 0, 5, facing="W", heals=2, moved=True)
    line = pack(Board(6, 7, [one, me], [(1, 2, "o", "opponent")]), me, pack_numbers(NUMBERS))
    board, acting, numbers = unpack(line)
    assert pack(board, acting, pack_numbers(numbers)) == line
    assert (acting.cls, acting.moved, board.height, numbers) == ("medic", True, 7, NUMBERS)
