"""Raw data for the recipe `tool_chats`: as many conversations with tool calls as rows are wanted.

A thousand made conversations are written over and over, each time with another number in its first
question, so that no two lines are equal; one line in fifty is spoilt in turn in one of four ways.
"""

import tempfile
from pathlib import Path
from typing import Any

from stages.makers import tool_chats as maker

MADE = 1000
SPOIL_EVERY = 50
ASKED = b'"role":"user","content":"'


def make(rows: int, out: Path) -> dict[str, Any]:
    """Write `chats.jsonl` with this many lines and `tools.json` into the folder `out`.

    Returns the options with which the recipe reads them.
    """
    lines = _made(out)
    with (out / "chats.jsonl").open("wb") as file:
        for number in range(rows):
            line = lines[number % len(lines)]
            line = line.replace(ASKED, b"%s#%d " % (ASKED, number), 1)
            file.write(_spoilt(line, number) if number % SPOIL_EVERY == 0 else line)
    options = {"pattern": "*.jsonl", "probes": "", "tools": "tools.json", "system": ""}
    return options | {"final_calls": "reject"}


def _made(out: Path) -> list[bytes]:
    """The lines of the maker's three phases; `tools.json` is left in `out`."""
    with tempfile.TemporaryDirectory() as folder:
        third = MADE // 3
        sizes = {"tools": third, "agentic": third, "integration": MADE - 2 * third}
        maker.make(maker.Options(seed=1, requests=1, probes=0, **sizes), Path(folder))
        (out / "tools.json").write_bytes((Path(folder) / "tools.json").read_bytes())
        files = sorted(Path(folder).glob("[123]-*.jsonl"))
        return [line for path in files for line in path.read_bytes().splitlines(keepends=True)]


def _spoilt(line: bytes, number: int) -> bytes:
    """The line cut off, or with an unknown role, an unknown call or an unknown tool."""
    ways = (
        line[: len(line) // 2].rstrip(b"\n") + b"\n",
        line.replace(b'"role":"user"', b'"role":"robot"', 1),
        line.replace(b'"tool_call_id":"call_1"', b'"tool_call_id":"call_99"', 1),
        line.replace(b'"name":"read","arguments"', b'"name":"teleport","arguments"', 1),
    )
    return ways[number // SPOIL_EVERY % len(ways)]
