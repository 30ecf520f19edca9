"""A model's name and the processes asked for in; torchrun run with them, one screen if it fails.

torchrun is run inside this process, so that its end is an exception here and not a traceback on
the user's screen, and so that a signal to this process is one to all of them.
"""

import logging
import os
import re
import signal
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

from stages.core import machine, processes, room
from stages.core.errors import TunesmithError, require
from stages.core.processes import Asked

CLOSED = signal.SIGTERM  # what torchrun ends the others with
# What gloo and NCCL say of a process that is no more there.
LOST = re.compile(r"connection (reset|closed)|broken pipe|remote process", re.IGNORECASE)


def launch(key: str, wanted: Asked, save_steps: int) -> None:
    """Train a model in several processes; return when all of them have ended well.

    Raises:
        TunesmithError: what one of them refused, that one of them was killed, or that the
            machines do not meet.
        KeyboardInterrupt: Ctrl-C, after all have ended.
        SystemExit: another signal, or an error that one of them ended with and that has been said.
    """
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # before torch is imported
    require("torch", "torch")
    import torch

    processes.enough(wanted, torch.cuda.device_count())
    from torch.distributed import DistError
    from torch.distributed import run as torchrun
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    if wanted.nodes > 1:
        require_found(wanted)
        print(f"  machine {wanted.node} of {wanted.nodes}: meeting at {wanted.host}:{wanted.port}")
    for name in [n for n in logging.root.manager.loggerDict if n.startswith("torch.distributed")]:
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what it says is said below
    with tempfile.TemporaryDirectory(prefix="tunesmith-") as text:
        folder = Path(text)
        os.environ |= processes.environment(wanted, folder, machine.cores())
        words = processes.torchrun(wanted, ["stages", "train", key], folder / "torchrun")
        try:
            torchrun.run(torchrun.parse_args(words))
        except ChildFailedError as failed:
            raise ended(key, wanted, failed.failures, folder, save_steps) from None
        except DistError as apart:
            raise not_met(wanted, str(apart).splitlines()[0]) from apart
        except SignalException as told:
            if told.sigval == signal.SIGINT:
                raise KeyboardInterrupt from None
            raise SystemExit(128 + told.sigval) from None
    if wanted.node:
        print(f"{key}: trained; the first machine writes it")


def require_found(wanted: Asked) -> None:
    """Refuse a first machine whose name nobody knows.

    Raises:
        TunesmithError: with what was said.
    """
    try:
        socket.getaddrinfo(wanted.host, wanted.port)
    except OSError as unknown:
        raise not_met(wanted, str(unknown)) from unknown


def not_met(wanted: Asked, said: str) -> TunesmithError:
    """The end of machines that do not find each other."""
    return TunesmithError(
        f"The machines do not meet at {wanted.host}:{wanted.port}: {said[:200]}",
        where=processes.MASTER,
        why="Machine 0 listens there, and all others must reach it.",
        do="Look at its name, that the port is free there, and that no wall is between them.",
    )


def ended(
    key: str, wanted: Asked, failures: dict[int, Any], folder: Path, save_steps: int
) -> BaseException:
    """What to say of processes that failed: what one refused, said, or was killed by."""
    refused = processes.refused(folder)
    if refused:
        return refused
    killed = {rank: f for rank, f in failures.items() if f.exitcode < 0 and -f.exitcode != CLOSED}
    said = sorted(folder.glob("*.txt"), key=lambda path: path.stat().st_mtime)
    if said and not killed and wanted.nodes > 1 and LOST.search(said[0].read_text("utf-8")):
        return TunesmithError(
            "A process on another machine has ended, and so have those on this one.",
            where=f"train@{key}",
            why="Each step needs what every process finds. Its own screen says why it ended.",
            do=room.resuming(key, save_steps),
        )
    if said and not killed:
        print(said[0].read_text(encoding="utf-8"), end="", file=sys.stderr)
    for rank, failure in (killed or failures).items():
        name = failure.signal_name()
        how = f"was ended by {name}" if failure.exitcode < 0 else f"ended with {failure.exitcode}"
        why = "The system ends with SIGKILL what takes more memory than there is."
        return TunesmithError(
            f"Process {rank} of {wanted.world} (pid {failure.pid}) {how}; the others were ended.",
            where=f"train@{key}",
            why=why if name == "SIGKILL" else "Each step needs what every process finds.",
            do=room.resuming(key, save_steps),
        )
    raise AssertionError("torchrun failed without a failure")
