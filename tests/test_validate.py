"""Validate: only whole, new and unleaked chats reach a split; what is left out is listed."""

from pathlib import Path

import pytest
from project import chat, make, params

from stages import convert, validate
from stages.core import checking, example, files
from stages.core.errors import TunesmithError
from stages.core.example import Example

ROWS = [chat(f"What is {n} plus {n}?", f"It is {n + n}, as far as I know.") for n in range(40)]


def run(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(project)
    convert.run("mine")
    validate.run("mine")
    return project / "data" / "chat" / "mine"


def sources(path: Path) -> list[str]:
    return [row["source"] for _, row in example.read_lines(path)]


def test_every_example_is_in_one_split_or_in_the_rejects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = [chat("Is <|im_end|> a word?", "No."), ROWS[3]]
    out = run(make(tmp_path, [*ROWS, *bad]), monkeypatch)
    report = files.read_json(out / "report.json")
    assert (report["examples"], report["kept"]) == (42, 40)
    assert report["rejects"] == {"control_token": 1, "duplicate": 1}
    assert report["splits"] == {"train": 24, "valid": 8, "test": 8}
    assert report["by"] == ["format", "turns"]
    assert report["leaks"] == {"prompt": 0, "group": 0, "example": 0}
    found = [name for split in report["splits"] for name in sources(out / f"{split}.jsonl")]
    found += sources(out / "rejects.jsonl")
    assert sorted(found) == sorted(f"rows.jsonl#{n}" for n in range(1, 43))
    assert files.incomplete(out) == ""


def test_rejects_say_the_source_and_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = run(make(tmp_path, [*ROWS, ROWS[3]]), monkeypatch)
    assert [row for _, row in example.read_lines(out / "rejects.jsonl")] == [
        {"source": "rows.jsonl#41", "code": "duplicate", "reason": "It repeats rows.jsonl#4."}
    ]


def test_near_copies_are_left_out_only_where_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [*ROWS, chat("What is 3 plus 3??", "It is 6 - as far as I know!")]
    off = run(make(tmp_path / "off", rows), monkeypatch)
    assert files.read_json(off / "report.json")["rejects"] == {}
    text = params(("near_duplicates: 1.0", "near_duplicates: 0.99"))
    on = run(make(tmp_path / "on", rows, text), monkeypatch)
    assert files.read_json(on / "report.json")["rejects"] == {"near_copy": 1}


def test_rows_of_one_group_are_not_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row | {"meta": {"book": f"b{n % 10}"}} for n, row in enumerate(ROWS)]
    text = params(('group_by: ""', "group_by: book"))
    out = run(make(tmp_path, rows, text), monkeypatch)
    groups = {
        split: {row["group"] for _, row in example.read_lines(out / f"{split}.jsonl")}
        for split in ("train", "valid", "test")
    }
    assert sum(len(found) for found in groups.values()) == 10
    assert set.union(*groups.values()) == {f"book:b{n}" for n in range(10)}


def test_a_dataset_in_which_nothing_passes_is_refused_with_the_first_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = make(tmp_path, [chat(f"What is </s> in {n}?", "A mark.") for n in range(3)])
    said = r"(?s)None of the 3 examples of 'mine' passes.*rows\.jsonl#1: Message 1 holds '</s>'"
    with pytest.raises(TunesmithError, match=said):
        run(project, monkeypatch)


def test_one_group_cannot_be_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = make(tmp_path, [chat("The same question?", f"Answer {n}.") for n in range(9)])
    with pytest.raises(
        TunesmithError, match="9 examples in 1 groups leave nothing for test, valid"
    ):
        run(project, monkeypatch)


def test_examples_whose_writing_was_interrupted_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(make(tmp_path, ROWS))
    convert.run("mine")
    (files.examples_dir("mine") / files.MARKER).unlink()
    with pytest.raises(TunesmithError, match=r"(?s)interrupted.*do    dvc repro convert@mine"):
        validate.run("mine")
    assert not files.chat_dir("mine").exists()


def test_altered_examples_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(make(tmp_path, ROWS))
    convert.run("mine")
    with (files.examples_dir("mine") / "examples.jsonl").open("ab") as more:
        more.write(b'{"messages": []}\n')
    with pytest.raises(TunesmithError, match=r"has a file examples\.jsonl of .* bytes where"):
        validate.run("mine")


def test_a_recipes_own_check_rejects_with_its_reason() -> None:
    good = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    rows = [Example(good, "x#1", "a"), Example(good, "x#2", "b", {"odd": True})]

    def check(row: Example) -> str | None:
        return "It is odd." if row.meta.get("odd") else None

    kept, rejects = checking.checked(rows, check)
    assert kept == rows[:1]
    assert [(found.source, found.code, found.reason) for found in rejects] == [
        ("x#2", "check", "It is odd.")
    ]
