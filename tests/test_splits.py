"""Splits: no group and no prompt on two sides, the same ones everywhere, and leaks are seen."""

import os
import random
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest
from project import ROOT

from stages.core import splits
from stages.core.errors import TunesmithError
from stages.core.example import Example


def row(group: str, question: str, answer: str = "Yes.", system: str = "") -> Example:
    messages = [{"role": "system", "content": system}] if system else []
    messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return Example(messages, "x#1", group)


def some_rows(seed: int) -> list[Example]:
    """300 rows in 60 groups of 1 to 20, a fifth of them asking what another group asks too."""
    draw = random.Random(seed)
    rows = []
    for number in range(300):
        question = f"Shared question {draw.randrange(40)}?" if draw.random() < 0.2 else f"q{number}"
        rows.append(row(f"g{min(draw.randrange(60), draw.randrange(60))}", question))
    return rows


@pytest.mark.parametrize("seed", range(5))
def test_no_group_and_no_prompt_stands_on_two_sides(seed: int) -> None:
    rows = some_rows(seed)
    sides = splits.assign(rows, seed, 0.05, 0.1)
    for key in (splits.prompt, lambda found: found.group):
        where: dict[str, set[str]] = {}
        for found, side in zip(rows, sides, strict=True):
            where.setdefault(key(found), set()).add(side)
        assert all(len(found) == 1 for found in where.values())
    assert splits.leaks(rows, sides) == {"prompt": 0, "group": 0, "example": 0}


def test_groups_chained_by_shared_prompts_stay_together() -> None:
    chain = [row(f"g{n}", f"question {n + extra}") for n in range(10) for extra in (0, 1)]
    rows = [*chain, row("a", "alone"), row("b", "alone too")]
    sides = splits.assign(rows, 1, 0.04, 0.04)
    assert len(set(sides[: len(chain)])) == 1


def test_the_sizes_are_the_fractions_asked_for() -> None:
    rows = [row(f"g{number}", f"q{number}") for number in range(1000)]
    assert Counter(splits.assign(rows, 3, 0.05, 0.1)) == {"train": 850, "valid": 50, "test": 100}


def test_a_huge_group_does_not_end_in_a_small_split() -> None:
    rows = [row("huge", f"h{number}") for number in range(900)]
    rows += [row(f"g{number}", f"q{number}") for number in range(300)]
    for seed in range(8):
        sides = Counter(splits.assign(rows, seed, 0.05, 0.1))
        assert sides == {"train": 1020, "valid": 60, "test": 120}


def test_fractions_of_nothing_leave_all_to_train() -> None:
    rows = [row(f"g{number}", f"q{number}") for number in range(10)]
    assert set(splits.assign(rows, 1, 0.0, 0.0)) == {"train"}


def test_three_groups_are_enough_for_three_splits() -> None:
    rows = [row(f"g{number}", f"q{number}") for number in range(3)]
    assert sorted(splits.assign(rows, 1, 0.01, 0.01)) == ["test", "train", "valid"]


@pytest.mark.parametrize("groups", [1, 2])
def test_too_few_groups_are_refused_with_what_is_left_empty(groups: int) -> None:
    rows = [row(f"g{number % groups}", f"q{number}") for number in range(20)]
    with pytest.raises(
        TunesmithError, match=rf"20 examples in {groups} groups? .*leave nothing for"
    ):
        splits.assign(rows, 1, 0.1, 0.1)


def test_another_seed_gives_another_split() -> None:
    rows = [row(f"g{number}", f"q{number}") for number in range(100)]
    assert splits.assign(rows, 1, 0.1, 0.1) != splits.assign(rows, 2, 0.1, 0.1)


def test_a_row_more_moves_few_others() -> None:
    rows = [row(f"g{number}", f"q{number}") for number in range(200)]
    before = splits.assign(rows, 1, 0.1, 0.1)
    after = splits.assign([*rows, row("new", "new")], 1, 0.1, 0.1)[:-1]
    assert sum(old != new for old, new in zip(before, after, strict=True)) <= 4


def probe(group: str, question: str) -> Example:
    return replace(row(group, question), meta={"probe": True})


