"""Gguf: a fused model -> models/gguf/<model>/<key>.gguf, one quantised file."""

from stages.core import files, gguf_build, settings


def run(key: str) -> None:
    """Write the GGUF file of the entry `key`."""
    params = settings.load()
    entry = params.gguf[key]
    fused = files.require_complete(files.fused_dir(entry.model), f"fuse@{entry.model}")
    declared = [other.quant for other in params.gguf.values() if other.model == entry.model]
    final = files.gguf_path(entry.model, key)
    made = gguf_build.make(fused, entry.model, entry.quant, declared, final)
    print(f"{key}: {made['tensors']} tensors, {made['bytes'] / 1e6:,.1f} MB, then: verify")
    if made["fallbacks"]:
        types = ", ".join(f"{count} x {kind}" for kind, count in made["types"].items())
        print(
            f"  {made['fallbacks']} matrices do not fit {entry.quant} (row length) and were stored "
            f"in other types: {types}"
        )
