"""A backend in; the device that it uses on this machine out, or why it does not run here."""

import importlib
import json
import os
import platform
import subprocess
import sys
from dataclasses import dataclass, replace
from importlib import metadata
from typing import Any

from stages.core import machine
from stages.core.errors import TunesmithError
from stages.core.machine import Space

PACKAGES = {
    "torch": ("torch", "transformers", "peft", "trl", "accelerate", "safetensors"),
    "mlx": ("mlx", "mlx-lm"),
}
# Asked in a process of its own: one that will train must not have touched CUDA before, and the
# GPU is the one that it will be given.
ASKED = """
import json, os
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")
from stages.backends.torch import load
import torch
device = load.device()
free, total = torch.cuda.mem_get_info(0) if device.kind == "cuda" else (0, 0)
print(json.dumps([device.kind, device.name, device.bf16, total, free]))
"""


@dataclass(frozen=True, slots=True)
class Device:
    """Where a backend runs; `kind` is empty where it does not run here.

    Attributes:
        backend, version: the backend, and the version of its first package; empty without it.
        kind, name: cpu, cuda or metal; a GPU's name.
        bf16: whether it computes in bf16.
        why: the reason for this device, or for none.
        do: what to type so that it runs.
        memory: what there is for weights and all else.
    """

    backend: str
    version: str = ""
    kind: str = ""
    name: str = ""
    bf16: bool = True
    why: str = ""
    do: str = ""
    memory: Space | None = None


def of(backend: str) -> Device:
    """The device of a backend; nothing heavy is imported into this process."""
    if backend not in PACKAGES:
        return Device(backend, why="a backend of your own, of which nothing is known here")
    found = {name: version(name) for name in PACKAGES[backend]}
    device = Device(backend, found[backend])
    if backend == "mlx":
        try:
            importlib.import_module("stages.backends.mlx.load").require_this_platform()
        except TunesmithError as mistake:
            return replace(device, why=mistake.what.rstrip("."), do=mistake.do)
    missing = [name for name, installed in found.items() if not installed]
    if missing:
        text = f"{', '.join(missing)} not installed"
        lock = f"pip install -c env/{backend}.lock -e '.[{backend}]'"
        return replace(device, why=text, do=f"make setup    (or: {lock})")
    return _torch(device) if backend == "torch" else _mlx(device)


def version(package: str) -> str:
    """The installed version, read without importing it; empty where it is not there."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def precision(wanted: str, device: Device) -> str:
    """What training on a device computes in: the backend's own rule.

    Raises:
        TunesmithError: the device does not compute in what is wanted.
    """
    words = importlib.import_module(f"stages.backends.{device.backend}.train.words")
    found: str = words.precision(wanted, device)
    return found


def _torch(device: Device) -> Device:
    if not machine.driver():
        return _cpu(device, "no NVIDIA GPU is here")
    if device.version.endswith("+cpu"):
        return _cpu(device, "this torch is built without CUDA")
    done = subprocess.run(
        [sys.executable, "-c", ASKED], capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["it ended without a word"])[-1]
        return replace(device, why=f"torch does not start: {said}")
    kind, name, bf16, total, free = json.loads(done.stdout.splitlines()[-1])
    if kind == "cpu":
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        by = "" if hidden is None else f" (CUDA_VISIBLE_DEVICES={hidden})"
        return _cpu(device, f"torch finds no CUDA device{by}")
    why = "the first CUDA device"
    return replace(
        device, kind=kind, name=name, bf16=bf16, why=why, memory=Space(total, free)
    )  # fmt: skip


def _mlx(device: Device) -> Device:
    if platform.system() == "Darwin":
        name = f"{machine.chip()}'s GPU"
        why = "Apple silicon, whose GPU has the memory of the machine"
        return replace(device, kind="metal", name=name, why=why, memory=machine.memory())
    for_cuda = any(version(name) for name in ("mlx-cuda", "mlx-cuda-12", "mlx-cuda-13"))
    gpus = machine.gpus() if for_cuda and machine.driver() else []
    if gpus:
        first = gpus[0]
        why = "MLX for CUDA is installed"
        return replace(device, kind="cuda", name=first.name, why=why, memory=first.memory)
    return _cpu(device, "Metal is on Macs alone")


def _cpu(device: Device, why: str) -> Device:
    return replace(device, kind="cpu", name="cpu", why=why, memory=machine.memory())


def said(device: Device) -> dict[str, Any]:
    """For JSON: everything but the memory, which the machine states."""
    names = ("backend", "version", "kind", "name", "bf16", "why", "do")
    return {name: getattr(device, name) for name in names}
