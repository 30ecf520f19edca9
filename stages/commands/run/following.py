"""A job in; its log as it comes, until it has ended there, and its result out."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stages.commands.remote import failures, settings
from stages.commands.remote.store import Store
from stages.commands.run.mailbox import Mailbox
from stages.commands.run.records import Record
from stages.core import jobs, live

LOOK = 1.0  # seconds between looks into the mailbox
ASK = 10.0  # seconds without a letter until the place is asked, and between two questions
AGAIN = 5.0  # seconds until a remote that does not answer is tried again


@dataclass(slots=True)
class Ended:
    """How a job ended.

    Attributes:
        code: of DVC there; None where it ended without a word.
        lock: entries of dvc.lock by address, of the stages that have new results.
        runs: rows of the log of runs.
        reason: why it was ended, or what was refused.
    """

    code: int | None
    lock: dict[str, Any] = field(default_factory=dict)
    runs: list[dict[str, Any]] = field(default_factory=list)
    reason: str = ""


class Follower:
    """One job, followed letter by letter."""

    def __init__(self, record: Record, say: Callable[[str], None]) -> None:
        self.record, self.say = record, say
        self.job, self.place = record.job, record.place
        self.number = dict.fromkeys(range(self.job.nodes), 0)
        self.heard = self.asked = time.monotonic()
        self.stage = record.stage
        self.quiet = False

    def follow(self, store: Store) -> Ended:
        """Print what comes until the job has ended there."""
        box = Mailbox(store, self.job.id, self.job.attempt)
        while True:
            try:
                found = self.read(box)
                self.quiet = False
            except failures.kinds() as failure:
                found = None
                self.without(store, failure)
                box = Mailbox(reopened(store), self.job.id, self.job.attempt)
            if found is not None:
                return found
            if time.monotonic() - self.heard > ASK and (over := self.ask(box)) is not None:
                return over
            time.sleep(LOOK)

    def read(self, box: Mailbox) -> Ended | None:
        """Take what is new; how it ended, once that is said."""
        over = None
        for node in self.number:
            for number, letter in box.read(node, self.number[node]):
                self.number[node] = number
                self.heard = time.monotonic()
                self.take(node, letter)
                if "result" in letter and not node:
                    over = Ended(**letter["result"])
        return over

    def take(self, node: int, letter: Mapping[str, Any]) -> None:
        """Print a letter, and draw its curves."""
        mark = f"[{node}] " if self.job.nodes > 1 else ""
        for line in letter.get("log", ()):
            self.say(f"{mark}{line}")
        for name, part in letter.get("series", {}).items():
            draw(name, part["from"], part["text"])
        if not node and letter.get("stage", self.stage) != self.stage:
            self.stage = letter["stage"]
            self.record = self.record.but(stage=self.stage)

    def ask(self, box: Mailbox) -> Ended | None:
        """Ask the place, where no letter has come for a while."""
        if time.monotonic() - self.asked < ASK:
            return None
        state = self.place.plugin.state(self.job, self.place.options)
        self.asked = time.monotonic()
        if state not in (jobs.ENDED, jobs.NONE):
            return None
        if (over := self.read(box)) is not None:  # its last letter came meanwhile
            return over
        said = self.place.plugin.said(self.job, self.place.options).strip()
        for line in said.splitlines()[-20:]:
            self.say(f"  there: {line}")
        how = "has ended without a word" if state == jobs.ENDED else "never began"
        return Ended(None, reason=f"the job {how}")

    def without(self, store: Store, failure: BaseException) -> None:
        """Say once that the remote does not answer; the job does not depend on that."""
        if not self.quiet:
            what, _ = failures.cause(store.kind, store.url, failure)
            self.say(f"  {store.name} does not answer ({what}); the job goes on; trying again")
        self.quiet = True
        time.sleep(AGAIN)


def reopened(store: Store) -> Store:
    """The same remote, connected to anew once that is asked for."""
    return Store(store.name, settings.load())


def draw(name: str, start: int, text: str) -> None:
    """A part of a training's series, where `tunesmith report` and `dvc plots` look for it."""
    path = live.folder() / Path(name).name
    if not start and not text:  # the training has ended: its report holds the series
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.truncate(start)
        file.write(text.encode())


def line(text: str) -> None:
    """Print a line of a log."""
    print(text, flush=True)
