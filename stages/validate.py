"""Validate: a dataset's examples -> train, valid and test chats: checked, no copies, no leaks."""

from collections import Counter
from pathlib import Path
from typing import Any

from stages.core import checking, example, files, plugins, settings, splits
from stages.core.errors import TunesmithError
from stages.core.example import Example, Reject


def run(key: str) -> None:
    """Write `data/chat/<key>/`: train, valid, test, rejects (JSON lines) and report.json."""
    dataset = settings.load().datasets[key]
    recipe = plugins.load("recipes", dataset.recipe)
    check = getattr(recipe, "check", lambda _: None)
    source = files.require_complete(files.examples_dir(key), f"convert@{key}")
    rows = list(example.read_examples(source / "examples.jsonl"))
    kept, rejects = checking.checked(rows, check)
    kept, copies = checking.without_copies(kept, dataset.checks.near_duplicates)
    rejects += copies
    if not kept:
        raise TunesmithError(
            f"None of the {len(rows)} examples of {key!r} passes the checks.",
            where=str(source / "examples.jsonl"),
            why=f"The first: {rejects[0].source}: {rejects[0].reason}",
            do=f"Mend the data or the recipe, then: dvc repro validate@{key}",
        )
    sides = splits.assign(kept, dataset.split.seed, dataset.split.valid, dataset.split.test)
    splits.refuse_leaks(kept, sides, f"datasets.{key}.split")
    with files.directory(files.chat_dir(key)) as out:
        report = write(kept, sides, rejects, out)
        # What tokenise counts tokens by: said here, so that no later stage needs the recipe for it.
        files.write_json(out / "report.json", report | {"by": recipe.STATS})
    sizes = ", ".join(f"{name} {count}" for name, count in report["splits"].items())
    print(f"{key}: {sizes}; {len(rejects)} of {len(rows)} examples left out")


def write(
    kept: list[Example], sides: list[str], rejects: list[Reject], out: Path
) -> dict[str, Any]:
    """Write the split files and the rejects; returns the report."""
    for name in splits.NAMES:
        chosen = (row.row() for row, side in zip(kept, sides, strict=True) if side == name)
        example.write_lines(out / f"{name}.jsonl", chosen)
    example.write_lines(out / "rejects.jsonl", (reject.row() for reject in rejects))
    counts = Counter(sides)
    return {
        "examples": len(kept) + len(rejects),
        "kept": len(kept),
        "rejects": dict(sorted(Counter(reject.code for reject in rejects).items())),
        "splits": {name: counts[name] for name in splits.NAMES},
        "groups": len({row.group for row in kept}),
        "prompts": len({splits.prompt(row) for row in kept}),
        "leaks": splits.leaks(kept, sides),
    }
