"""The rules recipe: its knowledge check, the package's combos, and what it generates."""

import hashlib
import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from stages.core import checking, splits
from stages.core.errors import TunesmithError
from stages.core.example import Example, Reject, dumps
from stages.recipes import rules
from stages.recipes.rules import combos, knowledge, package, seen

OURS = Path(__file__).parents[1] / "data" / "raw" / "wzrdbrain"
SHARED = Path(__file__).parents[2] / "shared" / "samples" / "wzrdbrain"
GRAMMAR = package.grammar()


def counts(**given):
    none = {"simple": 0, "constrained": 0, "explanation": 0, "rules": 0, "progression": 0}
    return rules.Options(**({"seed": 42} | none | given))


def made(**given):
    return list(rules.examples(OURS, counts(**given)))


def edited(tmp_path, name, edit):
    """A copy of our knowledge with one file's content changed."""
    for file in (knowledge.MOVES_FILE, knowledge.TIERS_FILE):
        value = json.loads((OURS / file).read_text())
        if file == name:
            edit(value)
        (tmp_path / file).write_text(json.dumps(value))
    return tmp_path


# --- knowledge -----------------------------------------------------------------------------


def test_our_knowledge_describes_every_move_and_places_it_in_one_tier():
    known = knowledge.load(OURS, GRAMMAR)
    assert list(known.moves) == list(GRAMMAR.moves)
    assert len(known.moves) == 26
    assert sorted(move for tier in known.tiers for move in tier.moves) == sorted(GRAMMAR.moves)
    assert (len(known.tiers), len(known.tips)) == (6, 7)


@pytest.mark.parametrize(
    ("file", "edit", "message"),
    [
        (0, lambda d: d.pop("lion"), r"'lion' is not described.*\n.*descriptions.json: lion"),
        (0, lambda d: d.update(zebra=d["lion"]), r"no move 'zebra'.*\n.*json: zebra"),
        (0, lambda d: d["lion"].update(name="liom"), r"named 'liom'.*\n.*json: lion.name"),
        (0, lambda d: d["lion"].update(difficulty="hard"), r"(?s)'hard'.*json: lion.difficulty"),
        (0, lambda d: d["lion"].update(category="jump"), r"(?s)'jump'.*json: lion.category"),
        (0, lambda d: d["lion"].pop("description"), r"(?s)is missing.*json: lion.description"),
        (0, lambda d: d["lion"].update(colour=1), r"(?s)unknown key.*json: lion.colour"),
        (0, lambda d: d["lion"].pop("rules"), r"(?s)ROTATING_MOVES.*json: lion.rules"),
        (0, lambda d: d["tree"].update(rules=["ONLY_FIRST"]), r"(?s)ONLY_FIRST.*json: tree.rules"),
        (1, lambda d: d["tiers"][1]["moves"].append("zebra"), r"(?s)'zebra'.*json: tiers\[1\]"),
        (1, lambda d: d["tiers"][1]["moves"].append("540"), r"(?s)level 2 too.*tiers\[5\].moves"),
        (1, lambda d: d["tiers"][0]["moves"].remove("tree"), r"(?s)No tier holds.*'tree'"),
        (1, lambda d: d["tiers"][2].update(level=4), r"(?s)4 where 3.*json: tiers\[2\].level"),
        (1, lambda d: d.update(tiers=[]), r"(?s)at least 1.*json: tiers"),
    ],
)
def test_knowledge_that_contradicts_the_package_is_refused_by_file_and_key(
    tmp_path, file, edit, message
):
    name = (knowledge.MOVES_FILE, knowledge.TIERS_FILE)[file]
    with pytest.raises(TunesmithError, match=message):
        next(rules.examples(edited(tmp_path, name, edit), counts(simple=1)))


