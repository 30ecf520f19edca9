"""A job in; its log as it comes, until it has ended there, and its result out."""

import time
from collections import deque
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
GONE = 60.0  # seconds without a letter of the first machine until another's end is the job's
ASK = 30.0  # seconds without a letter until the place is asked, and between two questions
LOST = (
    "  {place} does not answer, and no letter comes: it is off, or nothing reaches it.\n"
    "  Waiting for it. Ctrl-C leaves; if it is gone for good: tunesmith run --forget {id} --yes\n"
    "  and then run it elsewhere, where it goes on from the last checkpoint that was sent"
)
BY_HAND = "  {place}: nothing was heard of {id} yet; it begins when you begin it there"
SEEN = 200  # lines of the log that are not printed again
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
    """One job, followed letter by letter.

    Attributes:
        record: the job, with the stage that was seen last.
        store: the remote as it is connected to now, once it is followed.
    """

    def __init__(self, record: Record, say: Callable[[str], None]) -> None:
        self.record, self.say = record, say
        self.job, self.place = record.job, record.place
        self.number = dict.fromkeys(range(self.job.nodes), 0)
        self.heard = self.asked = self.first = time.monotonic()
        self.other: Ended | None = None
        self.stage = record.stage
        self.quiet = self.lost = False
        self.shown: deque[str] = deque(maxlen=SEEN)

    def follow(self, store: Store, fresh: bool = True) -> Ended:
        """Print what comes until the job has ended there.

        Args:
            fresh: it was begun just now; else its place is asked at once whether it runs.
        """
        self.store = store
        while True:
            found, box = None, Mailbox(self.store, self.job.id, self.job.attempt)
            try:
                found = self.read(box)
                self.quiet = False
            except failures.kinds() as failure:
                self.without(self.store, failure)
                self.store = reopened(self.store)
            now = time.monotonic()
            if found is None and now - self.first > GONE:
                found = self.other
            if found is None and (not fresh or min(now - self.heard, now - self.asked) > ASK):
                fresh, found = True, self.ask(box)
            if found is not None:
                return found
            time.sleep(LOOK)

    def read(self, box: Mailbox) -> Ended | None:
        """Take what is new; how it ended, once that is said."""
        over = None
        for node in self.number:
            for number, letter in box.read(node, self.number[node]):
                self.number[node] = number
                self.heard, self.lost = time.monotonic(), False
                self.take(node, letter)
                ended = Ended(**letter["result"]) if "result" in letter else None
                if node:
                    self.other = ended or self.other
                else:
                    self.first, over = self.heard, ended
        return over

    def take(self, node: int, letter: Mapping[str, Any]) -> None:
        """Print a letter, and draw its curves."""
        mark = f"[{node}] " if self.job.nodes > 1 else ""
        for line in letter.get("log", ()):
            self.shown.append(line)
            self.say(f"{mark}{line}")
        for name, part in letter.get("series", {}).items():
            draw(name, part["from"], part["text"])
        if not node and letter.get("stage", self.stage) != self.stage:
            self.stage = letter["stage"]
            self.record = self.record.but(stage=self.stage)

    def ask(self, box: Mailbox) -> Ended | None:
        """Ask the place, where no letter has come for a while."""
        state = self.place.plugin.state(self.job, self.place.options)
        self.asked = time.monotonic()
        if state == jobs.UNKNOWN and not self.lost:
            self.lost = True
            text = BY_HAND if getattr(self.place.plugin, "BY_HAND", False) else LOST
            self.say(text.format(place=self.place.describe(), id=self.job.id))
        if state == jobs.RUNNING and not any(self.number.values()):
            self.unheard()
        if state not in (jobs.ENDED, jobs.NONE):
            return None
        try:
            if (over := self.read(box)) is not None:  # its last letter came meanwhile
                return over
        except failures.kinds():
            return None  # what it has said last is there
        said = self.place.plugin.said(self.job, self.place.options).strip()
        for line in said.splitlines()[-20:]:
            if line not in self.shown:
                self.say(f"  there: {line}")
        how = "has ended without a word" if state == jobs.ENDED else "never began"
        return Ended(None, reason=f"the job {how}")

    def unheard(self) -> None:
        """Print what a job says there that has sent no letter yet."""
        said = self.place.plugin.said(self.job, self.place.options).strip()
        for text in said.splitlines()[-1:]:
            if text not in self.shown:
                self.shown.append(text)
                self.say(f"  no letter yet; there: {text}")

    def without(self, store: Store, failure: BaseException) -> None:
        """Say once that the remote does not answer; the job does not depend on that."""
        if not self.quiet:
            what, _ = failures.cause(store.kind, store.url, failure)
            self.say(f"  {store.name}: {what} The job goes on; trying again")
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
