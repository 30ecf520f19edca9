"""places.yaml in; the places that this machine knows, each checked, out."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml
from pydantic import ValidationError

from stages.core import local, mistakes, params_text, plugins
from stages.core.errors import TunesmithError
from stages.core.jobs import Common

FILE = "places.yaml"
EXAMPLE = "Write, for example:    gpubox: {kind: ssh, host: me@gpubox}"


@dataclass(frozen=True, slots=True)
class Place:
    """An entry of places.yaml, and the plug-in of its kind."""

    name: str
    options: Common
    plugin: ModuleType

    def describe(self) -> str:
        """Its name and what it is."""
        return f"{self.name} ({self.plugin.describe(self.options)})"


def path() -> Path:
    """Where places are declared: in the main checkout, for experiments too."""
    return local.root() / FILE


def names() -> list[str]:
    """The places that are declared."""
    return sorted(_entries())


def place(name: str) -> Place:
    """The place of a name.

    Raises:
        TunesmithError: there is none, or what is said of it cannot be meant so.
    """
    entries = _entries()
    if name not in entries:
        raise TunesmithError(
            f"There is no place {name!r}." if name else "No place was named.",
            where=str(path()),
            why="It says which machine that is, and git does not keep it.",
            do=plugins.nearest(name, entries) if entries else EXAMPLE,
        )
    return of(name, entries[name])


def of(name: str, entry: Any) -> Place:
    """A place of what is said of it.

    Raises:
        TunesmithError: it cannot be meant so, with the key.
    """
    kind = entry.get("kind") if isinstance(entry, Mapping) else None
    if kind not in plugins.names("places"):
        raise TunesmithError(
            f"{name} has no kind." if kind is None else f"There is no kind of place {kind!r}.",
            where=f"{path()}: {name}.kind",
            do=plugins.nearest(str(kind or ""), plugins.names("places")),
        )
    plugin = plugins.load("places", kind)
    try:
        return Place(name, plugin.Options.model_validate(dict(entry)), plugin)
    except ValidationError as failure:
        said = mistakes.explain(failure, plugin.Options, name, "is missing.")
        key, what = next(iter(said))
        raise TunesmithError(
            f"{key}: {what}", where=f"{path()}: {key}", why="Nothing was sent or started."
        ) from failure


def _entries() -> dict[str, Any]:
    """What the file says.

    Raises:
        TunesmithError: it is no YAML, or no mapping.
    """
    file = path()
    if not file.is_file():
        return {}
    found = params_text.read(file, yaml.load) or {}
    if not isinstance(found, dict):
        raise TunesmithError("It does not hold places by name.", where=str(file), do=EXAMPLE)
    return {str(name): entry for name, entry in found.items()}
