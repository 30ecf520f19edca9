"""Fuse against PEFT: one synthetic model -> wall time and peak memory of both, and their ratio.

    python -m benchmarks.fuse [--layers 28] [--vocab 151936] [--folder DIR] [--repeat 1]

The model is a random bf16 Qwen2 (1.54 billion parameters at the default size) in four shards,
with an r=16 fp32 adapter on every linear layer. Needs about 10 GB of disk. Each way runs in its
own process, imports included; every tensor of the two results is compared.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

HIDDEN, INTERMEDIATE, HEADS, KV_HEADS = 1536, 8960, 12, 2
LINEAR = {
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.k_proj": (HIDDEN // HEADS * KV_HEADS, HIDDEN),
    "self_attn.v_proj": (HIDDEN // HEADS * KV_HEADS, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.gate_proj": (INTERMEDIATE, HIDDEN),
    "mlp.up_proj": (INTERMEDIATE, HIDDEN),
    "mlp.down_proj": (HIDDEN, INTERMEDIATE),
}
PEFT = """
import sys, torch, transformers, peft
base, adapter, out = sys.argv[1:]
model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype="auto")
peft.PeftModel.from_pretrained(model, adapter).merge_and_unload().save_pretrained(out)
"""
OURS = """
import sys
from pathlib import Path
from stages.core import merge
base, adapter, out = map(Path, sys.argv[1:])
out.mkdir()
merge.merge(base, adapter, out)
"""


def main() -> None:
    options = arguments()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        base, adapter = folder / "base", folder / "adapter"
        make_base(base, options.layers, options.vocab)
        make_adapter(adapter, base, options.layers)
        best = {"peft": (9e9, 0), "ours": (9e9, 0)}
        for _ in range(options.repeat):
            for way, script in (("peft", PEFT), ("ours", OURS)):
                remove(folder / way)
                best[way] = min(best[way], measure(script, base, adapter, folder / way))
        same, total = compare(folder / "ours", folder / "peft")
    for way, (seconds, peak) in best.items():
        print(f"{way}: {seconds:6.1f} s  {peak / 1e6:7.0f} MB peak")
    faster, smaller = (best["peft"][n] / best["ours"][n] for n in (0, 1))
    print(f"equal to the bit: {same} of {total} tensors")
    print(f"ours is {faster:.1f} x faster (bar 3), {smaller:.1f} x smaller (bar 8)")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--layers", type=int, default=28)
    parser.add_argument("--vocab", type=int, default=151936)
    parser.add_argument("--folder", default=None, help="where the temporary folder is made")
    parser.add_argument("--repeat", type=int, default=1, help="runs of each way; the best counts")
    return parser.parse_args()


def measure(script: str, *paths: Path) -> tuple[float, int]:
    """(wall seconds, peak resident bytes) of a child process running the script."""
    start = time.monotonic()
    child = subprocess.Popen(
        [sys.executable, "-c", script, *map(str, paths)], stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.monotonic() - start
    if status:
        raise SystemExit(f"a child of the benchmark failed with status {status}")
    scale = 1 if sys.platform == "darwin" else 1024
    return seconds, usage.ru_maxrss * scale


def remove(folder: Path) -> None:
    for path in folder.glob("*") if folder.is_dir() else ():
        path.unlink()
    if folder.is_dir():
        folder.rmdir()


def shapes(layers: int, vocab: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of every weight of the synthetic Qwen2, embedding tied."""
    yield "model.embed_tokens.weight", (vocab, HIDDEN)
    for layer in range(layers):
        at = f"model.layers.{layer}"
        for name, shape in LINEAR.items():
            yield f"{at}.{name}.weight", shape
            if name[10:11] in "qkv" and "attn" in name:
                yield f"{at}.{name}.bias", shape[:1]
        yield f"{at}.input_layernorm.weight", (HIDDEN,)
        yield f"{at}.post_attention_layernorm.weight", (HIDDEN,)
    yield "model.norm.weight", (HIDDEN,)


