"""SAIGE's rated experiences in; one chat for each answer that was good enough out.

A row of `experiences` becomes an example or a reject `<file>#<n>`, n its rowid (which is its id
where that is a whole number). The first of these that holds makes it a reject:

1. it has no scenario (`orphan`, `ambiguous_scenario`) or no alignment (`no_alignment`);
2. harm: `no_harm`, `harm_type`, `harm_range`, `too_harmful`;
3. score: `no_scores`, `broken_scores`, `scores_type`, `scores_range`, `low_score`;
4. alignment: `unknown_alignment`, `low_alignment`;
5. its content: `wrong_type`, `not_utf8`, `nul`, `too_long`, `empty_answer`, `empty_prompt`,
   `broken_json`, `bad_id`, `difficulty`, and with `self_dialogue: drop` also `self_dialogue`;
6. the limit: `over_limit`.

So the limit counts only rows that passed everything else, the least harmful first, the newest
first among equals, then by id.
"""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from string import Formatter
from typing import Annotated, Literal

from pydantic import Field, field_validator

from stages.core.example import Example, Reject
from stages.core.settings import Count, Settings
from stages.recipes.rated_sqlite import database
from stages.recipes.rated_sqlite.judging import METRICS, judge
from stages.recipes.rated_sqlite.reporting import report
from stages.recipes.rated_sqlite.selection import Selection

__all__ = ["METRICS", "STATS", "Options", "examples", "judge", "report"]

STATS = ("buddhist_alignment", "difficulty", "mood")


class Options(Settings):
    """Which experiences, and how a prompt is made of a scenario.

    Attributes:
        max_harm: `actual_harm` up to and including this, 0 to 1.
        min_score: weighted score from this on, 0 to 10.
        min_alignment: lowest `buddhist_alignment`; `any` takes every level, but never a null.
        limit: at most so many examples, counted after all filters; 0 for no limit.
        self_dialogue: whether answers that go on as a dialogue with themselves are dropped.
        person_state: a paragraph below the context, with `{mood}` and `{vulnerability}`, where
            the mood is not neutral or the vulnerability not low; "" for none.
        system: the system message; "" for none.
    """

    max_harm: Annotated[float, Field(ge=0.0, le=1.0)]
    min_score: Annotated[float, Field(ge=0.0, le=10.0)]
    min_alignment: Literal["any", "moderate", "good", "excellent"]
    limit: Count
    self_dialogue: Literal["keep", "drop"]
    person_state: str
    system: str

    @field_validator("person_state")
    @classmethod
    def _only_known_places(cls, text: str) -> str:
        for _, name, form, conversion in Formatter().parse(text):
            if name not in (None, "mood", "vulnerability") or form or conversion:
                raise ValueError(f"{{{name}}} is not one of {{mood}} and {{vulnerability}}")
        return text


def examples(source: Path, options: Options) -> Iterator[Example | Reject]:
    """The examples and rejects of a database, or of the one database in a folder.

    Rows come sorted by harm, then newest first, then by id; one row is in memory at a time.

    Raises:
        TunesmithError: there is no such database, it cannot be read or has not these tables and
            columns, it holds no experience, or none passes the filters.
    """
    path = database.find(source)
    with database.opened(path) as connection:
        selection = Selection(options, lambda key: database.scenario(connection, key))
        with closing(database.experiences(connection)) as rows:
            for row in rows:
                yield selection.take(f"{path.name}#{row.number}", row)
    selection.require_some(source)
