"""Merge: base weights and an adapter -> one plain Hugging Face model, a block of rows in memory.

The arithmetic is PEFT's merge_and_unload, to the bit: W += scale * (B @ A) with B @ A in fp32
and one rounding to W's own type; DoRA (Liu et al. 2024, arXiv:2402.09353, eq. 5) then scales
each row of the fp32 sum to its magnitude.
"""

import math
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate, pairwise, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from stages.core import adapter, files, shards, threads
from stages.core.adapter import Adapter, Update, refuse
from stages.core.errors import TunesmithError
from stages.core.progress import Progress
from stages.core.shards import Shard, Tensor

if TYPE_CHECKING:
    import torch

ROWS = 128  # a block of 128 rows stays in the cache through read, add and write
MANIFEST = "manifest.json"
CARRIED = [
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "*.model",
    "chat_template*",
    "LICENSE*",
    "NOTICE*",
]


def merge(base: Path, trained: Path, out: Path) -> dict[str, Any]:
    """Write the fused model into the folder `out`; returns its manifest.

    `trained` is a PEFT folder, or full weights `model*.safetensors`. Config, tokenizer and
    template are the base's own files, byte for byte.

    Raises:
        TunesmithError: another base than the adapter was trained on, a quantised base, a part
            that cannot be merged exactly, a disk too small, a value that is not finite.
    """
    config = files.read_json(base / "config.json")
    _check_base(config, base)
    with ThreadPoolExecutor(1) as pool:  # hashing reads what the merge reads: one pass of the disk
        hashed = pool.submit(files.tree_hash, base)
        manifest = _write(base, trained, out, config)
        base_hash = hashed.result()
    manifest |= {"base": _trained_on(trained, base, base_hash)}
    manifest |= {"adapter": {"hash": files.tree_hash(trained)}}
    files.write_json(out / MANIFEST, manifest)
    return manifest


def _check_base(config: dict[str, Any], base: Path) -> None:
    where = base / "config.json"
    if config.get("quantization_config"):
        raise refuse(
            "The base is quantised.",
            where,
            "Give the model the base's plain weights (bf16, fp16 or fp32).",
            "Merging into rounded weights rounds the adapter away.",
        )
    experts = [key for key in ("num_experts", "num_local_experts") if config.get(key)]
    if experts:
        raise refuse(
            f"The base is a mixture of experts ({experts[0]}: {config[experts[0]]}).",
            where,
            "Use a dense base: Qwen2/3, Llama, Mistral, Phi3, Gemma 2/3 or SmolLM3.",
        )


def _trained_on(trained: Path, base: Path, base_hash: str) -> dict[str, Any]:
    """The base that the manifest beside the adapter names; another base is refused."""
    path = trained / MANIFEST
    wanted: dict[str, Any] | None = files.read_json(path)["base"] if path.is_file() else None
    if wanted is None or wanted["hash"] != base_hash:
        name = "an unknown base" if wanted is None else f"{wanted['id']} ({wanted['hash'][:12]})"
        raise refuse(
            f"The adapter was trained on {name}; {base} is {base_hash[:12]}.",
            path,
            "Run dvc repro on the train stage of this model, then on its fuse stage.",
            "On other weights the update does not do what was trained.",
        )
    return wanted


