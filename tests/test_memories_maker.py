"""The maker `memories`: the recorder's layout, every shape and mode, the same bytes again."""

import json
from collections import Counter

import pytest
from memories import options, run

from stages.core import checking, files
from stages.makers import memories as maker
from stages.recipes import memories

KEYS = {"id", "timestamp", "type", "entities", "tags", "importance", "links", "userId", "metadata"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    maker.make(maker.Options(seed=5, user="alder", memories=800), folder)
    return folder


@pytest.fixture(scope="module")
def read(made):
    return run(made, user="alder", long_share=0.075)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(made, tmp_path):
    hashes = {}
    for seed in (5, 6):
        (tmp_path / str(seed)).mkdir()
        maker.make(maker.Options(seed=seed, user="alder", memories=800), tmp_path / str(seed))
        hashes[seed] = files.tree_hash(tmp_path / str(seed))
    assert hashes[5] == files.tree_hash(made) != hashes[6]


def test_a_memory_depends_on_its_number_alone(made, tmp_path):
    maker.make(maker.Options(seed=5, user="alder", memories=40), tmp_path)
    few, many = files.tree_hashes(tmp_path), files.tree_hashes(made)
    assert len(few) == 42
    assert few.items() <= many.items()


def test_files_lie_where_the_recorder_puts_them(made):
    paths = list((made / "profiles/alder/memory/episodic").rglob("*.json"))
    assert len(list(made.rglob("*.*"))) == 840
    for path in paths:
        year, month, day = path.parent.parts[-3:]
        name, text = path.name, path.read_bytes()
        assert name.startswith(f"evt-{year}{month}{day}")
        assert len(name.partition("-")[2].partition("-")[0]) == 15
        assert len(name.removesuffix(".json").split("-", 2)[2]) <= 50
        if text.startswith(b'{\n  "id"'):
            record = json.loads(text)
            assert set(record) >= KEYS - {"type"}
            assert name.startswith(record["id"])


def test_every_shape_mode_and_filler_of_a_memory_is_there(made, read):
    found, rejects = read
    counts = {name: Counter(str(one.meta[name]) for one in found) for name in memories.STATS}
    assert set(counts["mode_source"]) == {"metadata", "type"}
    assert set(counts["multi_turn"]) == set(counts["cut"]) == {"True", "False"}
    assert len(counts["source_type"]) == 13
    text = b"".join(path.read_bytes() for path in made.rglob("*.json"))
    for word in (b'"messages"', b'"prompt"', b'"question"', b'"observation"', b"Certainly! "):
        assert word in text
    codes = {one.code for one in rejects}
    assert codes >= {"encrypted", "content_only", "discarded", "contaminated", "filler_only"}
    assert codes >= {"broken_json", "not_an_object", "no_type", "wrong_type", "no_pair", "not_json"}


def test_its_samples_meet_every_target_of_quality_but_the_number(read):
    kept, rejects = checking.checked(read[0], memories.check)
    kept, _ = checking.without_copies(kept, 0.95)
    assert (rejects, len(kept) > 700) == ([], True)
    found = memories.report(kept, options())
    verdicts = {name: entry["verdict"] for name, entry in found["quality"].items()}
    assert verdicts.pop("samples") == "warn"
    assert set(verdicts.values()) == {"ok"}


def test_an_answer_can_be_made_from_its_question(read):
    # What is not a word of the template stands in the question: the link that a model can learn.
    capitals = ("First", "Second", "Third", "Monday")
    for one in read[0]:
        asked, answered = (message["content"] for message in one.messages)
        if one.meta["source_type"] == "observation":
            continue
        for name in maker.texts.SLOTS["a"]:
            assert name not in capitals
            assert (name in answered.split()) <= (name in asked.replace(".", " ").split()), asked
