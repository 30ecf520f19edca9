"""A fingerprint of settings and inputs in, the folder of its checkpoints and the last one out."""

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import orjson

from stages.core import files

STATE = "trainer_state.json"  # written last by both backends: without it a checkpoint is half


def folder(facts: dict[str, Any]) -> Path:
    """Where a run with these facts keeps its checkpoints: outside every stage's output."""
    text = orjson.dumps(facts, option=orjson.OPT_SORT_KEYS)
    name = hashlib.sha256(text).hexdigest()[:32]
    return Path(os.environ.get("DVC_ROOT", ".")) / ".tunesmith" / "checkpoints" / name


def last(run: Path) -> Path | None:
    """The newest complete checkpoint of a run, if there is one."""
    numbered = sorted((int(p.name.split("-")[1]), p) for p in run.glob("checkpoint-*"))
    whole = [path for _, path in numbered if _complete(path / STATE)]
    return whole[-1] if whole else None


def _complete(state: Path) -> bool:
    if not state.is_file():
        return False
    try:
        files.read_json(state)
    except orjson.JSONDecodeError:
        return False
    return True


def forget(run: Path) -> None:
    """Delete the checkpoints of a finished run."""
    if run.is_dir():
        shutil.rmtree(run)
