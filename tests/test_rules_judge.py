"""The judge of the rules recipe: what is a combo, which rule it breaks, what an answer states."""

import json
import re
from pathlib import Path

import pytest

from stages.core.example import Example
from stages.recipes import rules
from stages.recipes.rules.combos import parse_combo
from stages.recipes.rules.package import grammar

SHARED = Path(__file__).parents[2] / "shared" / "samples" / "wzrdbrain"
RULES = {"parse", "valid_moves", "only_first", "linking", "stance", "fakie"}


def scores(answer, **meta):
    example = Example([], "x#1", "x", {"category": "simple"} | meta)
    return rules.judge(example, answer)


def failed(answer, **meta):
    """The metrics below 1, `all` left out: it must be 0 exactly when there are others."""
    found = scores(answer, **meta)
    low = {name for name, value in found.items() if value < 1.0}
    assert ("all" in low) == bool(low - {"all"})
    assert set(found.values()) <= {0.0, 1.0}
    return low - {"all"}


def combo(*tricks):
    return "\n".join(f"{number}. {trick}" for number, trick in enumerate(tricks, 1))


GOOD = ("front open gazelle", "back closed tree", "fakie 180", "forward back slide")


@pytest.mark.parametrize(
    "answer",
    [
        combo(*GOOD),
        "Here you go:\n\n" + combo(*GOOD) + "\n\nHave fun!",
        "\n".join(f"{n}) {trick}" for n, trick in enumerate(GOOD, 1)),
        "\n".join(f"**{n}.** {trick}" for n, trick in enumerate(GOOD, 1)),
        "\n".join(f"{n}. **{trick}**" for n, trick in enumerate(GOOD, 1)),
        "\n".join(f"**{n}. {trick}**" for n, trick in enumerate(GOOD, 1)),
        "\n".join(f"**{n}**. `{trick}`." for n, trick in enumerate(GOOD, 1)),
        "\n".join(f"    {n}. {trick}  " for n, trick in enumerate(GOOD, 1)),
        "\r\n\r\n".join(f"\t{n}. {trick.upper()}" for n, trick in enumerate(GOOD, 1)),
    ],
)
def test_a_legal_combo_passes_in_every_usual_form_of_a_numbered_list(answer):
    assert failed(answer, n=4) == set()


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "gazelle",
        "I would do a front open gazelle and then a back closed tree.",
        "front open gazelle\nback closed tree",
        "- front open gazelle\n- back closed tree",
        "1. Warm up first.\n2. Bend your knees, then roll.\n3. Try a gazelle.",
        "1. Back straight, knees soft\n2. Front foot leads\n3. Open your hips",
        "1. Start low\n2. Look ahead",
        "1. back away slowly\n2. forward lean",
        "1. front open gazelle turns you around so then\n2. back closed tree",
        "1. front open gazelle\n2. Now breathe and look where you want to go.",
        "2. front open gazelle\n3. back closed tree",
        "1. front open gazelle\n3. back closed tree",
        "1. front open gazelle\n1. back closed tree",
        "1.front open gazelle\n2.back closed tree",
    ],
)
def test_prose_and_lists_that_are_no_combo_score_0_in_everything_that_applies(answer):
    found = scores(answer, n=2, request="starts", move="gazelle")
    assert set(found) == RULES | {"count", "requested", "all"}
    assert set(found.values()) == {0.0}


def test_only_metrics_that_the_prompt_asks_for_apply():
    assert set(scores(combo(*GOOD))) == RULES | {"all"}
    assert set(scores(combo(*GOOD), n=4)) == RULES | {"count", "all"}
    asked = scores(combo(*GOOD), request="includes", move="tree")
    assert set(asked) == RULES | {"requested", "all"}
    assert set(asked) < set(rules.METRICS)


@pytest.mark.parametrize(
    ("tricks", "wrong"),
    [
        # What the reference evaluator misses.
        (("front predator", "forward open toe roll"), {"stance"}),
        (("front open predator", "front open tree"), {"stance"}),
        (("front gazelle", "back closed tree"), {"stance"}),
        (("front open tree", "front 360"), {"fakie"}),
        (("forward open tree", "front open tree"), {"fakie"}),
        (("fakie predator", "back open tree"), {"fakie"}),
        (("gazelle", "lion"), {"linking", "stance", "fakie"}),
        (("open tree", "closed lion"), {"linking", "fakie"}),
        (("back slide", "soul slide"), {"linking", "fakie"}),
        # A direction that does not follow: `back slide` is entered forward after a forward 360.
        (("forward 360", "fakie back slide"), {"linking", "fakie"}),
        (("front open gazelle", "front closed tree"), {"linking"}),
        (("front open gazelle", "forward 360"), {"linking", "fakie"}),
        (("fakie 180", "fakie 540"), {"linking", "fakie"}),
        (("front open tree", "front parallel"), {"only_first", "stance"}),
        (("front open tree", "front predator one"), {"only_first"}),
        (("back open dragon spin", "fakie 180"), {"valid_moves", "linking", "stance", "fakie"}),
        (("front open tree", "front open zebra"), {"valid_moves", "stance", "fakie"}),
        (("front open tree",), {"linking"}),
    ],
)  # fmt: skip
def test_each_broken_rule_is_caught_and_no_other(tricks, wrong):
    assert failed(combo(*tricks)) == wrong


