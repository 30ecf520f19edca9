"""An adapter in mlx-lm's form or in PEFT's in, the same adapter in the other form out.

numpy alone: neither torch nor mlx is needed. Both forms hold fp32 and mean the same weight,
W + scale * B @ A; PEFT stores A [r, in] and B [out, r], mlx-lm `lora_a` [in, r] and `lora_b`
[r, out]. DoRA's magnitude [out] is `lora_magnitude_vector` there and `m` here. Forms as written
by peft 0.21 (`LoraLayer`, `get_peft_model_state_dict`) and mlx-lm 0.32 (`tuner/utils.py`).
"""

import math
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stages.backends.mlx.train import updates
from stages.backends.mlx.train.updates import Array
from stages.core import files, shards

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
PREFIX = "base_model.model."
MLX = {".lora_a": "a", ".lora_b": "b", ".m": "magnitude"}
PEFT = {
    ".lora_A.weight": "a",
    ".lora_B.weight": "b",
    ".lora_magnitude_vector.weight": "magnitude",  # as PEFT wrote it for a while
    ".lora_magnitude_vector": "magnitude",
}
ENDINGS = {part: ending for ending, part in PEFT.items()}  # the later spelling is PEFT's own


def to_peft(
    weights: Mapping[str, Array], *, rank: int, scale: float, dora: bool, rslora: bool, base: str,
    dropout: float = 0.0, blocks: int | None = None,
) -> tuple[dict[str, Array], dict[str, Any]]:  # fmt: skip
    """mlx-lm's tensors -> PEFT's tensors and the content of its adapter_config.json.

    Args:
        weights: by mlx-lm's names, such as `model.layers.0.self_attn.q_proj.lora_a`.
        rank: of every update; mlx-lm has one.
        scale: what mlx-lm multiplies B @ A by.
        dora: every update has a magnitude.
        rslora: say the scale as alpha / sqrt(r) instead of alpha / r.
        base: what adapter_config.json is to call the base.
        dropout: used while training.
        blocks: how many the base has; without it, the adapted ones are always listed.

    Raises:
        TunesmithError: a tensor that is no part of a linear layer's update, a missing part, a
            wrong shape, a value that is not finite.
    """
    parts = updates.grouped(weights, MLX, "")
    tensors: dict[str, Array] = {}
    for module, found in parts.items():
        turned = {name: part.T if part.ndim == 2 else part for name, part in found.items()}
        updates.require_update(module, turned, rank, dora)
        tensors |= {f"{PREFIX}{module}{ENDINGS[name]}": _whole(p) for name, p in turned.items()}
    config = {
        "alpha_pattern": {}, "base_model_name_or_path": base, "bias": "none",
        "fan_in_fan_out": False, "inference_mode": True, "init_lora_weights": True,
        "layers_pattern": None, "lora_alpha": alpha(scale, rank, rslora), "lora_bias": False,
        "lora_dropout": dropout, "modules_to_save": None, "peft_type": "LORA", "r": rank,
        "rank_pattern": {}, "revision": None, "task_type": "CAUSAL_LM", "use_dora": dora,
        "use_rslora": rslora,
    }  # fmt: skip
    return tensors, config | _targets(list(parts), blocks)


def to_mlx(folder: Path, blocks: int | None = None) -> tuple[dict[str, Array], dict[str, Any]]:
    """A PEFT folder -> mlx-lm's tensors and the content of its adapter_config.json.

    mlx-lm has one rank and one scale. Lower ranks are padded with zeros to the highest; where
    scales differ, the commonest is kept and the ratio to it goes into `lora_b`. A module that
    the config reaches and the adapter leaves alone has no tensors: mlx-lm starts it at B = 0.

    Args:
        folder: with adapter_model.safetensors and adapter_config.json. A manifest.json beside
            them may hold the exact `scale`, which alpha / r can miss by the last digit.
        blocks: how many the base has; without it mlx-lm is told to look through all of them.

    Raises:
        TunesmithError: as `to_peft`, and a PEFT setting that mlx-lm's layers do not have.
    """
    config = files.read_json(folder / CONFIG)
    updates.require_plain(config, folder / CONFIG)
    parts = updates.grouped(load(folder / WEIGHTS), PEFT, PREFIX)
    ranks = {module: int(_patterned(config, "r", "rank_pattern", module)) for module in parts}
    for module, found in parts.items():
        updates.require_update(module, found, ranks[module], bool(config.get("use_dora")))
    scales = {module: _scale(config, module, ranks[module]) for module in parts}
    used = Counter(scale for scale in scales.values() if scale)
    rank, scale = max(ranks.values()), used.most_common(1)[0][0] if used else 0.0
    tensors: dict[str, Array] = {}
    for module, found in parts.items():
        ratio = scales[module] / scale if scale else 1.0
        turned = _mlx_parts(found, rank, ratio)
        tensors |= {f"{module}.{name}": part for name, part in turned.items()}
    return tensors, _mlx_words(config, list(parts), rank, _stated_scale(folder, scale), blocks)


