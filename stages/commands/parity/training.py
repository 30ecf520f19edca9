"""A small model and rows in; how far training with MLX is from training with torch out.

Both start from one adapter (or from the base's own weights) and see the same rows in the same
order; only the arithmetic is another's.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stages.commands.parity import backends
from stages.core import parity, targets
from stages.core import training as shared
from stages.core.batches import Rows
from stages.core.parity import Check
from stages.core.settings import Dpo, Lora, Model, Train

METHODS = ("lora", "rslora", "dora", "full")
# Of a step's loss. In bf16 a weight keeps three digits, and each library rounds after other
# products: thirteen trainings of eight architectures were up to 0.016 apart.
LIMITS = {"fp32": 1e-4, "bf16": 0.05}
RATES = {"full": 1e-3}


def settings(
    backend: str, method: str, steps: int, *, held: str = "none", dropout: float = 0.0, **train: Any
) -> Model:
    """Every kind of setting that both backends have; without dropout none of it is at chance.

    Args:
        held: quantise_base.
        train: keys of `train` to set otherwise.
    """
    chosen: dict[str, Any] = {
        "seed": 1, "epochs": 1, "max_steps": steps, "batch_size": 2, "accumulate": 2,
        "optimizer": "adamw", "learning_rate": RATES.get(method, 5e-3), "schedule": "cosine",
        "warmup": 2, "weight_decay": 0.01, "max_grad_norm": 1.0, "precision": "fp32",
        "checkpointing": False, "save_steps": 0, "eval_steps": 0,
        "dpo": Dpo(beta=0.1) if method == "dpo" else None,
    }  # fmt: skip
    return Model.model_construct(
        base="models/base/parity", dataset="parity", backend=backend, method=method,
        quantise_base=held,
        lora=Lora(r=4, alpha=8.0, dropout=dropout, targets=["all-linear"], layers=0),
        train=Train(**chosen | train),
    )  # fmt: skip


def compare(
    name: str, base: Path, tokens: Path, method: str, use: str, steps: int, work: Path
) -> Check:
    """The largest difference of the loss at any step, computed in `use`: fp32 or bf16."""
    ours, theirs = both(base, tokens, method, use, steps, work)
    value, said = apart(ours, theirs)
    reason = f"{steps} steps, loss {ours[0]:.3f} -> {ours[-1]:.3f}, {said}"
    return parity.check(label(name, method, use), value, LIMITS[use], value <= LIMITS[use], reason)


def label(name: str, method: str, use: str) -> str:
    """What the check of this training is called."""
    return f"training {method} {name}" if use == "fp32" else f"training {method} {use} {name}"


def both(
    base: Path, tokens: Path, method: str, use: str, steps: int, work: Path
) -> tuple[list[float], list[float]]:
    """The loss of each step, with torch and with MLX, from the same start."""
    model = settings("torch", method, steps, precision=use)
    rows, valid = shared.load(model, tokens)
    leaves = leaves_of(base, method)
    trainer = backends.part("torch.train")
    made = trainer.start(model, base, leaves, rows, valid, work / "torch")
    initial = None
    if leaves:
        initial = work / "initial"
        initial.mkdir()
        trainer.write_adapter(made.model, "parity", leaves, initial)
    made.run_from(None)
    chosen = settings("mlx", method, steps, precision=use)
    again = mlx(base, rows, valid, chosen, work / "mlx", initial)
    again.run_from(None)
    return losses(made.state.log_history), losses(again.series)


def leaves_of(base: Path, method: str) -> list[str]:
    """The last names of all linear layers; none where all weights are trained."""
    return [] if method == "full" else targets.resolve(["all-linear"], shared.tensors(base))


def mlx(
    base: Path, rows: Rows, valid: Rows, model: Model, run: Path, initial: Path | None = None
) -> Any:
    """MLX's trainer, ready."""
    leaves = leaves_of(base, model.method)
    return backends.part("mlx.train").start(model, base, leaves, rows, valid, run, initial)


def losses(series: Sequence[dict[str, Any]]) -> list[float]:
    """The loss of each step."""
    return [float(row["loss"]) for row in series]


def apart(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, str]:
    """The largest difference of two runs' losses at a step, and which step that was."""
    found = [abs(one - two) for one, two in zip(ours, theirs, strict=True)]
    worst = max(range(len(found)), key=found.__getitem__)
    return found[worst], f"most apart at step {worst + 1}" if found[worst] else "equal at each step"