@pytest.mark.parametrize("seed", range(8))
def test_a_probe_and_all_that_shares_its_prompt_or_group_stand_in_test(seed: int) -> None:
    rows = [row(f"g{number}", f"q{number}") for number in range(200)]
    rows += [probe("p1", "Q7"), probe("p2", "only asked here"), row("p2", "of the same group")]
    rows += [row("far", "q9"), row("far", "Q7")]  # q9 is joined to q7, which a probe asks
    sides = splits.assign(rows, seed, 0.05, 0.1)
    assert {sides[at] for at in (7, 9, 200, 201, 202, 203, 204)} == {"test"}
    assert splits.leaks(rows, sides) == {"prompt": 0, "group": 0, "example": 0}


def test_probes_come_on_top_of_the_fractions_of_the_other_rows() -> None:
    rows = [row(f"g{number}", f"q{number}") for number in range(100)]
    rows += [probe(f"p{number}", f"p{number}") for number in range(40)]
    assert Counter(splits.assign(rows, 1, 0.05, 0.1)) == {"train": 85, "valid": 5, "test": 50}


def test_probes_leave_the_split_of_the_other_rows_as_it_is() -> None:
    rows = [row(f"g{number}", f"q{number}") for number in range(100)]
    alone = splits.assign(rows, 1, 0.05, 0.1)
    assert splits.assign([*rows, probe("p", "p")], 1, 0.05, 0.1)[:-1] == alone


def test_probes_are_tested_even_where_nothing_else_is() -> None:
    rows = [row("a", "One?"), row("b", "Two?"), probe("c", "Three?")]
    assert splits.assign(rows, 1, 0.0, 0.0) == ["train", "train", "test"]


@pytest.mark.parametrize("value", [False, "true", 1, None])
def test_only_true_makes_a_probe(value: object) -> None:
    assert not splits.is_probe(replace(row("a", "One?"), meta={"probe": value}))


def test_a_dataset_of_probes_alone_is_refused() -> None:
    with pytest.raises(
        TunesmithError, match="0 examples in 0 groups beside 3 in groups with a probe"
    ):
        splits.assign([probe(f"p{number}", f"p{number}") for number in range(3)], 1, 0.0, 0.0)


CODE = """
from test_splits import some_rows
from stages.core import splits
print(splits.assign(some_rows(4), 42, 0.05, 0.1))
"""


def test_the_split_is_the_same_under_every_hash_seed() -> None:
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    found = {
        subprocess.check_output(
            [sys.executable, "-c", CODE], env={"PYTHONHASHSEED": seed, "PYTHONPATH": path}
        )
        for seed in ("1", "2")
    }
    assert found == {f"{splits.assign(some_rows(4), 42, 0.05, 0.1)}\n".encode()}


def test_planted_leaks_are_counted_by_kind() -> None:
    rows = [
        row("a", "Where is the key?", "Here."),
        row("b", "  where IS the\nkey? ", "There."),  # the same prompt in other clothes
        row("a", "Another question", "No."),  # the same group
        row("c", "Where is the key?", "Here."),  # the same whole text, so the same prompt
        row("d", "Quite new", "Yes."),
    ]
    sides = ["train", "test", "valid", "valid", "test"]
    assert splits.leaks(rows, sides) == {"prompt": 2, "group": 1, "example": 1}
    with pytest.raises(TunesmithError, match="share 2 × prompt, 1 × group, 1 × example"):
        splits.refuse_leaks(rows, sides, "datasets.x.split")


def test_a_leak_between_valid_and_test_counts_too() -> None:
    rows = [row("a", "One?"), row("b", "Two?", "A."), row("c", "Two?", "B.")]
    assert splits.leaks(rows, ["train", "valid", "test"])["prompt"] == 1


def test_a_system_message_does_not_hide_a_shared_prompt() -> None:
    rows = [row("a", "One?", system="Be brief."), row("b", "One?", system="Be kind.")]
    assert splits.leaks(rows, ["train", "test"])["prompt"] == 1


def test_rows_of_one_side_may_repeat_each_other() -> None:
    rows = [row("a", "One?"), row("b", "One?"), row("c", "Two?")]
    splits.refuse_leaks(rows, ["train", "train", "test"], "datasets.x.split")