def test_a_missing_or_broken_knowledge_file_is_named(tmp_path):
    with pytest.raises(TunesmithError, match=r"missing.*\n.*trick_descriptions.json"):
        knowledge.load(tmp_path, GRAMMAR)
    (tmp_path / knowledge.MOVES_FILE).write_text('{"lion": ')
    with pytest.raises(TunesmithError, match=r"not JSON.*\n.*trick_descriptions.json"):
        knowledge.load(tmp_path, GRAMMAR)
    (tmp_path / knowledge.MOVES_FILE).write_text("[1]")
    (tmp_path / knowledge.TIERS_FILE).write_text("{}")
    with pytest.raises(TunesmithError, match=r"(?s)valid dictionary.*trick_descriptions.json"):
        knowledge.load(tmp_path, GRAMMAR)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared samples are not here")
def test_other_knowledge_files_of_the_same_form_make_examples_that_state_their_facts():
    options = counts(simple=20, explanation=200, rules=200, progression=200)
    found = list(rules.examples(SHARED / "knowledge", options))
    assert [item for item in found if isinstance(item, Reject)] == []


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared samples are not here")
def test_our_knowledge_repeats_no_sentence_of_the_samples():
    ours, theirs = (
        {text.strip() for text in sentences(folder)} for folder in (OURS, SHARED / "knowledge")
    )
    assert len(ours) > 60
    assert ours & theirs == set()


def sentences(folder):
    """All texts of more than three words in the knowledge files, parted at full stops."""

    def walk(value):
        if isinstance(value, str):
            yield from (part for part in value.split(".") if len(part.split()) > 3)
        elif isinstance(value, dict | list):
            for part in value.values() if isinstance(value, dict) else value:
                yield from walk(part)

    for file in (knowledge.MOVES_FILE, knowledge.TIERS_FILE):
        yield from walk(json.loads((folder / file).read_text()))


# --- the package ---------------------------------------------------------------------------


def test_our_grammar_is_the_package_s_own_data():
    import wzrdbrain.wzrdbrain as installed

    assert GRAMMAR.moves == tuple(installed.MOVES)
    assert set(GRAMMAR.only_first) == installed.only_first
    assert set(GRAMMAR.fakie) == installed.use_fakie
    assert set(GRAMMAR.rotating) == installed.rotating_moves
    assert set(GRAMMAR.no_stance) == installed.exclude_stance
    assert GRAMMAR.rules_of("540") == ("USE_FAKIE", "ROTATING_MOVES")
    assert GRAMMAR.rules_of("predator") == ("ONLY_FIRST", "EXCLUDE_STANCE_BASE")


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared samples are not here")
def test_our_grammar_is_that_of_the_samples():
    facts = json.loads((SHARED / "facts.json").read_text())["moves"]
    assert len(GRAMMAR.moves) == facts["count"]
    for ours, theirs in (
        (GRAMMAR.only_first, "only_first"),
        (GRAMMAR.fakie, "use_fakie"),
        (GRAMMAR.rotating, "rotating"),
        (GRAMMAR.no_stance, "no_stance"),
    ):
        assert sorted(ours) == facts[theirs], theirs


@pytest.mark.parametrize("found", ["0.6.0", "0.2.1", "0.2.20"])
def test_another_version_of_the_package_is_refused_with_both_versions(monkeypatch, found):
    monkeypatch.setattr(package.metadata, "version", lambda name: found)
    with pytest.raises(
        TunesmithError,
        match=rf"(?s)version {found} is installed, and 0\.2\.2 is.*pip install wzrdbrain==0\.2\.2",
    ):
        package.combos(random.Random(1))


def test_a_missing_package_is_named_with_the_version_to_install(monkeypatch):
    def version(name):
        raise package.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(package.metadata, "version", version)
    with pytest.raises(TunesmithError, match=r"(?s)not installed.*wzrdbrain==0\.2\.2"):
        package.combos(random.Random(1))


def test_the_version_that_is_read_is_the_one_that_the_environment_pins():
    lock = (Path(__file__).parents[1] / "env" / "data.lock").read_text(encoding="utf-8")
    assert f"wzrdbrain=={package.VERSION}" in lock.splitlines()


