"""One point of a sweep in, built as a job on a place; its entries of dvc.lock and its reports out.

It is a process of its own in the point's workspace, as `stages/commands/sweep/build.py` is: what it
prints is the point's log, and by it the sweep follows. Where it ends with LOST, the place is to be
given no more, and the point may be built elsewhere: nobody is at work on it any more, or that could
not be found out for PATIENCE seconds, which the job's record says then.
"""

import fcntl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from stages.commands import plan, run
from stages.commands.remote import failures, fetching, project
from stages.commands.remote.store import Store
from stages.commands.run import declared, ending, following, planning, records, sending, taking
from stages.commands.run.following import Ended
from stages.commands.run.mailbox import Mailbox
from stages.commands.run.records import Record
from stages.commands.run.there import REFUSED
from stages.core import files, graph, jobs, lockfile
from stages.core.cache import Cache
from stages.core.errors import TunesmithError

LOST, LEFT = 69, 130  # exit codes: its place is lost; it goes on without this end
SHARED = "for other points: "  # begins a line that names stages whose results others may take now
LOST_LINE = "lost: "  # begins the line that says why
PATIENCE = 600.0  # seconds for which a place may give no answer and a job say nothing
AGAIN = 5.0  # seconds between two questions to a place that gives none


@dataclass(frozen=True, slots=True)
class Asked:
    """What a point's process is told.

    Attributes:
        name: of the point.
        place: of places.yaml.
        targets: of the sweep.
        ahead: stages to build in a job of their own before, since other points wait for them.
        reports: files of outputs that are fetched here.
        note: where the id of the job under way is written; another try finds the job by it.
        remote: in which the places meet; empty: the default one.
        turn: a file to lock while inputs are sent: each is to be sent once.
        patience: see PATIENCE.
    """

    name: str
    place: str
    targets: list[str]
    note: str
    turn: str
    remote: str = ""
    ahead: list[str] = field(default_factory=list)
    reports: list[str] = field(default_factory=list)
    patience: float = PATIENCE


class Lost(Exception):  # noqa: N818 (the point has not failed)
    """A place has ended, refused or lost a job."""


def main(asked: Asked) -> int:
    """Build a point; the exit code of DVC there, LOST, or LEFT after Ctrl-C."""
    try:
        return built(asked)
    except KeyboardInterrupt:
        print("  it goes on without this end", flush=True)
        return LEFT
    except Lost as lost:
        print(f"{LOST_LINE}{lost}", flush=True)
        return LOST
    except TunesmithError as refused:
        print(f"error: {refused}", flush=True)
        return 1


def built(asked: Asked) -> int:
    """Follow the job that is under way already, and begin what then is to be done."""
    code = 0
    if (old := under_way(asked)) is not None:
        code = found_again(asked, old)
    if code == 0 and asked.ahead:
        code = job(asked, asked.ahead)
        if code == 0:
            print(f"{SHARED}{' '.join(asked.ahead)}", flush=True)
    if code == 0:
        code = job(asked, asked.targets)
    reports(asked)
    return code


def under_way(asked: Asked) -> Record | None:
    """The job that an earlier try has begun and nobody has seen the end of."""
    note = Path(asked.note)
    record = records.load(files.read_json(note)["job"]) if note.is_file() else None
    return record if record is not None and record.state in records.OPEN else None


def found_again(asked: Asked, record: Record) -> int:
    """Follow a job whose follower was ended; its exit code, 0 where it never began."""
    print(f"  {record.job.id} was begun before, on {record.job.place}", flush=True)
    with records.alone(record.job.id):
        lockfile.put(record.before)  # with what an earlier job of this point has made
        store = opened(record)
        until = time.monotonic() + asked.patience
        while record.state == records.SENDING:
            try:
                record = run.found_again(record, store)
            except TunesmithError as unknown:
                now = records.load(record.job.id)
                if now is None or now.state not in records.OPEN:
                    print(f"  {unknown.what}", flush=True)
                    return 0
                if time.monotonic() > until:
                    raise given_up(record, store, unknown.what) from unknown
                time.sleep(AGAIN)
        return conclude(asked, record, store)


def job(asked: Asked, targets: list[str]) -> int:
    """Plan, begin and follow a job; the exit code of DVC there, 0 where nothing is to run."""
    place = planning.priced(declared.place(asked.place))
    store = sending.opened(place.options.remote, "Looking at the remote", "the same command")
    found = planning.of(targets, place.options.remote)
    if not found.runs:
        return known(targets) if targets == asked.targets else 0
    wanted = sending.job(found, place)
    if (old := records.load(wanted.id)) is not None:
        wanted = replace(wanted, attempt=old.job.attempt + 1)
    with records.alone(wanted.id):
        with files.file(Path(asked.note)) as work:
            files.write_json(work, {"job": wanted.id})
        with turn(Path(asked.turn)), failures.told(store.kind, store.url, "Sending inputs", ""):
            sending.inputs(found, store)
        try:
            record = run.started(wanted, found, place, "nothing", store)
        except TunesmithError as refused:
            begun = records.load(wanted.id)
            assert begun is not None  # it is written down before anything else
            raise given_up(begun, store, f"it did not begin it: {refused.what}") from refused
        except KeyboardInterrupt:  # it may have begun there all the same; what was rented has ended
            if not place.plugin.BRINGS_DOWN and (cut := records.load(wanted.id)) is not None:
                cut.but(state=records.SENDING, ended="", reason="")
            raise
        return conclude(asked, record, store)


