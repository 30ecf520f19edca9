"""A worker, who answers and a store in; so many episodes played, and what became of them, out."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from zlib import crc32

from stages.commands.collect.answering import Answerer
from stages.commands.collect.store import Begun, Store
from stages.commands.collect.web import FailedError, Pace
from stages.commands.collect.worker import Scenario, Worker
from stages.core.example import Message, nfc
from stages.core.progress import Progress


def _utc() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Form:
    """How a scenario is asked, as the dataset's recipe does it.

    Attributes:
        system: the system message; empty for none.
        person_state: a paragraph below the context, with {mood} and {vulnerability}, where these
            are not neutral and low; empty for none.
    """

    system: str
    person_state: str

    def chat(self, scenario: Scenario) -> list[Message]:
        """The messages to answer."""
        state: Any = scenario.person_state if isinstance(scenario.person_state, dict) else {}
        mood, weak = state.get("mood") or "neutral", state.get("vulnerability") or "low"
        text = scenario.context
        if self.person_state and (mood, weak) != ("neutral", "low"):
            text += "\n\n" + self.person_state.format(mood=mood, vulnerability=weak)
        head = [{"role": "system", "content": self.system}] if self.system else []
        return [*head, {"role": "user", "content": nfc(text)}]


@dataclass(slots=True)
class Result:
    """What became of a run's episodes: how many are stored, now and before, and the failures."""

    before: int
    stored: int = 0
    failures: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Play:
    """One run of episodes.

    Attributes:
        run: its name; episodes are `<run>-<number>`, numbered from 1.
        clock: the date and time to store.
    """

    run: str
    worker: Worker
    answerer: Answerer
    store: Store
    form: Form
    pace: Pace
    difficulty: int
    clock: Callable[[], datetime] = _utc

    def episodes(self, count: int, result: Result) -> None:
        """Play the episodes 1 to `count` that are not stored; `result` is true at any moment."""
        done, last = self.store.stored(self.run), None
        progress = Progress("episodes", count)
        for number in range(1, count + 1):
            if number not in done:
                last = self.pace.wait(last)
                self._episode(number, result)
            progress.step(note=f"{len(result.failures)} failed")
        progress.close()

    def _episode(self, number: int, result: Result) -> None:
        key = f"{self.run}-{number}"
        begun = self.store.begun(key)
        try:
            if begun is None:
                begun = self._answered(key)
                self.store.answered(key, self.run, number, begun)
            self._judged(key, begun)
        except FailedError as failure:
            result.failures[number] = str(failure)
            self.store.failed(key, self.run, number, str(failure))
        else:
            result.stored += 1

    def _answered(self, key: str) -> Begun:
        scenario = self.pace.again(lambda _: self.worker.scenario(self.difficulty))
        chat = self.form.chat(scenario)
        seeds = crc32(key.encode())
        return Begun(
            scenario, self.pace.again(lambda tried: self.answerer.answer(chat, seeds + tried))
        )

    def _judged(self, key: str, begun: Begun) -> None:
        outcome = self.pace.again(
            lambda _: self.worker.outcome(begun.scenario.id, begun.response, key)
        )
        self.store.store(key, begun, outcome, self.answerer.name, self.clock())
