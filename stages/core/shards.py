"""Safetensors without loading: a folder's weight files -> where each tensor lies in them.

Format: 8 bytes little-endian header length N, N bytes of JSON {name: {dtype, shape,
data_offsets}}, then the tensors' bytes (huggingface/safetensors, README "Format").
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from stages.core import files
from stages.core.errors import TunesmithError

SHARD_LIMIT = 2_000_000_000
INDEX = "model.safetensors.index.json"
BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1}
BLOCK = 8 << 20


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor in a file; `offset` counts bytes from the file's start."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    path: Path
    offset: int
    size: int

    @property
    def row_bytes(self) -> int:
        """Bytes of one step along the first dimension."""
        return self.size // self.shape[0] if self.shape and self.shape[0] else self.size


@dataclass(frozen=True, slots=True)
class Shard:
    """One weight file: its name, its header's bytes, and its tensors by offset."""

    name: str
    header: bytes
    tensors: tuple[Tensor, ...]

    @property
    def size(self) -> int:
        return len(self.header) + sum(tensor.size for tensor in self.tensors)


def _broken(path: Path, what: str) -> TunesmithError:
    return TunesmithError(
        f"{path.name} is not a whole safetensors file: {what}.",
        where=str(path),
        why="Weights that cannot be read exactly would make a wrong model.",
        do="Fetch or make the file again.",
    )


def read(path: Path) -> Shard:
    """The header of one safetensors file.

    Raises:
        TunesmithError: truncated file, broken header, offsets that overlap or leave gaps.
    """
    total = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if total < 8 or length > min(total - 8, 100_000_000):
            raise _broken(path, f"its header names {length} bytes and the file has {total}")
        raw = file.read(length)
    try:
        entries = orjson.loads(raw)
    except orjson.JSONDecodeError as problem:
        raise _broken(path, f"broken header ({problem})") from problem
    entries.pop("__metadata__", None)
    start = 8 + length
    tensors = sorted(
        (_tensor(path, name, entry, start) for name, entry in entries.items()),
        key=lambda tensor: (tensor.offset, tensor.size),
    )
    end = start
    for tensor in tensors:
        if tensor.offset != end:
            raise _broken(path, f"a gap or overlap before {tensor.name}")
        end += tensor.size
    if end != total:
        raise _broken(path, f"its tensors end at byte {end} and the file at {total}")
    return Shard(path.name, length.to_bytes(8, "little") + raw, tuple(tensors))


def _tensor(path: Path, name: str, entry: dict[str, Any], start: int) -> Tensor:
    first, last = entry["data_offsets"]
    shape, dtype = tuple(entry["shape"]), entry["dtype"]
    size = BYTES.get(dtype, 0)
    for length in shape:
        size *= length
    if dtype in BYTES and size != last - first:
        raise _broken(path, f"{name} has {last - first} bytes where its shape needs {size}")
    return Tensor(name, dtype, shape, path, start + first, last - first)


def weights(folder: Path) -> list[Shard]:
    """All weight files of a Hugging Face model folder, in the order of their names.

    Raises:
        TunesmithError: no safetensors weights (pickled ones are refused), or an index that
            does not name exactly the tensors that are there.
    """
    paths = sorted(folder.glob("model*.safetensors"))
    if not paths:
        pickled = sorted([*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")])
        found = f"only pickled weights ({pickled[0].name})" if pickled else "no weights"
        raise TunesmithError(
            f"{folder} has {found}, not model*.safetensors.",
            where=str(folder),
            why="A pickle can run any code when it is opened, so none is ever opened.",
            do="Use a base whose repository has safetensors weights.",
        )
    shards = [read(path) for path in paths]
    places = {tensor.name: shard.name for shard in shards for tensor in shard.tensors}
    index = folder / INDEX
    if index.is_file() and files.read_json(index)["weight_map"] != places:
        raise _broken(index, "it does not name the tensors that the weight files hold")
    if sum(len(shard.tensors) for shard in shards) != len(places):
        raise _broken(paths[0], "a tensor stands in two files")
    return shards


def within_limit(shards: list[Shard], limit: int = SHARD_LIMIT) -> list[Shard]:
    """The same shards where all fit; otherwise the tensors laid out anew, in the same order."""
    if all(shard.size <= limit for shard in shards):
        return shards
    groups: list[list[Tensor]] = [[]]
    for tensor in (tensor for shard in shards for tensor in shard.tensors):
        group = [*groups[-1], tensor]
        full = len(header(group)) + sum(other.size for other in group) > limit
        if full and groups[-1]:
            groups.append([])
        groups[-1].append(tensor)
    names = [f"model-{n + 1:05d}-of-{len(groups):05d}.safetensors" for n in range(len(groups))]
    return [
        Shard(name, header(group), tuple(group)) for name, group in zip(names, groups, strict=True)
    ]


def header(tensors: Iterable[Tensor]) -> bytes:
    """The header that lays these tensors out one after the other, padded to 8 bytes."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in tensors:
        offsets = [end, end := end + tensor.size]
        entries[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": tensor.shape,
            "data_offsets": offsets,
        }
    raw = orjson.dumps(entries)
    raw += b" " * (-len(raw) % 8)
    return len(raw).to_bytes(8, "little") + raw


def write_index(folder: Path, shards: list[Shard]) -> None:
    """The index of several shards, as transformers reads it; none for a single file."""
    places = {tensor.name: shard.name for shard in shards for tensor in shard.tensors}
    size = sum(tensor.size for shard in shards for tensor in shard.tensors)
    files.write_json(folder / INDEX, {"metadata": {"total_size": size}, "weight_map": places})


def copy_range(source: BinaryIO, target: BinaryIO, offset: int, size: int) -> None:
    """Copy `size` bytes from `offset` on to `target`'s position, inside the kernel if it can."""
    target.flush()
    place = target.tell()
    while size and hasattr(os, "copy_file_range"):
        try:
            done = os.copy_file_range(source.fileno(), target.fileno(), size, offset, place)
        except OSError:  # not on this file system or across two: the plain copy below decides
            break
        if not done:
            break
        offset, place, size = offset + done, place + done, size - done
    target.seek(place)
    while size:
        block = os.pread(source.fileno(), min(size, BLOCK), offset)
        if not block:
            raise _broken(Path(source.name), "it ended while it was copied")
        target.write(block)
        offset, size = offset + len(block), size - len(block)
