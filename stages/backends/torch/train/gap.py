"""A trainer that has trained on a quantised base in; what the rounding costs after merging out."""

import gc
import math
from pathlib import Path
from typing import Any

from stages.backends.torch import load
from stages.backends.torch.train import quantised
from stages.core import machine, training

SIZES = {"fp32": 4, "bf16": 2, "fp16": 2}


def measure(made: Any, base: Path, held: str) -> dict[str, Any]:
    """The valid split's loss on the quantised base, and with the adapter on the whole one.

    The quantised layers are freed first. The second loss is left out where the whole base has no
    room even then: it may well be that the model was quantised for that.

    Args:
        made: the trainer; of its model the adapter alone is of use afterwards.
        base: the base's folder.
        held: 4bit or 8bit.
    """
    valid, merged = made.state.log_history[-1]["valid_loss"], None
    if valid is not None:
        values = sum(math.prod(tensor.shape) for tensor in training.tensors(base))
        names, passing = free(made)
        where = place(SIZES[made.precision] * values, passing, made.device.kind)
        merged = on_whole_base(made, base, names, where) if where else None
    return training.quantised(quantised.KINDS[held], valid, merged)


def free(made: Any) -> tuple[list[str], int]:
    """Let go of the optimizer and of the base's quantised layers.

    Returns: the names of these layers; the bytes that a step took beside the model, on a GPU.
    """
    import torch

    cuda = made.device.kind == "cuda"
    passing = torch.cuda.max_memory_allocated() - torch.cuda.memory_allocated() if cuda else 0
    made.accelerator.free_memory()
    made.optimizer = made.callback_handler.optimizer = None
    causal = made.model.get_base_model()
    names = [name for name, layer in causal.named_modules() if quantised.holds(layer)]
    for name in names:
        causal.set_submodule(name, torch.nn.Identity())
    gc.collect()
    if cuda:
        torch.cuda.empty_cache()
    return names, passing


def place(weights: int, passing: int, device: str) -> str | None:
    """Where there is room now for so many bytes of weights and of what comes and goes."""
    if device == "cuda":
        import torch

        if weights + passing < torch.cuda.mem_get_info()[0]:
            return "cuda"
    return "cpu" if weights + passing < machine.memory().free else None


def on_whole_base(made: Any, base: Path, names: list[str], where: str) -> float:
    """The valid split's loss with the whole base's layers in the places of the quantised ones."""
    whole, causal = load.model(base, made.precision), made.model.get_base_model()
    for name in names:
        causal.set_submodule(name, whole.get_submodule(name.removesuffix(".base_layer")))
    made.model.to(where)
    found: float = made.on_valid()["valid_loss"]
    return found
