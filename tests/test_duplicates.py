"""Copies are found exactly: the index agrees with comparing every text with every other."""

import random
import re
from dataclasses import replace

import pytest

from stages.core import checking, duplicates
from stages.core.example import Example


def grams(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.casefold())
    return {tuple(words[i : i + 3]) for i in range(max(1, len(words) - 2))}


def by_comparing_all(texts: list[str], threshold: float) -> list[int | None]:
    """The same search without an index: the first kept text that is similar enough."""
    kept: list[int] = []
    found: list[int | None] = []
    for number, text in enumerate(texts):
        mine, match = grams(text), None
        for other in kept:
            theirs = grams(texts[other])
            if len(mine & theirs) / len(mine | theirs) >= threshold:
                match = other
                break
        found.append(match)
        if match is None:
            kept.append(number)
    return found


def texts_with_copies(seed: int) -> list[str]:
    """Random texts of 1 to 40 words; most repeat an earlier one with a few words changed."""
    draw = random.Random(seed)
    texts: list[list[str]] = []
    for _ in range(150):
        words = [f"w{draw.randrange(30)}" for _ in range(draw.randint(1, 40))]
        if texts and draw.random() < 0.7:
            words = list(draw.choice(texts))
            for _ in range(draw.randrange(4)):
                words[draw.randrange(len(words))] = f"w{draw.randrange(30)}"
        texts.append(words)
    return [" ".join(words) for words in texts]


@pytest.mark.parametrize("threshold", [0.05, 0.3, 0.5, 0.55, 0.7, 0.8, 0.9, 0.95, 0.999])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_near_copies_are_those_that_comparing_all_finds(seed: int, threshold: float) -> None:
    texts = texts_with_copies(seed)
    found = duplicates.near(texts, threshold)
    assert found == by_comparing_all(texts, threshold)
    assert any(match is not None for match in found)
    assert any(match is None for match in found)


def test_a_similarity_of_exactly_the_threshold_is_a_copy() -> None:
    # 27 words make 25 grams, of which 16 words share 14: 14/25 is 0.56, yet 0.56 * 25 > 14
    words = [f"a{n}" for n in range(27)]
    assert duplicates.near([" ".join(words), " ".join(words[:16])], 0.56) == [None, 0]
    assert duplicates.near([" ".join(words), " ".join(words[:15])], 0.56) == [None, None]


def test_case_and_signs_make_no_difference_to_near_copies() -> None:
    assert duplicates.near(["Turn left, then go on.", "turn LEFT then go on!"], 0.9) == [None, 0]


def test_texts_of_signs_alone_are_copies_only_when_equal() -> None:
    assert duplicates.near(["🙂", "🚀", "+", "🙂", ""], 0.5) == [None, None, None, 0, None]


def test_a_threshold_of_one_looks_for_nothing() -> None:
    assert duplicates.near(["a b c d", "a b c d"], 1.0) == [None, None]


def test_exact_copies_point_at_the_first() -> None:
    assert duplicates.exact(["a", "b", "a", "A", "a"]) == [None, None, 0, None, 0]


def chat(number: int, question: str, answer: str, system: str = "Be brief.") -> Example:
    messages = [
        {"role": "system", "content": system},
        {"role": "user", "content": question},
        {"role": "assistant", "content": answer},
    ]
    return Example(messages, f"x#{number}", f"g{number}")


def test_copies_are_rejected_with_the_source_they_repeat() -> None:
    rows = [
        chat(1, "How far is it from here to the harbour?", "About three miles by road."),
        chat(2, "How far is it from here to the harbour?", "About three miles by road."),
        chat(3, "How far is it from here to the harbour?", "About three miles by road!"),
        chat(4, "How far is it from here to the airport?", "Ten."),
    ]
    kept, rejects = checking.without_copies(rows, 0.9)
    assert [row.source for row in kept] == ["x#1", "x#4"]
    assert [(reject.source, reject.code, reject.reason) for reject in rejects] == [
        ("x#2", "duplicate", "It repeats x#1."),
        ("x#3", "near_copy", "It repeats x#1."),
    ]


def test_a_shared_system_message_makes_no_copies() -> None:
    long = "Answer as a patient teacher of physics who loves short words. " * 20
    rows = [chat(1, "Why is the sky blue?", "Light.", long), chat(2, "Is ice cold?", "Yes.", long)]
    assert checking.without_copies(rows, 0.5)[1] == []


def test_the_same_question_with_another_answer_is_no_exact_copy() -> None:
    rows = [chat(1, "Pick a number.", "One."), chat(2, "Pick a number.", "Two.")]
    assert checking.without_copies(rows, 1.0)[1] == []


def test_a_probe_never_gives_way_to_a_row_that_may_be_trained_on() -> None:
    question, answer = "How far is it from here to the harbour?", "About three miles by road."
    asked = replace(chat(3, question, answer), meta={"probe": True})
    rows = [chat(1, question, answer), chat(2, question, answer + " Or four."), asked]
    kept, rejects = checking.without_copies(rows, 0.5)
    assert [row.source for row in kept] == ["x#3"]
    assert [(reject.source, reject.code) for reject in rejects] == [
        ("x#1", "duplicate"),
        ("x#2", "near_copy"),
    ]


def test_pairs_that_differ_in_what_is_not_wanted_are_no_copies() -> None:
    pair = chat(1, "How far is it from here to the harbour?", "About three miles by road.")
    rows = [
        replace(pair, rejected={"role": "assistant", "content": text})
        for text in ("I have no idea at all about any of that.", "Go and ask somebody else now!")
    ]
    assert checking.without_copies(rows, 0.9)[1] == []
    assert len(checking.without_copies([*rows, rows[0]], 1.0)[1]) == 1
