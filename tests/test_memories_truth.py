"""The recipe `memories` on the shared samples: every one of the reference's 407, or why not."""

import json
from collections import Counter
from pathlib import Path

import pytest
from memories import MODES, options, run

from stages.core import checking
from stages.core.errors import TunesmithError
from stages.core.example import Example
from stages.recipes import memories
from stages.recipes.memories import modes

SHARED = Path(__file__).parents[2] / "shared" / "samples" / "metahuman"
pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason="shared samples are not here")

# The reference makes samples of these; here they are rejects.
DISCARDED = {"evt-202503042011150"}
BLANK_QUESTION = {"evt-202510030631179"}
# Its "4 empty answers", and the one of which it leaves "!" ("Certainly!").
FOUR_EMPTY = {
    *("evt-202506080509546", "evt-202506131629555"),
    *("evt-202508210640090", "evt-202510231254585"),
}
ONLY_FILLER = FOUR_EMPTY | {"evt-202508251759417"}
# It never takes content without an answer, in whose place "" may stand.
NO_PAIR = {"evt-202506051203539", "evt-202509231451350"}
# Answers that it damages: how ours begin, and how the reference's do.
MENDED = {
    "evt-202503060313408": ("Someone once told you", "meone once told you"),
    "evt-202509211051585": ("Someone once told you", "meone once told you"),
    "evt-202508312250037": ("Sometimes okay words", "metimes okay words"),
    "evt-202506122355503": ("So-so. Something else.", "so. Something else."),
    "evt-202506211735500": ("Soup, then bread.", "up, then bread."),
    "evt-202508030548115": ("Surely not.", "ly not."),
    # no sign sets this "ok" apart
    "evt-202505302257330": ("ok then", "then"),
    "evt-202508101339040": ("ok then", "then"),
    # a stray sign, or a second filler
    "evt-202508141821463": ("Start with the simplest", "! Start with the simplest"),
    "evt-202508210300240": ("Write three lines", "! Write three lines"),
    "evt-202506072327094": ("You like the climbing", "sure, okay - You like"),
    "evt-202508130520054": ("It fails at Harbour", "sure, okay - It fails"),
    # a whole sentence gone up to its full stop
    "evt-202504241244529": ("Tell Mei the truth; you were oddly calm and that is allowed.", "."),
    "evt-202508281536273": ("Tell Mei the truth; you were proud and that is allowed.", "."),
    "evt-202508260547089": ("Start with the simplest part of the old camera and stop when", "."),
    "evt-202510041629383": ("Take it to the climbing wall. The worst", ". The worst case"),
    "evt-202508282300159": ("It fails at the climbing wall because", ". Dry it first."),
    "evt-202510232231330": ("You said the choir rehearsal could wait", ". Grandma Ruth agreed."),
}
# metadata.long_output is honoured here, so this answer may have 300 words.
LONG_BY_METADATA = "evt-202507180516216"
KEPT_LINE_BREAK = "evt-202508290510198"


