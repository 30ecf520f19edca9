"""A model's training in; whether this machine has the memory, and what to change if not, out.

Nothing here changes what is trained: a training is refused before it begins, or explained after
memory has run out.
"""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from stages.core import devices, files, local, memory, processes, smaller
from stages.core.devices import Device
from stages.core.errors import TunesmithError
from stages.core.machine import Space
from stages.core.memory import Training
from stages.core.processes import ONE, Asked
from stages.core.settings import Model
from stages.core.shapes import Shape
from stages.core.smaller import Smaller, words

SWITCH, IGNORE = "TUNESMITH_MEMORY", "ignore"
# What of its tensors a training is to save that ran out though the estimate said that it fits.
SAVED = 0.3
SIZES = (
    *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("num_key_value_heads", "head_dim", "vocab_size"),
)
# What torch, CUDA, MLX, Metal and the system say; torch's own class is a RuntimeError.
SAID = re.compile(
    r"out of memory|(can't|cannot|could not|unable to) allocate|(not enough|insufficient) memory"
    r"|bad_alloc|ALLOC_FAILED|attempting to allocate",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Case:
    """A model's training on one device, as far as memory goes: that of one process.

    Attributes:
        use: fp32, bf16 or fp16.
        length: tokens of the longest row; `measured` says whether rows or max_length told it.
        space: what the device has for one process; None where it does not say. The processes of
            a CPU share the machine's memory evenly, and each has a GPU of its own.
        wanted: the processes that were asked for.
    """

    key: str
    settings: Model
    shape: Shape
    device: Device
    use: str
    length: int
    measured: bool
    space: Space | None
    wanted: Asked = ONE

    @property
    def training(self) -> Training:
        return self.needed(self.settings)

    def needed(self, settings: Model) -> Training:
        """What one process needs with these settings."""
        own = smaller.changed(settings, {"train.batch_size": self.batch(settings)})
        found = smaller.needed(own, self.shape, self.use, self.length)
        if not self.cut:
            return found
        how = replace(memory.run(self.shape, own), bytes=memory.BYTES[self.use])
        return memory.shared(found, self.shape, how, self.wanted.world)

    @property
    def cut(self) -> bool:
        """Whether a process has only its part of the weights; on a CPU it reads all of them."""
        return self.wanted.sharded and self.device.kind == "cuda"

    def batch(self, settings: Model) -> int:
        """Rows of one process's micro-batch, at most."""
        train = settings.train
        return min(train.batch_size, -(-train.batch_size * train.accumulate // self.wanted.world))

    def smaller(self, room: int) -> list[Smaller]:
        """The smallest changes with which it fits into so many bytes."""
        of, use, length = self.shape, self.use, self.length
        if not self.cut:
            return smaller.smaller(self.settings, of, room, use, length)
        spared = smaller.needed(self.settings, of, use, length).total - self.training.total
        ways = smaller.smaller(self.settings, of, room + spared, use, length)
        shared = [
            replace(way, needed=self.needed(smaller.changed(self.settings, way.changes)).total)
            for way in ways
            if "quantise_base" not in way.changes  # packed weights cannot be shared
        ]
        return [way for way in shared if way.needed <= room]

    def rows(self) -> str:
        """What one batch is, in words."""
        kind = "pairs of" if self.settings.method == "dpo" else "rows of"
        source = "the longest row" if self.measured else "tokens.max_length"
        return f"{self.batch(self.settings)} {kind} {self.length} tokens ({source}) in {self.use}"

    def place(self) -> str:
        """The device, in words."""
        if self.device.kind != "cpu":
            return self.device.name
        count = self.wanted.processes
        return "this machine" if count == 1 else f"each of {count} processes on this machine"


def case(key: str, settings: Model, base: Path, tokens: Path, device: Device) -> Case:
    """A model's training, measured by its base's config.json and by its rows where they are there.

    Raises:
        TunesmithError: no base yet, one that is not counted here, or a precision that the device
            does not compute in.
    """
    config = base / "config.json"
    if not config.is_file():
        raise TunesmithError(
            f"{base} is not there yet, so its memory is not known.",
            do=f"dvc repro {'fuse' if base.parent.name == 'fused' else 'base'}@{base.name}",
        )
    stated = {name: value for name, value in files.read_json(config).items() if value is not None}
    if not all(isinstance(stated.get(name, 0), int) for name in SIZES):
        raise TunesmithError(f"{config} is not that of a dense decoder: memory is not counted.")
    longest, wanted, space = longest_row(tokens), processes.asked(), device.memory
    if space and device.kind == "cpu":
        space = Space(space.total // wanted.processes, space.free // wanted.processes)
    return Case(
        key, settings, memory.shape(stated), device,
        use=devices.precision(settings.train.precision, device),
        length=longest or settings.tokens.max_length,
        measured=longest is not None,
        space=space,
        wanted=wanted,
    )  # fmt: skip


def longest_row(tokens: Path) -> int | None:
    """Tokens of the longest row that is trained on; None before there are any."""
    path = tokens / "stats.json"
    if not path.is_file():
        return None
    found = files.read_json(path)["train"]
    kinds = [found, *([found["rejected"]] if "rejected" in found else [])]
    return max(int(kind["lengths"]["max"]) for kind in kinds) or None


def verdict(needed: int, space: Space) -> str:
    """fits, `tight` (more than is free now) or `too big` (more than there is in all)."""
    if needed > space.total:
        return "too big"
    return "tight" if needed > space.free else "fits"


@contextmanager
def watched(key: str, settings: Model, base: Path, tokens: Path) -> Iterator[None]:
    """Train inside: refused before where it cannot fit, explained where memory runs out.

    What else goes wrong inside passes as it is. Where nothing can be estimated (a backend that
    does not run here, a base of another kind), nothing is refused: the backend says what is wrong.

    Raises:
        TunesmithError: training needs more memory than there is in all, or it has run out.
    """
    try:
        found = case(key, settings, base, tokens, devices.of(settings.backend))
    except TunesmithError:
        found = None
    if found and not ignored():
        refuse(found)
    try:
        yield
    except (MemoryError, OSError, RuntimeError) as failure:
        if not exhausted(failure):
            raise
        raise ran_out(key, settings, found, failure) from failure


def ignored() -> bool:
    """Whether this machine's owner knows better than the estimate.

    Raises:
        TunesmithError: the variable holds something else.
    """
    value = local.get(SWITCH)
    if value not in ("", IGNORE):
        do = f"{SWITCH}={IGNORE} trains whatever the estimate says; unset, it is heeded."
        raise local.wrong(SWITCH, do)
    return value == IGNORE


def refuse(found: Case) -> None:
    """Refuse a training that needs more than its device has in all.

    Raises:
        TunesmithError: with the smallest changes that fit.
    """
    needed, space = found.training, found.space
    if space is None or verdict(needed.total, space) != "too big":
        return
    ways = found.smaller(space.total)
    known_better = f"{SWITCH}={IGNORE} dvc repro train@{found.key} tries it all the same."
    raise TunesmithError(
        f"Training {found.key} needs about {words(needed.total)} of memory, "
        f"and {found.place()} has {words(space.total)} in all.",
        where=f"params.yaml: models.{found.key}",
        why=f"{parts(needed)}; {found.rows()}.",
        do=f"{advice(ways)}\n        {known_better}",
    )


def ran_out(
    key: str, settings: Model, found: Case | None, failure: BaseException
) -> TunesmithError:
    """What to say where memory has run out in training."""
    said = (str(failure).strip().splitlines() or [type(failure).__name__])[0][:200]
    why, do, where = f"It was said: {said}", "Train with fewer rows at once, or shorter ones.", ""
    if found:
        needed = found.training
        goal = round(needed.total - SAVED * needed.tensors)
        where = f" on {found.place()}"
        if found.space:
            goal = min(goal, found.space.free)
            where += f", which had {words(found.space.free)} free when it began"
        why += f"\n        Estimated were {words(needed.total)}: {parts(needed)}; {found.rows()}."
        do = advice(found.smaller(goal), "it takes less")
    return TunesmithError(
        f"Memory ran out while {key} was trained{where}.",
        where=f"params.yaml: models.{key}",
        why=why,
        do=f"{do}\n        {resuming(key, settings.train.save_steps, ' and more memory free')}",
    )


def resuming(key: str, save_steps: int, more: str = "") -> str:
    """What becomes of the steps that were made; `more` is what going on needs."""
    if not save_steps:
        return "No checkpoint was kept (train.save_steps: 0): the next run begins anew."
    return (
        f"Checkpoints, one every {save_steps} steps, are kept: with the same settings{more},\n"
        f"        dvc repro train@{key} goes on from the last one."
    )


def parts(needed: Training) -> str:
    """What holds the bytes, the largest first."""
    named = {
        "weights": needed.weights + needed.adapter,
        "gradients and optimizer": needed.gradients + needed.optimizer,
        "activations": needed.activations + needed.passing,
        "the process itself": memory.RUNTIME,
    }
    ranked = sorted(named.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {words(size)}" for name, size in ranked)


def advice(ways: list[Smaller], so: str = "it fits") -> str:
    """The changes that are enough, a line each, or what is left where none is."""
    if not ways:
        return "Use a smaller base or another machine: no change of the settings is enough."
    head = f"Set {'this' if len(ways) == 1 else 'what one of these lines says'}; then {so}:"
    return "\n          ".join([head, *smaller.lines(ways)])


def exhausted(failure: BaseException) -> bool:
    """Whether an exception says that memory has run out."""
    if isinstance(failure, MemoryError):
        return True
    if isinstance(failure, OSError):
        return failure.errno == errno.ENOMEM
    return SAID.search(str(failure)) is not None
