"""The judge of `memories`, and the quality report with its verdicts."""

import pytest
from memories import options

from stages.core.example import Example
from stages.recipes import memories
from stages.recipes.memories import modes

REFERENCE = "The kite is where it was, and Ana is not angry. It rains, then it stops."


def example(mode="dual", answer=REFERENCE, limit=40):
    user, assistant = modes.tagged(mode, "I think of Ana and the kite.", answer)
    messages = [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]
    return Example(messages, "m#1", "m", {"mode": mode, "max_words": limit})


def scores(answer, reference=REFERENCE):
    return memories.judge(example(answer=reference), answer)


def test_the_reference_itself_scores_1_in_everything():
    for mode in modes.TAGS:
        right = example(mode)
        found = memories.judge(right, right.messages[-1]["content"])
        assert found == dict.fromkeys(memories.METRICS, 1.0)


@pytest.mark.parametrize(
    ("answer", "lost"),
    [
        (f"<world>: {REFERENCE} <assistant>: Yes.", {"uncontaminated", "overlap"}),
        (f"<world>: {REFERENCE} <thought>: And now.", {"uncontaminated", "overlap"}),
        (f"<world>: Certainly! {REFERENCE}", {"no_filler", "overlap"}),
        ("<world>: The kite.", {"length", "overlap"}),
        (f"<world>: {REFERENCE * 3}", {"length", "overlap"}),
        (f"<world>: {REFERENCE[:-1]}", {"ended"}),
        ("<world>: " + "Alles anders. " * 8, {"overlap"}),
    ],
)
def test_each_way_to_be_wrong_lowers_its_own_metrics_only(answer, lost):
    found = scores(answer)
    assert {name for name, score in found.items() if score < 1} == lost


@pytest.mark.parametrize(
    "garbage",
    ["", " ", REFERENCE, "<world>:", "<world>: ", f"<assistant>: {REFERENCE}", "<world", "\ufffd"],
)
def test_an_answer_without_its_modes_tag_scores_0_in_everything(garbage):
    assert scores(garbage) == dict.fromkeys(memories.METRICS, 0.0)


def test_how_an_answer_ends_does_not_count_where_the_reference_has_no_end():
    assert "ended" not in scores("<world>: rain and", "rain and wind")
    assert scores("<world>: cut here...", "cut right here...")["ended"] == 1.0


def test_a_tag_that_the_reference_has_too_is_no_contamination():
    both = "The <world> is wide."
    assert scores(f"<world>: {both}", both)["uncontaminated"] == 1.0
    assert scores(f"<world>: {both} <world>", both)["uncontaminated"] == 0.0


def rows(counts, words=30):
    """Examples of each mode with answers of so many words."""
    answer = " ".join(["word"] * (words - 1) + ["end."])
    return [example(mode, answer, 300) for mode, count in counts.items() for _ in range(count)]


FILLER = example(answer="It will certainly work.")


def verdicts(found):
    return {name: entry["verdict"] for name, entry in found["quality"].items()}


def test_a_good_dataset_has_nothing_but_ok():
    good = rows({"dual": 1500, "emulation": 2300, "agent": 900})
    good += rows({"dual": 100, "emulation": 130, "agent": 70}, words=120)
    found = memories.report(good, options())
    assert set(verdicts(found).values()) == {"ok"}
    assert found["metrics"]["average_words"] == 35.4
    assert found["metrics"]["long_share"] == 0.06
    assert found["modes"] == {"dual": 0.32, "emulation": 0.486, "agent": 0.194}
    assert found["verdicts"][1] == "ok   average_words 35.4 (target: 25 to 40)"


@pytest.mark.parametrize(
    ("made", "name", "verdict"),
    [
        (rows({"dual": 1}, words=24), "average_words", "warn"),
        (rows({"dual": 1}, words=40), "average_words", "ok"),
        (rows({"dual": 1}, words=61), "average_words", "bad"),
        (rows({"dual": 4}) + rows({"dual": 1}, 41), "short_share", "warn"),
        (rows({"dual": 59}) + rows({"dual": 41}, 41), "short_share", "bad"),
        (rows({"dual": 96}) + rows({"dual": 4}, 101), "long_share", "warn"),
        (rows({"dual": 95}) + rows({"dual": 5}, 101), "long_share", "ok"),
        (rows({"dual": 89}) + rows({"dual": 11}, 101), "long_share", "warn"),
        (rows({"dual": 98}) + [FILLER] * 2, "filler_share", "warn"),
        (rows({"dual": 94}) + [FILLER] * 6, "filler_share", "bad"),
        (rows({"dual": 79, "agent": 21}), "agent_share", "ok"),
        (rows({"dual": 90, "agent": 10}), "agent_share", "warn"),
        (rows({"dual": 96, "agent": 4}), "agent_share", "bad"),
        (rows({"emulation": 80, "dual": 20}), "dual_share", "warn"),
    ],
)  # fmt: skip
def test_each_target_has_its_verdict_to_the_very_limit(made, name, verdict):
    assert verdicts(memories.report(made, options()))[name] == verdict


@pytest.mark.parametrize(
    ("count", "told"),
    [
        (5000, "ok   samples 5000 (target: 5000 or more)"),
        (4999, "warn samples 4999 (target: 5000 or more for full fine-tuning; 1 are missing)"),
        (3, "warn samples 3 (target: 5000 or more for full fine-tuning; 4997 are missing, and "
         "fewer than 1000 are hardly a dataset)"),
    ],
)  # fmt: skip
def test_too_few_samples_are_a_warning_with_the_number_needed(count, told):
    assert memories.report(rows({"dual": count}), options())["verdicts"][0] == told


def test_one_mode_alone_is_not_blamed_for_the_missing_others():
    found = memories.report(rows({"dual": 3}), options(mode="dual"))
    assert not any(name.endswith(("dual_share", "agent_share")) for name in found["quality"])
    assert found["modes"]["dual"] == 1.0


def test_no_sample_at_all_is_a_report_too():
    assert verdicts(memories.report([], options()))["samples"] == "warn"
