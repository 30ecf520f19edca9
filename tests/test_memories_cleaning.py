"""Cleaning of answers: fillers go, words stay, and what is too long is cut."""

import pytest
from memories import run
from test_memories import memory, write

from stages.recipes.memories import cleaning

KEPT = (
    "Soup, then bread.",
    "Surely not.",
    "So-so. Something else.",
    "Sometimes okay words start like Surely or Soup.",
    "Okayed by Ana on Monday.",
    "Certainty is rare.",
    "OK! is a magazine"[:2] + "ra is a vegetable.",
    "So many people came.",
    "So far, so good.",
    "So Ines came.",
    "Sure? Ask again.",
    "ok then",
    "Here's what matters most.",
    "Here's what Ines said, in her words, about the tram.",
    "Let me start the car, then call you.",
    "Let me think about it. Tomorrow is soon enough.",
    "Let me start the car, Ines.",
    "I'm just tired, Ines.",
    "I'm just as surprised: it works.",
    "As an AI I have no kitchen, but the advice stands.",
    "As an aid to memory, write it down.",
    "Take it. Certainly, it will work.",
    "It is so: certainly.",
)
CLEANED = {
    "Certainly! Start with the tap.": "Start with the tap.",
    "Certainly, sure, okay - You like it.": "You like it.",
    "OK: Write it down.": "Write it down.",
    "okay... now then": "now then",
    "Sure - take it.": "take it.",
    "So, what?": "what?",
    "Alright, so No. Ana forgot.": "No. Ana forgot.",
    "Okay, so many came.": "so many came.",
    "Let me think about that for a second, Write three lines.": "Write three lines.",
    "Let me start with the basics: Start small. Then stop.": "Start small. Then stop.",
    "Let me figure this out, one second: Go.": "Go.",
    "I'm just here to help, but tell Ana.": "but tell Ana.",
    "I\u2019m just here to listen: go on.": "go on.",
    "As an AI, I can say this: Tell Mei.": "I can say this: Tell Mei.",
    "As a language model I would put it so: Tell Mei; be brief.": "Tell Mei; be brief.",
    "Here's what I would do: Dry it. Then wait.": "Dry it. Then wait.",
    "  Tidy\n\n  this \t up. ": "Tidy this up.",
    "Certainly!": "",
    "OK": "",
    "Sure, okay.": "",
    "Here's what I would do:": "",
}


@pytest.mark.parametrize("text", KEPT)
def test_a_text_that_only_looks_like_filler_stays_as_it_is(text):
    assert cleaning.clean(text) == text
    assert not cleaning.starts_with_filler(text)


@pytest.mark.parametrize("text", CLEANED)
def test_leading_filler_goes_with_its_sign_and_nothing_else(text):
    assert cleaning.clean(text) == CLEANED[text]
    assert cleaning.clean(CLEANED[text]) == CLEANED[text]


def test_what_cleaning_leaves_is_always_the_end_of_the_folded_text():
    for text in (*KEPT, *CLEANED):
        assert " ".join(text.split()).endswith(cleaning.clean(text))


@pytest.mark.parametrize("words", [39, 40])
def test_an_answer_of_up_to_40_words_is_whole(words):
    text = " ".join(["word"] * words)
    assert cleaning.cut(text, 40) == (text, False)


def test_a_longer_answer_is_cut_after_40_words_with_three_dots():
    assert cleaning.cut("word " * 41, 40) == (" ".join(["word"] * 40) + "...", True)


def test_filler_does_not_count_as_words(tmp_path):
    write(tmp_path, "m.json", memory(response="Certainly! " + "word " * 40))
    (found,), _ = run(tmp_path)
    assert not found.meta["cut"]


def test_user_text_is_not_touched(tmp_path):
    text = "  Okay,\n\n so\t" + "word " * 60
    write(tmp_path, "m.json", memory(content=text))
    (found,), _ = run(tmp_path)
    assert found.messages[0]["content"] == f"<user>: {text}"


def test_cleaning_takes_time_in_proportion_to_the_text():
    # A pattern that backtracks over the whole text would not end here.
    for start in ("let me start ", "as an ai ", "here's what ", "i'm just here ", "so", "ok "):
        cleaning.clean(start + "a, " * 200_000)
        cleaning.clean(start + "-" * 200_000)
        cleaning.clean(start + ",! " * 200_000)
