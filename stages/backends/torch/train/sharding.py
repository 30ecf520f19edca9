"""A model in; its weights, gradients and optimizer state shared between processes (FSDP2) out.

What leaves here is whole: checkpoints and written weights are those that one process writes.
"""

from pathlib import Path
from typing import Any

from stages.backends.torch import load
from stages.core import processes
from stages.core.errors import TunesmithError
from stages.core.processes import Asked
from stages.core.settings import Model


def shard(model: Any, device: str, world: int) -> None:
    """Leave each process its part of every weight; blocks are made whole one at a time.

    Gradients are added up, not averaged: the loss is divided by the whole step's tokens already.

    Args:
        model: a causal model, with or without an adapter; changed in place.
        device: cpu or cuda.
        world: how many processes there are.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device, (world,))
    causal = getattr(model, "get_base_model", lambda: model)()
    for part in (*causal.base_model.layers, model):
        made = fully_shard(part, mesh=mesh)
        made.set_gradient_divide_factor(1.0)
        made.set_force_sum_reduction_for_comms(True)  # gloo has no other


def inside(model: Any, function: Any) -> Any:
    """A function that calls the model's inside, so that the model's outer weights are whole."""
    from torch.distributed.fsdp import register_fsdp_forward_method

    model.planned = function
    register_fsdp_forward_method(model, "planned")
    return model.planned


def whole(value: Any) -> Any:
    """A tensor that is not shared; all processes must call this for the same one."""
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def whole_optimizer(optimizer: Any, first: bool) -> None:
    """Let an optimizer give out whole tensors, in the first process, and take in such.

    All processes must do it together. They are made whole one at a time: no GPU has room for all.
    """
    from torch.distributed.tensor import distribute_tensor
    from torch.utils import _pytree

    def kept(value: Any) -> Any:
        if not hasattr(value, "full_tensor"):
            return value
        found = value.full_tensor()
        return found.cpu() if first else None

    def give(_: Any, state: Any) -> Any:
        return _pytree.tree_map(kept, state)

    def take(of: Any, state: Any) -> Any:
        weights = [weight for group in of.param_groups for weight in group["params"]]

        def part(number: int, value: Any) -> Any:
            weight = weights[number]
            if getattr(value, "shape", None) != weight.shape:
                return value  # a count of steps
            there = value.to(weight.device)
            return distribute_tensor(there, weight.device_mesh, weight.placements)

        parts = {
            number: {name: part(number, value) for name, value in values.items()}
            for number, values in state["state"].items()
        }
        return {**state, "state": parts}

    optimizer.register_state_dict_post_hook(give)
    optimizer.register_load_state_dict_pre_hook(take)


def trained(model: Any, first: bool) -> dict[str, Any]:
    """Every trained weight by its name, whole, on the CPU, in the first process.

    All processes must call this; no other has room taken for them.
    """
    found = {}
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            there = whole(weight.detach())
            if first:
                found[name] = there.cpu()
    return found


def whole_model(model: Any, base: Path, first: bool) -> Any:
    """The model to be written, in the first process; all processes must call this.

    An adapter is put back whole into the model; of a model that was trained itself there is a
    new one, on the CPU.
    """
    weights = trained(model, first)
    if not first:
        return model
    if not hasattr(model, "peft_config"):
        made = load.model(base, "fp32")
        made.load_state_dict(weights, strict=False)  # what is tied has one of its names
        return made
    import torch

    for name, weight in weights.items():
        place, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(place), leaf, torch.nn.Parameter(weight))
    return model


def refuse(settings: Model, wanted: Asked) -> None:
    """Refuse what cannot be shared.

    Raises:
        TunesmithError: a quantised base, or Adafactor.
    """
    if not wanted.sharded:
        return
    wrong = {}
    if settings.quantise_base != "none":
        wrong["quantise_base"] = (
            f"a base in {settings.quantise_base}",
            "bitsandbytes's weights are packed and cannot be cut; each process would hold all.",
            "quantise_base: none",
        )
    if settings.train.optimizer == "adafactor":
        wrong["train.optimizer"] = (
            "Adafactor's state",
            "It is averages over whole rows and columns of each weight, of which each has a part.",
            "train.optimizer: adamw",
        )
    for key, (what, why, do) in wrong.items():
        raise TunesmithError(
            f"FSDP cannot share {what} between processes.",
            where=f"{processes.SHARD}=fsdp; models.<model>.{key}",
            why=why,
            do=f"{processes.SHARD}=none, where each process holds the whole model; or {do}",
        )
