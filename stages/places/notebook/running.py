"""The job's program in; all that it prints in this cell, until it ends or is interrupted, out."""

import codecs
import contextlib
import ctypes
import functools
import os
import select
import signal
import subprocess
import sys
import time
from typing import Any

GRACE = 120.0  # seconds to send a checkpoint, once it was told to end
BUSY = 75  # exit code: it is at work on this machine already
# Of this kernel, not of the job: its own packages, how it draws, and which versions it may install.
OURS = ("PYTHONPATH", "MPLBACKEND", "PIP_CONSTRAINT", "UV_CONSTRAINT", "UV_BUILD_CONSTRAINT")


def run(script: str, names: list[str], job: str) -> None:
    """Run it to its end; this cell fails where it has not ended well."""
    missing = [name for name in names if not os.environ.get(name)]
    if missing:
        raise SystemExit(f"{', '.join(missing)}: run the cell of the secrets first.")
    program = subprocess.Popen(
        [sys.executable, script], env=variables(), start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        preexec_fn=tied(),
    )  # fmt: skip
    try:
        follow(program, float("inf"))
    except KeyboardInterrupt:
        print("\nInterrupted. The job was told to end, and sends what it has; again: ends now.")
        program.terminate()
        follow(program, GRACE)
    finally:
        code = end(program)
    home = f"At home: tunesmith run --attach {job}"
    if code == BUSY:
        raise SystemExit("It is at work on this machine already, begun by an earlier kernel: wait "
                         f"for it, or end the runtime. {home}")  # fmt: skip
    if code:
        raise SystemExit(f"The job has not ended well (exit code {code}): see above. Run all again "
                         f"goes on where it ended. {home}")  # fmt: skip
    print(f"The job has ended well. {home}")


def tied() -> Any:
    """What tells a process to end when this kernel is killed, too; Linux alone has it."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    return prctl and functools.partial(prctl, 1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def variables() -> dict[str, str]:
    """The environment of the job: this kernel's without what is only the kernel's."""
    kept = {name: value for name, value in os.environ.items() if name not in OURS}
    return {**kept, "PYTHONUNBUFFERED": "1"}


def follow(program: Any, seconds: float) -> None:
    """Print what it says until it has ended, for so long at most."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    pipe, until = program.stdout.fileno(), time.monotonic() + seconds
    while time.monotonic() < until:
        if select.select([pipe], [], [], 0.2)[0]:
            piece = os.read(pipe, 1 << 16)
            if not piece:
                break
            print(decoder.decode(piece), end="", flush=True)
        elif program.poll() is not None:  # what it has left behind may hold the pipe open
            return
    with contextlib.suppress(subprocess.TimeoutExpired):
        program.wait(until - time.monotonic())


def end(program: Any) -> int:
    """End what is left of it and of all that it has started; its exit code."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(program.pid, signal.SIGKILL)
    program.stdout.close()
    return int(program.wait())
