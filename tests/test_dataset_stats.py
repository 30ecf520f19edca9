"""Statistics of a dataset: exact where they say so, bounded in memory, and readable as text."""

import math
import random
from collections import Counter
from pathlib import Path

import pytest
from project import chat, make

from stages import convert, validate
from stages.core import converting, dataset_stats, example, files, settings
from stages.core.errors import TunesmithError
from stages.core.example import Example, Reject
from stages.core.spread import Spread, series
from stages.core.text_stats import MORE, MOST, Texts

ROWS = [chat(f"What is {n} plus {n}?", f"It is {n + n}, as far as I know.") for n in range(40)]
SIBYL = Path(__file__).parents[2] / "shared/samples/sibyl"


def spread(*values: int) -> Spread:
    made = Spread()
    for value in values:
        made.add(value)
    return made


def talk(*texts: str) -> Example:
    messages = [{"role": "user", "content": text} for text in texts]
    return Example(messages, "x#1", "g")


@pytest.mark.parametrize("seed", range(5))
def test_percentiles_are_the_values_at_their_rank_in_the_sorted_list(seed: int) -> None:
    draw = random.Random(seed)
    values = [draw.randrange(draw.choice((1, 10, 9999))) for _ in range(draw.randint(1, 300))]
    found, ordered = spread(*values).report(), sorted(values)
    assert (found["min"], found["max"], found["sum"]) == (ordered[0], ordered[-1], sum(values))
    assert found["mean"] == pytest.approx(sum(values) / len(values))
    for percent in (5, 25, 50, 75, 95, 99):
        rank = max(1, math.ceil(percent * len(values) / 100))
        assert found[f"p{percent}"] == ordered[rank - 1]
    assert sum(found["histogram"].values()) == len(values)


def test_a_histogram_counts_by_powers_of_two_and_nothing_apart() -> None:
    assert spread(0, 0, 1, 2, 3, 4, 5, 1024, 1025).report()["histogram"] == {
        "<=0": 2, "<=1": 1, "<=2": 1, "<=4": 2, "<=8": 1, "<=1024": 1, "<=2048": 1,
    }  # fmt: skip


def test_big_values_take_no_more_memory_and_stay_true_to_three_digits() -> None:
    values = range(10_000, 2_000_000, 7)
    made = spread(*values)
    assert len(made.counts) < 2_000
    found = made.report()
    assert (found["min"], found["max"], found["sum"]) == (10_000, values[-1], sum(values))
    for percent in (5, 50, 99):
        true = values[math.ceil(percent * len(values) / 100) - 1]
        assert found[f"p{percent}"] == pytest.approx(true, rel=0.005)


def test_a_rounded_percentile_is_never_above_the_most_nor_below_the_least() -> None:
    found = spread(19_999).report()
    assert {found[name] for name in ("min", "p5", "p50", "p99", "max")} == {19_999}


def test_nothing_has_no_distribution_and_a_series_of_zeros() -> None:
    assert Spread().report() == {}
    assert series({"words": {}}).splitlines()[-1] == "100\t0"


