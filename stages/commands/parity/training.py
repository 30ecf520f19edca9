"""A small model and rows in; how far training with MLX is from training with torch out.

Both start from one adapter (or from the base's own weights) and see the same rows in the same
order; only the arithmetic is another's.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stages.commands.parity import backends
from stages.core import checkpoints, parity, targets
from stages.core import training as shared
from stages.core.batches import Rows
from stages.core.parity import Check
from stages.core.settings import Lora, Model, Train

METHODS = ("lora", "rslora", "dora", "full")
LIMIT = 1e-4  # of a step's loss
RATES = {"full": 1e-3}
SAVED = 3  # steps between two checkpoints of the run that is interrupted


def settings(backend: str, method: str, steps: int, save_steps: int = 0) -> Model:
    """Every kind of setting that both backends have, none of it at chance: no dropout."""
    return Model.model_construct(
        base="models/base/parity", dataset="parity", backend=backend, method=method,
        quantise_base="none",
        lora=Lora(r=4, alpha=8.0, dropout=0.0, targets=["all-linear"], layers=0),
        train=Train(
            seed=1, epochs=1, max_steps=steps, batch_size=2, accumulate=2, optimizer="adamw",
            learning_rate=RATES.get(method, 5e-3), schedule="cosine", warmup=2,
            weight_decay=0.01, max_grad_norm=1.0, precision="fp32", checkpointing=False,
            save_steps=save_steps, eval_steps=0,
        ),
    )  # fmt: skip


def compare(name: str, base: Path, tokens: Path, method: str, steps: int, work: Path) -> Check:
    """The largest difference of the loss at any step."""
    ours, theirs = both(base, tokens, method, steps, work)
    apart = [abs(one - two) for one, two in zip(ours, theirs, strict=True)]
    worst = max(range(steps), key=apart.__getitem__)
    fell = f"loss {ours[0]:.3f} -> {ours[-1]:.3f}"
    reason = f"{steps} steps, {fell}, most apart at step {worst + 1}"
    label = f"training {method} {name}"
    return parity.check(label, apart[worst], LIMIT, apart[worst] <= LIMIT, reason)


def both(
    base: Path, tokens: Path, method: str, steps: int, work: Path
) -> tuple[list[float], list[float]]:
    """The loss of each step, with torch and with MLX, from the same start."""
    model = settings("torch", method, steps)
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
    again = mlx(base, rows, valid, settings("mlx", method, steps), work / "mlx", initial)
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


def repeat(name: str, base: Path, tokens: Path, steps: int, work: Path) -> list[Check]:
    """Whether MLX writes the same bytes twice, and after an interruption."""
    model = settings("mlx", "lora", steps, save_steps=SAVED)
    rows, valid = shared.load(model, tokens)
    found = []
    for run in ("first", "second"):
        made = mlx(base, rows, valid, model, work / run)
        made.run_from(None)
        found.append(written(made, work / f"{run}-adapter"))
    half = mlx(base, rows, valid, model, work / "half")
    half.plan = half.plan[: steps // 2 + 1]
    half.run_from(None)
    left = checkpoints.last(work / "half")
    again = mlx(base, rows, valid, model, work / "half")
    again.run_from(left)
    found.append(written(again, work / "resumed-adapter"))
    where = f"stopped after {len(half.plan)} of {steps} steps, went on from {left and left.name}"
    return [
        _identical(f"same bytes twice {name}", found[0], found[1], ""),
        _identical(f"same bytes resumed {name}", found[0], found[2], where),
    ]


def written(made: Any, out: Path) -> bytes:
    """The bytes of the adapter that a trainer writes."""
    out.mkdir()
    backends.part("mlx.train").write_adapter(made, out)
    return (out / "adapter_model.safetensors").read_bytes()


def _identical(label: str, one: bytes, two: bytes, reason: str) -> Check:
    different = sum(a != b for a, b in zip(one, two, strict=False)) + abs(len(one) - len(two))
    return parity.check(label, different, 0, not different, reason)