@pytest.fixture(scope="module")
def facts():
    return json.loads((SHARED / "facts.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def whole():
    """Every example and reject, nothing long drawn."""
    return list(memories.examples(SHARED, options(user="marlow")))


def expected(name):
    return json.loads((SHARED / "expected" / name).read_text(encoding="utf-8"))


def identity(item):
    """The memory's id: in `meta`, or at the start of its file's name."""
    if isinstance(item, Example):
        return item.meta["original_id"]
    return "-".join(item.source.rpartition("/")[2].split("-")[:2])


def counterparts(whole):
    """Ours and the reference's sample side by side, both in the order of the walk."""
    gone = ("filler_only", "contaminated", "discarded", "empty_prompt")
    ours = [
        one
        for one in whole
        if isinstance(one, Example) or (one.code in gone and identity(one) not in NO_PAIR)
    ]
    return list(zip(ours, expected("curated_no_longform.json"), strict=True))


def body(example):
    return example.messages[-1]["content"].partition(">: ")[2]


def asked(example):
    return example.messages[-2]["content"].partition(">: ")[2]


def test_each_of_the_407_samples_is_an_example_or_a_named_reject_in_the_same_order(whole):
    pairs = counterparts(whole)
    assert len(pairs) == 407
    assert all(identity(ours) == theirs["metadata"]["original_id"] for ours, theirs in pairs)
    left = {identity(one): one.code for one, _ in pairs if not isinstance(one, Example)}
    for code, ids in {
        "discarded": DISCARDED,
        "empty_prompt": BLANK_QUESTION,
        "filler_only": ONLY_FILLER,
    }.items():
        assert {name for name, found in left.items() if found == code} == ids
    assert Counter(left.values())["contaminated"] == 19


def test_the_modes_are_the_references_138_198_and_71(whole, facts):
    pairs = counterparts(whole)
    assert Counter(theirs["mode"] for _, theirs in pairs) == facts["by_mode"]
    for ours, theirs in pairs:
        if isinstance(ours, Example):
            same = ("source_type", "mode_source", "original_id", "timestamp", "multi_turn")
            assert {name: ours.meta[name] for name in same} == {
                name: theirs["metadata"][name] for name in same
            }
            assert ours.meta["mode"] == theirs["mode"]


@pytest.mark.parametrize("mode", MODES)
def test_one_mode_alone_gives_the_same_samples_and_names_the_rest(mode, whole):
    found, rejects = run(SHARED, user="marlow", mode=mode)
    both = [one for one in whole if isinstance(one, Example)]
    assert found == [one for one in both if one.meta["mode"] == mode]
    assert len([one for one in rejects if one.code == "other_mode"]) > 100


def test_user_text_is_the_memorys_own_where_the_reference_folds_it(whole):
    changed = {
        ours.meta["original_id"]: asked(ours)
        for ours, theirs in counterparts(whole)
        if isinstance(ours, Example) and asked(ours) != theirs["user_text"]
    }
    assert changed == {KEPT_LINE_BREAK: "line\nbreaks\tand   spaces  "}


def test_answers_are_the_references_but_for_the_18_that_it_damages(whole):
    differ = {
        ours.meta["original_id"]: (body(ours), theirs["assistant_text"])
        for ours, theirs in counterparts(whole)
        if isinstance(ours, Example) and body(ours) != theirs["assistant_text"]
    }
    assert set(differ) == {*MENDED, LONG_BY_METADATA}
    for name, (ours, theirs) in MENDED.items():
        assert differ[name][0].startswith(ours)
        assert differ[name][1].startswith(theirs)


def test_19_answers_are_cut_at_40_words_and_4_at_300(whole, facts):
    ours = {
        one.meta["original_id"] for one in whole if isinstance(one, Example) and one.meta["cut"]
    }
    theirs = [
        sample["metadata"]["original_id"]
        for sample in expected("curated_no_longform.json")
        if len(sample["assistant_text"].split()) == 40 and sample["assistant_text"].endswith("...")
    ]
    assert len(theirs) == facts["truncated_no_longform"] == 19
    assert ours == set(theirs) - {LONG_BY_METADATA}
    longer, _ = run(SHARED, user="marlow", long_share=1.0)
    assert sum(one.meta["cut"] for one in longer) == facts["truncated_all_longform"] == 4


def test_the_19_contaminated_samples_are_found_for_the_tags_that_the_facts_name(whole, facts):
    flagged = facts["contamination_by_documented_rule"]["flagged"]
    found = {identity(one): one for one in whole if not isinstance(one, Example)}
    for entry in flagged:
        tags = " and ".join(f"<{tag}>" for tag in entry["other_mode_tags"])
        assert found[entry["id"]].code == "contaminated"
        assert found[entry["id"]].reason == f"It is {entry['mode']}, but holds {tags}."
    codes = Counter(one.code for one in found.values())
    assert codes["contaminated"] == len(flagged) == 19
    missed = {error["sampleId"] for error in facts["contamination_upstream"]["errors"]}
    assert len(missed) == 12
    assert missed < {entry["id"] for entry in flagged}


def test_contamination_fails_the_stage_with_the_name_of_every_file(facts):
    with pytest.raises(TunesmithError, match=r"19 sample\(s\) hold tags") as failure:
        run(SHARED, user="marlow", contaminated="error")
    for entry in facts["contamination_by_documented_rule"]["flagged"]:
        assert f"/{entry['id']}-" in str(failure.value)


def test_a_tag_of_the_own_mode_in_a_text_is_no_contamination(whole, facts):
    own = {
        entry["id"] for entry in facts["contamination_by_documented_rule"]["own_mode_tag_in_text"]
    }
    kept = {identity(one) for one in whole if isinstance(one, Example)}
    assert own - ONLY_FILLER <= kept


def test_10_copies_are_left_to_validate_and_counted_there(whole, facts):
    rows = [one for one in whole if isinstance(one, Example)]
    _, copies = checking.without_copies(rows, 1.0)
    assert len(copies) == facts["duplicate_pairs_exact"] == 10
    assert {copy.code for copy in copies} == {"duplicate"}


def test_what_is_no_memory_is_a_reject_for_its_own_reason(whole):
    codes = Counter(one.code for one in whole if not isinstance(one, Example))
    del codes["filler_only"], codes["contaminated"], codes["discarded"]
    assert codes == {
        "content_only": 16,
        "broken_json": 2,
        "not_an_object": 1,
        "encrypted": 1,
        "not_json": 1,
        "no_pair": 1,  # an empty list of messages
        "empty_prompt": 2,
        "empty_answer": 1,
        "unanswered": 2,
        "no_question": 1,
    }


def test_every_file_is_accounted_for(whole):
    root = SHARED / "profiles/marlow/memory/episodic"
    files = {path.relative_to(SHARED).as_posix() for path in root.rglob("*") if path.is_file()}
    assert {one.source.partition("#")[0] for one in whole} == files
    assert len(files) == 416


def test_of_the_hostile_memories_six_are_rejects_and_none_stops_the_run():
    found, rejects = run(SHARED / "hostile", user="")
    assert {one.source: one.code for one in rejects} == {
        "content_number.json#1": "wrong_type",
        "json_null.json": "not_an_object",
        "message_content_null.json#2": "wrong_type",
        "messages_with_null.json#1": "wrong_type",
        "missing_type.json": "no_type",
        "response_object.json#1": "wrong_type",
    }
    # as in the reference: its timestamp is copied, and matters only where dates are asked for
    assert [(one.source, one.meta["timestamp"]) for one in found] == [
        ("bad_timestamp.json#1", "yesterday")
    ]
    _, rejects = run(SHARED / "hostile", user="", days_recent=30)
    assert "bad_timestamp" in {one.code for one in rejects}


def test_the_first_100_are_the_references_first_100_as_far_as_it_is_right():
    found, _ = run(SHARED, user="marlow", max=100)
    theirs = [one["metadata"]["original_id"] for one in expected("curated_no_longform.json")]
    assert len(found) == 100
    ours = [one.meta["original_id"] for one in found]
    assert ours == [name for name in theirs if name in set(ours)]
    assert set(theirs[: theirs.index(ours[-1])]) - set(ours) <= gone()


def gone():
    flagged = json.loads((SHARED / "facts.json").read_text(encoding="utf-8"))
    ids = {one["id"] for one in flagged["contamination_by_documented_rule"]["flagged"]}
    return ids | DISCARDED | BLANK_QUESTION | ONLY_FILLER


@pytest.mark.parametrize("name", ["no_longform", "all_longform"])
def test_the_metrics_of_the_references_own_samples_are_the_references(name, facts):
    rows = []
    for one in expected(f"curated_{name}.json"):
        user, assistant = modes.tagged(one["mode"], "x", one["assistant_text"])
        said = {"user": user, "assistant": assistant}
        messages = [{"role": role, "content": text} for role, text in said.items()]
        rows.append(Example(messages, "f#1", "f", {"mode": one["mode"]}))
    found = memories.report(rows, options())
    true = facts[f"metrics_{name}"]
    metrics = found["metrics"]
    assert metrics["samples"] == true["totalSamples"]
    assert metrics["average_words"] == true["avgAssistantLength"]
    assert round(100 * metrics["short_share"], 1) == true["shortSamplesPercent"]
    assert round(100 * metrics["long_share"], 1) == true["longSamplesPercent"]
    assert round(100 * metrics["filler_share"], 1) == true["fillerDetectedPercent"]
    for mode, share in true["modeDistribution"].items():
        assert round(100 * metrics[f"{mode}_share"], 1) == share


def test_the_tags_stand_as_the_references_formatter_writes_them(whole):
    for ours, theirs in zip(
        [one for one, _ in counterparts(whole)], expected("formatted_all.json"), strict=True
    ):
        name = identity(ours)
        if isinstance(ours, Example) and name not in {*MENDED, LONG_BY_METADATA, KEPT_LINE_BREAK}:
            said = [message["content"] for message in ours.messages]
            assert said == [theirs["input"], theirs["output"]]