def test_lengths_count_all_messages_and_tool_calls() -> None:
    texts = Texts(())
    call = {"function": {"name": "clock", "arguments": {"zone": "UTC now"}}}
    messages = [
        {"role": "user", "content": "What time is it?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "12:00"},
        {"role": "assistant", "content": "Noon, I think."},
    ]
    texts.add(Example(messages, "x#1", "g"))
    found = texts.report()["lengths"]
    calls = len('[{"function":{"name":"clock","arguments":{"zone":"UTC now"}}}]')
    assert found["characters"]["max"] == 16 + calls + 5 + 14
    assert found["words"]["max"] == 4 + 2 + 1 + 3
    assert found["answer_words"]["max"] == 3
    assert found["messages"]["max"] == 4


@pytest.mark.parametrize(
    ("text", "guess"),
    [("", 0), ("a", 1), ("abcd", 1), ("abcde", 2), ("日本語だ", 1), ("🙂🙂🙂", 2)],
)
def test_tokens_are_guessed_as_a_quarter_of_the_utf_16_units(text: str, guess: int) -> None:
    texts = Texts(())
    texts.add(talk(text))
    assert texts.report()["lengths"]["token_guess"]["max"] == guess


def test_a_meta_key_of_many_values_is_counted_in_bounded_memory() -> None:
    texts = Texts(("file",))
    for number in range(3 * MOST):
        texts.add(Example([], "x#1", "g", {"file": f"f{number}"}))
        texts.add(Example([], "x#1", "g", {"file": "f0"}))
    found = texts.report()["by"]["file"]
    assert len(found) == MOST + 1
    assert (found["f0"], found[MORE]) == (3 * MOST + 1, 2 * MOST)


def test_a_dataset_of_rejects_alone_and_an_empty_one_have_statistics(tmp_path: Path) -> None:
    for rejects in (0, 2):
        found = [Reject(f"x#{n}", "odd", "It is odd.") for n in range(rejects)]
        stats = converting.write(found, tmp_path, ("class",))
        assert (stats["inputs"], stats["examples"], stats["rejected"]) == (rejects, 0, rejects)
        assert stats["lengths"]["words"] == {}
        assert stats["by"] == {"class": {}}


def shown(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    monkeypatch.chdir(project)
    capsys.readouterr()
    dataset_stats.show("mine")
    return capsys.readouterr().out


def test_a_dataset_that_was_not_made_is_one_screen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(make(tmp_path, ROWS))
    with pytest.raises(TunesmithError, match=r"(?s)does not exist.*do    dvc repro validate@mine"):
        dataset_stats.show("mine")
    with pytest.raises(TunesmithError, match=r"(?s)no 'mime' in datasets.*Did you mean 'mine'"):
        dataset_stats.show("mime")


def test_a_converted_dataset_is_shown_with_what_is_still_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project = make(tmp_path, [*ROWS, b"{broken"])
    monkeypatch.chdir(project)
    convert.run("mine")
    text = shown(project, monkeypatch, capsys)
    assert "mine: recipe chats, made of data/raw/mine" in text
    assert "convert    41 inputs: 40 examples, 1 rejects (broken_json 1)" in text
    assert "validate   has not run; dvc repro validate@mine" in text
    assert "tokens of base/small              not counted; dvc repro tokenise@first" in text
    assert "format: prompt 40 (100%)" in text


def test_a_validated_dataset_is_shown_with_splits_copies_and_kinds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project = make(tmp_path, [*ROWS, ROWS[3]])
    monkeypatch.chdir(project)
    convert.run("mine")
    validate.run("mine")
    text = shown(project, monkeypatch, capsys)
    assert "validate   40 kept, 1 left out (duplicate 1)" in text
    assert "copies     1 exact, 0 near" in text
    assert "splits     train 24, valid 8, test 8\n" in text
    assert "40 groups, 40 different prompts" in text
    row = next(line for line in text.splitlines() if line.startswith("words "))
    assert row.split() == ["words", *["13"] * 5, "13.0", "520"]
    assert f"      <=16        40 {'#' * 40}" in text


def test_tokens_counted_by_a_base_are_shown_for_each_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project = make(tmp_path, ROWS)
    monkeypatch.chdir(project)
    convert.run("mine")
    one = {"tokens": 90, "trained_tokens": 30, "dropped": 2, "lengths": spread(40, 50).report()}
    none = {"tokens": 0, "trained_tokens": 0, "dropped": 0, "lengths": {}}
    with files.directory(files.tokens_dir("first")) as out:
        files.write_json(out / "stats.json", {"train": one, "valid": none, "test": none})
    text = shown(project, monkeypatch, capsys)
    row = next(line for line in text.splitlines() if line.startswith("tokens of base/small, train"))
    assert row.split()[4:] == ["40", "40", "40", "50", "50", "45.0", "90"]
    assert "30 trained on (33%), 2 rows too long" in text
    assert "tokens of base/small, test          no rows" in text


def test_verdicts_of_the_recipe_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from stages.recipes import chats

    project = make(tmp_path, ROWS)
    monkeypatch.chdir(project)
    verdicts = {"verdicts": ["Too few rows: 1,000 are needed."]}
    monkeypatch.setattr(chats, "report", lambda kept, options: verdicts, raising=False)
    convert.run("mine")
    validate.run("mine")
    assert "quality\n  Too few rows: 1,000 are needed.\n" in shown(project, monkeypatch, capsys)


def test_numbers_of_a_kind_stand_in_their_order_and_many_values_are_summed_up() -> None:
    rounds = dict.fromkeys(("10", "9", "2"), 1)
    names = {f"name{n}": 100 - n for n in range(60)}
    lines = list(dataset_stats.kinds({"round": rounds, "name": names}))
    assert lines[1] == "round: 2 1 (33%), 9 1 (33%), 10 1 (33%)"
    assert lines[3].startswith("name: name0 100 (2%), name1 99 (2%)")
    assert lines[3].endswith(f"36 more values {sum(names[f'name{n}'] for n in range(24, 60)):,}")


@pytest.mark.skipif(not SIBYL.is_dir(), reason="the shared samples are not here")
def test_the_seeds_statistics_of_its_sample_are_all_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stages.recipes import games

    options = _options(
        games, sides="winners", min_version="0.0.0", failed_actions="keep", pairs="none"
    )
    stats = converting.write(games.examples(SIBYL / "games", options), tmp_path, games.STATS)
    by = stats["by"]
    assert by["class"] == {
        "oracle": 110, "vector": 104, "sentinel": 77, "medic": 74, "striker": 68, "specter": 67,
    }  # fmt: skip
    assert by["side"] == {"player": 306, "opponent": 194}
    assert (by["round"]["1"], by["round"]["20"], sum(by["round"].values())) == (63, 4, 500)
    assert by["won"] == {"True": 500}, "winners only"
    rows = list(example.read_examples(tmp_path / "examples.jsonl"))
    units = [sum(len(m["content"].encode("utf-16-le")) // 2 for m in r.messages) for r in rows]
    guess = stats["lengths"]["token_guess"]
    assert guess["sum"] == sum(math.ceil(n / 4) for n in units)
    assert guess["max"] == math.ceil(max(units) / 4)
    assert len(Counter(row.group for row in rows)) == 21, "games, counted by validate as groups"


def _options(recipe: object, **given: object) -> settings.Settings:
    fields = recipe.Options.model_fields
    return recipe.Options.model_validate({k: v for k, v in given.items() if k in fields})
