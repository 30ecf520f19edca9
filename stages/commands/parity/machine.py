"""This machine in; what a parity report says of it out: no name of a user, host or folder."""

from typing import Any

from stages.core import devices, machine

PACKAGES = ("mlx", "mlx-lm", "torch", "transformers", "peft", "trl", "numpy", "tunesmith")


def facts() -> dict[str, Any]:
    """System, processor, cores, memory (GiB), versions and, where there is MLX, its device."""
    found = {package: devices.version(package) for package in PACKAGES}
    return {
        **machine.system(),
        "memory_gib": round(machine.memory().total / 2**30, 1),
        "versions": {package: version for package, version in found.items() if version},
        "device": device(),
    }


def device() -> dict[str, Any]:
    """MLX's default device, what it says of it, and whether it compiles; empty without MLX."""
    try:
        import mlx.core as mx
    except ImportError:
        return {}
    told = {"name": str(mx.default_device()), "metal": mx.metal.is_available()}
    return told | {key: value for key, value in mx.device_info().items() if key != "uuid"}