def test_drawing_combos_leaves_the_installed_package_and_the_shared_random_alone():
    import wzrdbrain.wzrdbrain as installed

    random.seed(5)
    before = random.getstate()
    package.combos(random.Random(1))(5)
    assert random.getstate() == before
    assert installed.random is random
    assert isinstance(installed.SUBSEQUENT_MOVES, set)


def test_entry_exit_stance_and_move_are_read_from_a_name_as_the_package_set_them():
    generate = package.combos(random.Random(3))
    seen = Counter()
    for _ in range(3000):
        for trick in generate(5):
            read = combos.parse_trick(trick["name"], GRAMMAR)
            assert read is not None
            assert read.entry == trick["enter_into_trick"]
            assert read.exit(GRAMMAR) == trick["exit_from_trick"]
            assert (read.stance or None, read.move) == (trick["stance"], trick["move"])
            seen[trick["name"]] += 1
    # Every move in both directions, in both stances where it has stances.
    assert len(seen) == 2 * (16 + 2 * 10)


def test_all_combos_of_the_package_are_legal_by_our_rules():
    generate = package.combos(random.Random(4))
    for n in (2, 3, 4, 5) * 500:
        tricks = [combos.parse_trick(trick["name"], GRAMMAR) for trick in generate(n)]
        assert list(combos.broken(tricks, GRAMMAR)) == []


# --- generation ----------------------------------------------------------------------------

NINE_THOUSAND = counts(simple=5000, constrained=3000, explanation=500, rules=300, progression=200)


@pytest.fixture(scope="module")
def nine_thousand():
    return list(rules.examples(OURS, NINE_THOUSAND))


def test_the_counts_of_the_five_categories_are_made_in_full(nine_thousand):
    assert all(isinstance(item, Example) for item in nine_thousand)
    found = Counter(item.meta["category"] for item in nine_thousand)
    assert found == {
        "simple": 5000, "constrained": 3000, "explanation": 500, "rules": 300, "progression": 200
    }  # fmt: skip
    assert len({item.source for item in nine_thousand}) == 9000
    assert nine_thousand[0].source == "simple#1"


def test_every_example_passes_the_checks_of_chats_and_of_the_recipe(nine_thousand):
    kept, rejects = checking.checked(nine_thousand, rules.check)
    assert (len(kept), rejects) == (9000, [])


def test_no_prompt_and_answer_come_twice_and_most_prompts_come_once(nine_thousand):
    pairs = {(e.messages[1]["content"], e.messages[2]["content"]) for e in nine_thousand}
    assert len(pairs) == 9000
    combos_only = [e for e in nine_thousand if e.meta["category"] in ("simple", "constrained")]
    assert len({e.group for e in combos_only}) > 7000


def test_the_seed_s_fractions_part_9000_examples_into_its_sizes_without_a_leak(nine_thousand):
    sides = splits.assign(nine_thousand, 42, 0.0978, 0.0222)
    assert Counter(sides) == {"train": 7920, "valid": 880, "test": 200}
    assert splits.leaks(nine_thousand, sides) == {"prompt": 0, "group": 0, "example": 0}
    by_category = {
        side: {
            row.meta["category"] for row, at in zip(nine_thousand, sides, strict=True) if at == side
        }
        for side in splits.NAMES
    }
    assert {len(found) for found in by_category.values()} == {5}, "a category is not tested"


def test_a_tenth_of_three_thousand_examples_holds_200_combo_prompts_that_train_never_sees():
    rows = made(simple=1500, constrained=1150, explanation=150, rules=120, progression=80)
    sides = splits.assign(rows, 42, 0.05, 0.1)
    assert splits.leaks(rows, sides) == {"prompt": 0, "group": 0, "example": 0}
    by_side = {side: set() for side in splits.NAMES}
    for row, side in zip(rows, sides, strict=True):
        if row.meta["category"] in ("simple", "constrained"):
            by_side[side].add(splits.prompt(row))
    assert len(by_side["test"] - by_side["train"]) >= 200


