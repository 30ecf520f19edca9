"""What was trained, on what, with what: manifest.json beside an adapter or full weights."""

from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from stages.core import files
from stages.core.settings import Model

NAME = "manifest.json"
TEMPLATE = "chat_template.jinja"


def base_facts(name: str, folder: Path) -> dict[str, str]:
    """The id, revision and hash of a base.

    Args:
        name: the base as params.yaml says it, such as `models/base/tiny`.
        folder: where it lies. Its `base.json`, where it has one, may hold `id` and `revision`.
    """
    stated = folder / "base.json"
    facts = files.read_json(stated) if stated.is_file() else {}
    return {
        "path": name,
        "id": facts.get("id", name),
        "revision": facts.get("revision", ""),
        "hash": files.tree_hash(folder),
    }


def template_hash(folder: Path) -> str:
    """SHA-256 of a base's chat template file, or of the config that holds it."""
    path = folder / TEMPLATE
    path = path if path.is_file() else folder / "tokenizer_config.json"
    return files.sha256(path) if path.is_file() else ""


def versions(packages: Sequence[str]) -> dict[str, str]:
    """The installed version of each package, read without importing it."""
    return {name: metadata.version(name) for name in packages}


def curve(series: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """A loss series in short: first, last and lowest training loss, last and best valid loss."""
    trained = [row["loss"] for row in series if row["loss"] is not None]
    valid = [row["valid_loss"] for row in series if row["valid_loss"] is not None]
    found: dict[str, float] = {}
    if trained:
        found |= {"first": trained[0], "last": trained[-1], "lowest": min(trained)}
    if valid:
        found |= {"valid_last": valid[-1], "valid_lowest": min(valid)}
    return found


def write(out: Path, settings: Model, **facts: Any) -> None:
    """Write manifest.json: the settings that shaped the training, and the facts given."""
    shaped = {
        "backend": settings.backend,
        "method": settings.method,
        "quantise_base": settings.quantise_base,
        "seed": settings.train.seed,
        "settings": settings.model_dump(include={"lora", "train"}, exclude_none=True),
    }
    files.write_json(out / NAME, shaped | facts)


def read(folder: Path) -> dict[str, Any]:
    """The manifest of a trained folder."""
    found: dict[str, Any] = files.read_json(folder / NAME)
    return found


SERIES = ("step", "loss", "valid_loss", "learning_rate", "grad_norm")


def write_series(
    path: Path, series: Sequence[Mapping[str, Any]], names: Sequence[str] = SERIES
) -> None:
    """The loss series as TSV for `dvc plots`; a value not measured at a step stays empty."""
    lines = ["\t".join(names)]
    for row in series:
        cells = (row.get(name) for name in names)
        lines.append("\t".join("" if cell is None else repr(cell) for cell in cells))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
