"""One of several training processes in; its part of each step, and what all add up to, out.

The trainer of each process is one that trains alone and knows of no other: it is given its part
of a step's rows, and gradients and losses are added up before it uses them. So several processes
run the same code as one.
"""

import hashlib
import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import orjson

from stages.core import processes
from stages.core.batches import Step
from stages.core.errors import TunesmithError
from stages.core.processes import Asked

# No step and no checkpoint takes so long; a process that dies is noticed at once.
TIMEOUT = timedelta(minutes=30)
PIECE = 1 << 24  # gradients added up at once, so that little memory is taken for it


def share(items: Sequence[int], rank: int, world: int) -> list[int]:
    """One process's part, in order; parts differ by at most one, and the first are the larger."""
    size, more = divmod(len(items), world)
    first = rank * size + min(rank, more)
    return list(items[first : first + size + (rank < more)])


@dataclass(frozen=True, slots=True)
class Team:
    """Which of how many processes this is; `backend` is what they talk through.

    Attributes:
        sharded: whether each holds only its part of the weights (FSDP2). Then all must call the
            model equally often.
    """

    rank: int = 0
    world: int = 1
    sharded: bool = False
    backend: str = ""

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and says things."""
        return self.rank == 0

    def turns(self, rows: Sequence[int], size: int) -> tuple[Step, Step]:
        """This process's micro-batches of some rows, and further ones that count nothing.

        Args:
            rows: of one step, or of the valid split.
            size: of a micro-batch, at most.
        """
        mine = share(rows, self.rank, self.world)
        found = [mine[first : first + size] for first in range(0, len(mine), size)]
        most = -(-len(share(rows, 0, self.world)) // size)
        return found, [[rows[0]]] * (most - len(found)) if self.sharded else []

    def plus(self, value: Any, device: Any) -> Any:
        """The sum of every process's value, a number or a tensor: alone, the value as it is."""
        if self.world == 1:
            return value
        import torch

        total = torch.as_tensor(value, dtype=torch.float32, device=device).clone()
        torch.distributed.all_reduce(total)
        return total

    def plus_gradients(self, weights: Iterable[Any]) -> None:
        """Put the sum of every process's gradients in the place of each one's.

        torch's DistributedDataParallel does not fit: it wants its own forward called once before
        each backward, where the loss calls the model's inside, and in a process without rows
        nothing is called at all; it averages; and it forbids the reentrant checkpointing that
        8-bit layers need. What it would win is that it sends while the backward pass still runs.
        """
        if self.world == 1 or self.sharded:  # FSDP2 has added them up in the backward pass
            return
        piece: list[Any] = []
        for weight in weights:
            if piece and sum(one.numel() for one in piece) + weight.numel() > PIECE:
                _add_up(piece)
                piece = []
            piece.append(weight)
        _add_up(piece)

    def all_say(self, thing: Any) -> list[Any]:
        """What each process says, in order."""
        import torch

        said: list[Any] = [None] * self.world
        torch.distributed.all_gather_object(said, thing)
        return said

    def agree(self, facts: Mapping[str, object], rows: int) -> None:
        """Compare what the result depends on, and say how many train how.

        Args:
            facts: by names that a user understands.
            rows: of a step.

        Raises:
            TunesmithError: a process has something else than the first one; all of them raise it.
        """
        digests = {name: _digest(value) for name, value in facts.items()}
        said = self.all_say((socket.gethostname(), digests))
        for rank, (host, theirs) in enumerate(said):
            other = [name for name, digest in said[0][1].items() if theirs[name] != digest]
            if other:
                raise TunesmithError(
                    f"Process {rank}, on {host}, is not to train what process 0 is, on "
                    f"{said[0][0]}: its {' and '.join(other)} differ{'' if other[1:] else 's'}.",
                    why="Their gradients would be added up though they belong to other trainings.",
                    do="Bring both machines to the same commit and `dvc pull` there; checkpoints "
                    "are in .tunesmith/checkpoints.",
                )
        if self.first:
            how = f"{'fsdp' if self.sharded else 'ddp'}, {self.backend}"
            parts = [share(range(rows), rank, self.world) for rank in range(self.world)]
            cut = " + ".join(str(len(part)) for part in parts)
            print(f"  {self.world} processes ({how}): each step's {rows} rows as {cut}", flush=True)


def _digest(value: object) -> str:
    text = orjson.dumps(value, option=orjson.OPT_SORT_KEYS | orjson.OPT_SERIALIZE_NUMPY)
    return hashlib.sha256(text).hexdigest()


ALONE = Team()


def join(wanted: Asked, device: str) -> Team:
    """Meet the other processes, if there are any.

    Args:
        wanted: what was asked for.
        device: cpu or cuda.

    Raises:
        TunesmithError: this is not one of those that were asked for.
    """
    here = processes.place(wanted, os.environ)
    if here is None:
        if wanted.world == 1:
            return ALONE
        raise TunesmithError(
            f"{wanted.world} processes were asked for, and this one was started alone.",
            where=processes.COUNT,
            do="python -m stages train <model>    which starts them.",
        )
    from torch import distributed

    backend = "gloo" if device == "cpu" else "nccl"
    talk = "gloo" if device == "cpu" else "cpu:gloo,cuda:nccl"
    distributed.init_process_group(talk, timeout=TIMEOUT)
    for name in processes.COUNTED:  # transformers and accelerate are to think that they are alone
        os.environ.pop(name, None)
    return Team(here.rank, distributed.get_world_size(), wanted.sharded, backend)


def _add_up(weights: list[Any]) -> None:
    """All-reduce the gradients of some weights as one tensor; who has none, has zeros."""
    import torch

    if not weights:
        return
    found = [torch.zeros_like(w) if w.grad is None else w.grad for w in weights]
    flat = torch.cat([gradient.reshape(-1) for gradient in found])
    torch.distributed.all_reduce(flat)
    parts = flat.split([gradient.numel() for gradient in found])
    for weight, gradient, part in zip(weights, found, parts, strict=True):
        weight.grad = gradient.copy_(part.view_as(gradient))
