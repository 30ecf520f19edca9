"""A whole model in, the same with the blocks' linear layers in few bits out."""

from typing import Any

from stages.backends.mlx.train import words
from stages.core.errors import TunesmithError


def quantise(model: Any, kind: str) -> None:
    """Round the weights of the blocks' linear layers to `kind`, 4bit or 8bit, in place.

    Embedding, norms and head stay as they are, as bitsandbytes leaves them.

    Raises:
        TunesmithError: a layer whose inputs are no multiple of the group size.
    """
    import mlx.nn as nn

    def chosen(name: str, module: Any) -> bool:
        if not (isinstance(module, nn.Linear) and ".layers." in name):
            return False
        width = module.weight.shape[1]
        if width % words.GROUP:
            raise _uneven(name, width, kind)
        return True

    nn.quantize(model, class_predicate=chosen, **words.quantised(kind))


def _uneven(name: str, width: int, kind: str) -> TunesmithError:
    return TunesmithError(
        f"{name} has {width} inputs, which is no multiple of {words.GROUP}.",
        where="models.<model>.quantise_base",
        why=f"Weights are rounded to {kind} in groups of {words.GROUP}.",
        do="Set quantise_base: none, or use another base.",
    )
