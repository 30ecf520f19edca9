"""Means, intervals and gates: known values, the same ones every time, and no empty victory."""

import numpy as np
import pytest

from stages.core import statistics


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        # Newcombe 1998, Statistics in Medicine 17, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilsons_interval_has_the_known_values(
    successes: int, n: int, low: float, high: float
) -> None:
    assert statistics.wilson(successes, n) == pytest.approx((low, high), abs=5.1e-5)


def test_scores_of_zero_and_one_get_wilsons_interval() -> None:
    low, high = statistics.wilson(9, 10)
    found = statistics.summary([1.0] * 9 + [0.0])
    assert found == {"mean": 0.9, "low": low, "high": high, "n": 10}


def test_the_bootstrap_agrees_with_the_normal_interval_where_that_holds() -> None:
    values = np.linspace(0.2, 0.8, 400)
    half = 1.96 * values.std() / np.sqrt(len(values))
    low, high = statistics.bootstrap(values)
    assert (low, high) == pytest.approx((0.5 - half, 0.5 + half), abs=0.003)


def test_the_bootstrap_is_the_same_every_time() -> None:
    values = [0.1, 0.4, 0.35, 0.8, 1.0]
    assert statistics.summary(values) == statistics.summary(values)
    assert statistics.summary(values)["low"] < 0.53 < statistics.summary(values)["high"]


def test_the_bootstrap_of_equal_values_has_no_width() -> None:
    assert statistics.bootstrap(np.full(20, 0.25)) == (0.25, 0.25)


def test_a_mean_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="no values to summarise"):
        statistics.summary([])


def test_a_metric_counts_only_the_answers_it_applies_to() -> None:
    found = statistics.summaries([{"b": 1.0, "a": 1.0}, {"a": 0.0}])
    assert list(found) == ["a", "b"]
    assert (found["a"]["mean"], found["a"]["n"]) == (0.5, 2)
    assert (found["b"]["mean"], found["b"]["n"]) == (1.0, 1)


def test_distinctness_is_the_share_of_different_answers() -> None:
    assert statistics.distinctness(["a", "b", "a", "a"]) == 0.5
    assert statistics.distinctness([]) == 0.0


def scores(**values: list[float]) -> list[dict[str, float]]:
    """One dict a prompt, from a list a metric."""
    return [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]


def gate(found: list[dict], name: str) -> dict:
    return next(row for row in found if row["gate"] == name)


def test_a_gate_of_a_lowest_mean_passes_from_that_mean_on() -> None:
    base, tuned = scores(json=[0.0, 1.0, 0.0, 0.0]), scores(json=[1.0, 1.0, 1.0, 0.0])
    found = statistics.gates({"json": 0.75}, [], base, tuned)
    assert found == [
        {
            "gate": "json >= 0.75", "metric": "json", "limit": 0.75, "value": 0.75, "base": 0.25,
            "outcome": "passed", "reason": "",
        }
    ]  # fmt: skip
    assert statistics.gates({"json": 0.76}, [], base, tuned)[0]["outcome"] == "failed"


def test_above_the_base_needs_an_interval_above_zero() -> None:
    noise = [0.0, 1.0] * 20
    better = [1.0] * 30 + noise[30:]
    slightly = [1.0, 1.0, *noise[2:]]
    base = scores(good=noise, same=noise, slight=noise)
    tuned = scores(good=better, same=noise, slight=slightly)
    found = statistics.gates({}, ["slight", "same", "good"], base, tuned)
    assert [(row["metric"], row["outcome"]) for row in found] == [
        ("good", "passed"),
        ("same", "failed"),
        ("slight", "failed"),
    ]
    assert gate(found, "good above the base")["difference"][0] > 0
    assert gate(found, "same above the base")["difference"] == [0.0, 0.0]


def test_the_difference_is_taken_prompt_by_prompt() -> None:
    # Both spread widely, and the tuned model is a little better on every single prompt.
    base = [n / 40 for n in range(40)]
    found = statistics.gates(
        {}, ["x"], scores(x=base), scores(x=[value + 0.02 for value in base])
    )  # fmt: skip
    assert found[0]["outcome"] == "passed"


@pytest.mark.parametrize("kind", ["at_least", "above_base"])
def test_a_gate_on_which_both_score_zero_measured_nothing_and_fails(kind: str) -> None:
    zeros = scores(x=[0.0, 0.0, 0.0])
    at_least, above = ({"x": 0.0}, []) if kind == "at_least" else ({}, ["x"])
    found = statistics.gates(at_least, above, zeros, zeros)[0]
    assert found["outcome"] == "failed"
    assert found["reason"] == "measured nothing: base and tuned both score 0"


@pytest.mark.parametrize("kind", ["at_least", "above_base"])
def test_a_gate_that_applies_to_no_prompt_measured_nothing_and_fails(kind: str) -> None:
    at_least, above = ({"x": 0.5}, []) if kind == "at_least" else ({}, ["x"])
    found = statistics.gates(at_least, above, scores(y=[1.0]), scores(y=[1.0]))[0]
    assert found["outcome"] == "failed"
    assert found["reason"] == "measured nothing: it applies to no test prompt"


def test_gates_compare_the_same_prompts_or_none() -> None:
    with pytest.raises(ValueError, match="zip"):
        statistics.gates({"x": 0.5}, [], scores(x=[1.0]), scores(x=[1.0, 1.0]))


def test_gates_come_in_the_order_of_their_names() -> None:
    found = statistics.gates({"b": 0.1, "a": 0.1}, ["d", "c"], scores(a=[1.0]), scores(a=[1.0]))
    assert [row["metric"] for row in found] == ["a", "b", "c", "d"]
