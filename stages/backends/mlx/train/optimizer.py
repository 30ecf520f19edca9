"""Weights, their gradients and a learning rate in, the next weights out; its state as arrays."""

from collections.abc import Mapping
from typing import Any

from stages.backends.mlx.train import words
from stages.core.settings import Train

Arrays = dict[str, Any]


class Optimizer:
    """One of mlx.optimizers, with weight decay on the parameters that transformers decays."""

    def __init__(self, train: Train, params: Mapping[str, Any]) -> None:
        import mlx.optimizers

        name, said = words.optimizer(train)
        kind = getattr(mlx.optimizers, name)
        self.train = train
        self.parts: list[tuple[list[str], Any]] = []
        for decayed in (True, False):
            names = [name for name in params if words.decayed(name) == decayed]
            if names:
                made = kind(learning_rate=train.learning_rate, **said)
                made.init({name: params[name] for name in names})
                self.parts.append((names, made))

    def update(self, params: Arrays, gradients: Arrays, rate: float) -> Arrays:
        """The weights after one step; gradients as they are, clipped or not."""
        found: Arrays = {}
        for names, part in self.parts:
            decay = self.train.weight_decay if words.decayed(names[0]) else 0.0
            step = int(part.step.item()) + 1
            for word, value in words.at_step(self.train, rate, decay, step).items():
                setattr(part, word, value)
            mine = ({name: side[name] for name in names} for side in (gradients, params))
            found |= part.apply_gradients(*mine)
        return {name: found[name] for name in params}

    def arrays(self) -> Arrays:
        """Its whole state but the learning rate, by `<parameter> <part>` or `<group> step`."""
        found: Arrays = {}
        for number, (names, part) in enumerate(self.parts):
            found[f"{number} step"] = part.state["step"]
            for name in names:
                found |= {f"{name} {key}": array for key, array in part.state[name].items()}
        return found

    def restore(self, arrays: Arrays) -> None:
        """Take over what `arrays` gave."""
        for number, (names, part) in enumerate(self.parts):
            part.state["step"] = arrays[f"{number} step"]
            for name in names:
                part.state[name] = {key: arrays[f"{name} {key}"] for key in part.state[name]}


def clipped(gradients: Arrays, most: float) -> tuple[float, Arrays]:
    """Global norm of the gradients, and the gradients scaled down to the norm `most`.

    The arithmetic is that of torch.nn.utils.clip_grad_norm_: factor most / (norm + 1e-6), at
    most 1. The norm may be NaN or infinite.
    """
    import mlx.core as mx

    # In two stages: a sum of millions of fp32 values one by one loses digits on a CPU.
    rows = (mx.square(gradient).sum(-1) for gradient in gradients.values())
    squares = mx.stack([row.sum() for row in rows])
    norm = mx.sqrt(squares.sum())
    factor = mx.minimum(most / (norm + 1e-6), 1.0)
    found: Any = norm.item()
    return found, {name: gradient * factor for name, gradient in gradients.items()}
