"""places.yaml in; the places that this machine knows, each checked, out."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from stages.commands.remote.address import SECRET
from stages.core import local, mistakes, params_text, plugins, secrecy
from stages.core.errors import TunesmithError
from stages.core.jobs import Common

FILE = "places.yaml"
EXAMPLE = f"Write into {FILE}, for example:    gpubox: {{kind: ssh, host: me@gpubox}}"
KEPT = "its value stays where it is used; name its variable in `secrets`"
MEANT = {  # pydantic's kinds of mistakes whose own words say too little
    "string_type": "should be text: write it in quotes",
    "list_type": "should be a list, such as [a, b]",
    "string_pattern_mismatch": "should be one word, without blanks or a - in front",
}
OLD = "the job's record"  # said as the file, of an entry that places.yaml once had


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
    """The places that are declared.

    Raises:
        TunesmithError: the file cannot be meant so.
    """
    return sorted(_stated()[0])


def place(name: str) -> Place:
    """The place of a name.

    Raises:
        TunesmithError: there is none, or what is said of it cannot be meant so.
    """
    entries, lines = _stated()
    if name not in entries:
        raise TunesmithError(
            f"There is no place {name!r}." if name else "No place was named: --on PLACE.",
            where=str(path()),
            why="It says which machine that is, and git does not keep it.",
            do=plugins.nearest(name, entries) if entries else EXAMPLE,
        )
    return of(name, entries[name], lines)


def of(name: str, entry: Any, lines: Mapping[str, int] | None = None) -> Place:
    """A place of what is said of it.

    Args:
        lines: of each key in places.yaml; None for what a job's record says.

    Raises:
        TunesmithError: it cannot be meant so; each mistake with its line and key, no secret shown.
    """
    kind = entry.get("kind") if isinstance(entry, Mapping) else None
    known = plugins.names("places")
    plugin = plugins.load("places", kind) if isinstance(kind, str) and kind in known else None
    found: list[tuple[str, str]] = []
    if not isinstance(entry, Mapping):
        found.append((name, "is no mapping of keys, such as {kind: ssh, host: me@gpubox}."))
    elif plugin is None:
        word = "is missing." if kind is None else f"there is no kind of place {kind!r}."
        found.append((f"{name}.kind", f"{word} {plugins.nearest(str(kind or ''), known)}"))
    else:
        found = list(_secrets(entry, name))
        try:
            options = plugin.Options.model_validate(dict(entry))
        except ValidationError as failure:
            found += _explained(failure, plugin.Options, name, {key for key, _ in found})
        if not found:
            return Place(name, options, plugin)
    raise _refusal(found, lines)


def _refusal(found: list[tuple[str, str]], lines: Mapping[str, int] | None) -> TunesmithError:
    """One screen with each mistake, in the order of the file."""

    def where(key: str) -> str:
        return f"{FILE}:{params_text.line_of(lines, key)}" if lines is not None else OLD

    rows = sorted(found, key=lambda row: params_text.line_of(lines or {}, row[0]))
    said = [f"{where(key)}: {key}: {text}" for key, text in rows]
    again = "It was begun by another version of Tunesmith: check that one out, then type it again."
    return TunesmithError(
        secrecy.redact("\n".join(said)),
        where=str(path().absolute()) if lines is not None else ".tunesmith/jobs",
        why="Nothing was sent or started.",
        do="Mend it, then type the same command again." if lines is not None else again,
    )


def _secrets(value: Any, key: str) -> Iterator[tuple[str, str]]:
    """Each key whose value is a secret, by its form or since this machine keeps it as one."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if key.endswith(".remote_options") and name in SECRET:
                yield f"{key}.{name}", f"is a secret; {KEPT}."
            else:
                yield from _secrets(inner, f"{key}.{name}")
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _secrets(inner, f"{key}[{number}]")
    elif isinstance(value, str) and (kinds := secrecy.found(value)):
        yield key, f"there is a secret in it ({kinds[0]}); {KEPT}."


def _explained(
    failure: ValidationError, options: type[BaseModel], name: str, known: set[str]
) -> Iterator[tuple[str, str]]:
    """What pydantic says, without the values: any of them may be a secret in the wrong place."""
    said = mistakes.explain(failure, options, name, "is missing.")
    for error, (key, text) in zip(failure.errors(), said, strict=True):
        if any(one == key or one.startswith((f"{key}.", f"{key}[")) for one in known):
            continue  # said as a secret
        if error["type"] in ("extra_forbidden", "missing"):
            yield key, text
        else:
            text = MEANT.get(error["type"], error["msg"].removeprefix("Value error, "))
            yield key, f"{text}."


def _stated() -> tuple[dict[str, Any], dict[str, int]]:
    """What the file says by place, and the line of each key.

    Raises:
        TunesmithError: it is no YAML, no mapping, or says something twice or not at all.
    """
    file, lines = path(), dict[str, int]()
    node = _read(file, yaml.compose) if file.is_file() else None
    if node is None:
        return {}, lines
    if not isinstance(node, yaml.MappingNode):
        raise TunesmithError("It does not hold places by name.", where=f"{file}:1", do=EXAMPLE)
    problems = list(params_text.shape(node, "", lines))
    for name, _ in node.value:
        if not params_text.KEY.fullmatch(str(name.value)):
            word = name.value if isinstance(name.value, str) else "a list or mapping"
            what = f"{word}: a name may hold only a-z, 0-9, _ and -."
            problems.append((name.start_mark.line + 1, what))
    if problems:
        line, text = problems[0]
        short = re.split(r"; | \(DVC", text)[0].rstrip(".")
        raise TunesmithError(
            f"{secrecy.redact(short)}.",
            where=f"{file}:{line}",
            why="What it means could not be told.",
            do="Write each name in a-z, 0-9, _ and -, and each key once, with its own value.",
        )
    return {str(key): entry for key, entry in _read(file, yaml.load).items()}, lines


def _read(file: Path, how: Callable[..., Any]) -> Any:
    """The file, as `params_text.read` reads it.

    Raises:
        TunesmithError: it is no YAML.
    """
    try:
        return params_text.read(file, how)
    except TunesmithError as failure:
        raise TunesmithError(
            secrecy.redact(failure.what),
            where=failure.where,
            why="Which places there are could not be told.",
            do="Mend that line, with spaces in front and no tabs; then type the same again.",
        ) from failure
