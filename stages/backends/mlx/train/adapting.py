"""A model and where its adapter goes in, mlx_lm's layers put there out, and their dropout."""

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stages.backends.mlx.train import peft_form, words
from stages.core.errors import TunesmithError
from stages.core.settings import Lora
from stages.core.shards import Tensor


class Draws:
    """Where in the training the model is: what falls out depends on seed, place and layer alone.

    So nothing needs to be kept to go on from a checkpoint, and a forward pass that gradient
    checkpointing repeats drops the same values.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.place: tuple[int, int] | None = None

    def at(self, step: int, micro: int) -> None:
        """Training, at this micro-batch of this step."""
        self.place = (step, micro)

    def off(self) -> None:
        """Measuring: nothing falls out."""
        self.place = None


class Dropout:
    """Inverted dropout of one layer's input, each value with probability `chance`."""

    def __init__(self, chance: float, layer: str, draws: Draws) -> None:
        self.chance, self.layer, self.draws = chance, layer, draws

    def __call__(self, values: Any) -> Any:
        import mlx.core as mx

        place = self.draws.place
        if not self.chance or place is None:
            return values
        key = seeded(self.draws.seed, "dropout", *place, self.layer)
        kept = mx.random.bernoulli(1 - self.chance, values.shape, key=key)
        return mx.where(kept, values / (1 - self.chance), 0.0).astype(values.dtype)


def seeded(*words: Any) -> Any:
    """A key for mlx.random that depends on these words alone."""
    import mlx.core as mx

    text = "/".join(map(str, words))
    return mx.random.key(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little"))


def adapt(
    model: Any, base: Sequence[Tensor], leaves: Sequence[str], blocks: Sequence[int] | None,
    method: str, lora: Lora, draws: Draws,
) -> None:  # fmt: skip
    """Put layers on exactly the weights that `targets` named; only they can be trained after.

    As PEFT begins: A uniform between plus and minus 1 / sqrt(inputs), B zero, DoRA's magnitude
    the norm of each output's weights; all in fp32.

    Raises:
        TunesmithError: mlx_lm has these layers under other names.
    """
    import mlx.core as mx
    from mlx.nn import Linear, QuantizedLinear
    from mlx.utils import tree_unflatten
    from mlx_lm.tuner.dora import DoRALinear
    from mlx_lm.tuner.lora import LoRALinear

    kind = DoRALinear if method == "dora" else LoRALinear
    wanted = set(modules(base, leaves, blocks))
    model.freeze()
    layers = {
        name: kind.from_base(linear, **words.layer(method, lora))
        for name, linear in model.named_modules()
        if name in wanted and isinstance(linear, Linear | QuantizedLinear)
    }
    if set(layers) != wanted:
        raise renamed(model, min(wanted ^ set(layers)))
    for name, layer in layers.items():
        bound = 1 / math.sqrt(layer.lora_a.shape[0])
        key = seeded(draws.seed, "lora_a", name)
        layer.lora_a = mx.random.uniform(-bound, bound, layer.lora_a.shape, key=key)
        layer.dropout = Dropout(lora.dropout, name, draws)
    model.update_modules(tree_unflatten(list(layers.items())))


def trained(model: Any) -> dict[str, Any]:
    """The weights to train by their full names, sorted."""
    from mlx.utils import tree_flatten

    return dict(sorted(tree_flatten(model.trainable_parameters())))


def modules(
    base: Sequence[Tensor], leaves: Sequence[str], blocks: Sequence[int] | None
) -> list[str]:
    """The full names of the linear layers to adapt, such as model.layers.0.self_attn.q_proj."""
    found = []
    for tensor in base:
        parts = tensor.name.split(".")
        linear = parts[-1] == "weight" and len(tensor.shape) == 2 and parts[-2] in leaves
        numbers = [int(part) for part in parts if part.isdecimal()]
        if linear and (blocks is None or (numbers and numbers[0] in blocks)):
            found.append(".".join(parts[:-1]))
    return found


def renamed(model: Any, name: str) -> TunesmithError:
    """The refusal of a model whose weights mlx_lm holds under other names or in other shapes."""
    return TunesmithError(
        f"mlx_lm's {model.model_type} has not the base's weight {name}, in name and shape.",
        where="models.<model>.base",
        why="What is trained could not be written under the base's own names.",
        do="Set backend: torch, or use Qwen2/3, Llama, Mistral, Phi3, Gemma 2/3 or SmolLM3.",
    )


def initial(folder: Path, params: dict[str, Any]) -> dict[str, Any]:
    """The weights of a PEFT folder, to start from instead.

    Raises:
        TunesmithError: it does not hold exactly the tensors that are to be trained.
    """
    import mlx.core as mx

    tensors, _ = peft_form.to_mlx(folder)
    ours, theirs = ({n: tuple(t.shape) for n, t in side.items()} for side in (params, tensors))
    if ours != theirs:
        wrong = min(name for name in ours | theirs if ours.get(name) != theirs.get(name))
        raise TunesmithError(
            f"The initial adapter differs in {wrong}.",
            where=str(folder),
            why="It must hold the tensors that are trained, in their shapes, and no others.",
            do="Use an adapter of the same method, rank, targets and layers.",
        )
    return {name: mx.array(tensors[name]) for name in params}


def recompute(model: Any) -> None:
    """Gradient checkpointing: each block keeps its input alone and runs again going back.

    mlx_lm's own way changes the class for every model of the process; this changes these blocks.
    """
    import mlx.core as mx

    def checkpointed(kind: Any) -> Any:
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            def run(weights: Any, *args: Any, **kwargs: Any) -> Any:
                self.update(weights)
                return kind.__call__(self, *args, **kwargs)

            return mx.checkpoint(run)(self.trainable_parameters(), *args, **kwargs)

        return type(kind.__name__, (kind,), {"__call__": call})

    for block in model.layers:
        block.__class__ = checkpointed(type(block))
