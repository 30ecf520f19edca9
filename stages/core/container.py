"""A stage and an image in; the stage run in a container, its exit code out.

Same absolute paths inside and out, DVC's cache read-only, the caller's user, no network and no
secret but what the stage declares. The container ends with the stage, with Ctrl-C, and when this
process or the `dvc` that started it is killed.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from stages.core import inside, lineage, local
from stages.core.engine import Engine, Image
from stages.core.launch import Need

GRACE = 5  # seconds between the request to end and the end
LOOK = 0.5  # seconds between looks at the process that started this one
SHELLS = ("sh", "bash", "dash", "zsh", "ksh", "fish")
# What a stage reads of the environment: threads and devices, and this machine's settings.
KEPT = (
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "DVC_ROOT", "DVC_STAGE"),
    *("TUNESMITH_PROCESSES", "TUNESMITH_NODES", "TUNESMITH_NODE", "TUNESMITH_MASTER"),
    *("TUNESMITH_SHARD", "TUNESMITH_MEMORY", "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"),
)
HIDDEN = (local.FILE, ".dvc/config.local")  # may hold tokens; the second, of DVC's remotes
ONLINE = ("HF_ENDPOINT", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")  # in small letters, too
PASSED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class Mounts:
    """Folders that a container sees, each at its own path.

    Attributes:
        work: the workspace, where the stage writes.
        written: further folders that are written: checkpoints and the log of runs in the main
            checkout, and the hub's cache where something is downloaded.
        fixed: what is only read, DVC's cache first.
        hidden: files of the workspace that hold secrets of this machine.
        hub: the hub's cache; None where nothing is downloaded.
    """

    work: Path
    written: tuple[Path, ...]
    fixed: tuple[Path, ...]
    hidden: tuple[Path, ...] = ()
    hub: Path | None = None

    def options(self) -> list[str]:
        """-v options. The cache is read-only inside a workspace that is written, too."""
        every = [f"{folder}:{folder}" for folder in (self.work, *self.written)]
        every += [f"{folder}:{folder}:ro" for folder in self.fixed]
        every += [f"{os.devnull}:{file}:ro" for file in self.hidden]
        return [word for mount in every for word in ("-v", mount)]


def run(need: Need, engine: Engine, image: Image, code: Path, gpu: bool) -> int:
    """Run a stage of the project in the current folder, whose package `stages` lies in `code`.

    Returns:
        The stage's exit code, or 128 and the number of the signal that ended it.
    """
    known = {
        "engine": f"{engine.name} {engine.version}",
        "image": image.digest,
        "commit": lineage.commit(),
        "terminal": sys.stderr.isatty(),
    }
    called = re.sub(r"[^A-Za-z0-9_.-]", "-", f"tunesmith-{need.stage}-{need.key}-{os.getpid()}")
    where = mounts(need, code)
    return attend(engine, called, command(engine, image, need, called, where, code, known, gpu))


def mounts(need: Need, code: Path) -> Mounts:
    """What a stage in the current folder must see; folders that are written are made."""
    work = Path.cwd()
    state = (local.root() / ".tunesmith").resolve()
    state.mkdir(exist_ok=True)
    hub = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    if need.network:
        hub.mkdir(parents=True, exist_ok=True)
    kept = (state, *([hub] if need.network else []))
    read = [code, *(path.resolve() for path in need.reads if path.exists())]
    found = cache()
    return Mounts(
        work,
        written=tuple(path for path in kept if not path.is_relative_to(work)),
        fixed=(
            *([found] if found else []),
            *(path for path in read if not path.is_relative_to(work)),
        ),
        hidden=tuple(work / name for name in HIDDEN if (work / name).is_file()),
        hub=hub if need.network else None,
    )


def cache() -> Path | None:
    """DVC's cache; None outside a DVC project, where no file can be linked to one."""
    if not Path(".dvc").is_dir():
        return None
    asked = [sys.executable, "-m", "dvc", "cache", "dir"]
    done = subprocess.run(asked, capture_output=True, text=True, check=True)
    found = Path(done.stdout.strip()).resolve()
    found.mkdir(parents=True, exist_ok=True)
    return found


