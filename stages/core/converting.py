"""Examples and rejects in; their files and statistics out."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from stages.core import example, files
from stages.core.errors import TunesmithError
from stages.core.example import Example, Reject
from stages.core.text_stats import Texts


def write(found: Iterable[Example | Reject], out: Path, by: tuple[str, ...]) -> dict[str, Any]:
    """Write examples.jsonl, rejects.jsonl and stats.json; returns the statistics.

    `by` names the meta keys whose values are counted. Memory does not grow with the rows.
    """
    rejects: Counter[str] = Counter()
    texts = Texts(by)
    with (out / "examples.jsonl").open("wb") as kept, (out / "rejects.jsonl").open("wb") as left:
        for item in found:
            row, line = _composed(item.row())
            if isinstance(item, Reject):
                rejects[item.code] += 1
                left.write(line)
                continue
            texts.add(example.example_of(row))
            kept.write(line)
    stats = {
        "inputs": texts.rows + rejects.total(),
        "examples": texts.rows,
        "rejected": rejects.total(),
        "rejects": dict(sorted(rejects.items())),
        **texts.report(),
    }
    files.write_json(out / "stats.json", stats)
    return stats


def _composed(row: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """The row in NFC, and its line; one that is ASCII through and through is so already."""
    line = example.dumps(row)
    if not line.isascii():
        row = example.nfc(row)
        line = example.dumps(row)
    return row, line


def require_some(stats: dict[str, Any], key: str, source: str, out: Path) -> None:
    """Refuse a dataset without a single example.

    Raises:
        TunesmithError: with the counts of rejects and the first of them.
    """
    if stats["examples"]:
        return
    first = next(example.read_lines(out / "rejects.jsonl"), (0, {}))[1]
    counts = ", ".join(f"{count} x {code}" for code, count in stats["rejects"].items())
    text = f"All were rejected ({counts}). The first: {first.get('source')}: {first.get('reason')}"
    raise TunesmithError(
        f"The recipe made no example of {source}.",
        where=f"datasets.{key}",
        why=text if first else "It found no input there.",
        do=f"Mend the data or the options of datasets.{key}, then: dvc repro convert@{key}",
    )


def sources(source: Path) -> dict[str, str]:
    """SHA-256 of each raw file of a dataset, by its path in the project."""
    if source.is_file():
        return {source.as_posix(): files.sha256(source)}
    return {f"{source.as_posix()}/{name}": h for name, h in files.tree_hashes(source).items()}
