"""The batch plan: every row once an epoch, the same on every machine, little padding."""

import random
import subprocess
import sys

import numpy as np

from stages.core import batches
from stages.core.batches import Rows

LENGTHS = [20 + 3 * (n * 37 % 101) for n in range(205)]
PINNED = [[[0]], [[6, 5]], [[2, 4]], [[3, 1]]]


def flat(steps):
    return [row for step in steps for micro in step for row in micro]


def test_every_row_comes_exactly_once_in_each_epoch():
    steps = batches.plan(LENGTHS, 8, 2, epochs=3, max_steps=0, seed=1)

    per_epoch = len(steps) // 3
    for epoch in range(3):
        rows = flat(steps[epoch * per_epoch : (epoch + 1) * per_epoch])
        assert sorted(rows) == list(range(205))


def test_the_epochs_differ_in_order_and_in_company():
    steps = batches.plan(LENGTHS, 8, 2, epochs=2, max_steps=0, seed=1)

    first, second = steps[: len(steps) // 2], steps[len(steps) // 2 :]
    assert {tuple(sorted(flat([s]))) for s in first} != {tuple(sorted(flat([s]))) for s in second}


def test_the_rows_of_a_step_depend_only_on_batch_size_times_accumulate():
    whole = batches.plan(LENGTHS, 8, 1, epochs=2, max_steps=0, seed=3)
    halves = batches.plan(LENGTHS, 4, 2, epochs=2, max_steps=0, seed=3)

    assert [flat([step]) for step in whole] == [flat([step]) for step in halves]
    assert max(len(micro) for step in halves for micro in step) == 4


def test_the_steps_of_an_epoch_differ_by_at_most_one_row():
    steps = batches.plan(LENGTHS, 16, 1, epochs=1, max_steps=0, seed=1)

    assert {len(flat([step])) for step in steps} == {15, 16}


def test_max_steps_decides_alone_and_goes_over_as_many_epochs_as_it_takes():
    long = batches.plan(LENGTHS, 50, 1, epochs=1, max_steps=12, seed=1)
    short = batches.plan(LENGTHS, 50, 1, epochs=9, max_steps=2, seed=1)

    assert len(long) == 12
    assert short == long[:2]
    assert sorted(flat(long[:5])) == list(range(205))


def test_the_plan_is_this_one_on_every_machine_and_under_any_hash_seed():
    code = (
        "from stages.core import batches; "
        "print(batches.plan([3, 9, 4, 8, 5, 7, 6], 2, 1, epochs=1, max_steps=0, seed=7))"
    )
    said = [
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True,
            text=True, check=True,
        ).stdout.strip()
        for seed in ("0", "123")
    ]  # fmt: skip
    assert said == [str(PINNED)] * 2


def test_sorting_by_length_leaves_an_eighth_of_padding_at_most():
    draw = random.Random(5)
    lengths = [int(30 + draw.expovariate(1 / 90)) for _ in range(2000)]

    steps = batches.plan(lengths, 32, 1, epochs=1, max_steps=0, seed=1)

    padded = sum(len(m) * max(lengths[row] for row in m) for step in steps for m in step)
    assert padded < 1.125 * sum(lengths)


def test_no_rows_make_no_steps():
    assert batches.plan([], 8, 1, epochs=1, max_steps=0, seed=1) == []
    assert batches.plan([], 8, 1, epochs=1, max_steps=5, seed=1) == []


def test_padding_stands_on_the_right_and_is_never_trained():
    rows = Rows(
        ids=np.array([5, 6, 7, 8, 9], np.uint32),
        trained=np.array([0, 1, 0, 1, 1], np.uint8),
        offsets=np.array([0, 2, 5]),
    )

    ids, labels = rows.padded([1, 0])

    assert ids.tolist() == [[7, 8, 9], [5, 6, 0]]
    assert labels.tolist() == [[-100, 8, 9], [-100, 6, -100]]
    assert rows.lengths.tolist() == [2, 3]


def test_a_trained_first_token_does_not_count_as_a_target():
    rows = Rows(
        ids=np.array([5, 6, 7], np.uint32),
        trained=np.array([1, 1, 0], np.uint8),
        offsets=np.array([0, 3]),
    )

    assert rows.targets.tolist() == [1]


def test_a_pair_counts_by_its_longer_answer_and_trains_both():
    def side(*lengths):
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        return np.arange(offsets[-1]), np.ones(offsets[-1], np.uint8), offsets

    rows = Rows(*side(3, 9, 4), Rows(*side(5, 2, 4)))

    assert rows.sizes.tolist() == [5, 9, 4]
    assert rows.trained_tokens.tolist() == [2 + 4, 8 + 1, 3 + 3]
    assert rows.targets.tolist() == [2, 8, 3]


def test_batches_by_length_hold_every_row_once_longest_first():
    assert batches.by_length([3, 9, 9, 1], 3) == [[1, 2, 0], [3]]