def _write(base: Path, trained: Path, out: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Copy or merge all weights and carry the base's files; returns the manifest's own part."""
    found = shards.weights(base)
    if (trained / adapter.CONFIG).is_file():
        lora = adapter.read(trained)
        _check_match(lora, found, trained, bool(config.get("tie_word_embeddings")))
        method, updates = lora.method, lora.updates
    else:
        full = shards.weights(trained)
        _check_full(full, found, trained, bool(config.get("tie_word_embeddings")))
        method, updates, found = "full", {}, full
    plan = shards.within_limit(found)
    files.require_space(out, sum(shard.size for shard in plan) + 100_000_000, "The fused model")
    for path in carried(base):
        shutil.copyfile(path, out / path.name)
    write_shards(plan, updates, out)
    if len(plan) > 1:
        shards.write_index(out, plan)
    return {"method": method, "merged": len(updates), "tensors": sum(len(s.tensors) for s in plan)}


def carried(base: Path) -> list[Path]:
    """The base's config, tokenizer, template and licence files, sorted."""
    return sorted(path for pattern in CARRIED for path in base.glob(pattern) if path.is_file())


def _check_match(lora: Adapter, found: list[Shard], where: Path, tied: bool) -> None:
    """Every update has its weight, of the right shape and a plain type; nothing is left over."""
    base = {tensor.name: tensor for shard in found for tensor in shard.tensors}
    for name, update in lora.updates.items():
        if tied and name in ("lm_head.weight", "model.embed_tokens.weight"):
            raise refuse(
                f"The adapter changes {name}, which this base ties to another weight.",
                where,
                "Leave lm_head and embed_tokens out of lora.targets.",
                "The change would reach the input embedding too, where it was not trained.",
            )
        shape = (update.b.shape[0], update.a.shape[1])
        if name not in base or base[name].shape != shape:
            has = f"has shape {list(base[name].shape)}" if name in base else "is not there"
            raise refuse(
                f"The adapter changes {name} {list(shape)}, which in the base {has}.",
                where,
                "Use the adapter with the base it was trained on.",
            )
        if base[name].dtype not in ("F32", "BF16", "F16"):
            raise refuse(
                f"{name} is stored as {base[name].dtype}, which is a quantised type.",
                where,
                "Use the base's plain weights (bf16, fp16 or fp32).",
            )


def _check_full(full: list[Shard], found: list[Shard], where: Path, tied: bool) -> None:
    """Full weights: the base's names and shapes (a tied output layer may be left out)."""
    free = "lm_head.weight" if tied else ""
    ours, theirs = (
        {t.name: t.shape for shard in side for t in shard.tensors if t.name != free}
        for side in (full, found)
    )
    wrong = sorted(name for name in ours | theirs if ours.get(name) != theirs.get(name))
    if wrong:
        raise refuse(
            f"{len(wrong)} weights differ from the base's in name or shape, first {wrong[0]}.",
            where,
            "Train on this base again.",
            "The base's config.json would not describe these weights.",
        )


def write_shards(plan: list[Shard], updates: dict[str, Update], out: Path) -> None:
    """Write each shard: header, then every tensor copied in the kernel or merged block by block.

    Each tensor is written at its place, so the order of the work does not show in the file.
    """
    progress = Progress("fuse, MB", sum(shard.size for shard in plan) // 1_000_000)
    with threads.workers() as pool:
        for shard in plan:
            (out / shard.name).write_bytes(shard.header)
            places = accumulate((t.size for t in shard.tensors), initial=len(shard.header))
            jobs = zip(shard.tensors, places, strict=False)
            paths = repeat(out / shard.name)
            for size in pool.map(lambda job, path: _place(job, updates, path), jobs, paths):
                progress.step(size // 1_000_000)
    progress.close()


def _place(job: tuple[Tensor, int], updates: dict[str, Update], path: Path) -> int:
    """Write one tensor at its offset in the shard; returns its size in bytes."""
    tensor, offset = job
    with tensor.path.open("rb") as source, path.open("r+b") as target:
        target.seek(offset)
        if tensor.name in updates:
            merge_tensor(tensor, updates[tensor.name], source, target)
        else:
            shards.copy_range(source, target, tensor.offset, tensor.size)
    return tensor.size


def merge_tensor(tensor: Tensor, update: Update, source: BinaryIO, target: BinaryIO) -> None:
    """Write the merged weight at `target`'s position.

    Raises:
        TunesmithError: the merged weight holds a value that is not finite.
    """
    import torch

    a, b = load(update.a), load(update.b)
    length = load(update.magnitude) if update.magnitude else None
    dtype = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}[tensor.dtype]
    source.seek(tensor.offset)
    raw = memoryview(bytearray(min(ROWS, tensor.shape[0]) * tensor.row_bytes))
    space = torch.empty(min(ROWS, tensor.shape[0]), a.shape[1])  # one buffer: fresh pages cost
    for first, last in blocks(tensor.shape[0]):
        part = raw[: (last - first) * tensor.row_bytes]
        source.readinto(part)  # type: ignore[attr-defined]
        weight = torch.frombuffer(part, dtype=dtype).view(last - first, -1)
        delta = torch.matmul(b[first:last], a, out=space[: last - first]).mul_(update.scale)
        if length is None:
            weight += delta
        else:
            total = weight + delta
            norm = torch.linalg.norm(total, dim=1)
            weight.copy_((length[first:last] / norm).view(-1, 1) * total)
        low, high = torch.aminmax(weight)
        if not (math.isfinite(low) and math.isfinite(high)):
            raise _not_finite(tensor)
        target.write(part)


def _not_finite(tensor: Tensor) -> TunesmithError:
    return TunesmithError(
        f"{tensor.name} merges to values that are not finite in {tensor.dtype}.",
        where=str(tensor.path),
        why="A model with NaN or infinity in it answers nothing.",
        do="Look at the adapter's loss curve; train with a lower learning rate.",
    )


def blocks(rows: int) -> Iterator[tuple[int, int]]:
    """Near-equal blocks of at most ROWS rows: a last block of a row or two would be multiplied
    by another routine of the maths library, which rounds differently."""
    count = -(-rows // ROWS)
    bounds = [number * rows // count for number in range(count + 1)]
    return pairwise(bounds)


def load(tensor: Tensor) -> "torch.Tensor":
    """One whole tensor as fp32."""
    import torch

    dtype = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}[tensor.dtype]
    with tensor.path.open("rb") as file:
        file.seek(tensor.offset)
        raw = bytearray(file.read(tensor.size))
    return torch.frombuffer(raw, dtype=dtype).view(tensor.shape).float()
