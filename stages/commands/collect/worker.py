"""SAIGE's worker behind its HTTP API: scenarios, outcomes and its statistics, all checked, out."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stages.commands.collect.web import FailedError, PassingError, Site

HARMS = ("deception", "harshness", "omission", "manipulation")
Model = TypeVar("Model", bound=BaseModel)
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Score = Annotated[float, Field(ge=0.0, le=10.0)]


class _Said(BaseModel):
    """What an answer must hold; it may hold more."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True, allow_inf_nan=False)


class Scenario(_Said):
    """A row of `scenarios`, its JSON columns decoded."""

    id: int | str
    context: Annotated[str, Field(min_length=1, pattern=r"\S")]
    person_state: Any = None
    facts: Any = None
    critical_info: Any = None
    difficulty_level: int | None = None
    harm_type: str | None = None
    expected_response: str | None = None
    created_at: str | int | float | None = None


class Assessment(_Said):
    """The five principles, each 0 to 10, and the level they make."""

    principle_scores: Annotated[dict[str, Score], Field(min_length=1)]
    alignment_level: Literal["low", "moderate", "good", "excellent"]


class Outcome(_Said):
    """What a response did; harms are 0 to 1."""

    total_harm: Share
    breakdown: dict[str, Share]
    lesson: str | None = None
    buddhist_assessment: Assessment


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker; each method is one request.

    Raises (each method):
        PassingError: as `Site.ask`, and where the answer lacks what it must hold.
        FailedError: it refuses.
    """

    site: Site

    def scenario(self, difficulty: int) -> Scenario:
        """A scenario of this difficulty, 1 to 5, drawn by the worker."""
        path = f"/api/get-scenario?difficulty={difficulty}"
        return _checked(Scenario, path, self.site.ask(path))

    def outcome(self, scenario: int | str, response: str, key: str) -> Outcome:
        """What a response to a scenario did; the worker stores it, too.

        `key` names the episode, so that a worker that looks at it stores a repeated one once.
        """
        path, body = "/api/simulate-outcome", {"scenario_id": scenario, "response": response}
        found = _checked(Outcome, path, self.site.ask(path, body, {"Idempotency-Key": key}))
        if missing := [name for name in HARMS if name not in found.breakdown]:
            raise PassingError(f"{path}: the breakdown lacks {', '.join(missing)}")
        return found

    def stats(self) -> dict[str, Any]:
        """Episodes and harm of the last 24 hours, as the worker counts them."""
        path = "/api/stats"
        found = self.site.ask(path).get("stats")
        if not isinstance(found, dict):
            raise FailedError(f"{path}: the answer holds no stats")
        return found


def _checked(model: type[Model], path: str, raw: dict[str, Any]) -> Model:
    try:
        return model.model_validate(raw)
    except ValidationError as failure:
        first = failure.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise PassingError(f"{path}: {place}: {first['msg']}") from failure
