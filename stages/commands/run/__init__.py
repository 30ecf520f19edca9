"""Run: stages and a place in; the stages run there, and dvc.lock as if they had run here, out."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

from stages.commands.remote import failures
from stages.commands.remote.store import Store
from stages.commands.run import (
    asking,
    declared,
    ending,
    following,
    listing,
    mailbox,
    planning,
    records,
    sending,
    taking,
)
from stages.commands.run.declared import Place
from stages.commands.run.mailbox import Mailbox
from stages.commands.run.records import Record
from stages.core import graph, jobs
from stages.core.errors import TunesmithError
from stages.core.jobs import Job

AFTER = "tunesmith run --attach {0}    follows it;    tunesmith run --stop {0}    ends it"


class NotBegunError(TunesmithError):
    """A job whose beginning was cut off before it was begun there."""


@dataclass(frozen=True, slots=True)
class Request:
    """What was typed: stages, or with one of the acts the ids of jobs; and the options."""

    names: list[str]
    on: str = ""
    bring: str = "targets"
    yes: bool = False
    dry_run: bool = False
    detach: bool = False
    as_json: bool = False


def run(request: Request, acts: Sequence[str]) -> None:
    """Begin a job, or do one of the acts with those that there are.

    Raises:
        TunesmithError: what was typed cannot be meant, or a place refuses; nothing runs then.
        SystemExit: a job did not end well, or is followed no more.
    """
    if len(acts) > 1 or (acts and request.on):
        raise TunesmithError(
            f"These do not go together: {', '.join('--' + act for act in acts)}"
            f"{', --on' if request.on else ''}.",
            do="tunesmith run STAGE --on PLACE, or one of --list, --attach, --stop, --forget",
        )
    act = acts[0] if acts else "begin"
    more = {"--dry-run": request.dry_run, "--detach": request.detach,
            "--bring": request.bring != "targets"}  # fmt: skip
    if acts and (idle := [word for word, typed in more.items() if typed]):
        raise TunesmithError(
            f"{', '.join(idle)} does not go with --{act}.",
            why="It says how a job begins.",
            do=f"tunesmith run --{act} {' '.join(request.names)}".rstrip(),
        )
    if request.as_json and act != "list" and not request.dry_run:
        raise TunesmithError("--json goes with --list or with --dry-run.", do="Leave it out.")
    if act == "list":
        listing.show(request.as_json)
    elif act == "attach":
        for record in _named(request):
            attach(record)
    elif act in ("stop", "forget"):
        for record in _named(request):
            ending.stop(record) if act == "stop" else ending.forget(record, request.yes)
    else:
        begin(request)


def _named(request: Request) -> list[Record]:
    """The jobs that were named, or the only one under way."""
    return [records.named(name, records.OPEN) for name in request.names or [""]]


def begin(request: Request) -> None:
    """Plan a job, ask, send it, and follow it."""
    if not request.names:
        raise TunesmithError("No stage was named.", do="tunesmith run train@<model> --on <place>")
    place = declared.place(request.on)
    typed = f"tunesmith run {' '.join(request.names)} --on {place.name}"
    store = sending.opened(place.options.remote, "Looking at the remote", typed)
    with failures.told(store.kind, store.url, "Looking at the remote", typed):
        found = planning.of(request.names, place.options.remote)
    if not found.runs:
        asking.nothing_to_run(request.names, found)
        return
    place = planning.priced(place)
    wanted = sending.job(found, place)
    if request.dry_run:
        shown(wanted, found, place, store, request.as_json)
        if not request.as_json:
            print("This was a dry run: nothing was sent or started.")
        return
    with records.alone(wanted.id):
        record = under_way(wanted, place, store)
        fresh = record is None
        if record is None:
            shown(wanted, found, place, store)
            asking.agree(request.yes, found.edited)
            wanted = replace(wanted, attempt=1 + last(wanted.id, store))
            with records.deciding():
                asking.require_free(found, place)
                noted(wanted, place, request.bring)
            record = started(wanted, found, place, request.bring, store)
        else:
            print(f"{record.job.id} is under way on {place.name} already; this follows it")
        if request.detach or getattr(place.plugin, "BY_HAND", False):
            print(AFTER.format(record.job.id))
            return
        conclude(record, store, fresh)


def shown(
    wanted: Job, found: planning.Plan, place: Place, store: Store, as_json: bool = False
) -> None:
    """Show what would run, and refuse what cannot.

    Raises:
        TunesmithError: the place is taken, or lacks something.
    """
    asking.require_free(found, place)
    asking.show(wanted, found, place, store, as_json)
    place.plugin.require(wanted, place.options)


def last(name: str, store: Store) -> int:
    """The last attempt at a job that is known here or has left letters at the remote, or 0."""
    old = records.load(name)
    return max(letters(name, store), old.job.attempt if old is not None else 0)


def letters(name: str, store: Store) -> int:
    """The last attempt at a job that has left letters at the remote, or 0."""
    with failures.told(store.kind, store.url, "Looking for letters", ""):
        _, folders = store.entries(mailbox.path(store, mailbox.JOBS, name))
    return max((int(one.rpartition("/")[2]) for one in folders), default=0)


def under_way(wanted: Job, place: Place, store: Store) -> Record | None:
    """The same job where it is at work already, whoever began it; None where it is to begin.

    Raises:
        TunesmithError: nobody can tell.
    """
    old = records.load(wanted.id)
    if old is not None and old.state in records.OPEN:
        try:
            return old if old.state == records.BEGUN else found_again(old, store)
        except NotBegunError:
            return None
    attempt = letters(wanted.id, store)
    if not attempt or place.plugin.state(wanted, place.options) != jobs.RUNNING:
        return None
    return noted(replace(wanted, attempt=attempt), place, "targets").but(state=records.BEGUN)


def noted(wanted: Job, place: Place, bring: str) -> Record:
    """A job that is about to begin, written down with what its stages have in dvc.lock here."""
    here = graph.lock()
    before = {address: here[address] for address in wanted.needed if address in here}
    record = Record(
        wanted, place.options.model_dump(), begun=records.now(), bring=bring, before=before
    )
    records.save(record)
    return record


def started(wanted: Job, found: planning.Plan, place: Place, bring: str, store: Store) -> Record:
    """Send inputs and commit, and begin the job there.

    Raises:
        TunesmithError: the place refuses; what was started is ended.
    """
    record, begun = noted(wanted, place, bring), False
    try:
        done = sending.inputs(found, store)
        print(f"  sent {done.objects} files, {done.bytes / 1e6:,.1f} MB, to {store.name}")
        record = record.but(job=replace(wanted, git=sending.source(wanted, place)))
        script, begun = jobs.script(record.job), True
        place.plugin.start(record.job, place.options, script)
    except BaseException as failure:
        ending.give_up(record, failure, begun)
        raise
    if not getattr(place.plugin, "BY_HAND", False):  # which itself has said what is to be done
        print(f"  {record.job.id} has begun on {place.describe()}")
    return record.but(state=records.BEGUN)


def attach(record: Record) -> None:
    """Follow a job that was begun before, and take its result."""
    with records.alone(record.job.id):
        record = records.load(record.job.id) or record  # another may have taken it just now
        if record.state not in records.OPEN:
            where = f"; {record.reason}" if record.reason else ""
            print(f"{record.job.id} has ended: {record.state}{where}")
            return
        again = f"tunesmith run --attach {record.job.id}"
        store = sending.opened(record.job.remote["name"], "Looking for the job", again)
        if record.state == records.SENDING:
            record = found_again(record, store)
        conclude(record, store, fresh=False)


def found_again(record: Record, store: Store) -> Record:
    """A job whose beginning was cut off here: begun there, or not.

    Raises:
        NotBegunError: it never began, and is given up.
        TunesmithError: nobody can tell.
    """
    place, job = record.place, record.job
    box = Mailbox(store, job.id, job.attempt)
    with failures.told(store.kind, store.url, "Looking for the job", ""):
        letter = next(box.read(0, 0), None)
    if letter is not None:
        return record.but(state=records.BEGUN)
    state = place.plugin.state(job, place.options)
    if state in (jobs.RUNNING, jobs.ENDED):
        return record.but(state=records.BEGUN)
    if state == jobs.NONE:
        ending.give_up(record, "it never began there", begun=False)
        raise NotBegunError(
            f"{job.id} never began: this end was cut off before.",
            do=f"tunesmith run {' '.join(job.targets)} --on {job.place}    begins it",
        )
    raise TunesmithError(
        f"{place.describe()} cannot be asked now, so nobody knows whether {job.id} has begun.",
        why="Begun twice, it would cost twice.",
        do=f"tunesmith run --attach {job.id}    once it answers",
    )


def conclude(record: Record, store: Store, fresh: bool = True) -> None:
    """Follow a job to its end and take its result.

    Args:
        fresh: it was begun just now.

    Raises:
        SystemExit: it did not end well, or Ctrl-C was typed: then it goes on without this end.
    """
    follower = following.Follower(record, following.line)
    try:
        over = follower.follow(store, fresh)
    except KeyboardInterrupt:
        _leave(record)
    record, store = ending.end_machine(follower.record), follower.store
    if over.lock or over.runs:
        print("\n".join(f"  {line}" for line in taking.take(record, over, store)))
    if over.code != 0:
        ending.failed(record, over, store)
    record = record.but(state=records.DONE, ended=records.now())
    ending.clear(record, store)
    print(f"{record.job.id}: done on {record.job.place}; {listing.spent(record, record.ended)}")


def _leave(record: Record) -> NoReturn:
    print(f"\n{record.job.id} goes on without this end.\n  {AFTER.format(record.job.id)}")
    sys.exit(130)
