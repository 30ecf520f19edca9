"""Quantise: an f16 GGUF -> a K-quant GGUF, by libllama in a child process.

The child is needed because llama_model_quantize cannot be cancelled and leaves a partial file
when it fails. Run as `python -m stages.core.quantise <libllama> <source> <target> <type>`.
"""

import ctypes
import subprocess
import sys
from pathlib import Path
from typing import Any

from stages.core import files, gguf_file, llamacpp
from stages.core.errors import TunesmithError

FILE_TYPES = {quant: number for number, quant in gguf_file.FILE_TYPES.items() if "_k" in quant}
ERROR = 4  # ggml.h, GGML_LOG_LEVEL_ERROR
LOG = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)


class Options(ctypes.Structure):
    """llama.h, llama_model_quantize_params of the pinned source."""

    _fields_ = [
        ("nthread", ctypes.c_int32),
        ("ftype", ctypes.c_int),
        ("output_tensor_type", ctypes.c_int),
        ("token_embedding_type", ctypes.c_int),
        ("allow_requantize", ctypes.c_bool),
        ("quantize_output_tensor", ctypes.c_bool),
        ("only_copy", ctypes.c_bool),
        ("pure", ctypes.c_bool),
        ("keep_split", ctypes.c_bool),
        ("dry_run", ctypes.c_bool),
        ("imatrix", ctypes.c_void_p),
        ("kv_overrides", ctypes.c_void_p),
        ("tt_overrides", ctypes.c_void_p),
        ("prune_layers", ctypes.c_void_p),
        ("max_buf_size", ctypes.c_size_t),
    ]


def quantise(source: Path, target: Path, quant: str, fused: Path) -> dict[str, Any]:
    """Write `target` as the K-quant of the f16 file `source`; returns its description.

    Raises:
        TunesmithError: no compiler for the first build, a failure that libllama reports, or a
            written file that fails its check against `fused`.
    """
    library = llamacpp.library()
    files.require_space(target, source.stat().st_size // 2, f"The {quant} file")
    with files.file(target) as work:
        arguments = [str(library), str(source), str(work), str(FILE_TYPES[quant])]
        child = subprocess.run(
            [sys.executable, "-m", "stages.core.quantise", *arguments],
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        if child.returncode:
            said = child.stdout.strip() or f"it ended with status {child.returncode}"
            raise TunesmithError(
                f"llama.cpp could not make the {quant} file: {said}",
                where=str(source),
                why="A partial file would load and answer wrongly; it was removed.",
                do="Mend the cause above (disk space, memory), then run it again.",
            )
        return gguf_file.check(work, fused, quant)


def child(library: str, source: str, target: str, file_type: int) -> int:
    """Call llama_model_quantize; its error lines go to stdout, the rest nowhere."""
    llama = ctypes.CDLL(library)
    errors: list[str] = []

    def log(level: int, text: bytes, _: object) -> None:
        if level == ERROR:
            errors.append(text.decode("utf-8", "replace").strip())

    keep = LOG(log)  # the library calls it until the process ends
    llama.llama_log_set(keep, None)
    llama.llama_model_quantize_default_params.restype = Options
    options = llama.llama_model_quantize_default_params()
    options.ftype = file_type
    llama.llama_model_quantize.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p]
    status = llama.llama_model_quantize(source.encode(), target.encode(), ctypes.addressof(options))
    print("; ".join(line for line in errors if line))
    return int(status)


if __name__ == "__main__":
    sys.exit(child(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
