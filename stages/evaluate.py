"""Evaluate: base and fused model, test rows -> metrics, plot series and samples, side by side."""

import importlib
from pathlib import Path
from typing import Any

from stages.core import files, plugins, scoring, settings, statistics, tokens


def run(key: str) -> None:
    """Write `reports/<key>/evaluate/`."""
    model = settings.load().models[key]
    fused = files.require_complete(files.fused_dir(key), f"fuse@{key}")
    base = files.require_complete(Path(model.base), f"base or fuse of {model.base}")
    rows = scoring.test_rows(files.tokens_dir(key), model.evaluate.max_prompts)
    judge = plugins.load("recipes", model.judge).judge
    generate = importlib.import_module(f"stages.backends.{model.evaluate.engine}.generate").generate
    answers: dict[str, list[str]] = {}
    scores: dict[str, list[dict[str, float]]] = {}
    stops: dict[str, float] = {}
    for name, folder in (("base", base), ("tuned", fused)):
        for mode, temperature in (("greedy", 0.0), ("sampled", model.evaluate.temperature)):
            label = f"{name}_{mode}"
            made = scoring.answers(generate, folder, rows, model.evaluate, temperature, label)
            answers[label], stops[label] = made
            scores[label] = [
                judge(row.example, text) for row, text in zip(rows, made[0], strict=True)
            ]
    gates = statistics.gates(
        model.gates.at_least, model.gates.above_base, scores["base_greedy"], scores["tuned_greedy"]
    )
    with files.directory(files.report_dir(key) / "evaluate") as out:
        write(out, rows, answers, scores, stops, gates)
    scoring.show(key, scores, gates)


def write(
    out: Path,
    rows: list[tokens.Row],
    answers: dict[str, list[str]],
    scores: dict[str, list[dict[str, float]]],
    stops: dict[str, float],
    gates: list[dict[str, Any]],
) -> None:
    """Write metrics.json, intervals.json, metrics.tsv (for plots) and samples.jsonl."""
    found = {label: statistics.summaries(values) for label, values in scores.items()}
    for label, texts in answers.items():
        found[label]["distinct"] = {"mean": statistics.distinctness(texts), "n": len(texts)}
        found[label]["stops"] = {"mean": stops[label], "n": len(texts)}
    means = {
        label: {name: round(value["mean"], 4) for name, value in values.items()}
        for label, values in found.items()
    }
    files.write_json(out / "metrics.json", means)
    files.write_json(out / "intervals.json", {"scores": found, "gates": gates})
    scoring.write_series(out / "metrics.tsv", found)
    scoring.write_samples(out / "samples.jsonl", rows, answers, scores)
