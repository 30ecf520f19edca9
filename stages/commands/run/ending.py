"""A job in; ended, with the machine that was started for it, and what is left of it kept, out."""

import sys
from datetime import UTC, datetime
from typing import NoReturn

from stages.commands.remote import failures
from stages.commands.remote.store import Store
from stages.commands.run import following, listing, records, sending, taking
from stages.commands.run.following import Ended
from stages.commands.run.mailbox import Mailbox
from stages.commands.run.records import Record
from stages.core.errors import TunesmithError


def give_up(record: Record, failure: BaseException | str) -> None:
    """End what may have been started of a job whose beginning failed."""
    reason = failure if isinstance(failure, str) else str(failure).partition("\n")[0]
    record.but(state=records.FAILED, ended=now(), reason=reason or type(failure).__name__)
    end_machine(record)


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
        return record.but(reason="its machine could not be ended")
    return record


def failed(record: Record, over: Ended, store: Store) -> NoReturn:
    """Say how a job failed, bring its checkpoints, and end.

    Raises:
        SystemExit: with DVC's exit code there.
    """
    reason = over.reason or f"DVC ended there with {over.code}"
    with failures.told(store.kind, store.url, "Bringing the checkpoints", ""):
        lines = taking.checkpoints(record, store)
    for line in lines:
        print(f"  {line}")
    record.but(state=records.FAILED, ended=now(), reason=reason)
    typed = f"tunesmith run {' '.join(record.job.targets)} --on {record.job.place}"
    print(
        f"\n{record.job.id} did not end well: {reason}; {listing.spent(record, now())}\n"
        f"  what is finished stays there and at {store.name}\n"
        f"  to go on: {typed}",
        file=sys.stderr,
    )
    sys.exit(over.code or 1)


def stop(record: Record) -> None:
    """End a job and its machine, and take what it has finished.

    Raises:
        TunesmithError: the place cannot be asked; the mailbox tells the job all the same.
    """
    if record.state not in records.OPEN:
        print(f"{record.job.id} has ended: {record.state}")
        if record.place.plugin.BRINGS_DOWN:  # in case that its end could not be seen to
            end_machine(record)
        return
    with records.alone(record.job.id):
        job, place = record.job, record.place
        store = sending.opened(
            job.remote["name"], "Ending the job", f"tunesmith run --stop {job.id}"
        )
        box = Mailbox(store, job.id, job.attempt)
        box.stop()
        place.plugin.stop(job, place.options)
        over = following.Follower(record, following.line).read(box)
        over = over or Ended(None, reason="it was ended")
        if over.lock or over.runs:
            print("\n".join(f"  {line}" for line in taking.take(record, over, store)))
        for line in taking.checkpoints(record, store):
            print(f"  {line}")
        record.but(state=records.STOPPED, ended=now(), reason=over.reason)
        box.clear()
        print(f"{job.id}: ended; {listing.spent(record, now())}")


def forget(record: Record, yes: bool) -> None:
    """End a job, take nothing of it, and remove what is known of it here.

    Raises:
        TunesmithError: it cannot be ended now, and --yes was not typed.
    """
    with records.alone(record.job.id):
        place = record.place
        try:
            place.plugin.stop(record.job, place.options)
            store = sending.opened(record.job.remote["name"], "Clearing up", "")
            Mailbox(store, record.job.id, record.job.attempt).clear()
            taking.clean(record)
        except TunesmithError:
            if not yes:
                raise
        records.forget(record)
    print(f"{record.job.id}: forgotten")


def now() -> str:
    """The time, in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
