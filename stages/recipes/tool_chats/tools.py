"""A JSON file in; the tools of lines that bring none of their own out."""

from pathlib import Path, PurePath
from typing import Any

import orjson

from stages.core import dialogue
from stages.core.errors import TunesmithError
from stages.core.example import Example, Message

Tool = dict[str, Any]


def load(source: Path, name: str) -> list[Tool]:
    """The list of tools in this file of the source folder.

    Raises:
        TunesmithError: no such file, not a JSON list, or a tool without a name or with a schema
            that is none.
    """
    path = source / name
    if PurePath(name).is_absolute() or ".." in PurePath(name).parts or not path.is_file():
        raise _unusable(path, "There is no such file in the source folder.")
    try:
        found = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as problem:
        raise _unusable(path, f"It is broken JSON: {problem}.") from problem
    if (wrong := problem_of(found)) is not None:
        raise _unusable(path, wrong)
    tools: list[Tool] = found
    for tool in tools:
        _require_schema(path, tool)
    return tools


def problem_of(value: Any) -> str | None:
    """Why this is no list of tools; a tool is named, flat or under `function`."""
    if not isinstance(value, list):
        return "The tools are not a list."
    for number, tool in enumerate(value, 1):
        if not isinstance(tool, dict) or not isinstance(name_of(tool), str):
            return f"Tool {number} has no name."
    return None


def name_of(tool: Tool) -> Any:
    """What the tool is called by; anything but text is wrong."""
    function = tool.get("function", tool)
    return function.get("name") if isinstance(function, dict) else None


def _require_schema(path: Path, tool: Tool) -> None:
    """Call the tool without arguments: what its schema says against it does not matter here."""
    call = {"id": "c", "function": {"name": name_of(tool), "arguments": {}}}
    chat: list[Message] = [{"role": "user", "content": "."}]
    chat.append({"role": "assistant", "tool_calls": [call]})
    for code, reason in dialogue.problems(Example(chat, "", "", {}, [tool])):
        if code == "tool_schema":
            raise _unusable(path, reason.partition(": ")[2] + ".", str(name_of(tool)))


def _unusable(path: Path, what: str, tool: str = "") -> TunesmithError:
    return TunesmithError(
        f"The tools cannot be used{f' ({tool})' if tool else ''}: {what}",
        where=str(path),
        why="Calls of lines without tools of their own are checked against this file.",
        do='Mend the file, or set `options.tools: ""` in params.yaml.',
    )
