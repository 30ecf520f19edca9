"""The log of runs: what each stage took, where it ran, and the digest of what it made."""

from pathlib import Path
from typing import Any

import orjson

from stages.core import files, inside, local
from stages.core.example import dumps


def path() -> Path:
    """The log, in the main checkout: experiments in folders of their own write there, too."""
    return local.root() / ".tunesmith" / "runs.jsonl"


def note(address: str, seconds: float, peak_mb: float, result: Path | None) -> None:
    """Append a run that has just ended.

    Args:
        address: `<stage>@<key>`.
        seconds: wall time.
        peak_mb: peak resident memory.
        result: the weights that it wrote, if it wrote any.
    """
    row = {
        "stage": address,
        "seconds": round(seconds, 2),
        "peak_mb": round(peak_mb),
        **here(),
        "made": digest(result) if result else "",
    }
    path().parent.mkdir(exist_ok=True)
    with path().open("ab") as log:
        log.write(dumps(row))


def here() -> dict[str, str]:
    """Where this process runs: natively, or in a container of which engine and image."""
    known = inside.facts()
    if known is None:
        return {"where": "native"}
    return {"where": "container", "engine": known["engine"], "image": known["image"]}


def digest(result: Path) -> str:
    """What a run's result is known by afterwards."""
    return files.tree_hash(result) if result.is_dir() else files.sha256(result)


def of(address: str, made: str) -> dict[str, str]:
    """Where weights with this digest were made; `unknown` where no run of this machine did."""
    found = {"where": "unknown"}
    if not path().is_file():
        return found
    with path().open("rb") as log:
        for line in log:
            row: dict[str, Any] = orjson.loads(line)
            if row["stage"] == address and row.get("made") == made:
                found = {name: row[name] for name in ("where", "engine", "image") if name in row}
    return found