def _mlx_words(
    config: Mapping[str, Any], modules: list[str], rank: int, scale: float, blocks: int | None
) -> dict[str, Any]:
    """mlx-lm's adapter_config.json; `num_layers` counts from the last, -1 is all."""
    places = [place(module) for module in modules]
    first = min((block for block, _ in places if block is not None), default=None)
    return {
        "fine_tune_type": "dora" if config.get("use_dora") else "lora",
        "num_layers": -1 if blocks is None or first is None else blocks - first,
        "lora_parameters": {
            "rank": rank,
            "scale": scale,
            "dropout": float(config.get("lora_dropout") or 0.0),
            "keys": sorted({inside for _, inside in places}),
        },
    }


def load(path: Path) -> dict[str, Array]:
    """All tensors of a safetensors file as fp32, which holds every fp16 and bf16 value exactly.

    Raises:
        TunesmithError: a broken file, another type, a value that is not finite.
    """
    return {tensor.name: read(tensor) for tensor in shards.read(path).tensors}


def read(tensor: shards.Tensor) -> Array:
    """One tensor as fp32; raises as `load`."""
    with tensor.path.open("rb") as file:
        file.seek(tensor.offset)
        raw = file.read(tensor.size)
    if tensor.dtype == "BF16":  # the upper half of an fp32
        found = (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
    elif tensor.dtype in ("F16", "F32"):
        found = np.frombuffer(raw, {"F16": "<f2", "F32": "<f4"}[tensor.dtype]).astype(np.float32)
    else:
        raise updates.refuse(
            f"{tensor.name} is stored as {tensor.dtype}.", str(tensor.path),
            "Adapters are F32, BF16 or F16; fp32 does not hold every value of another type.",
            "Save it as one of these.",
        )  # fmt: skip
    updates.require_finite(tensor.name, found)
    return found.reshape(tensor.shape)


def alpha(scale: float, rank: int, rslora: bool) -> float:
    """The alpha that PEFT makes exactly `scale` of, the shortest to write; else the nearest.

    scale * r can be off by one in the last digit. Some scales are no alpha / r at all.
    """
    root = math.sqrt(rank) if rslora else rank
    near = [scale * root]
    for towards in (math.inf, -math.inf):
        other = near[0]
        for _ in range(2):
            near.append(other := math.nextafter(other, towards))
    exact = [value for value in near if value / root == scale]
    return min(exact, key=lambda value: len(repr(value))) if exact else near[0]


def _targets(modules: list[str], blocks: int | None) -> dict[str, Any]:
    """target_modules and layers_to_transform: last names where every used block has the same."""
    inside: dict[int | None, set[str]] = {}
    for block, name in map(place, modules):
        inside.setdefault(block, set()).add(name)
    used = [block for block in inside if block is not None]
    names = inside[used[0]] if used else set()
    if None in inside or any(other != names for other in inside.values()):
        return {"target_modules": sorted(modules), "layers_to_transform": None}
    return {
        "target_modules": sorted({name.rsplit(".", 1)[-1] for name in names}),
        "layers_to_transform": None if len(used) == blocks else sorted(used),
    }


def place(module: str) -> tuple[int | None, str]:
    """`model.layers.3.mlp.up_proj` -> (3, `mlp.up_proj`); outside the blocks (None, module)."""
    found = re.fullmatch(r"(?:.*?\.)?layers\.(\d+)\.(.+)", module)
    return (int(found[1]), found[2]) if found else (None, module)


def _mlx_parts(found: Mapping[str, Array], rank: int, ratio: float) -> dict[str, Array]:
    """`lora_a`, `lora_b` and `m`, padded to `rank`, `lora_b` times `ratio`."""
    b = found["b"]
    if ratio != 1.0:
        b = (b.astype(np.float64) * ratio).astype(np.float32)
    missing = rank - b.shape[1]
    parts = {
        "lora_a": _whole(np.pad(found["a"].T, ((0, 0), (0, missing)))),
        "lora_b": _whole(np.pad(b.T, ((0, missing), (0, 0)))),
    }
    return parts | ({"m": _whole(found["magnitude"])} if "magnitude" in found else {})


def _scale(config: Mapping[str, Any], module: str, rank: int) -> float:
    """The factor of B @ A, as PEFT computes it."""
    value = _patterned(config, "lora_alpha", "alpha_pattern", module)
    return float(value / (math.sqrt(rank) if config.get("use_rslora") else rank))


def _patterned(config: Mapping[str, Any], field: str, pattern: str, module: str) -> float:
    """The first pattern that matches the end of the module's name decides, as in PEFT."""
    for key, value in (config.get(pattern) or {}).items():
        if re.match(rf"(.*\.)?({key})$", module):
            return float(value)
    return float(config[field])


def _stated_scale(folder: Path, scale: float) -> float:
    """The scale that the manifest states, when alpha / r is that one but for its last digits."""
    path = folder / "manifest.json"
    stated: float = (files.read_json(path) if path.is_file() else {}).get("scale", scale)
    return stated if math.isclose(stated, scale, rel_tol=1e-15) else scale


def _whole(array: Array) -> Array:
    """fp32, its rows one after the other: safetensors writes memory as it lies."""
    return np.ascontiguousarray(array, dtype=np.float32)
