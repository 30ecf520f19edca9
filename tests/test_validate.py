"""Validate: only whole, new and unleaked chats reach a split; what is left out is listed."""

from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from project import chat, make, params

from stages import convert, validate
from stages.core import chat_files, checking, example, files
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


Report = Callable[[Iterable[Example], Any], dict[str, Any]]


def reporting(monkeypatch: pytest.MonkeyPatch, report: Report) -> None:
    """Give the recipe `chats` this report."""
    from stages.recipes import chats

    monkeypatch.setattr(chats, "report", report, raising=False)


def test_what_a_recipe_reports_of_the_kept_examples_is_written_and_its_verdicts_are_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def report(kept: Iterable[Example], options: Any) -> dict[str, Any]:
        rows = [row.source for row in kept]
        return {"rows": rows, "system": options.system, "verdicts": ["40 rows: good", "Low: x"]}

    reporting(monkeypatch, report)
    text = params(('system: ""', 'system: "Be brief."'))
    out = run(make(tmp_path, [*ROWS, ROWS[3]], text), monkeypatch)
    found = files.read_json(out / "quality.json")
    assert found["rows"] == [f"rows.jsonl#{n}" for n in range(1, 41)]  # the copy is not among them
    assert found["system"] == "Be brief."
    assert "  40 rows: good\n  Low: x\nmine: train 24" in capsys.readouterr().out
    assert files.incomplete(out) == ""


def test_a_recipe_that_refuses_in_its_report_stops_the_stage_and_the_old_chat_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(kept: Iterable[Example], options: Any) -> dict[str, Any]:
        raise TunesmithError("3 rows are contaminated.")

    out = run(make(tmp_path, ROWS), monkeypatch)
    before = files.tree_hashes(out)
    assert "quality.json" not in before
    reporting(monkeypatch, refuse)
    with pytest.raises(TunesmithError, match="3 rows are contaminated"):
        validate.run("mine")
    assert files.tree_hashes(out) == before


def test_sizes_and_the_metrics_of_a_report_can_be_compared_by_dvc(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make(tmp_path, ROWS)
    reporting(monkeypatch, lambda kept, options: {"metrics": {"share": 0.5}, "verdicts": []})
    run(folder, monkeypatch)
    found = files.read_json(folder / "data/plots/mine/metrics.json")
    assert found == {"train": 24, "valid": 8, "test": 8, "rejects": 0, "share": 0.5}


def test_a_report_needs_no_verdicts(tmp_path: Path) -> None:
    recipe = ModuleType("recipe")
    vars(recipe).update(report=lambda kept, options: {"rows": len(kept)}, Options=_Anything)
    assert chat_files.quality(recipe, [], {}, tmp_path) == {"rows": 0}
    assert files.read_json(tmp_path / "quality.json") == {"rows": 0}


class _Anything:
    @staticmethod
    def model_validate(options: object) -> object:
        return options


def test_probes_of_a_dataset_stand_in_test_and_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [chat(f"What is {n} times {n}?", f"It is {n * n}.") for n in range(3)]
    twin = chat("WHAT is 1  times 1?", "Just one.")
    rows = [*ROWS, *(row | {"meta": {"probe": True}} for row in asked), twin]
    out = run(make(tmp_path, rows), monkeypatch)
    report = files.read_json(out / "report.json")
    assert (report["probes"], report["splits"]) == (3, {"train": 24, "valid": 8, "test": 12})
    found = sources(out / "test.jsonl")
    assert {f"rows.jsonl#{n}" for n in (41, 42, 43, 44)} <= set(found)
    assert found[:3] == [f"rows.jsonl#{n}" for n in (41, 42, 43)], "the first to be asked"


def test_the_report_counts_copies_lengths_and_kinds_of_each_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [*ROWS, ROWS[3], chat("What is 3 plus 3??", "It is 6 - as far as I know!")]
    text = params(("near_duplicates: 1.0", "near_duplicates: 0.99"))
    report = files.read_json(run(make(tmp_path, rows, text), monkeypatch) / "report.json")
    assert report["copies"] == {"exact": 1, "near": 1}
    counted = report["counted"]
    assert counted["all"]["by"] == {"format": {"prompt": 40}, "turns": {"1": 40}}
    assert counted["valid"]["by"]["format"] == {"prompt": 8}
    assert counted["all"]["lengths"]["words"]["sum"] == 40 * (5 + 8)
    assert counted["train"]["lengths"]["answer_words"] | {"histogram": {}} == {
        "min": 8, "max": 8, "mean": 8.0, "sum": 192, "p5": 8, "p25": 8, "p50": 8, "p75": 8,
        "p95": 8, "p99": 8, "histogram": {},
    }  # fmt: skip


def test_the_series_to_plot_hold_lengths_and_rejects_of_both_stages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(make(tmp_path, [*ROWS, ROWS[3], b"{broken"]), monkeypatch)
    plots = tmp_path / "data" / "plots" / "mine"
    assert (plots / "rejects.tsv").read_text(encoding="utf-8") == (
        "stage\treason\trows\nconvert\tbroken_json\t1\nvalidate\tduplicate\t1\n"
    )
    lines = (plots / "lengths.tsv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "percent\tcharacters\twords\tanswer_words\tmessages\ttoken_guess"
    assert [int(line.split("\t")[0]) for line in lines[1:]] == [0, 5, 25, 50, 75, 95, 99, 100]
    assert {line.split("\t")[2] for line in lines[1:]} == {"13"}
