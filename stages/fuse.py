"""Fuse: base + adapter -> models/fused/<model>/, plain safetensors with the base's own files."""

from pathlib import Path

from stages.core import files, merge, settings


def run(key: str) -> None:
    """Write `models/fused/<key>/`."""
    base = Path(settings.load().models[key].base)
    kind = "fuse" if base.parent.name == "fused" else "base"
    files.require_complete(base, f"{kind}@{base.name}")
    trained = files.require_complete(files.adapter_dir(key), f"train@{key}")
    with files.directory(files.fused_dir(key)) as out:
        manifest = merge.merge(base, trained, out)
    print(f"{key}: {manifest['merged']} of {manifest['tensors']} weights merged, then: gguf")
