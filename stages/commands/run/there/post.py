"""What a job says in; letters in its mailbox out, as long as the remote can be reached, in order.

A letter that cannot be sent is kept and sent again as it is, before any later one: it may have
arrived although that could not be told.
"""

import os
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from stages.commands.remote import failures, settings
from stages.commands.remote.store import Store
from stages.commands.run.mailbox import Mailbox
from stages.core import live, secrecy
from stages.core.errors import TunesmithError
from stages.core.jobs import Job
from stages.core.secrecy.kept import MARK

QUICK, SLOW = 1.0, 10.0  # seconds between letters, at first and after a while
BEAT = 15.0  # seconds after which a letter is sent though nothing was said
AGAIN = 20.0  # seconds until a letter that could not be sent is tried again
PATIENCE = 900.0  # seconds for the last letter


class Post:
    """The letters of one machine of a job.

    Attributes:
        ended: set once the job is to end.
        reason: why, in a sentence.
        stage: the one that runs, once there was one.
        store: the remote, for its kind and address.
    """

    def __init__(self, job: Job, node: int) -> None:
        self.job, self.node = job, node
        self.ended, self.reason, self.stage = threading.Event(), "", ""
        self.store = Store(job.remote["name"], settings.load())
        self._box = Mailbox(self.store, job.id, job.attempt)
        self._hidden = [v for name in job.secrets if len(v := os.environ.get(name, "")) > 3]
        self._said: list[str] = []
        self._facts: dict[str, Any] = {}
        self._series: dict[str, int] = {}
        self._lock, self._wake = threading.Lock(), threading.Event()
        self._number: int | None = None  # of the last letter; not known before the first
        self._pending: dict[str, Any] = {}
        self._closing = False
        self._begun = time.monotonic()
        reason = f"the limit of {job.hours:g} hours"
        self._clock = threading.Timer(job.hours * 3600, self.end, [reason])
        self._clock.daemon = True
        # A daemon: were this process to fail, letters must not go on telling that it is at work.
        self._thread = threading.Thread(target=self._work, daemon=True)

    def reach(self) -> None:
        """Send a first letter, to see whether that can be done at all.

        Raises:
            TunesmithError: the remote refuses; a connection that does not hold may do so again.
        """
        self._pending = self._letter()
        try:
            self._send()
        except failures.kinds() as failure:
            what, do = failures.cause(self.store.kind, self.store.url, failure)
            if not what.startswith(failures.LOST):
                raise TunesmithError(
                    f"The remote cannot be used from this machine: {what}",
                    where=f"places.yaml: {self.job.place}.remote_options, .remote_url, .secrets",
                    why="Inputs come from it, and the log and all results go to it.",
                    do=do,
                ) from failure

    def begin(self) -> None:
        """Send letters from now on."""
        self.tell(begun=datetime.now(UTC).isoformat(timespec="seconds"))
        self._thread.start()
        if self.job.hours:
            self._clock.start()

    def say(self, line: str) -> None:
        """A line of the log."""
        text = secrecy.redact(line)
        for value in self._hidden:
            text = text.replace(value, MARK)
        _print(text)
        with self._lock:
            self._said.append(text)

    def tell(self, **facts: Any) -> None:
        """Facts for the next letter."""
        with self._lock:
            self._facts |= facts

    def runs(self, stage: str) -> None:
        """A stage has begun."""
        self.stage = stage
        self.tell(stage=stage)

    def end(self, reason: str) -> None:
        """The job is to end."""
        if not self.ended.is_set():
            self.reason = reason
            self.ended.set()

    def close(self, result: dict[str, Any]) -> bool:
        """Send the last letter; whether it has arrived."""
        self.tell(result=result)
        self._closing = True
        self._wake.set()
        if not self._thread.ident:
            self._thread.start()
        self._thread.join()
        return not self._left()

    def _left(self) -> bool:
        """Whether there is something that was not sent."""
        with self._lock:
            return bool(self._said or self._facts or self._pending)

    def _work(self) -> None:
        shown, until = 0.0, 0.0
        while True:
            age = time.monotonic() - self._begun
            if not self._closing:
                self._wake.wait(min(SLOW, max(QUICK, age / 60)))
            until = until or (time.monotonic() + PATIENCE if self._closing else 0.0)
            if self._left() or time.monotonic() - shown > BEAT:
                self._pending = self._pending or self._letter()
                try:
                    self._send()
                    shown = time.monotonic()
                except failures.kinds() as failure:
                    _print(f"  {self.store.url} does not take the log: {failure}")
                    if until and time.monotonic() > until:
                        return
                    self._rest()
                    continue
            if self._closing and not self._left():
                return

    def _letter(self) -> dict[str, Any]:
        """All that is new, as the next letter."""
        letter: dict[str, Any] = {"at": datetime.now(UTC).isoformat(timespec="seconds")}
        if series := self._new_of_series():
            letter["series"] = series
        with self._lock:
            letter |= self._facts
            self._facts = {}
            if self._said:
                letter["log"], self._said = self._said, []
        return letter

    def _send(self) -> None:
        if self._box.stopped():
            self.end("somebody asked for its end")
        if self._number is None:  # an earlier try of this attempt may have written some
            self._number = self._box.last(self.node)
        self._box.write(self.node, self._number + 1, self._pending)
        self._number, self._pending = self._number + 1, {}

    def _new_of_series(self) -> dict[str, Any]:
        """What the series of trainings under way have more than the last letter said."""
        found, there = {}, set()
        for path in live.folder().glob("*.tsv"):
            with suppress(FileNotFoundError):  # its training has just ended
                content = path.read_bytes()
                there.add(path.name)
                start = self._series.get(path.name, 0)
                start = start if start <= len(content) else 0
                if len(content) > start:
                    found[path.name] = {"from": start, "text": content[start:].decode()}
                    self._series[path.name] = len(content)
        for name in self._series.keys() - there:
            found[name] = {"from": 0, "text": ""}
            del self._series[name]
        return found

    def _rest(self) -> None:
        """Wait, and connect anew: a connection that broke does not mend."""
        time.sleep(min(AGAIN, 1.0 + (self._number or 0)))
        self.store = Store(self.job.remote["name"], settings.load())
        self._box = Mailbox(self.store, self.job.id, self.job.attempt)


def _print(text: str) -> None:
    """Say it here, too; a full disk, or a locale that lacks a letter, is no reason to fail."""
    with suppress(OSError, UnicodeEncodeError):
        print(text, flush=True)
