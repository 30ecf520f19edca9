"""A seed in; the episodic memory of an invented person, as files in MetaHuman's layout, out.

All three modes by metadata and by type, every shape of a memory (messages, prompt and response,
content and response, question and answer, observation), fillers to be cleaned, answers too long
and long on purpose, and for every 20 memories one that no reader can use.
"""

from pathlib import Path
from random import Random
from typing import Annotated

import orjson
from pydantic import Field

from stages.core.settings import Settings
from stages.makers.memories import records

__all__ = ["Options", "make"]

EVERY = 20


class Options(Settings):
    """How many memories with a pair, of whom; a memory depends on `seed` and its number alone."""

    seed: Annotated[int, Field(ge=0)]
    user: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")]
    memories: Annotated[int, Field(ge=1)]


def make(options: Options, out: Path) -> None:
    """Write `profiles/<user>/memory/episodic/…` into the existing folder `out`.

    Where two memories would have one path, as the recorder's ids clash, the later one is drawn
    again, so that there are as many files as asked for.
    """
    root = out / "profiles" / options.user / "memory" / "episodic"
    for number in range(options.memories):
        random = Random(f"{options.seed}:{number}")
        record = records.memory(random, number, options.user)
        while (root / records.path(record)).exists():
            record = records.memory(random, number, options.user)
        _write(root / records.path(record), record)
    for number in range(-(-options.memories // EVERY)):
        random = Random(f"{options.seed}:odd:{number}")
        place, content = records.odd(random, number, options.user)
        while (root / place).exists():
            place, content = records.odd(random, number, options.user)
        _write(root / place, content)


def _write(path: Path, content: records.Record | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not isinstance(content, bytes):
        content = orjson.dumps(content, option=orjson.OPT_INDENT_2)
    path.write_bytes(content)
