"""This machine's settings in; the processes that train together, and torchrun's words, out.

Several processes train what one would: each step's rows are split between them, and what they
find is added up. How many there are is a matter of the machine, never of params.yaml.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from traceback import format_exception
from types import TracebackType
from typing import Literal, cast

import orjson

from stages.core import local, machine
from stages.core.errors import TunesmithError

COUNT, NODES, NODE, MASTER, SHARD = (
    f"TUNESMITH_{name}" for name in ("PROCESSES", "NODES", "NODE", "MASTER", "SHARD")
)
SHARDS = ("none", "fsdp")
LOOPBACK = "127.0.0.1"
NO_GPU = ("", "-1")  # values of CUDA_VISIBLE_DEVICES that hide every GPU
# What torchrun tells each of its processes.
TOLD = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
# Where accelerate looks for how many there are: there, and in what MPI and Slurm say.
COUNTED = (*TOLD, "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
PARENT_DEATH = 1  # prctl's PR_SET_PDEATHSIG: end with the process that started this one
# A folder in which each process leaves what it refused, for the one that started it to say.
REFUSALS = "TUNESMITH_REFUSALS"
STARTER = "TUNESMITH_STARTER"  # the number of that one


@dataclass(frozen=True, slots=True)
class Asked:
    """The processes that were asked for.

    Attributes:
        processes: on each machine.
        nodes, node: machines that train together, and which of them this is.
        host, port: of the first of them; empty and 0 where there is only one.
        shard: `fsdp` where they share one model's weights, `none` where each holds all.
    """

    processes: int = 1
    nodes: int = 1
    node: int = 0
    host: str = ""
    port: int = 0
    shard: Literal["none", "fsdp"] = "none"

    @property
    def world(self) -> int:
        """All processes of all machines."""
        return self.processes * self.nodes

    @property
    def sharded(self) -> bool:
        return self.shard == "fsdp"

    @property
    def kind(self) -> str:
        return "fsdp" if self.sharded else "ddp"


ONE = Asked()


@dataclass(frozen=True, slots=True)
class Place:
    """Which of the processes this one is: of all, and of its machine's."""

    rank: int
    local: int


def asked() -> Asked:
    """What TUNESMITH_PROCESSES, _NODES, _NODE, _MASTER and _SHARD say.

    Raises:
        TunesmithError: one of them cannot be meant so.
    """
    found = Asked(
        _number(COUNT, 1, 1), _number(NODES, 1, 1), _number(NODE, 0, 0),
        shard=cast('Literal["none", "fsdp"]', local.one_of(SHARD, SHARDS)),
    )  # fmt: skip
    if found.sharded and found.world == 1:
        raise local.wrong(SHARD, f"Weights are shared by several: set {COUNT} to 2 or more.")
    if found.nodes == 1:
        if found.node:
            raise local.wrong(NODE, f"Set {NODES} to the number of machines, on each of them.")
        return found
    if found.node >= found.nodes:
        raise local.wrong(NODE, f"With {NODES}={found.nodes} write 0 to {found.nodes - 1}.")
    host, _, port = local.get(MASTER).rpartition(":")
    if not (host and port.isdecimal() and 0 < int(port) < 1 << 16):
        raise local.wrong(MASTER, "Write its name and a free port, as in gpu1:29500.")
    return Asked(found.processes, found.nodes, found.node, host, int(port), found.shard)


def _number(name: str, default: int, least: int) -> int:
    text = local.get(name) or str(default)
    if not (text.isascii() and text.isdecimal() and int(text) >= least):
        raise local.wrong(name, f"Write a whole number from {least} on.")
    return int(text)


def place(wanted: Asked, told: Mapping[str, str]) -> Place | None:
    """Which of several processes an environment says that this is; None where it is alone.

    Raises:
        TunesmithError: it is one of other processes than were asked for.
    """
    rank, own, world, here = (told.get(name, "") for name in TOLD)
    if world in ("", "1") and wanted.world == 1:
        return None
    if not rank and world in ("", "1"):
        return None
    if (world, here) != (str(wanted.world), str(wanted.processes)):
        raise TunesmithError(
            f"This is one of {world or '?'} processes, {here or '?'} of them on this machine, and "
            f"{wanted.world} were asked for, {wanted.processes} on each machine.",
            where=f"WORLD_SIZE and LOCAL_WORLD_SIZE; {COUNT} and {NODES}",
            why="Rows would be left out of each step, or trained twice.",
            do=f"python -m stages train <model>    which itself starts as many as {COUNT} says.",
        )
    return Place(int(rank), int(own))


