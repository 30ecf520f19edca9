"""A folder of match logs in; the usable ones in order, and a reject for each other file, out."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from stages.core.errors import TunesmithError
from stages.core.example import Reject

NAME = re.compile(r"training-.*\.json")
VERSION = re.compile(r"v(\d+)\.(\d+)\.(\d+)")
NUMBER = re.compile(r"-(\d+)\.json$")
SIDES = ("player", "opponent")

Version = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Log:
    """One decided match; `version` is the text in the file's name, "" where there is none."""

    name: str
    version: str
    data: dict[str, Any]
    winner: str

    @property
    def group(self) -> str:
        """The match: all its decisions stay in one split."""
        return str(self.data.get("gameId") or self.name)


def version_of(name: str) -> Version:
    """The version in a file's name as integers, () where there is none."""
    found = VERSION.search(name)
    return tuple(int(part) for part in found.groups()) if found else ()


def order(name: str) -> tuple[Version, int, str]:
    """Sort key: version as integers (0.5.9 before 0.5.10), then match number, then name."""
    number = NUMBER.search(name)
    return version_of(name), int(number[1]) if number else -1, name


def names(source: Path) -> tuple[list[str], list[str]]:
    """The log files of a folder in order, and the names in it that are no logs.

    Names that begin with a dot are the system's, not the user's, and are passed over.

    Raises:
        TunesmithError: no such folder, or no log in it.
    """
    if not source.is_dir():
        raise _missing(source, "There is no folder of match logs here.")
    found = sorted(path.name for path in source.iterdir() if not path.name.startswith("."))
    logs = [name for name in found if NAME.fullmatch(name) and (source / name).is_file()]
    if not logs:
        raise _missing(source, f"None of the {len(found)} names in this folder is a match log.")
    others = sorted(set(found) - set(logs))
    return sorted(logs, key=order), others


def _missing(source: Path, what: str) -> TunesmithError:
    return TunesmithError(
        what,
        where=str(source),
        why="The recipe 'games' reads files named training-v<version>-<number>.json.",
        do="Set the dataset's `source` to the folder that holds them.",
    )


def read(source: Path, minimum: str) -> Iterator[Log | Reject]:
    """Yield a reject for each name that is no log, then each log in order or why it is unused."""
    logs, others = names(source)
    for name in others:
        yield Reject(name, "not_a_log", "The name is not training-<...>.json.")
    least = tuple(int(part) for part in minimum.split("."))
    for name in logs:
        yield _version_reject(name, least) or _read(source / name)


def _version_reject(name: str, least: Version) -> Reject | None:
    version = version_of(name)
    if version >= least or not any(least):
        return None
    minimum = ".".join(map(str, least))
    if not version:
        return Reject(name, "unknown_version", f"Its name tells no version; {minimum} is asked.")
    return Reject(name, "below_min_version", f"It is older than version {minimum}.")


def _read(path: Path) -> Log | Reject:
    try:
        data = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as problem:
        return Reject(path.name, "broken_json", f"The file is not whole JSON: {problem}.")
    events = data.get("events") if isinstance(data, dict) else None
    if not isinstance(events, list) or not events:
        return Reject(path.name, "no_events", "The log holds no events.")
    if not all(isinstance(event, dict) and isinstance(event.get("type"), str) for event in events):
        return Reject(path.name, "broken_event", "An event is no object with a type.")
    return _decided(path.name, data)


def _decided(name: str, data: dict[str, Any]) -> Log | Reject:
    """The log, if its match has a configuration and a winner."""
    ends = {event["type"]: event for event in data["events"]}
    decisions = sum(event["type"] == "agent_decision" for event in data["events"])
    if "game_config" not in ends:
        return Reject(name, "no_config", f"No game_config; {decisions} decisions unused.")
    winner = ends.get("game_end", {}).get("winner")
    if winner == "draw":
        return Reject(name, "draw", f"Nobody won; {decisions} decisions unused.")
    if winner not in SIDES:
        return Reject(name, "unfinished", f"The log names no winner; {decisions} unused decisions.")
    if not decisions:
        return Reject(name, "no_decisions", "Nobody decided anything in this match.")
    version = ".".join(map(str, version_of(name)))
    return Log(name, version, data, winner)
