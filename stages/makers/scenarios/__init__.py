"""A seed in; `saige.db`, a database of scenarios and rated answers in SAIGE's schema, out.

Among its rows are answers of every level, answers without an alignment, answers to scenarios that
are not there, ties in harm and time, scores exactly on the limits of the levels, and answers that
go on as a dialogue with themselves. The ratings follow from the flaws that the maker put in.
"""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from stages.core.settings import Settings
from stages.makers.scenarios import database
from stages.makers.scenarios.experiences import experience
from stages.makers.scenarios.situations import scenario

__all__ = ["Options", "experience", "make", "scenario"]


class Options(Settings):
    """How many rows of each; a row depends on `seed`, its number and the number of scenarios."""

    seed: Annotated[int, Field(ge=0)]
    scenarios: Annotated[int, Field(ge=1)]
    experiences: Annotated[int, Field(ge=1)]


def make(options: Options, out: Path) -> None:
    """Write `saige.db` into the existing folder `out`: the same options, the same bytes."""
    scenarios = [scenario(options.seed, n) for n in range(1, options.scenarios + 1)]
    rows = (experience(options.seed, n, scenarios) for n in range(1, options.experiences + 1))
    database.write(out / "saige.db", [one.row() for one in scenarios], rows)
