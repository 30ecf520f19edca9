"""GGUF build: one fused model and the quant asked for -> its file, sibling quants made beside it.

One read of the weights serves every quant that params.yaml declares for the model. Siblings wait
in `.tunesmith/gguf/<model>/<fingerprint>/` until their own stage asks and moves them into place;
the fingerprint covers the fused files, the converter and this code, so none can be stale.
"""

import hashlib
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from stages.core import convert_gguf, files, gguf_file, llamacpp, quantise

SCRATCH = Path(".tunesmith/gguf")


def make(
    fused: Path, name: str, quant: str, declared: Iterable[str], final: Path
) -> dict[str, Any]:
    """Write `final`, the `quant` of `fused`; returns its description (see gguf_file.describe).

    Args:
        name: what the file calls the model, and the folder of its waiting siblings.
        declared: all quants wanted of this model. Those without compiler are always made along;
            K-quants only when a K-quant is asked for.
    """
    waiting = SCRATCH / name / fingerprint(fused, name)
    for old in waiting.parent.glob("*"):
        if old != waiting:
            shutil.rmtree(old)
    waiting.mkdir(parents=True, exist_ok=True)
    made = waiting / f"{quant}.gguf"
    if not made.is_file():
        _make_all(fused, name, quant, set(declared), waiting)
    with files.file(final) as work:
        shutil.move(made, work)
        described = gguf_file.check(work, fused, quant)
    (waiting / f"{quant}.taken").touch()
    return described


def fingerprint(fused: Path, name: str) -> str:
    """Changes whenever the fused files, the converter or the code that writes may have changed.

    The weights count by size and time of writing: reading 3 GB to hash them would cost as much as
    converting them.
    """
    parts = [llamacpp.SHA256, name]
    for path in sorted(fused.iterdir()):
        state = path.stat()
        parts.append(f"{path.name} {state.st_size} {state.st_mtime_ns} {state.st_ino}")
    parts += [files.sha256(path) for path in sorted(Path(__file__).parent.glob("*.py"))]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _make_all(fused: Path, name: str, quant: str, declared: set[str], waiting: Path) -> None:
    """The quant, and the declared ones that were neither taken nor wait already."""
    done = {path.stem for path in waiting.glob("*.*")}
    wanted = (declared - done) | {quant}
    mixes = sorted(wanted & set(quantise.FILE_TYPES)) if quant in quantise.FILE_TYPES else []
    plain = sorted(wanted & set(convert_gguf.FILE_TYPES))
    source = waiting / "f16.gguf"
    only_for_mixes = bool(mixes) and "f16" not in plain and not source.is_file()
    if only_for_mixes:
        plain.append("f16")
    if plain:
        convert_gguf.write(fused, {kind: waiting / f"{kind}.gguf" for kind in plain}, name)
    for kind in mixes:
        quantise.quantise(source, waiting / f"{kind}.gguf", kind, fused)
    if only_for_mixes:
        source.unlink()
