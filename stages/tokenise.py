"""Tokenise: chat and a base's tokenizer and template -> data/tokens/<model>/, every row checked."""

from pathlib import Path
from typing import Any

from stages.core import files, settings, spread, tokenising


def run(key: str) -> None:
    """Write `data/tokens/<key>/`, the only place where chat becomes tokens, and its plot."""
    model = settings.load().models[key]
    chat = files.require_complete(files.chat_dir(model.dataset), f"validate@{model.dataset}")
    rules = tokenising.Rules(
        max_length=model.tokens.max_length,
        drop=model.tokens.over_length == "drop",
        by=tuple(files.read_json(chat / "report.json")["by"]),
        pairs=model.method == "dpo",
    )
    with files.directory(files.tokens_dir(key)) as out:
        stats = tokenising.write(chat, Path(model.base), out, rules)
    with files.file(files.report_dir(key) / "tokens" / "lengths.tsv") as path:
        lengths = {split: found["lengths"] for split, found in stats.items()}
        path.write_text(spread.series(lengths), encoding="utf-8")
    print(f"{key}: {summary(stats)}")


def summary(stats: dict[str, dict[str, Any]]) -> str:
    """One line: rows of each split, tokens, the trained part and what was dropped."""
    rows = ", ".join(f"{split} {found['rows']}" for split, found in stats.items())
    total, trained, dropped = (
        sum(found[name] for found in stats.values())
        for name in ("tokens", "trained_tokens", "dropped")
    )
    left = f"; {dropped} over-length rows dropped" if dropped else ""
    return f"{rows}; {total:,} tokens, {trained:,} of them trained ({trained / total:.0%}){left}"
