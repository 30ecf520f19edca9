"""lora.targets and a base's weights in, the linear layers that get an adapter out, or a refusal."""

from collections.abc import Iterable, Sequence

from stages.core import plugins
from stages.core.errors import TunesmithError
from stages.core.shards import Tensor

ALL = "all-linear"
TABLES = ("embed_tokens", "lm_head", "wte", "embed_out", "output")


def resolve(targets: Sequence[str], weights: Iterable[Tensor]) -> list[str]:
    """The last names (`q_proj`) of the layers to adapt, sorted.

    `all-linear` stands for every linear layer of the blocks, output layer and embedding excluded.

    Raises:
        TunesmithError: an embedding, the output layer, a router or experts, or no such layer.
    """
    known = sorted(set(_linear(weights)))
    found: set[str] = set()
    for name in targets:
        if name == ALL:
            found.update(known)
        elif name in known:
            found.add(name)
        else:
            raise _refuse(name, known)
    return sorted(found)


def blocks(last: int, weights: Iterable[Tensor]) -> list[int] | None:
    """The numbers of the last blocks, which alone get an adapter; None for all (`last` 0).

    Raises:
        TunesmithError: the base has fewer blocks.
    """
    if not last:
        return None
    parts = (part for tensor in weights for part in tensor.name.split("."))
    known = sorted({int(part) for part in parts if part.isdecimal()})
    if last > len(known):
        raise TunesmithError(
            f"lora.layers is {last}, and the base has {len(known)} blocks.",
            where="models.<model>.lora.layers",
            why="PEFT would adapt those there are without a word.",
            do=f"Write 0 for all of them, or a number up to {len(known)}.",
        )
    return known[-last:]


def _linear(weights: Iterable[Tensor]) -> Iterable[str]:
    for tensor in weights:
        parts = tensor.name.split(".")
        if "experts" in parts or "router" in parts:
            raise TunesmithError(
                f"The base is a mixture of experts ({tensor.name}).",
                where="models.<model>.base",
                why="Adapters of experts have no form that can be merged and moved exactly.",
                do="Use a dense base: Qwen2/3, Llama, Mistral, Phi3, Gemma 2/3 or SmolLM3.",
            )
        if parts[-1] == "weight" and len(tensor.shape) == 2 and parts[-2] not in TABLES:
            yield parts[-2]


def _refuse(name: str, known: Sequence[str]) -> TunesmithError:
    if name in TABLES:
        return TunesmithError(
            f"lora.targets names {name}, an embedding or output layer.",
            where="models.<model>.lora.targets",
            why="Where the two are tied, backends disagree on what such an adapter changes.",
            do=f"Leave {name} out, or use method: full.",
        )
    return TunesmithError(
        f"The base has no linear layer {name!r}.",
        where="models.<model>.lora.targets",
        why="PEFT would leave the name out without a word.",
        do=plugins.nearest(name, [ALL, *known]),
    )
