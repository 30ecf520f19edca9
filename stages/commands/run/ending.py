"""A job in; ended, with the machine that was started for it, and what is left of it kept, out."""

import sys
from typing import NoReturn

from stages.commands.remote import failures
from stages.commands.remote.store import Store
from stages.commands.run import following, listing, records, sending, taking
from stages.commands.run.following import Ended
from stages.commands.run.mailbox import Mailbox
from stages.commands.run.records import Record
from stages.core.errors import TunesmithError


def give_up(record: Record, failure: BaseException | str, begun: bool = True) -> None:
    """End what may have been started of a job whose beginning failed.

    Where nobody can tell whether it began, the job stays open.

    Args:
        begun: whether its place was told to begin it.
    """
    reason = failure if isinstance(failure, str) else str(failure).partition("\n")[0]
    reason = reason or type(failure).__name__
    if begun:
        try:
            record.place.plugin.stop(record.job, record.place.options)
        except TunesmithError:
            record.but(reason=reason)
            print(
                f"\n{record.job.id} MAY HAVE BEGUN on {record.job.place}, which does not answer.\n"
                f"  Once it does: tunesmith run --attach {record.job.id}    or --stop",
                file=sys.stderr,
            )
            return
    record.but(state=records.FAILED, ended=records.now(), reason=reason)
    taking.clean(record)


def end_machine(record: Record) -> Record:
    """Give back what was started for a job; where that fails, it is said loudly, and kept.

    Raises:
        SystemExit: never; a machine that could not be ended is named with what to type.
    """
    place = record.place
    if not place.plugin.BRINGS_DOWN:
        return record
    try:
        place.plugin.stop(record.job, place.options)
    except TunesmithError as failure:
        print(f"\nA MACHINE MAY STILL RUN AND COST: {failure}", file=sys.stderr)
        return record.but(left=failure.what)
    return record.but(left="") if record.left else record


def failed(record: Record, over: Ended, store: Store) -> NoReturn:
    """Say how a job failed, bring its checkpoints, and end.

    Raises:
        SystemExit: with DVC's exit code there.
    """
    reason = over.reason.rstrip(".") or f"DVC ended there with {over.code}"
    for line in checkpoints(record, store):
        print(f"  {line}")
    record = record.but(state=records.FAILED, ended=records.now(), reason=reason)
    clear(record, store)
    typed = f"tunesmith run {' '.join(record.job.targets)} --on {record.job.place}"
    print(
        f"\n{record.job.id} did not end well: {reason}; {listing.spent(record, records.now())}\n"
        f"  what is finished stays there and at {store.name}\n"
        f"  to go on: {typed}",
        file=sys.stderr,
    )
    sys.exit(over.code or 1)


def checkpoints(record: Record, store: Store) -> list[str]:
    """Bring a job's checkpoints; what cannot come now stays at the remote, for the next job."""
    try:
        with failures.told(store.kind, store.url, "Bringing the checkpoints", ""):
            return taking.checkpoints(record, store)
    except TunesmithError as failure:
        return [failure.what]


def clear(record: Record, store: Store) -> None:
    """Remove the letters and references of a job that is over; what is left of them is said."""
    try:
        taking.clean(record)
        with failures.told(store.kind, store.url, "Clearing up", ""):
            Mailbox(store, record.job.id, record.job.attempt).clear()
    except TunesmithError as failure:
        print(f"  {failure.what}")


def stop(record: Record) -> None:
    """End a job and its machine, and take what it has finished, unless another process does.

    Raises:
        TunesmithError: the place cannot be asked; the mailbox tells the job all the same.
    """
    job, place = record.job, record.place
    if record.state not in records.OPEN:
        print(f"{job.id} has ended: {record.state}")
        if place.plugin.BRINGS_DOWN:  # in case that its end could not be seen to
            end_machine(record)
        return
    again = f"tunesmith run --stop {job.id}"
    told = None
    try:
        told = _told(record, again)
    except TunesmithError as failure:  # the place is told all the same
        print(f"  {failure.what}")
    place.plugin.stop(job, place.options)
    print(f"{job.id}: nothing of it runs on {job.place} any more")
    try:
        with records.alone(job.id):
            found = records.load(job.id)
            if found is not None and found.state in records.OPEN:
                _take(found, told or _told(record, again))
    except records.FollowedError:
        print("What it has finished is taken by the command that follows it.")


def _told(record: Record, again: str) -> Store:
    """Ask for a job's end in its mailbox; the remote."""
    store = sending.opened(record.job.remote["name"], "Ending the job", again)
    with failures.told(store.kind, store.url, "Ending the job", again):
        Mailbox(store, record.job.id, record.job.attempt).stop()
    return store


def _take(record: Record, store: Store) -> None:
    """Take what an ended job has finished."""
    again = f"tunesmith run --stop {record.job.id}"
    follower = following.Follower(record, lambda _: None)
    box = Mailbox(store, record.job.id, record.job.attempt)
    with failures.told(store.kind, store.url, "Taking what it has finished", again):
        over = follower.read(box) or Ended(None, reason="it was ended")
    record = follower.record
    if over.lock or over.runs:
        print("\n".join(f"  {line}" for line in taking.take(record, over, store)))
    for line in checkpoints(record, store):
        print(f"  {line}")
    record = record.but(state=records.STOPPED, ended=records.now(), reason=over.reason)
    clear(record, store)
    print(f"{record.job.id}: {record.state}; {listing.spent(record, record.ended)}")


def forget(record: Record, yes: bool) -> None:
    """End a job, take nothing of it, and remove what is known of it here.

    A job whose place does not answer finds in its mailbox that it is to end.

    Raises:
        TunesmithError: it cannot be ended now, and --yes was not typed.
    """
    job = record.job
    with records.alone(job.id):
        store = None
        try:
            if record.state in records.OPEN:
                store = _told(record, f"tunesmith run --forget {job.id}")
            record.place.plugin.stop(job, record.place.options)
        except TunesmithError as failure:
            if not yes:
                raise
            print(f"  {failure.what}\n  If it is at work yet, it ends once it reads its mailbox.")
            taking.clean(record)
        else:
            if store is not None:
                clear(record, store)
        records.forget(record)
    print(f"{job.id}: forgotten")