def command(
    engine: Engine,
    image: Image,
    need: Need,
    called: str,
    mounts: Mounts,
    code: Path,
    known: Mapping[str, Any],
    gpu: bool,
) -> list[str]:
    """The engine's command line, with no secret in it: those go by name alone."""
    env = [name for name in (*KEPT, *need.secrets) if name in os.environ]
    if need.network:
        env += [n for name in ONLINE for n in (name, name.lower()) if os.environ.get(n)]
    given = {
        "HOME": "/tmp",  # noqa: S108 (the container's own, in memory)
        "USER": "tunesmith",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": str(code),
        "TUNESMITH_LAUNCH": "native",
        inside.VARIABLE: json.dumps(known, sort_keys=True),
    }
    if mounts.hub:
        given["HF_HOME"] = str(mounts.hub)
    several = int(local.get("TUNESMITH_NODES") or 1) > 1
    return [
        engine.name, "run", "--rm", "--init", "--interactive", "--name", called,
        *_user(engine), "--read-only", "--tmpfs", "/tmp:exec,mode=1777",  # noqa: S108
        "--cap-drop", "ALL", "--security-opt", "no-new-privileges",
        "--security-opt", "label=disable",  # SELinux would hide folders of the home directory
        "--network", "host" if need.network or several else "none",
        "--shm-size", local.get("TUNESMITH_SHM") or "1g",
        *(_gpus(engine) if gpu else []), "--workdir", str(mounts.work), *mounts.options(),
        *(word for name in env for word in ("-e", name)),
        *(word for name, value in given.items() for word in ("-e", f"{name}={value}")),
        image.digest, *need.command.split(),
    ]  # fmt: skip


def _user(engine: Engine) -> list[str]:
    """The options by which files that are written belong to the caller."""
    if not engine.rootless:
        return ["--user", f"{os.getuid()}:{os.getgid()}"]
    if engine.name == "podman":
        return ["--userns", "keep-id", "--user", f"{os.getuid()}:{os.getgid()}"]
    return ["--user", "0:0"]  # of a rootless docker, which the caller is outside


def _gpus(engine: Engine) -> list[str]:
    return ["--gpus", "all"] if engine.name == "docker" else ["--device", "nvidia.com/gpu=all"]


def attend(engine: Engine, called: str, words: list[str]) -> int:
    """Run a container to its end, and end it when this process is told to, or left alone.

    Returns:
        The stage's exit code, or 128 and the number of the signal that ended it.
    """
    told: list[int] = []
    before = {n: signal.signal(n, lambda number, _: told.append(number)) for n in PASSED}
    try:
        # A session of its own: Ctrl-C reaches the stage once, from here. Its input does not end
        # before this process does, which inside.watch waits for.
        with subprocess.Popen(words, stdin=subprocess.PIPE, start_new_session=True) as client:
            code = _watched(engine, called, client, told)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 128 + told[0] if told else code if code >= 0 else 128 - code


def _watched(
    engine: Engine, called: str, client: "subprocess.Popen[bytes]", told: list[int]
) -> int:
    """Wait for the end; pass on what was told, and end what does not end within GRACE seconds."""
    starter, asked = _starter(), 0.0
    while True:
        try:
            return client.wait(LOOK)
        except subprocess.TimeoutExpired:
            if asked and time.monotonic() - asked > GRACE:
                _kill(engine, called, signal.SIGKILL)
            elif told and not asked:
                asked = time.monotonic()
                _kill(engine, called, told[0])
            elif starter and not told and _gone(starter):
                told.append(signal.SIGTERM)


def _kill(engine: Engine, called: str, number: int) -> None:
    """Send a signal; a container that is not there yet, or no more, is none to be told."""
    sent = signal.Signals(number).name
    subprocess.run(
        [engine.name, "kill", "--signal", sent, called], capture_output=True, check=False
    )


def _starter() -> psutil.Process | None:
    """The nearest process above that is no shell, where DVC started this one."""
    if "DVC_ROOT" not in os.environ:
        return None
    above = psutil.Process().parents()
    return next((process for process in above if process.name() not in SHELLS), None)


def _gone(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
