"""mlx-lm's full weights, which leave out what was not trained, and a base in; all weights out."""

from pathlib import Path

from stages.commands.adapter import reading
from stages.core import files, shards
from stages.core.errors import TunesmithError
from stages.core.shards import Shard, Tensor


def overlay(folder: Path, base: Path) -> list[Shard]:
    """The base's shards with every tensor that `folder` has taken from there.

    Raises:
        TunesmithError: pickled or missing weights, a name, shape or type that the base does not
            have, a value that is not finite.
    """
    path = reading.require_weights(folder, reading.MLX_WEIGHTS)
    trained = {tensor.name: tensor for tensor in shards.read(path).tensors}
    laid = shards.weights(base)
    known = {tensor.name: tensor for shard in laid for tensor in shard.tensors}
    for name, tensor in sorted(trained.items()):
        _require_same(tensor, known.get(name), base)
        reading.peft_form().read(tensor)  # refuses a value that is not finite
    plan = []
    for shard in laid:
        tensors = tuple(trained.get(tensor.name, tensor) for tensor in shard.tensors)
        plan.append(Shard(shard.name, shards.header(tensors), tensors))
    return shards.within_limit(plan)


def _require_same(tensor: Tensor, theirs: Tensor | None, base: Path) -> None:
    """The base has a tensor of this name, shape and type."""
    if theirs and (theirs.shape, theirs.dtype) == (tensor.shape, tensor.dtype):
        return
    has = f"is {theirs.dtype} {list(theirs.shape)}" if theirs else "is not there"
    raise TunesmithError(
        f"The weights hold {tensor.name} {tensor.dtype} {list(tensor.shape)}, "
        f"which in {base} {has}.",
        where=str(tensor.path),
        why="The base's config.json would not describe these weights.",
        do="Name the model whose base they were trained on: --model <model>",
    )


def write(plan: list[Shard], out: Path) -> None:
    """Write each shard, and the index of several."""
    files.require_space(out, sum(shard.size for shard in plan) + 1_000_000, "The model")
    for shard in plan:
        with (out / shard.name).open("w+b") as target:
            target.write(shard.header)
            for tensor in shard.tensors:
                with tensor.path.open("rb") as source:
                    shards.copy_range(source, target, tensor.offset, tensor.size)
    if len(plan) > 1:
        shards.write_index(out, plan)
