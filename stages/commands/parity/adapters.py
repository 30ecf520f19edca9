"""A small model in; how exactly adapters move between PEFT and mlx-lm, both ways, as checks, out.

Each library runs the adapter with code of its own: PEFT's layers, and mlx-lm's `load_adapters`.
"""

from pathlib import Path
from typing import Any

import numpy as np

from stages.commands.parity import backends, logits
from stages.core import files, parity
from stages.core.parity import Check

LIMIT, FELT = 5e-5, 0.5  # of a logit: how equal they must be, and how far the adapter moves them
SEED = 3
# variant -> what it asks of PEFT. Those of MANY have no one rank and scale, as mlx-lm needs.
VARIANTS: dict[str, dict[str, Any]] = {
    "lora": {},
    "rslora": {"use_rslora": True, "r": 6},
    "dora": {"use_dora": True},
    "last block": {"layers_to_transform": [1], "target_modules": ["o_proj", "down_proj"]},
    "patterns": {"rank_pattern": {"o_proj": 3}, "alpha_pattern": {"down_proj": 21}},
}
MANY = ("patterns",)


def compare(name: str, folder: Path, variant: str, work: Path) -> list[Check]:
    """A random PEFT adapter in both; then the same from mlx-lm's form back, to the bit.

    Args:
        name: of the architecture.
        folder: its small model.
        variant: one of VARIANTS.
        work: an empty folder.
    """
    form = backends.part("mlx.train.peft_form")
    blocks = files.read_json(folder / "config.json")["num_hidden_layers"]
    plain = logits.by_torch(backends.part("torch.load").model(folder, "fp32"))
    wanted = random_adapter(folder, VARIANTS[variant], work / "peft")
    tensors, config = form.to_mlx(work / "peft", blocks)
    found = by_mlx(folder, save_mlx(tensors, config, work / "mlx"))
    checks = [_near(f"PEFT -> MLX {variant} {name}", wanted, found, plain)]
    if variant in MANY:
        return checks
    words = config["lora_parameters"]
    back, said = form.to_peft(
        tensors, rank=words["rank"], scale=words["scale"], dora=variant == "dora",
        rslora=variant == "rslora", base=name, blocks=blocks,
    )  # fmt: skip
    again = by_peft(folder, save_peft(back, said, work / "back", words["scale"]))
    checks.append(_near(f"MLX -> PEFT {variant} {name}", again, found, plain))
    twice, _ = form.to_mlx(work / "back", blocks)
    wrong = sorted(key for key in tensors | twice if not _same(tensors.get(key), twice.get(key)))
    reason = f"first {wrong[0]}" if wrong else ""
    label = f"round trip {variant} {name}"
    return [*checks, parity.check(label, len(wrong), 0, not wrong, reason)]


def random_adapter(folder: Path, options: dict[str, Any], out: Path) -> np.ndarray:
    """Write a random adapter as PEFT does; returns the logits of the model with it."""
    import peft
    import torch

    words = {"r": 4, "lora_alpha": 7, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
    torch.manual_seed(SEED)
    model: Any = backends.part("torch.load").model(folder, "fp32")
    model = peft.get_peft_model(model, peft.LoraConfig(**words | options))
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if "lora_magnitude" in key:
                weight.mul_(1 + 0.2 * torch.rand_like(weight))
            elif "lora_" in key:
                weight.normal_(0, 0.08)
    # PEFT would store the whole output layer and embedding too when one of them is a target
    model.save_pretrained(out, save_embedding_layers=False)
    return logits.by_torch(model)


def by_peft(folder: Path, adapter: Path) -> np.ndarray:
    """The logits of a model with a PEFT adapter."""
    import peft

    model = backends.part("torch.load").model(folder, "fp32")
    return logits.by_torch(peft.PeftModel.from_pretrained(model, adapter))


def by_mlx(folder: Path, adapter: Path) -> np.ndarray:
    """The logits of a model with an mlx-lm adapter."""
    from mlx_lm.tuner.utils import load_adapters

    model = backends.part("mlx.load").model(folder, "fp32")
    return logits.by_mlx(load_adapters(model, str(adapter)))


def save_mlx(tensors: dict[str, np.ndarray], config: dict[str, Any], out: Path) -> Path:
    """Write an adapter in mlx-lm's form."""
    from safetensors.numpy import save_file

    out.mkdir()
    save_file(tensors, out / "adapters.safetensors")
    files.write_json(out / "adapter_config.json", config)
    return out


def save_peft(
    tensors: dict[str, np.ndarray], config: dict[str, Any], out: Path, scale: float
) -> Path:
    """Write an adapter in PEFT's form, with a manifest that states the exact scale."""
    from safetensors.numpy import save_file

    out.mkdir()
    save_file(tensors, out / "adapter_model.safetensors", metadata={"format": "pt"})
    files.write_json(out / "adapter_config.json", config)
    files.write_json(out / "manifest.json", {"scale": scale})
    return out


def _near(label: str, one: np.ndarray, two: np.ndarray, plain: np.ndarray) -> Check:
    """Equal logits, of a model that the adapter changed at all."""
    value, moved = logits.apart(one, two), logits.apart(one, plain)
    reason = "" if moved > FELT else f"the adapter moves logits by {moved:.3g} only"
    return parity.check(label, value, LIMIT, value <= LIMIT and not reason, reason)


def _same(one: np.ndarray | None, two: np.ndarray | None) -> bool:
    """Whether both are there, in one shape and with the same bytes."""
    if one is None or two is None or one.shape != two.shape:
        return False
    return one.tobytes() == two.tobytes()