def torchrun(wanted: Asked, words: Sequence[str], folder: Path) -> list[str]:
    """torchrun's arguments that start `python -m <words>` as often as asked for.

    On one machine nothing but the loopback interface is used, on a port that is found free.
    """
    if wanted.nodes == 1:
        meeting = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"{LOOPBACK}:0"]
        meeting += ["--rdzv-id", f"tunesmith-{os.getpid()}", "--local-addr", LOOPBACK]
    else:
        meeting = ["--rdzv-backend", "static", "--node-rank", str(wanted.node)]
        meeting += ["--master-addr", wanted.host, "--master-port", str(wanted.port)]
    return [
        "--nnodes", str(wanted.nodes), "--nproc-per-node", str(wanted.processes), *meeting,
        "--max-restarts", "0", "--shutdown-timeout", "5", "--log-dir", str(folder),
        "--module", *words,
    ]  # fmt: skip


def environment(wanted: Asked, folder: Path, cores: int) -> dict[str, str]:
    """Variables for the processes that are to be started; those that are set stay as they are."""
    found = {
        "OMP_NUM_THREADS": str(max(1, cores // wanted.processes)),
        "TORCH_CPP_LOG_LEVEL": "ERROR",
    }
    if wanted.nodes == 1:
        loopback = "lo0" if sys.platform == "darwin" else "lo"
        found |= {"GLOO_SOCKET_IFNAME": loopback, "NCCL_SOCKET_IFNAME": loopback}
    kept = {name: value for name, value in found.items() if name not in os.environ}
    told = {REFUSALS: str(folder), STARTER: str(os.getpid()), "TUNESMITH_LAUNCH": "native"}
    return kept | told


def gpu(number: int, visible: str | None, driver: bool) -> str:
    """CUDA_VISIBLE_DEVICES of one process, of what it is for all of them.

    Args:
        driver: whether NVIDIA's is here; without it there is nothing to be seen.

    Raises:
        TunesmithError: there are fewer.
    """
    if visible is None:
        return str(number)
    if visible in NO_GPU or not driver:
        return visible
    names = visible.split(",")
    if number >= len(names):
        raise too_few(number + 1, len(names))
    return names[number]


def enough(wanted: Asked, gpus: int) -> None:
    """Refuse more processes than there are GPUs to train on; a CPU takes any number.

    Raises:
        TunesmithError: there are fewer.
    """
    if gpus and wanted.processes > gpus:
        raise too_few(wanted.processes, gpus)


def too_few(wanted: int, there: int) -> TunesmithError:
    """The refusal of more processes than there are GPUs."""
    return TunesmithError(
        f"{wanted} processes were asked for; GPUs to be seen: {there}.",
        where=COUNT,
        why="Each process trains on a GPU of its own; two on one would wait for each other.",
        do=f"{COUNT}={there}; or on the CPU: CUDA_VISIBLE_DEVICES=-1",
    )


def alone(backend: str, wanted: Asked) -> TunesmithError:
    """The refusal of several processes by a backend that trains in one."""
    return TunesmithError(
        f"The {backend} backend trains in one process, and {wanted.world} were asked for.",
        where=f"{COUNT}, {NODES}",
        why="It has no way to add up what several processes find.",
        do=f"{COUNT}=1, and {NODES}=1 where it is set; or models.<model>.backend: torch",
    )


@contextmanager
def reporting(here: Place) -> Iterator[None]:
    """Be one of several processes inside, on a GPU of its own where there are some.

    What is refused or goes wrong is left for the process that started these, which says it once.

    Raises:
        SystemExit: 2, where there is such a one and something was refused.
    """
    folder = os.environ.get(REFUSALS)
    if folder:
        sys.excepthook = partial(_leave, Path(folder) / f"{here.rank}.txt")
        for number in (signal.SIGINT, signal.SIGTERM):  # it passes these on; no words are needed
            signal.signal(number, signal.SIG_DFL)
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(PARENT_DEATH, signal.SIGKILL)
            if os.getppid() != int(os.environ[STARTER]):  # it ended before that was said
                raise SystemExit(1)
    try:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu(here.local, visible, machine.driver())
        yield
    except TunesmithError as mistake:
        if not folder:
            raise
        said = {name: getattr(mistake, name) for name in ("what", "where", "why", "do")}
        (Path(folder) / f"{here.rank}.json").write_bytes(orjson.dumps(said))
        raise SystemExit(2) from None


def _leave(
    path: Path, kind: type[BaseException], failure: BaseException, trace: TracebackType | None
) -> None:
    path.write_text("".join(format_exception(kind, failure, trace)), encoding="utf-8")


def refused(folder: Path) -> TunesmithError | None:
    """What the first of the processes that refused has left."""
    found = sorted(folder.glob("*.json"), key=lambda path: int(path.stem))
    return TunesmithError(**orjson.loads(found[0].read_bytes())) if found else None


def facts(wanted: Asked) -> dict[str, object]:
    """What a manifest says of several processes; nothing of one."""
    if wanted.world == 1:
        return {}
    kept = {name: asdict(wanted)[name] for name in ("shard",) if wanted.sharded}
    return {"processes": wanted.world} | kept
