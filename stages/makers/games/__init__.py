"""A seed in; a folder of SIBYL match logs in the recorder's exact format out.

The matches are played by a script on rules written for this maker alone, with every class,
ability and status effect, several versions, draws, logs that stop early, refused actions and
unreadable answers in them.
"""

from pathlib import Path
from typing import Annotated

import orjson
from pydantic import Field

from stages.core.settings import Settings
from stages.makers.games.match import Played, play

__all__ = ["Options", "Played", "make", "play"]


class Options(Settings):
    """How many matches, numbered from 0; a match depends on `seed` and its number alone."""

    seed: Annotated[int, Field(ge=0)]
    games: Annotated[int, Field(ge=1)]


def make(options: Options, out: Path) -> None:
    """Write `training-v<version>-<n>.json` for each match into the existing folder `out`."""
    for number in range(options.games):
        played = play(options.seed, number)
        (out / played.name).write_bytes(orjson.dumps(played.log))
