"""This machine in; what a parity report says of it out: no name of a user, host or folder."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

PACKAGES = ("mlx", "mlx-lm", "torch", "transformers", "peft", "trl", "numpy", "tunesmith")


def facts() -> dict[str, Any]:
    """System, chip, cores, memory (GiB), versions and, where there is MLX, its device."""
    macos = platform.mac_ver()[0]
    return {
        "system": f"macOS {macos}" if macos else f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "chip": chip(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "python": platform.python_version(),
        "versions": versions(),
        "device": device(),
    }


def chip() -> str:
    """What the processor calls itself, such as Apple M2 Pro; empty where it does not say."""
    if platform.system() == "Darwin":
        asked = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "")


def versions() -> dict[str, str]:
    """Package -> version, of those installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def device() -> dict[str, Any]:
    """MLX's default device, what it says of it, and whether it compiles; empty without MLX."""
    try:
        import mlx.core as mx
    except ImportError:
        return {}
    told = {"name": str(mx.default_device()), "metal": mx.metal.is_available()}
    return told | {key: value for key, value in mx.device_info().items() if key != "uuid"}
