"""A module's name in, that part of a backend out; and what keeps a backend from running here."""

import importlib
from types import ModuleType

from stages.core.errors import TunesmithError


def part(name: str) -> ModuleType:
    """The module `stages.backends.<name>`, such as `torch.load` or `mlx.train`."""
    return importlib.import_module(f"stages.backends.{name}")


def wanting() -> str:
    """Why the two cannot be compared here, in one sentence; empty where they can."""
    try:
        part("torch.load").quiet()
        part("torch.train.quantised").prepare("none")  # silences what peft brings up
        for module in ("peft", "trl"):
            importlib.import_module(module)
        part("mlx.load").require()
    except TunesmithError as refusal:
        return refusal.what
    except ModuleNotFoundError as missing:
        return f"The package {missing.name!r} is not installed."
    return ""
