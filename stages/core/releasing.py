"""A model's reports and GGUF files in; its gates and the files of its release out."""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stages.core import files
from stages.core.errors import TunesmithError
from stages.core.settings import Gguf


def names(key: str, gguf: Mapping[str, Gguf]) -> list[str]:
    """The GGUF entries of a model; a file whose entry is gone is not released."""
    return sorted(name for name, entry in gguf.items() if entry.model == key)


def gates(reports: Path, gguf: Sequence[str]) -> list[dict[str, Any]]:
    """Every gate of the fused model and of each GGUF, with the file that it speaks of."""
    fused = files.read_json(reports / "evaluate" / "intervals.json")["gates"]
    found = [gate | {"file": "fused"} for gate in fused]
    for name in gguf:
        report = files.read_json(reports / "gguf" / f"{name}.json")
        checks = [check | {"gate": check["name"]} for check in report["checks"]]
        found += [gate | {"file": name} for gate in [*checks, *report["gates"]]]
    return found


def require_passed(found: Sequence[Mapping[str, Any]], key: str) -> None:
    """Refuse a release while a gate failed or could not run.

    Raises:
        TunesmithError: naming the first five of them.
    """
    bad = [gate for gate in found if gate["outcome"] in ("failed", "skipped")]
    if bad:
        raise TunesmithError(
            f"{len(bad)} of {len(found)} gates of {key!r} did not pass.",
            where=f"{files.report_dir(key)}/",
            why="A release is a promise; these say that it would not be kept: "
            + "; ".join(f"{gate['file']}: {gate['gate']}" for gate in bad[:5]),
            do=f"Train longer or on better data, or change models.{key}.gates, then: dvc repro",
        )


def listing(folder: Path) -> dict[str, dict[str, Any]]:
    """Size in bytes and SHA-256 of each file."""
    hashes = files.tree_hashes(folder)
    return {n: {"bytes": (folder / n).stat().st_size, "sha256": h} for n, h in hashes.items()}


def place(source: Path, target: Path) -> None:
    """A hard link where the disk allows it, else a copy: a release need not double the space."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
