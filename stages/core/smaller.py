"""A training and the memory there is in; the smallest changes of its settings that fit out."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import combinations, product
from typing import Any

from stages.core import memory
from stages.core.memory import Training
from stages.core.settings import Model
from stages.core.shapes import Shape

# In the order tried: the first two leave what is learned as it is (but for rounding), shorter rows
# leave data out, few bits round the base, and an adapter is another method.
CHECKPOINTING, BATCH, ROWS, BITS, METHOD = range(5)
FEWER = {"none": ("8bit", "4bit"), "8bit": ("4bit",), "4bit": ()}
SHORTEST = 4  # rows are cut to a quarter at the most
Changes = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Smaller:
    """Settings of a model by their dotted keys, with which training takes so many bytes."""

    changes: Changes
    needed: int

    def text(self) -> str:
        """The keys as they are typed into params.yaml."""
        return ", ".join(f"{key}: {_yaml(value)}" for key, value in self.changes.items())


def needed(settings: Model, of: Shape, use: str, length: int) -> Training:
    """The peak of a training whose longest row has `length` tokens.

    Args:
        use: what it computes in: fp32, bf16 or fp16, as the device and train.precision have it.
    """
    how = replace(memory.run(of, settings), bytes=memory.BYTES[use], length=length)
    return memory.training(of, how)


def smaller(settings: Model, of: Shape, room: int, use: str, length: int) -> list[Smaller]:
    """Every set of changes that fits into `room` bytes and of which nothing can be left out.

    Each is one that `needed` has counted. Those that change the result least are first. There is
    none where nothing need be changed, or where no such change is enough.
    """
    if needed(settings, of, use, length).total <= room:
        return []
    ways = _ways(settings, length)
    found: dict[tuple[int, ...], Smaller] = {}
    for count in range(1, len(ways) + 1):
        for kinds in combinations(sorted(ways), count):
            if any(set(fewer) <= set(kinds) for fewer in found):
                continue
            fits = _first(settings, of, room, use, length, [ways[kind] for kind in kinds])
            if fits:
                found[kinds] = fits
    return [found[kinds] for kinds in sorted(found, key=lambda kinds: (kinds[-1], kinds))]


def _ways(settings: Model, length: int) -> dict[int, list[Changes]]:
    """What may be changed, and for each its values from the mildest on."""
    train = settings.train
    size = train.batch_size
    parts = [n for n in range(size - 1, 0, -1) if size % n == 0]
    step = max(8, length // 32 // 8 * 8)
    rows = range((length - 1) // step * step, max(length // SHORTEST, 1) - 1, -step)
    ways: dict[int, list[Changes]] = {
        CHECKPOINTING: [] if train.checkpointing else [{"train.checkpointing": True}],
        BATCH: [
            {"train.batch_size": n, "train.accumulate": train.accumulate * size // n}
            for n in parts
        ],
        ROWS: [{"tokens.max_length": n, "tokens.over_length": "drop"} for n in rows],
        BITS: [{"quantise_base": held} for held in FEWER[settings.quantise_base]],
        METHOD: [{"method": "lora"}] if settings.method == "full" else [],
    }  # fmt: skip
    return {kind: values for kind, values in ways.items() if values}


def _first(
    settings: Model, of: Shape, room: int, use: str, length: int, ways: list[list[Changes]]
) -> Smaller | None:
    """The mildest combination of these that fits: what is tried first goes to its end first."""

    def count(choice: tuple[Changes, ...]) -> Smaller:
        changes = {key: value for part in reversed(choice) for key, value in part.items()}
        tokens = changes.get("tokens.max_length", length)
        return Smaller(changes, needed(changed(settings, changes), of, use, tokens).total)

    order = list(reversed(ways))
    if count(tuple(values[-1] for values in order)).needed > room:
        return None  # not even with each of them as far as it goes
    return next(found for found in map(count, product(*order)) if found.needed <= room)


def changed(settings: Model, changes: Changes) -> Model:
    """The settings with other values at these dotted keys."""
    for key, value in changes.items():
        section, _, name = key.rpartition(".")
        if section:
            part = getattr(settings, section).model_copy(update={name: value})
            settings = settings.model_copy(update={section: part})
        else:
            settings = settings.model_copy(update={name: value})
    return settings


def lines(found: list[Smaller], most: int = 3) -> Iterator[str]:
    """The first of them in words, each on a line of its own."""
    for one in found[:most]:
        yield f"{one.text()}    ({words(one.needed)})"


def words(size: int) -> str:
    """Bytes as people say them, in powers of ten."""
    for unit, scale in (("GB", 10**9), ("MB", 10**6)):
        if size >= scale:
            return f"{size / scale:,.1f} {unit}" if unit == "GB" else f"{size / scale:.0f} {unit}"
    return f"{size / 1000:.0f} kB"


def _yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