def make_base(folder: Path, layers: int, vocab: int) -> None:
    """Random bf16 weights in four shards, written a block of rows at a time."""
    from stages.core import files, shards

    folder.mkdir()
    files.write_json(folder / "config.json", model_config(layers, vocab))
    total = sum(
        2 * rows * int(rest[0] if rest else 1) for _, (rows, *rest) in shapes(layers, vocab)
    )
    tensors = _laid_out([(n, s) for n, s in shapes(layers, vocab)], "BF16", folder)
    plan = shards.within_limit([shards.Shard("", b"", tuple(tensors))], total // 4 + 100_000_000)
    for shard in plan:
        _fill(folder / shard.name, shard.header, shard.tensors)
    if len(plan) > 1:
        shards.write_index(folder, plan)


def model_config(layers: int, vocab: int) -> dict[str, object]:
    return {
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "torch_dtype": "bfloat16",
        "hidden_size": HIDDEN, "intermediate_size": INTERMEDIATE, "num_hidden_layers": layers,
        "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "vocab_size": vocab,
        "hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": 1000000.0,
        "max_position_embeddings": 32768, "tie_word_embeddings": True,
    }  # fmt: skip


def make_adapter(folder: Path, base: Path, layers: int, rank: int = 16) -> None:
    """A random fp32 LoRA of every linear layer, with the manifest that training writes."""
    from stages.core import files, shards

    folder.mkdir()
    pairs = []
    for layer in range(layers):
        for name, (rows, columns) in LINEAR.items():
            at = f"base_model.model.model.layers.{layer}.{name}"
            pairs += [
                (f"{at}.lora_A.weight", (rank, columns)),
                (f"{at}.lora_B.weight", (rows, rank)),
            ]
    tensors = _laid_out(pairs, "F32", folder)
    _fill(folder / "adapter_model.safetensors", shards.header(tensors), tensors)
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": 32, "bias": "none"}
    config |= {"target_modules": sorted(name.split(".")[1] for name in LINEAR)}
    files.write_json(folder / "adapter_config.json", config | {"task_type": "CAUSAL_LM"})
    trained_on = {"id": "synthetic", "revision": "", "hash": files.tree_hash(base)}
    files.write_json(folder / "manifest.json", {"base": trained_on})


def _laid_out(named: list[tuple[str, tuple[int, ...]]], dtype: str, folder: Path) -> list:
    from stages.core.shards import BYTES, Tensor

    tensors = []
    for name, shape in named:
        size = BYTES[dtype]
        for length in shape:
            size *= length
        tensors.append(Tensor(name, dtype, shape, folder, 0, size))
    return tensors


def _fill(path: Path, header: bytes, tensors) -> None:
    """Normal values of standard deviation 0.02, 16 million at a time."""
    import torch

    random = torch.Generator().manual_seed(7)
    with path.open("wb") as out:
        out.write(header)
        for tensor in tensors:
            kind = {"BF16": (torch.bfloat16, 2), "F32": (torch.float32, 4)}[tensor.dtype]
            left = tensor.size // kind[1]
            while left:
                count = min(left, 1 << 24)
                values = torch.randn(count, generator=random).mul_(0.02).to(kind[0])
                out.write(values.view(torch.uint8).numpy())
                left -= count


def compare(ours: Path, theirs: Path) -> tuple[int, int]:
    """(tensors with the same bytes, all tensors) of two models."""
    from stages.core import shards

    def found(folder: Path) -> dict:
        return {t.name: t for shard in shards.weights(folder) for t in shard.tensors}

    left, right = found(ours), found(theirs)
    same = 0
    for name in left.keys() & right.keys():
        with left[name].path.open("rb") as one, right[name].path.open("rb") as other:
            one.seek(left[name].offset)
            other.seek(right[name].offset)
            size = left[name].size
            same += size == right[name].size and all(
                one.read(step) == other.read(step)
                for step in [1 << 24] * (size >> 24) + [size % (1 << 24)]
            )
    return same, len(left.keys() | right.keys())


if __name__ == "__main__":
    main()