def test_too_few_or_too_many_tricks_fail_the_count():
    assert failed(combo(*GOOD), n=5) == {"count"}
    assert failed(combo(*GOOD), n=3) == {"count"}


@pytest.mark.parametrize(
    ("asked", "honoured"),
    [
        ({"request": "starts", "move": "gazelle"}, True),
        ({"request": "starts", "move": "tree"}, False),
        ({"request": "starts", "move": "gazelle", "direction": "front", "stance": "open"}, True),
        ({"request": "starts", "move": "gazelle", "direction": "front", "stance": "closed"}, False),
        ({"request": "starts", "direction": "front"}, True),
        ({"request": "starts", "direction": "back"}, False),
        ({"request": "includes", "move": "180"}, True),
        ({"request": "includes", "move": "360"}, False),
        ({"request": "ends", "move": "back slide"}, True),
        ({"request": "ends", "move": "180"}, False),
    ],
)
def test_a_requested_move_counts_at_the_place_that_was_asked_for(asked, honoured):
    assert failed(combo(*GOOD), **asked) == (set() if honoured else {"requested"})


@pytest.mark.parametrize(
    ("facts", "answer", "score"),
    [
        (["difficulty=expert", "kind=spin"], "540 is an expert spin.", 1.0),
        (["difficulty=expert", "kind=spin"], "540 is an advanced spin.", 0.5),
        (["difficulty=expert"], "beginner intermediate advanced expert", 0.0),
        (["kind=transition"], "Like a toe press, gazelle is a transition.", 1.0),
        (["answer=no"], "No, it keeps your direction.", 1.0),
        (["answer=no"], "Yes. No.", 0.0),
        (["answer=no"], "", 0.0),
        (["answer=no"], "It turns nothing around.", 0.0),
        (["level=level 3"], "Next comes **Level 3**.", 1.0),
        (["level=level 3"], "Next comes level 30.", 0.0),
        (["direction=back"], "After a back slide you leave it going front.", 0.0),
        (["word=fakie"], "It is fakie 180.", 1.0),
        (["moves=tree|lion"], "lion and tree", 1.0),
        (["moves=tree|lion"], "lion s and tree", 1 / 3),
        (["moves=tree|lion"], ", ".join(grammar().moves), 2 / 26),
        (["moves=180"], "Turn 360 degrees: that is the 180.", 1.0),
        (["says=Fakie means going back"], "So fakie  means\ngoing back.", 1.0),
        (["says=Fakie means going back"], "Fakie means going front.", 0.0),
    ],
)
def test_an_answer_scores_the_share_of_its_facts(facts, answer, score):
    example = Example([], "rules#1", "x", {"category": "rules", "facts": facts})
    assert rules.judge(example, answer) == {"facts": pytest.approx(score)}


@pytest.mark.parametrize(
    ("answer", "meta", "reason"),
    [
        (combo(*GOOD), {"n": 4}, None),
        (combo(*GOOD), {"n": 3}, "count"),
        (combo(*GOOD), {"request": "ends", "move": "tree"}, "requested"),
        (combo("front open tree", "back open tree"), {}, "linking"),
        ("no combo", {}, "no combo"),
        ("Yes.", {"category": "rules", "facts": ["answer=yes"]}, None),
        ("Yes.", {"category": "rules", "facts": ["answer=no"]}, "0%"),
    ],
)
def test_check_says_why_an_example_s_own_answer_is_wrong(answer, meta, reason):
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": answer}]
    found = rules.check(Example(messages, "x#1", "x", {"category": "simple"} | meta))
    assert found is None if reason is None else reason in found


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared samples are not here")
def test_all_combos_of_the_reference_are_valid_and_its_other_answers_are_no_combos():
    combos = others = 0
    for line in (SHARED / "sample-200.jsonl").read_text().splitlines():
        _, user, assistant = json.loads(line)["messages"]
        if parse_combo(assistant["content"], grammar()) is None:
            assert not re.search(r"\d[- ](trick|linked|wizard)", user["content"])
            others += 1
            continue
        number = re.search(r"(\d+)(?:-trick| tricks| linked| wizard)", user["content"])
        wanted = {"n": int(number.group(1))} if number else {}
        named = [m for m in grammar().moves if re.search(rf"\b{m}\b", user["content"])]
        first = re.search(r"\b(start|open|begin|first)", user["content"])
        if named:
            wanted |= {"request": "starts" if first else "includes", "move": max(named, key=len)}
        assert failed(assistant["content"], **wanted) == set(), user["content"]
        combos += 1
    assert (combos, others) == (183, 17)
