"""Our settings in, the words of mlx and mlx_lm out: pure, and tested against torch's arithmetic."""

import math
import re
from typing import Any

from stages.backends.mlx.load import Device
from stages.core import training
from stages.core.errors import TunesmithError
from stages.core.settings import Lora, Train

# name in mlx.optimizers, and whatever could change a result written out
OPTIMIZERS: dict[str, tuple[str, dict[str, Any]]] = {
    "adamw": ("AdamW", {"betas": [0.9, 0.999], "eps": 1e-8, "bias_correction": False}),
    # as transformers' Trainer sets it up: the learning rate is the one that is given
    "adafactor": (
        "Adafactor",
        {
            "eps": (1e-30, 1e-3), "clip_threshold": 1.0, "decay_rate": -0.8, "beta_1": None,
            "scale_parameter": False, "relative_step": False, "warmup_init": False,
        },
    ),
    "sgd": ("SGD", {"momentum": 0.0, "dampening": 0.0, "nesterov": False}),
}  # fmt: skip
GROUP = 64
BITS = {"4bit": 4, "8bit": 8}
# parameters that transformers' Trainer never decays, by name
UNDECAYED = re.compile(r"bias|layernorm|rmsnorm|(?:^|\.)norm(?:$|\.)|_norm(?:$|\.)")


def precision(wanted: str, device: Device) -> str:
    """fp32 or bf16; `auto` is fp32 on a CPU and bf16 elsewhere.

    Raises:
        TunesmithError: fp16, whose small gradients are lost without a scaled loss.
    """
    if wanted == "auto":
        return "fp32" if device.kind == "cpu" else "bf16"
    if wanted == "fp16":
        raise TunesmithError(
            "The MLX backend does not train in fp16.",
            where="models.<model>.train.precision",
            why="Small gradients would be lost: MLX has no loss scaling.",
            do="Set train.precision to auto, bf16 or fp32.",
        )
    return wanted


def optimizer(train: Train) -> tuple[str, dict[str, Any]]:
    """The class of mlx.optimizers and its arguments, but for weight decay and learning rate."""
    return OPTIMIZERS[train.optimizer]


def at_step(train: Train, rate: float, decay: float, step: int) -> dict[str, float]:
    """What the optimizer is told at a step, counted from 1.

    AdamW's correction of its young averages (Kingma and Ba 2015, end of section 2) is put into
    learning rate, epsilon and decay here: MLX would compute it in fp32, where 1 - 0.999 ** step
    keeps four digits at first.
    """
    if train.optimizer != "adamw":
        return {"learning_rate": rate, "weight_decay": decay}
    first, second = OPTIMIZERS["adamw"][1]["betas"]
    factor = math.sqrt(1 - second**step) / (1 - first**step)
    return {
        "learning_rate": rate * factor,
        "eps": OPTIMIZERS["adamw"][1]["eps"] * math.sqrt(1 - second**step),
        "weight_decay": decay / factor,
    }


def decayed(name: str) -> bool:
    """Whether weight decay reaches this parameter: neither a bias nor a norm, as in transformers.

    The name is the model's own, such as `model.layers.0.mlp.up_proj.lora_a`.
    """
    return UNDECAYED.search(name.lower()) is None


def rates(train: Train, steps: int) -> list[float]:
    """The learning rate of every step, as transformers' schedules of the same names give it.

    It rises from 0 at the first step; `cosine` and `linear` would reach 0 one step after the last.

    Raises:
        TunesmithError: a warm-up that the run would not outlast.
    """
    warmup = training.warmup_steps(train.warmup, steps)
    return [train.learning_rate * _share(train.schedule, n, warmup, steps) for n in range(steps)]


def _share(schedule: str, step: int, warmup: int, steps: int) -> float:
    """The part of the set learning rate that is used at a step, counted from 0."""
    if step < warmup:
        return step / max(1, warmup)
    done = (step - warmup) / max(1, steps - warmup)
    if schedule == "cosine":
        return max(0.0, 0.5 * (1.0 + math.cos(math.pi * done)))
    return 1.0 if schedule == "constant" else (steps - step) / max(1, steps - warmup)


def layer(method: str, lora: Lora) -> dict[str, Any]:
    """Rank and scale of mlx_lm's layers; what PEFT calls alpha is inside the scale."""
    root = math.sqrt(lora.r) if method == "rslora" else lora.r
    return {"r": lora.r, "scale": lora.alpha / root}


def quantised(kind: str) -> dict[str, Any]:
    """Arguments of mlx.nn.quantize for quantise_base 4bit or 8bit."""
    return {"group_size": GROUP, "bits": BITS[kind], "mode": "affine"}


def quantised_kind(kind: str) -> str:
    """What the manifest calls the base that was trained on."""
    return f"mlx affine {BITS[kind]}-bit, groups of {GROUP}"
