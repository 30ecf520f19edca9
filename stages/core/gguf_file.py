"""GGUF: a file -> its metadata and tensor table, read without any library, and checks on them.

Format: ggml-org/ggml, docs/gguf.md, version 3, little-endian.
"""

import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

from stages.core import files
from stages.core.errors import TunesmithError

# value type number -> struct code (docs/gguf.md, gguf_metadata_value_type)
CODES = dict(enumerate("BbHhIif?")) | {10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
# ggml type number -> (name, values a block, bytes a block) (ggml.h, ggml_type; ggml-common.h)
TYPES = {
    0: ("f32", 1, 4), 1: ("f16", 1, 2), 2: ("q4_0", 32, 18), 3: ("q4_1", 32, 20),
    6: ("q5_0", 32, 22), 7: ("q5_1", 32, 24), 8: ("q8_0", 32, 34), 10: ("q2_k", 256, 84),
    11: ("q3_k", 256, 110), 12: ("q4_k", 256, 144), 13: ("q5_k", 256, 176),
    14: ("q6_k", 256, 210), 20: ("iq4_nl", 32, 18), 30: ("bf16", 1, 2),
}  # fmt: skip
# LLAMA_FTYPE number -> quant (llama.h, llama_ftype)
FILE_TYPES = {
    0: "f32", 1: "f16", 7: "q8_0", 10: "q2_k", 11: "q3_k_s", 12: "q3_k_m", 13: "q3_k_l",
    14: "q4_k_s", 15: "q4_k_m", 16: "q5_k_s", 17: "q5_k_m", 18: "q6_k", 32: "bf16",
}  # fmt: skip
MIXES = ("q2_k", "q3_k", "q4_k", "q5_k", "q6_k")


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor: shape innermost first, `offset` from the start of the data part."""

    name: str
    shape: tuple[int, ...]
    type: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Header:
    """Everything before the data; `data` is where that starts in the file."""

    metadata: dict[str, Any]
    tensors: tuple[Entry, ...]
    data: int

    @property
    def quant(self) -> str:
        number = self.metadata.get("general.file_type", -1)
        return FILE_TYPES.get(number, f"type {number}")


def read(path: Path) -> Header:
    """The header of a GGUF file.

    Raises:
        TunesmithError: no GGUF of version 3, an unknown tensor type, or shorter than it says.
    """
    with path.open("rb") as file:
        magic, version, tensors, values = struct.unpack("<4sIQQ", file.read(24).ljust(24))
        if magic != b"GGUF" or version != 3:
            raise broken(path, "it is no GGUF file of version 3")
        try:
            metadata = dict(_value_pair(file) for _ in range(values))
            entries = tuple(_entry(file, path) for _ in range(tensors))
        except struct.error as problem:
            raise broken(path, "it ends inside its header") from problem
        align = metadata.get("general.alignment", 32)
        data = -(-file.tell() // align) * align
    end = data + max((entry.offset + entry.size for entry in entries), default=0)
    if path.stat().st_size < end:
        raise broken(path, f"it has {path.stat().st_size} bytes where its table needs {end}")
    return Header(metadata, entries, data)


def broken(path: Path, what: str) -> TunesmithError:
    """The error for a file that may not be used."""
    return TunesmithError(
        f"{path.name} cannot be used: {what}.",
        where=str(path),
        why="A GGUF that differs from the fused model would answer differently.",
        do="Delete it and run its gguf stage again.",
    )


def _one(file: BinaryIO, code: str) -> Any:
    return struct.unpack(f"<{code}", file.read(struct.calcsize(f"<{code}")))[0]


def _text(file: BinaryIO) -> str:
    return file.read(_one(file, "Q")).decode("utf-8", "surrogateescape")


def _value_pair(file: BinaryIO) -> tuple[str, Any]:
    return _text(file), _value(file, _one(file, "I"))


def _value(file: BinaryIO, kind: int) -> Any:
    if kind == STRING:
        return _text(file)
    if kind != ARRAY:
        return _one(file, CODES[kind])
    inner, count = _one(file, "I"), _one(file, "Q")
    if inner in (STRING, ARRAY):
        return [_value(file, inner) for _ in range(count)]
    code = f"<{count}{CODES[inner]}"
    return list(struct.unpack(code, file.read(struct.calcsize(code))))


def _entry(file: BinaryIO, path: Path) -> Entry:
    name, count = _text(file), _one(file, "I")
    shape = tuple(_one(file, "Q") for _ in range(count))
    number, offset = _one(file, "I"), _one(file, "Q")
    if number not in TYPES:
        raise broken(path, f"{name} has the unknown type {number}")
    kind, values, size = TYPES[number]
    return Entry(name, shape, kind, offset, prod(shape) // values * size)


def describe(path: Path) -> dict[str, Any]:
    """What a report says of a file: quant, bytes, tensors by type, and silent fallbacks.

    A fallback is a matrix stored in a type that its quant does not use, because its rows are no
    multiple of the quant's block (256 values for K-quants, 32 for q8_0).
    """
    header = read(path)
    fallbacks = list(_fallbacks(header))
    return {
        "quant": header.quant,
        "architecture": header.metadata.get("general.architecture", ""),
        "bytes": path.stat().st_size,
        "tensors": len(header.tensors),
        "types": dict(sorted(Counter(entry.type for entry in header.tensors).items())),
        "fallbacks": len(fallbacks),
        "fallback_tensors": [f"{entry.name} {entry.type}" for entry in fallbacks],
    }


def _fallbacks(header: Header) -> Iterator[Entry]:
    expected = MIXES if "_k" in header.quant else (header.quant,)
    for entry in header.tensors:
        matrix = len(entry.shape) > 1 and not entry.name.endswith("_norm.weight")
        if matrix and entry.type not in expected:
            yield entry


def check(path: Path, fused: Path, quant: str) -> dict[str, Any]:
    """Refuse a file that is not the `quant` of `fused`; returns its description.

    Raises:
        TunesmithError: another quant, tokenizer size, chat template or a missing weight.
    """
    header = read(path)
    if header.quant != quant:
        raise broken(path, f"it is a {header.quant} where a {quant} was asked for")
    names = {entry.name: entry for entry in header.tensors}
    tokens = len(header.metadata.get("tokenizer.ggml.tokens", ()))
    embedding = names.get("token_embd.weight")
    if embedding is None or embedding.shape[1] != tokens:
        raise broken(path, f"its tokenizer has {tokens} tokens, its embedding another number")
    template = header.metadata.get("tokenizer.chat_template")
    if template != chat_template(fused):
        raise broken(path, "its chat template is not the fused model's")
    return describe(path)


def chat_template(folder: Path) -> str | None:
    """The default chat template of a Hugging Face folder, as transformers picks it."""
    file, config = folder / "chat_template.jinja", folder / "tokenizer_config.json"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    template = files.read_json(config).get("chat_template") if config.is_file() else None
    if isinstance(template, list):
        named = {entry["name"]: entry["template"] for entry in template}
        return named.get("default")
    return template
