"""A small model and rows in; whether MLX's runs agree with each other, as checks, out.

No torch is asked: what is compared is two runs that must be one, to the bit, or the same training
made in two ways.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from stages.commands.parity import backends, training
from stages.core import checkpoints, parity
from stages.core import training as shared
from stages.core.parity import Check

SAVED = 3  # steps between two checkpoints of the run that is interrupted
DROPOUT = 0.1
FELT = 1e-3  # of a step's loss: how far at least dropout moves it
# Of a step's loss. The same sums made a second time: on a CPU they are equal. What falls out moves
# losses by 0.009 here, so that other values falling out the second time cannot pass.
RECOMPUTED = 1e-5
# Of a step's loss. A product with weights in few bits may add up, and in bf16 round, otherwise
# than one with the same weights made whole, as two libraries do; rounding weights to 4 bits itself
# moves losses by 0.12.
HELD = training.LIMITS
# What is held how, and computed in what: on Metal `auto` is bf16.
KINDS = (("4bit", "fp32"), ("8bit", "fp32"), ("4bit", "bf16"))


class Place(NamedTuple):
    """A model by name and folder, its rows, the steps of a run and a folder to work in."""

    name: str
    base: Path
    tokens: Path
    steps: int
    work: Path


def ready(place: Place, run: str, method: str = "lora", **changes: Any) -> Any:
    """MLX's trainer for these settings, with a folder of its own for checkpoints."""
    model = training.settings("mlx", method, place.steps, **changes)
    rows, valid = shared.load(model, place.tokens)
    return training.mlx(place.base, rows, valid, model, place.work / run)


def trained(place: Place, run: str, method: str = "lora", **changes: Any) -> Any:
    """The same when it has made all its steps."""
    made = ready(place, run, method, **changes)
    made.run_from(None)
    return made


def repeat(place: Place) -> list[Check]:
    """Whether MLX writes the same bytes twice, and after an interruption."""
    runs = [trained(place, run, save_steps=SAVED) for run in ("first", "second")]
    half = ready(place, "half", save_steps=SAVED)
    half.plan = half.plan[: place.steps // 2 + 1]
    half.run_from(None)
    left = checkpoints.last(place.work / "half")
    again = ready(place, "half", save_steps=SAVED)
    again.run_from(left)
    first, second, resumed = written(place, *runs, again)
    where = f"stopped after {len(half.plan)} of {place.steps} steps, "
    where += f"went on from {left and left.name}"
    return [
        identical(f"same bytes twice {place.name}", [first, second]),
        identical(f"same bytes resumed {place.name}", [first, resumed], where),
    ]


def dropout(place: Place) -> Check:
    """Whether what falls out is the same in two runs; and that something does fall out."""
    one, two = (trained(place, run, dropout=DROPOUT) for run in ("first", "second"))
    whole = trained(place, "whole")
    moved, _ = training.apart(training.losses(one.series), training.losses(whole.series))
    said = f"dropout moves losses by {moved:.3g}"
    found = identical(f"same bytes dropout {place.name}", written(place, one, two), said)
    return found if moved > FELT else found | {"outcome": "failed", "reason": f"{said} only"}


def checkpointing(place: Place, method: str) -> Check:
    """How far losses move when each block's values are made again on the way back.

    With an adapter some of its input falls out, which must be the same when it is made again.
    """
    chance = 0.0 if method == "full" else DROPOUT
    kept, again = (
        trained(place, f"checkpointing-{on}", method, dropout=chance, checkpointing=on)
        for on in (False, True)
    )
    value, said = training.apart(training.losses(kept.series), training.losses(again.series))
    label = f"checkpointing {method} {place.name}"
    return parity.check(label, value, RECOMPUTED, value <= RECOMPUTED, said)


def held(place: Place, kind: str, use: str) -> list[Check]:
    """Training on a base in few bits: against the same weights made whole, and twice.

    Args:
        place: with a model whose layers' inputs are multiples of 64.
        kind: 4bit or 8bit.
        use: what is computed in, fp32 or bf16.
    """
    said = {"held": kind, "precision": use}
    one, two = (trained(place, run, **said) for run in ("first", "second"))
    plain = ready(place, "plain", **said)
    count = make_whole(plain.model)
    plain.run_from(None)
    value, where = training.apart(training.losses(one.series), training.losses(plain.series))
    fine = value <= HELD[use] and count > 0
    what = f"{kind} {use} {place.name}"
    return [
        parity.check(f"held {what}", value, HELD[use], fine, f"{count} layers, {where}"),
        identical(f"same bytes {what}", written(place, one, two)),
    ]


def make_whole(model: Any) -> int:
    """Put a plain linear layer of the same weights in place of each one in few bits; how many."""
    import mlx.core as mx
    from mlx import nn
    from mlx.utils import tree_unflatten

    found = {}
    for name, layer in model.named_modules():
        if not isinstance(layer, nn.QuantizedLinear):
            continue
        weight = mx.dequantize(
            layer.weight, layer.scales, layer.biases, layer.group_size, layer.bits, layer.mode
        )
        found[name] = nn.Linear(weight.shape[1], weight.shape[0], bias="bias" in layer)
        found[name].weight = weight
        if "bias" in layer:
            found[name].bias = layer.bias
        found[name].freeze()
    model.update_modules(tree_unflatten(list(found.items())))
    return len(found)


def written(place: Place, *runs: Any) -> list[bytes]:
    """The bytes of the adapter that each trainer writes."""
    found = []
    for number, made in enumerate(runs):
        out = place.work / f"adapter-{number}"
        out.mkdir()
        backends.part("mlx.train").write_adapter(made, out)
        found.append((out / "adapter_model.safetensors").read_bytes())
    return found


def identical(label: str, pair: Sequence[bytes], reason: str = "") -> Check:
    """How many bytes of two adapters differ: none may."""
    one, two = pair
    different = sum(a != b for a, b in zip(one, two, strict=False)) + abs(len(one) - len(two))
    return parity.check(label, different, 0, not different, reason)