def known(targets: list[str]) -> int:
    """Take results that need no run, from the cache here or from the remote."""
    from dvc.cli import main as dvc

    code = int(dvc(["repro", "--pull", "--allow-missing", *targets]))
    share(targets)
    return code


def share(targets: Sequence[str]) -> None:
    """Send the results that this machine has: whoever takes the experiment fetches them."""
    _, steps = plan.decided(list(targets), pull=True)
    cache, every = Cache(), project.outputs(graph.load(), graph.lock())
    made = [one for one in every if one.by in steps and cache.has(one.md5)]
    store = sending.opened("", "Sending results", "the same command")
    takes = {one.md5 for one in made}
    done = sending.inputs(planning.Plan([], [], [], [], takes, made, {}), store)
    print(f"  sent {done.objects} files, {done.bytes / 1e6:,.1f} MB, to {store.name}", flush=True)


@contextmanager
def turn(path: Path) -> Iterator[None]:
    """One after the other."""
    with path.open("a+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def opened(record: Record) -> Store:
    """The remote of a job, connected to."""
    return sending.opened(record.job.remote["name"], "Looking for the job", "the same command")


class Patient(following.Follower):
    """Follows a job, but not for ever where neither it nor its place says a word."""

    def __init__(self, record: Record, say: Callable[[str], None], name: str, patience: float):
        super().__init__(record, say)
        self.name, self.patience = name, patience

    def take(self, node: int, letter: Mapping[str, Any]) -> None:
        """As ever; points of one model have curves of their own."""
        series = {f"{self.name}-{name}": part for name, part in letter.get("series", {}).items()}
        super().take(node, {**letter, "series": series})

    def without(self, store: Store, failure: BaseException) -> None:
        """As ever; who cannot reach the remote hears nothing, and knows nothing of a place."""
        super().without(store, failure)
        self.heard = time.monotonic()

    def ask(self, box: Mailbox) -> Ended | None:
        """The end of a job whose place does not answer for too long."""
        over = super().ask(box)
        if over is not None or time.monotonic() - self.heard < self.patience:
            return over
        if self.place.plugin.state(self.job, self.place.options) != jobs.UNKNOWN:
            return None
        return Ended(None, reason=f"it has not answered for {planning.duration(self.patience)}")


def conclude(asked: Asked, record: Record, store: Store) -> int:
    """Follow a job to its end and take its entries of dvc.lock; its exit code.

    Raises:
        Lost: it ended without a word, or refused to begin.
    """
    follower = Patient(record, following.line, asked.name, asked.patience)
    over = follower.follow(store)
    record = follower.record
    if over.code is None:
        raise given_up(record, store, over.reason)
    record = ending.end_machine(record)
    taking.take(record, over, store)
    close(record, store, over)
    if over.code == REFUSED and not record.stage:
        raise Lost(f"{record.job.place} refused: {over.reason}")
    if over.code and over.reason:
        print(f"error: {over.reason}", flush=True)
    return over.code


def close(record: Record, store: Store, over: Ended) -> None:
    """Tidy up behind a job that has ended; of one that went well, nothing is kept here."""
    try:
        taking.clean(record)
        with failures.told(store.kind, store.url, "Clearing up", ""):
            Mailbox(store, record.job.id, record.job.attempt).clear()
    except TunesmithError as failure:
        print(f"  {failure.what}", flush=True)
    state = records.FAILED if over.code else records.DONE
    record = record.but(state=state, ended=records.now(), reason=over.reason)
    if over.code == 0 and not record.reason:
        records.forget(record)


def given_up(record: Record, store: Store, reason: str) -> Lost:
    """End a job that is lost, and its machine; where that cannot be asked for, that is noted.

    A job that lives on unseen finds its end in the mailbox once it reaches the remote again.
    """
    place, why = record.place, reason
    with failures.told(store.kind, store.url, "Ending the job", ""):
        Mailbox(store, record.job.id, record.job.attempt).stop()
    try:
        place.plugin.stop(record.job, place.options)
    except TunesmithError as failure:
        why = f"{reason}; given up without an answer: {failure.what}"
    record.but(state=records.FAILED, ended=records.now(), reason=why)
    return Lost(f"{place.name}: {why}")


def reports(asked: Asked) -> None:
    """Fetch what the sweep's table shows of what was made, as far as it was."""
    every = project.outputs(graph.load(), graph.lock())
    wanted = [one for one in every if one.path in asked.reports and not Path(one.path).exists()]
    if not wanted:
        return
    place = planning.priced(declared.place(asked.place))
    store = sending.opened(place.options.remote, "Fetching the reports", "the same command")
    with failures.told(store.kind, store.url, "Fetching the reports", "the same command"):
        _, done = fetching.fetch(store, Cache(), wanted)
    lost = {*done.missing, *done.damaged}
    fetching.check_out([one for one in wanted if one.md5 not in lost])
