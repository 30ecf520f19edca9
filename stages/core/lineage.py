"""A model's name in, what it was made from out: raw files to GGUF, versions, seed and commit."""

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stages.core import files, inside, runs
from stages.core.settings import Model


def of(key: str, model: Model, gguf: Sequence[Path]) -> dict[str, Any]:
    """The chain of hashes from raw data to these GGUF files of a built model."""
    folders = {"train": files.adapter_dir(key), "fuse": files.fused_dir(key)}
    made = {f"{stage}@{key}": folder for stage, folder in folders.items()}
    made |= {f"gguf@{path.stem}": path for path in gguf}
    return {
        "model": key,
        "commit": commit(),
        "ran": {address: runs.of(address, runs.digest(path)) for address, path in made.items()},
        "settings": model.model_dump(),
        "raw": files.read_json(files.lineage_path(model.dataset)),
        "chat": files.tree_hash(files.chat_dir(model.dataset)),
        "tokens": files.tree_hash(files.tokens_dir(key)),
        "base": {"path": model.base, "hash": files.tree_hash(Path(model.base))},
        "adapter": files.read_json(files.adapter_dir(key) / "manifest.json")
        | {"hash": files.tree_hash(files.adapter_dir(key))},
        "fused": files.tree_hash(files.fused_dir(key)),
        "gguf": {path.name: files.sha256(path) for path in gguf},
    }


def commit() -> dict[str, Any]:
    """The git commit of the project and whether tracked files differ from it."""
    known = inside.facts()
    if known is not None:  # a container has no git
        found: dict[str, Any] = known["commit"]
        return found

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    head = git("rev-parse", "HEAD")
    changed = git("status", "--porcelain", "--untracked-files=no")
    return {"id": head or "not a git repository", "changed": bool(changed)}
