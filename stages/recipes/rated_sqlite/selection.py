"""Experiences in; the ones that pass every filter as examples, the others as rejects, out."""

from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from stages.core.errors import TunesmithError
from stages.core.example import Example, Reject
from stages.recipes.rated_sqlite import content
from stages.recipes.rated_sqlite.content import BadValueError, Told
from stages.recipes.rated_sqlite.database import Experience, Scenario
from stages.recipes.rated_sqlite.selftalk import talks_to_itself

LEVELS = ("low", "moderate", "good", "excellent")
SCENARIOS_IN_MEMORY = 1024


class Wanted(Protocol):
    """The recipe's options, as far as they select."""

    max_harm: float
    min_score: float
    min_alignment: str
    limit: int
    self_dialogue: str
    person_state: str
    system: str


class Selection:
    """Takes rows in their order, and keeps count of what each filter took away."""

    def __init__(self, options: Any, scenario: Callable[[Any], Scenario]) -> None:
        self.options: Wanted = options
        self.least = 0 if options.min_alignment == "any" else LEVELS.index(options.min_alignment)
        self.kept = 0
        self.rejects: Counter[str] = Counter()
        # What came nearest to passing, for the advice where nothing passes.
        self.harm, self.score, self.level = 1.0, 0.0, 0

        @lru_cache(maxsize=SCENARIOS_IN_MEMORY)
        def told(key: Any) -> Told | BadValueError:
            try:
                return content.told(scenario(key), options.person_state)
            except BadValueError as problem:
                return problem

        self.told = told

    def take(self, source: str, row: Experience) -> Example | Reject:
        """The example of a row, or its reject."""
        try:
            made = self._example(source, row)
        except BadValueError as problem:
            self.rejects[problem.code] += 1
            return Reject(source, problem.code, str(problem))
        self.kept += 1
        return made

    def _example(self, source: str, row: Experience) -> Example:
        if row.copies is None:
            raise BadValueError("orphan", "Its scenario is not in the database.")
        if row.copies > 1:
            raise BadValueError("ambiguous_scenario", f"{row.copies} scenarios have its id.")
        if row.alignment is None:
            raise BadValueError("no_alignment", "It has no buddhist_alignment.")
        harm, score = self._harm(row), self._score(row)
        self._require_alignment(row)
        answer = content.text(row.answer, "ai_response", "empty_answer")
        number = content.identity(row.id, "Its id")
        told = self.told(row.scenario)
        if isinstance(told, BadValueError):
            raise BadValueError(told.code, str(told))
        if self.options.self_dialogue == "drop" and (label := talks_to_itself(answer)):
            raise BadValueError("self_dialogue", f"Its answer goes on as a dialogue: {label!r}.")
        if self.options.limit and self.kept >= self.options.limit:
            raise BadValueError("over_limit", f"{self.kept} examples came before it.")
        return _example(source, self.options.system, told, answer, {
            "harm_score": harm,
            "buddhist_alignment": row.alignment,
            "weighted_score": score,
            "difficulty": told.difficulty,
            "scenario_id": told.id,
            "experience_id": number,
        })  # fmt: skip

    def _harm(self, row: Experience) -> float:
        harm = content.harm(row.harm)
        if harm > self.options.max_harm:
            self.harm = min(self.harm, harm)
            reason = f"Its harm is {harm}, above {self.options.max_harm}."
            raise BadValueError("too_harmful", reason)
        return harm

    def _score(self, row: Experience) -> float:
        score = content.weighted(row.scores)
        if score < self.options.min_score:
            self.score = max(self.score, score)
            reason = f"Its weighted score is {score}, below {self.options.min_score}."
            raise BadValueError("low_score", reason)
        return score

    def _require_alignment(self, row: Experience) -> None:
        if row.alignment not in LEVELS:
            known = ", ".join(LEVELS)
            raise BadValueError("unknown_alignment", f"Its alignment is none of {known}.")
        level = LEVELS.index(row.alignment)
        if level < self.least:
            self.level = max(self.level, level)
            reason = f"Its alignment is {row.alignment}, below {self.options.min_alignment}."
            raise BadValueError("low_alignment", reason)

    def require_some(self, source: Path) -> None:
        """Stop where no row became an example.

        Raises:
            TunesmithError: which filter took away how many, and how far to relax it.
        """
        if self.kept:
            return
        if not self.rejects:
            raise TunesmithError(
                "The database holds no experiences.",
                where=str(source),
                why="Without a rated answer there is nothing to learn.",
                do="Collect some first.",
            )
        raise TunesmithError(
            f"None of the {self.rejects.total():,} experiences passes the filters.",
            where=str(source),
            why="Taken away, in this order: " + ", ".join(self._removed()) + ".",
            do="Relax in `options`: " + " or ".join(self._advice()),
        )

    def _removed(self) -> list[str]:
        wanted = self.options
        said = {
            "too_harmful": f"harm above {wanted.max_harm}",
            "low_score": f"score below {wanted.min_score}",
            "low_alignment": f"alignment below {wanted.min_alignment}",
            "self_dialogue": "self-invented dialogue",
        }
        order = {code: place for place, code in enumerate(said)}
        codes = sorted(self.rejects, key=lambda code: (order.get(code, -1), code))
        return [f"{said.get(code, code)}: {self.rejects[code]:,}" for code in codes]

    def _advice(self) -> list[str]:
        """Each filter that took something away, set so that its nearest row would pass it."""
        advice = {
            "too_harmful": f"max_harm: {self.harm}",
            "low_score": f"min_score: {self.score}",
            "low_alignment": f"min_alignment: {LEVELS[self.level] if self.level else 'any'}",
            "self_dialogue": "self_dialogue: keep",
        }
        found = [text for code, text in advice.items() if self.rejects[code]]
        return found or ["nothing; the rows themselves cannot be used. Mend the database."]


def _example(source: str, system: str, told: Told, answer: str, rated: dict[str, Any]) -> Example:
    messages = [{"role": "system", "content": system}] if system else []
    messages += [
        {"role": "user", "content": told.prompt},
        {"role": "assistant", "content": answer},
    ]
    meta = rated | {"mood": told.mood, "vulnerability": told.vulnerability}
    meta |= {"facts": told.facts, "critical": told.critical}
    return Example(messages, source, f"scenario:{told.id}", meta)
