"""Validate: a dataset's examples -> train, valid and test chats: checked, no copies, no leaks."""

from pathlib import Path

from stages.core import chat_files, checking, example, files, plugins, settings, splits

PLOTS = Path("data/plots")


def run(key: str) -> None:
    """Write `data/chat/<key>/` (train, valid, test, rejects, report.json) and `data/plots/<key>/`.

    Where the recipe has a `report`, what it says of the kept examples is quality.json.
    """
    dataset = settings.load().datasets[key]
    recipe = plugins.load("recipes", dataset.recipe)
    source = files.require_complete(files.examples_dir(key), f"convert@{key}")
    rows = list(example.read_examples(source / "examples.jsonl"))
    kept, rejects = checking.checked(rows, getattr(recipe, "check", lambda _: None))
    kept, copies = checking.without_copies(kept, dataset.checks.near_duplicates)
    rejects += copies
    checking.require_some(kept, rejects, key, source)
    sides = splits.assign(kept, dataset.split.seed, dataset.split.valid, dataset.split.test)
    splits.refuse_leaks(kept, sides, f"datasets.{key}.split")
    with files.directory(files.chat_dir(key)) as out:
        report = chat_files.write(kept, sides, rejects, out, recipe.STATS)
        said = chat_files.quality(recipe, kept, dataset.options, out)
    chat_files.write_plots(report, files.read_json(source / "stats.json"), said, PLOTS / key)
    for verdict in said.get("verdicts", []):
        print(f"  {verdict}")
    sizes = ", ".join(f"{name} {count}" for name, count in report["splits"].items())
    print(f"{key}: {sizes}; {len(rejects)} of {len(rows)} examples left out")
