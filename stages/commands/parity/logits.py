"""A small model's folder in; how far its logits in MLX are from those in torch, as a check, out."""

from pathlib import Path
from typing import Any

import numpy as np

from stages.commands.parity import backends, models
from stages.core import parity
from stages.core.parity import Check

# The largest difference of a logit; logits span about -4 to 4.
LIMITS = {"fp32": 1e-4, "bf16": 0.25}
ROWS, LENGTH, SEED = 2, 64, 1


def compare(name: str, folder: Path, use: str) -> Check:
    """Logits of one folder in both, with weights in `use`: fp32 or bf16."""
    ours = by_torch(backends.part("torch.load").model(folder, use))
    theirs = by_mlx(backends.part("mlx.load").model(folder, use))
    value, limit = apart(ours, theirs), LIMITS[use]
    agree = float((ours.argmax(-1) == theirs.argmax(-1)).mean())
    reason = "" if agree == 1 else f"{agree:.1%} of the places like the same token best"
    return parity.check(f"logits {use} {name}", value, limit, value <= limit, reason)


def ids() -> np.ndarray:
    """int64 [2, 64]: random tokens, none of them a control token."""
    return np.random.default_rng(SEED).integers(3, models.SHAPE["vocab_size"], (ROWS, LENGTH))


def by_torch(model: Any) -> np.ndarray:
    """float32 [2, 64, vocabulary]: the logits of a loaded transformers model."""
    import torch

    with torch.inference_mode():
        found: np.ndarray = model.eval()(torch.from_numpy(ids())).logits.float().numpy()
    return found


def by_mlx(model: Any) -> np.ndarray:
    """float32 [2, 64, vocabulary]: the logits of a loaded mlx-lm model."""
    import mlx.core as mx

    model.eval()
    return np.array(model(mx.array(ids())).astype(mx.float32))


def apart(one: np.ndarray, two: np.ndarray) -> float:
    """The largest difference; infinite where a value is not finite."""
    return float(np.nan_to_num(np.abs(one - two), nan=np.inf).max())