def test_all_kinds_of_request_and_all_numbers_are_asked_for(nine_thousand):
    asked = Counter((e.meta.get("request"), e.meta.get("n")) for e in nine_thousand[:8000])
    assert {n for _, n in asked} == {None, 2, 3, 4, 5}
    assert {request for request, _ in asked} == {None, "starts", "includes", "ends"}
    assert {e.meta.get("move") for e in nine_thousand if "move" in e.meta} == set(GRAMMAR.moves)
    starts = sum(e.meta.get("request") == "starts" for e in nine_thousand)
    assert 0.57 < starts / 3000 < 0.63  # the seed's share; the rest stands later or anywhere


def test_more_examples_than_there_are_prompts_become_rejects_that_add_up():
    found = made(progression=2000)
    rejects = [item for item in found if isinstance(item, Reject)]
    assert len(found) == 2000
    assert {reject.code for reject in rejects} == {"duplicate"}
    assert 200 <= 2000 - len(rejects) < 2000


def test_a_text_is_new_once_whatever_else_was_seen():
    texts, found = [f"text {n}" for n in range(5000)], seen.Seen(5000)
    assert [found.add(text) for text in texts] == [True] * 5000
    assert [found.add(text) for text in texts] == [False] * 5000


def test_what_was_seen_takes_at_most_32_bytes_a_text():
    assert [seen.Seen(most).slots.itemsize for most in (1, 1000)] == [8, 8]
    for most in (1, 3, 1000, 4096, 100_000):
        assert 2 * most < len(seen.Seen(most).slots) <= 4 * most


def test_a_combo_that_breaks_a_rule_becomes_a_reject(monkeypatch):
    broken = [{"name": "front open gazelle"}, {"name": "front open tree"}]
    monkeypatch.setattr(package, "combos", lambda chance: lambda n: broken)
    (found,) = made(simple=1)
    assert (found.source, found.code) == ("simple#1", "illegal")
    assert "leaving back" in found.reason


def test_a_combo_with_a_move_nobody_knows_becomes_a_reject(monkeypatch):
    broken = [{"name": "front open tree"}, {"name": "zebra"}]
    monkeypatch.setattr(package, "combos", lambda chance: lambda n: broken)
    (found,) = made(simple=1)
    assert found.code == "illegal"


def test_changing_one_count_or_category_leaves_the_others_as_they_are():
    few, many = made(simple=5, rules=9), made(simple=50, rules=9)
    assert few[:5] == many[:5]
    assert few[5:] == many[50:]


def test_another_seed_makes_other_examples():
    one = list(rules.examples(OURS, counts(simple=20)))
    two = list(rules.examples(OURS, counts(simple=20, seed=43)))
    assert one != two


def test_the_bytes_are_the_same_under_any_hash_seed_locale_and_time_zone():
    code = (
        "import hashlib, sys; from pathlib import Path\n"
        "from stages.core.example import dumps; from stages.recipes import rules\n"
        "made = rules.examples(Path(sys.argv[1]), rules.Options.model_validate_json(sys.argv[2]))\n"
        "print(hashlib.sha256(b''.join(dumps(item.row()) for item in made)).hexdigest())\n"
    )
    options = counts(simple=200, constrained=200, explanation=50, rules=50, progression=50)
    found = set()
    for seed, place, zone in (("0", "C", "UTC"), ("4711", "tr_TR.UTF-8", "Asia/Tokyo")):
        environment = os.environ | {"PYTHONHASHSEED": seed, "LC_ALL": place, "TZ": zone}
        done = subprocess.run(
            [sys.executable, "-c", code, str(OURS), options.model_dump_json()],
            env=environment, cwd=Path(__file__).parents[1], capture_output=True, check=True,
        )  # fmt: skip
        found.add(done.stdout.decode().strip())
    here = b"".join(dumps(item.row()) for item in rules.examples(OURS, options))
    assert found == {hashlib.sha256(here).hexdigest()}
