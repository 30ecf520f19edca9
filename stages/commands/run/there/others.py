"""The other machines of a job: what they say in the mailbox, and whether they are still there."""

import queue
import socket
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from stages.commands.remote import failures, settings
from stages.commands.remote.store import Store
from stages.commands.run.mailbox import Mailbox
from stages.core import live
from stages.core.jobs import Job

QUICK, SLOW = 1.0, 5.0  # seconds between looks into the mailbox, at first and after a while
AGAIN = 5.0  # seconds until a remote that does not answer is tried again
STILL = 120.0  # seconds of silence after which a machine that trains is given up
PROBE = 10.0  # seconds between two calls at the first machine's port, and for one of them


class Others:
    """What other machines say, read beside the work.

    Attributes:
        letters: what they have said and nobody has taken yet, in order.
        gone: of each that does not go on, why.
    """

    def __init__(self, job: Job, nodes: Iterable[int]) -> None:
        self.job = job
        self.letters: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self.gone: dict[int, str] = {}
        self._names: dict[int, str] = {}
        self._number = dict.fromkeys(nodes, 0)
        self._begun = self._looked = time.monotonic()
        self._heard = dict.fromkeys(self._number, self._begun)
        # It may hang in a connection that was cut; nothing waits for it.
        threading.Thread(target=self._read, daemon=True).start()

    def name(self, node: int) -> str:
        """A machine as people know it."""
        return self._names.get(node, f"machine {node}")

    def silence(self, node: int) -> float:
        """Seconds without a letter of a machine, as far as the mailbox could be read."""
        return max(0.0, self._looked - self._heard[node])

    def blind(self) -> float:
        """Seconds for which the mailbox could not be read."""
        return time.monotonic() - self._looked

    def left(self) -> str:
        """Which of them does not go on and why; empty as long as all do."""
        return next((f"{self.name(node)}: {why}" for node, why in self.gone.items()), "")

    def silent(self, seconds: float) -> str:
        """The first that has said nothing for so long; empty where there is none."""
        found = (node for node in self._number if self.silence(node) > seconds)
        return next((self.name(node) for node in found), "")

    def _read(self) -> None:
        box = None
        while True:
            try:
                box = box or self._opened()
                now = time.monotonic()
                for node in self._number:
                    for number, letter in box.read(node, self._number[node]):
                        self._number[node] = number
                        self._take(node, letter)
                self._looked = now
            except failures.kinds():  # the post says that the remote does not answer
                box = None
                time.sleep(AGAIN)
            time.sleep(min(SLOW, max(QUICK, (time.monotonic() - self._begun) / 60)))

    def _opened(self) -> Mailbox:
        store = Store(self.job.remote["name"], settings.load())
        return Mailbox(store, self.job.id, self.job.attempt)

    def _take(self, node: int, letter: dict[str, Any]) -> None:
        self._heard[node] = time.monotonic()
        self._names[node] = letter.get("machine", self.name(node))
        if "left" in letter:
            self.gone[node] = str(letter["left"])
        if "result" in letter and (code := letter["result"]["code"]):
            self.gone.setdefault(node, letter["result"].get("reason") or f"ended with {code}")
        self.letters.put(letter)


class Steps:
    """Whether the training of this machine still makes steps, by its live series."""

    def __init__(self) -> None:
        self._seen: list[tuple[str, int]] = []
        self._moved = time.monotonic()

    def still(self) -> float:
        """Seconds since the last look that has seen a new step."""
        found = []
        for path in sorted(live.folder().glob("*.tsv")):
            with suppress(FileNotFoundError):  # its training has just ended
                found.append((path.name, path.stat().st_size))
        if found != self._seen:
            self._seen, self._moved = found, time.monotonic()
        return time.monotonic() - self._moved


class Port:
    """Whether the first machine's port answers, where all processes of a training meet."""

    def __init__(self, master: str) -> None:
        self._host, _, port = master.rpartition(":")
        self._port = int(port)
        self._answered: float | None = None
        self._asked = time.monotonic()

    def dead(self) -> float:
        """Seconds for which it has not answered any more; 0 before it first did."""
        if time.monotonic() - self._asked > min(PROBE, STILL / 4):
            with suppress(OSError):  # it does not answer
                socket.create_connection((self._host, self._port), timeout=PROBE).close()
                self._answered = time.monotonic()
            self._asked = time.monotonic()
        return 0.0 if self._answered is None else time.monotonic() - self._answered
