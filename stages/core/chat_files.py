"""Kept rows with their splits, and rejects, in; the files of a chat folder and its report out."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from stages.core import example, files, splits
from stages.core.example import Example, Reject
from stages.core.spread import series
from stages.core.text_stats import Texts, rejects_table

COPIES = {"exact": "duplicate", "near": "near_copy"}  # reject codes of checking.without_copies


def write(
    kept: Sequence[Example],
    sides: Sequence[str],
    rejects: Sequence[Reject],
    out: Path,
    by: Sequence[str],
) -> dict[str, Any]:
    """Write the split files, the rejects and report.json; returns the report.

    `by` stands in it, so that no later stage needs the recipe for it.
    """
    counted = {}
    for name in splits.NAMES:
        chosen = [row for row, side in zip(kept, sides, strict=True) if side == name]
        example.write_lines(out / f"{name}.jsonl", (row.row() for row in chosen))
        counted[name] = _counted(chosen, by).report()
    example.write_lines(out / "rejects.jsonl", (reject.row() for reject in rejects))
    codes, sizes = Counter(reject.code for reject in rejects), Counter(sides)
    report = {
        "examples": len(kept) + len(rejects),
        "kept": len(kept),
        "rejects": dict(sorted(codes.items())),
        "copies": {kind: codes[code] for kind, code in COPIES.items()},
        "splits": {name: sizes[name] for name in splits.NAMES},
        "probes": sum(map(splits.is_probe, kept)),
        "groups": len({row.group for row in kept}),
        "prompts": len({splits.prompt(row) for row in kept}),
        "leaks": splits.leaks(kept, sides),
        "by": list(by),
        "counted": {"all": _counted(kept, by).report(), **counted},
    }
    files.write_json(out / "report.json", report)
    return report


def quality(recipe: ModuleType, kept: Sequence[Example], options: Any, out: Path) -> dict[str, Any]:
    """Write quality.json, what the recipe's `report` says of the kept rows, and return it.

    A recipe without `report` writes nothing and says nothing.

    Raises:
        TunesmithError: the report says that these rows may not be trained on.
    """
    if not hasattr(recipe, "report"):
        return {}
    found: dict[str, Any] = recipe.report(kept, recipe.Options.model_validate(options))
    files.write_json(out / "quality.json", found)
    return found


def write_plots(
    report: Mapping[str, Any],
    converted: Mapping[str, Mapping[str, int]],
    said: Mapping[str, Any],
    out: Path,
) -> None:
    """Write what `dvc plots` and `dvc metrics` show.

    lengths.tsv by percent, rejects.tsv by stage and reason, and metrics.json: rows of each split,
    rejects, and the `metrics` of the recipe's report.
    """
    counts = {**report["splits"], "rejects": sum(report["rejects"].values())}
    with files.file(out / "metrics.json") as path:
        files.write_json(path, counts | said.get("metrics", {}))
    lengths = series(report["counted"]["all"]["lengths"])
    rejects = rejects_table({"convert": converted["rejects"], "validate": report["rejects"]})
    for name, text in (("lengths", lengths), ("rejects", rejects)):
        with files.file(out / f"{name}.tsv") as path:
            path.write_text(text, encoding="utf-8", newline="\n")


def _counted(rows: Sequence[Example], by: Sequence[str]) -> Texts:
    texts = Texts(by)
    for row in rows:
        texts.add(row)
    return texts
