"""Train: token rows + base -> models/adapter/<model>/ and reports/<model>/train/."""

import importlib
from pathlib import Path

from stages.core import files, manifest, settings


def run(key: str) -> None:
    """Write `models/adapter/<key>/` and `reports/<key>/train/`."""
    model = settings.load().models[key]
    base, tokens = Path(model.base), files.tokens_dir(key)
    kind = "fuse" if base.parent.name == "fused" else "base"
    files.require_complete(base, f"{kind}@{base.name}")
    files.require_complete(tokens, f"tokenise@{key}")
    out, report = files.adapter_dir(key), files.report_dir(key) / "train"
    backend = importlib.import_module(f"stages.backends.{model.backend}.train")
    backend.train(model, base, tokens, out, report)
    made = manifest.read(out)
    loss = made["loss"]
    print(
        f"{key}: {made['steps']} steps over {made['rows']} rows, "
        f"loss {loss['first']:.3f} -> {loss['last']:.3f}, then: fuse"
    )
