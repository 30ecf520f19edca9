"""Train: token rows + base -> models/adapter/<model>/ and reports/<model>/train/."""

import importlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages.core import files, manifest, processes, room, settings


def run(key: str) -> None:
    """Write `models/adapter/<key>/` and `reports/<key>/train/`."""
    model = settings.load().models[key]
    base, tokens = Path(model.base), files.tokens_dir(key)
    files.require_complete(base, f"{'fuse' if base.parent.name == 'fused' else 'base'}@{base.name}")
    files.require_complete(tokens, f"tokenise@{key}")
    out, report = files.adapter_dir(key), files.report_dir(key) / "train"
    backend = importlib.import_module(f"stages.backends.{model.backend}.train")
    wanted = processes.asked()
    if wanted.world > 1 and not hasattr(backend, "launch"):
        raise processes.alone(model.backend, wanted)
    if here := processes.place(wanted, os.environ):
        with processes.reporting(here), room.watched(key, model, base, tokens):
            backend.train(model, base, tokens, out, report)
        sys.exit()  # the process that started this one says what was made
    with room.watched(key, model, base, tokens):
        if wanted.world > 1:
            backend.launch(key, wanted, model.train.save_steps)
        else:
            backend.train(model, base, tokens, out, report)
    if wanted.node:
        sys.exit()  # nothing was made here
    print(said(key, out))


def said(key: str, out: Path) -> str:
    """What was trained, and what to do next."""
    made = manifest.read(out)
    loss = made["loss"]
    return (
        f"{key}: {made['steps']} steps over {made['rows']} rows, "
        f"loss {loss['first']:.3f} -> {loss['last']:.3f}, then: fuse{gap(made)}"
    )


def gap(made: Mapping[str, Any]) -> str:
    """A line on what merging into the whole base costs, where training held a quantised one."""
    found = made.get("quantised")
    if found is None:
        return ""
    held = f"\n  base held as {found['kind']}: "
    if "valid_loss" not in found:
        return f"{held}no valid rows, so what that costs after merging was not measured"
    held += f"valid loss {found['valid_loss']:.4f}, on the whole base "
    if "valid_loss_merged" not in found:
        return f"{held}not measured: it has no room here; evaluate scores the merged model"
    merged = found["valid_loss_merged"]
    return f"{held}{merged:.4f} (gap {merged - found['valid_loss']:+.4f})"
