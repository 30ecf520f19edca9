"""Adapter: a PEFT folder -> which base weights it changes, by which factors, or a refusal by name.

Keys and scales are those of PEFT's LoraConfig and LoraLayer (huggingface/peft): `alpha / r`,
rsLoRA `alpha / sqrt(r)`, patterns matched from the end of the module's name.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.core import files, shards
from stages.core.errors import TunesmithError
from stages.core.shards import Tensor

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
PREFIX = "base_model.model."
PARTS = {
    ".lora_A.weight": "a",
    ".lora_B.weight": "b",
    ".lora_magnitude_vector.weight": "magnitude",
    ".lora_magnitude_vector": "magnitude",
}
NO_MERGE = "Merging leaves this part out, so the fused model would not be the trained one."


@dataclass(frozen=True, slots=True)
class Update:
    """What changes one weight W [out, in]: W + scale * B [out, r] @ A [r, in].

    With a `magnitude` [out] (DoRA) each row of the sum is then rescaled to that length.
    """

    a: Tensor
    b: Tensor
    magnitude: Tensor | None
    scale: float


@dataclass(frozen=True, slots=True)
class Adapter:
    """method is lora, rslora or dora; `updates` by the name of the base weight they change."""

    method: str
    updates: dict[str, Update]


def refuse(what: str, where: Path, do: str, why: str = NO_MERGE) -> TunesmithError:
    """The error for an adapter that cannot be merged exactly."""
    return TunesmithError(what, where=str(where), why=why, do=do)


# field of adapter_config.json -> (is it used?, what that is called)
UNMERGEABLE = {
    "modules_to_save": "modules_to_save (whole layers trained beside the adapter)",
    "trainable_token_indices": "trainable_token_indices (single token rows)",
    "target_parameters": "target_parameters (fused MoE experts)",
    "alora_invocation_tokens": "aLoRA (active only after an invocation)",
    "layer_replication": "layer_replication (layers that the base does not have)",
    "use_qalora": "QA-LoRA (pooled inputs)",
    "use_bdlora": "block-diagonal LoRA",
    "lora_bias": "lora_bias",
    "fan_in_fan_out": "fan_in_fan_out (transposed weights)",
    "arrow_config": "Arrow routing",
    "kasa_config": "KaSA",
    "velora_config": "VeLoRA",
    "monteclora_config": "MonteCLoRA",
    "megatron_config": "Megatron layers",
}
CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")


def check_config(config: Mapping[str, Any], where: Path) -> None:
    """Refuse by name every setting under which W + scale * B @ A is not the trained weight."""
    if config.get("peft_type") != "LORA":
        raise refuse(
            f"The adapter is of type {config.get('peft_type')!r}; LORA is what can be merged.",
            where,
            "Train with method lora, rslora, dora or full.",
        )
    for field, name in UNMERGEABLE.items():
        if config.get(field):
            raise refuse(
                f"The adapter uses {name}, which cannot be merged.",
                where,
                f"Train without {field}, or with method full.",
            )
    if config.get("bias", "none") != "none":
        raise refuse(
            f"The adapter trained biases too (bias: {config['bias']!r}).",
            where,
            "Train with bias: none.",
        )
    start = config.get("init_lora_weights", True)
    if isinstance(start, str) and start.lower().startswith(CHANGES_BASE):
        raise refuse(
            f"The adapter started from init_lora_weights: {start!r}, which changes the base.",
            where,
            "Convert it to plain LoRA first (PEFT: path_initial_model_for_weight_conversion).",
        )


def scale(config: Mapping[str, Any], module: str, rank: int, where: Path) -> float:
    """The factor of B @ A for this module, its own rank and alpha patterns honoured."""
    r = _patterned(config.get("rank_pattern"), module, config["r"])
    alpha = _patterned(config.get("alpha_pattern"), module, config["lora_alpha"])
    if r != rank:
        raise refuse(
            f"{module} has rank {rank} where the adapter's config says {r}.",
            where,
            "Use the adapter_config.json that was saved with these weights.",
            "The factor of the update depends on the rank.",
        )
    return float(alpha / math.sqrt(r) if config.get("use_rslora") else alpha / r)


def _patterned(pattern: Mapping[str, Any] | None, module: str, otherwise: float) -> float:
    """The first pattern that matches the end of the module's name decides, as in PEFT."""
    for key, value in (pattern or {}).items():
        if re.match(rf"(.*\.)?({key})$", module):
            return float(value)
    return otherwise


def read(folder: Path) -> Adapter:
    """The adapter of a PEFT folder; the tensors themselves stay on disk.

    Raises:
        TunesmithError: pickled or missing weights, or anything that cannot be merged exactly.
    """
    path, where = folder / WEIGHTS, folder / CONFIG
    if not path.is_file():
        pickled = (folder / "adapter_model.bin").is_file()
        raise refuse(
            f"{folder} has {'only pickled adapter weights' if pickled else 'no ' + WEIGHTS}.",
            folder,
            "Save the adapter as safetensors.",
            "A pickle can run any code when it is opened, so none is ever opened.",
        )
    config = files.read_json(where)
    check_config(config, where)
    parts: dict[str, dict[str, Tensor]] = {}
    for tensor in shards.read(path).tensors:
        module, part = split_key(tensor.name, path)
        parts.setdefault(module, {})[part] = tensor
    updates = {
        f"{module}.weight": _update(config, module, found, path)
        for module, found in sorted(parts.items())
    }
    dora, rslora = config.get("use_dora"), config.get("use_rslora")
    return Adapter("dora" if dora else "rslora" if rslora else "lora", updates)


def split_key(key: str, where: Path) -> tuple[str, str]:
    """`base_model.model.<module>.lora_A.weight` -> (module, which part of the update).

    Raises:
        TunesmithError: the key is no part of a LoRA update of a linear layer.
    """
    for ending, part in PARTS.items():
        if key.startswith(PREFIX) and key.endswith(ending):
            module = key.removeprefix(PREFIX).removesuffix(ending)
            if ".experts." in f".{module}." or ".base_layer." in module:
                break
            return module, part
    kind = "a weight that cannot be merged"
    if "lora_embedding" in key:
        kind = "a LoRA of an embedding, whose weight the output layer may share"
    elif "experts" in key:
        kind = "a LoRA of MoE experts"
    elif "token_adapter" in key:
        kind = "single token rows"
    elif key.endswith((".bias", ".lora_B.bias")):
        kind = "a trained bias"
    raise refuse(
        f"The adapter holds {key}: {kind}.",
        where,
        "Train only linear layers, for example lora.targets: [all-linear].",
    )


def _update(
    config: Mapping[str, Any], module: str, found: Mapping[str, Tensor], where: Path
) -> Update:
    """The update of one module, its parts complete and of matching shapes."""
    wanted = {"a", "b"} | ({"magnitude"} if config.get("use_dora") else set())
    if set(found) != wanted:
        raise refuse(
            f"{module} has the adapter parts {sorted(found)} where {sorted(wanted)} are needed.",
            where,
            "Save the adapter again; with DoRA its magnitudes too.",
        )
    a, b = found["a"], found["b"]
    if len(a.shape) != 2 or len(b.shape) != 2 or a.shape[0] != b.shape[1]:
        raise refuse(
            f"{module}: A {list(a.shape)} and B {list(b.shape)} are not a low-rank pair.",
            where,
            "Only adapters of linear layers can be merged.",
        )
    factor = scale(config, module, a.shape[0], where)
    return Update(a, b, found.get("magnitude"), factor)
