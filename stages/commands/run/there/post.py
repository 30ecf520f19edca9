"""What a job says in; letters in its mailbox out, as long as the remote can be reached, in order.

A letter that cannot be sent is kept and sent later, with all that was said meanwhile.
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
        self._number, self._closing = 0, False
        self._begun = time.monotonic()
        reason = f"the limit of {job.hours:g} hours"
        self._clock = threading.Timer(job.hours * 3600, self.end, [reason])
        self._clock.daemon = True
        # A daemon: were this process to fail, letters must not go on telling that it is at work.
        self._thread = threading.Thread(target=self._work, daemon=True)

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
        return not self._said and not self._facts

    def _work(self) -> None:
        shown, until = 0.0, 0.0
        while True:
            age = time.monotonic() - self._begun
            if not self._closing:
                self._wake.wait(min(SLOW, max(QUICK, age / 60)))
            until = until or (time.monotonic() + PATIENCE if self._closing else 0.0)
            letter = self._letter()
            if letter or time.monotonic() - shown > BEAT:
                try:
                    self._send(letter)
                    shown = time.monotonic()
                except failures.kinds() as failure:
                    _print(f"  {self.store.url} does not take the log: {failure}")
                    self._back(letter)
                    if until and time.monotonic() > until:
                        return
                    self._rest()
                    continue
            if self._closing and not self._said and not self._facts:
                return

    def _letter(self) -> dict[str, Any]:
        with self._lock:
            letter, self._facts = self._facts, {}
            if self._said:
                letter["log"], self._said = self._said, []
        return letter

    def _back(self, letter: dict[str, Any]) -> None:
        """Keep for later what could not be sent."""
        with self._lock:
            self._said = letter.pop("log", []) + self._said
            self._facts = letter | self._facts

    def _send(self, letter: dict[str, Any]) -> None:
        moment = datetime.now(UTC).isoformat(timespec="seconds")
        series, seen = self._new_of_series()
        more = {"series": series} if series else {}
        self._box.write(self.node, self._number + 1, {"at": moment, **letter, **more})
        self._number += 1
        self._series = {name: size for name, size in (self._series | seen).items() if size}
        if self._box.stopped():
            self.end("somebody asked for its end")

    def _new_of_series(self) -> tuple[dict[str, Any], dict[str, int]]:
        """What the series of trainings under way have more than the last letter said."""
        found, seen = {}, {}
        for path in live.folder().glob("*.tsv"):
            content = path.read_bytes()
            start = self._series.get(path.name, 0)
            start = start if start <= len(content) else 0
            if len(content) > start:
                found[path.name] = {"from": start, "text": content[start:].decode()}
                seen[path.name] = len(content)
        for name in self._series.keys() - {path.name for path in live.folder().glob("*.tsv")}:
            found[name], seen[name] = {"from": 0, "text": ""}, 0  # its training has ended
        return found, seen

    def _rest(self) -> None:
        """Wait, and connect anew: a connection that broke does not mend."""
        time.sleep(min(AGAIN, 1.0 + self._number))
        self.store = Store(self.job.remote["name"], settings.load())
        self._box = Mailbox(self.store, self.job.id, self.job.attempt)


def _print(text: str) -> None:
    """Say it here, too; a disk that is full there is no reason to fail."""
    with suppress(OSError):
        print(text, flush=True)
