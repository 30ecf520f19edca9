"""Weights and the state of a run in, checkpoints or a model's own weight files out."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stages.core import checkpoints, files, shards, training
from stages.core.shards import Shard, Tensor

WEIGHTS, OPTIMIZER = "weights.safetensors", "optimizer.safetensors"


def save(
    run: Path, step: int, params: Mapping[str, Any], state: Mapping[str, Any],
    series: Sequence[Mapping[str, Any]],
) -> None:  # fmt: skip
    """Write checkpoint-<step> under a temporary name, rename it, and delete the older ones.

    What falls out by dropout depends on the step alone, so there is no generator to keep.
    """
    import mlx.core as mx

    with files.directory(run / f"checkpoint-{step}") as out:
        mx.save_safetensors(str(out / WEIGHTS), dict(params))
        mx.save_safetensors(str(out / OPTIMIZER), dict(state))
        files.write_json(out / checkpoints.STATE, {"step": step, "series": list(series)})
    for older in run.glob("checkpoint-*"):
        if older.name != f"checkpoint-{step}":
            shutil.rmtree(older)


def restore(checkpoint: Path) -> tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]]:
    """The weights, the optimizer's state and the series of a checkpoint, read into memory."""
    import mlx.core as mx

    params: Any = mx.load(str(checkpoint / WEIGHTS))
    state: Any = mx.load(str(checkpoint / OPTIMIZER))
    mx.eval(params, state)
    series = files.read_json(checkpoint / checkpoints.STATE)["series"]
    # In the order of the run itself: sums over all gradients depend on it.
    return dict(sorted(params.items())), state, series


def write_weights(params: Mapping[str, Any], base: Path, out: Path) -> None:
    """Write all weights under the base's names and in its types, in files of at most 2 GB.

    Raises:
        TunesmithError: a weight that is not finite in the base's type.
    """
    tensors = tuple(tensor for tensor in training.tensors(base) if tensor.name in params)
    training.require_finite(broken({t.name: typed(params[t.name], t.dtype) for t in tensors}))
    whole = Shard("model.safetensors", shards.header(tensors), tensors)
    plan = shards.within_limit([whole])
    for shard in plan:
        with (out / shard.name).open("wb") as file:
            file.write(shard.header)
            for tensor in shard.tensors:
                file.write(raw(typed(params[tensor.name], tensor.dtype)))
    if len(plan) > 1:
        shards.write_index(out, plan)


def typed(weight: Any, dtype: str) -> Any:
    """A weight in a type that safetensors names: F32, BF16 or F16."""
    import mlx.core as mx

    return weight.astype({"F32": mx.float32, "BF16": mx.bfloat16, "F16": mx.float16}[dtype])


def raw(weight: Any) -> bytes:
    """The bytes of a weight, little-endian, row after row."""
    import mlx.core as mx

    whole = weight.view(mx.uint16) if weight.dtype == mx.bfloat16 else weight
    return np.array(whole).tobytes()


def broken(weights: Mapping[str, Any]) -> list[str]:
    """The names of the weights that hold a NaN or an infinity."""
    import mlx.core as mx

    return sorted(name for name, weight in weights.items() if not mx.isfinite(weight).all().item())


def differing(params: Mapping[str, Any], base: Sequence[Tensor], tied: bool) -> str:
    """A name that the model and its base do not hold in the same shape; empty without one.

    Left out of account: the copy of a tied head, and rotary frequencies, which are no weights.
    """
    theirs = {
        tensor.name: tensor.shape
        for tensor in base
        if not tensor.name.endswith("rotary_emb.inv_freq")
        and not (tied and tensor.name == "lm_head.weight")
    }
    ours = {name: tuple(weight.shape) for name, weight in params.items()}
    return min((n for n in ours | theirs if ours.get(n) != theirs.get(n)), default="")
