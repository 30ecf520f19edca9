"""The jobs of this checkout in; a table of what runs where, since when, and at what cost, out."""

import queue
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import orjson

from stages.commands.run import declared, planning, records
from stages.commands.run.records import Record
from stages.core import jobs
from stages.core.errors import TunesmithError

HEAD = ("job", "place", "state", "since", "stage", "cost")
BOUND = 20.0  # seconds for all places together: ssh gives up a host after 15
ENDED = 10  # ended jobs that are shown
WORDS = {
    jobs.RUNNING: "running",
    jobs.ENDED: "ended there: --attach takes its result",
    jobs.NONE: "not begun there",
    jobs.UNKNOWN: "its place does not answer",
}


def show(as_json: bool) -> None:
    """Print the jobs; places of those under way are asked side by side."""
    known = records.every()
    there = states([record for record in known if record.state in records.OPEN])
    rows = [row(record, there.get(record.job.id, "")) for record in known]
    if as_json:
        print(orjson.dumps(rows, option=orjson.OPT_INDENT_2).decode())
        return
    if not rows:
        _show_places()
        return
    left = [one for one in rows if one["left"]]
    for one in left:
        print(f"A MACHINE MAY STILL RUN AND COST, on {one['place']}: {one['left']}")
        print(f"  tunesmith run --stop {one['job']}    tries again")
    under_way = [one for one in rows if one["under_way"]]
    over = [one for one in rows if not one["under_way"] and not one["left"]]
    _table([*left, *(one for one in under_way if not one["left"]), *over[-ENDED:][::-1]])
    costs = sum(one["usd_per_hour"] for one in under_way)
    each = f", {costs:,.2f} USD an hour" if costs else ""
    more = f"; {len(over) - ENDED} more have ended: --json" if len(over) > ENDED else ""
    print(f"{len(under_way)} under way{each}{more}")


def _show_places() -> None:
    """What there is to begin with, where no job was begun."""
    names = declared.names()
    print("No job was begun here. tunesmith run train@<model> --on <place> begins one.")
    print(f"Places: {', '.join(names)}" if names else declared.EXAMPLE)


def _table(rows: Sequence[Mapping[str, Any]]) -> None:
    table = [HEAD, *(tuple(str(one[name]) for name in HEAD) for one in rows)]
    widths = [max(len(line[column]) for line in table) for column in range(len(HEAD))]
    for line in table:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        )


def states(under_way: Sequence[Record]) -> dict[str, str]:
    """What the place of each job says of it, or why it says nothing.

    A place that does not answer in time is left behind: its thread ends with this process.
    """
    answers: queue.Queue[tuple[str, str]] = queue.Queue()
    for record in under_way:
        words = (record, answers)
        threading.Thread(target=lambda of, to: to.put(_asked(of)), args=words, daemon=True).start()
    found = {record.job.id: WORDS[jobs.UNKNOWN] for record in under_way}
    until = time.monotonic() + BOUND
    for _ in under_way:
        try:
            job, state = answers.get(timeout=max(0.0, until - time.monotonic()))
        except queue.Empty:
            break
        found[job] = state
    return found


def _asked(record: Record) -> tuple[str, str]:
    try:
        place = record.place
        return record.job.id, WORDS[place.plugin.state(record.job, place.options)]
    except TunesmithError as refused:
        said = refused.what.partition("\n")[0]
        return record.job.id, f"{WORDS[jobs.UNKNOWN]}: {said}"


def row(record: Record, there: str) -> dict[str, Any]:
    """A job, for a table and for JSON.

    Args:
        there: what its place says, while it is under way.
    """
    under_way = record.state in records.OPEN
    now = records.now()
    until = now if under_way or record.left else record.ended
    return {
        "job": record.job.id,
        "targets": record.job.targets,
        "place": record.job.place,
        "state": there if under_way else record.state,
        "under_way": under_way,
        "since": record.begun,
        "ended": record.ended,
        "stage": record.stage,
        "cost": spent(record, until),
        "usd_per_hour": hourly(record),
        "usd": round(seconds(record, until) / 3600 * hourly(record), 4),
        "reason": record.reason,
        "left": record.left,
    }


def hourly(record: Record) -> float:
    """US dollars an hour of its machines, 0 where that is not known; of any version's record."""
    return float(record.entry.get("usd_per_hour", 0.0)) * record.job.nodes


def seconds(record: Record, until: str) -> float:
    """How long a job has taken, in seconds."""
    begun, ended = (datetime.fromisoformat(text) for text in (record.begun, until or record.begun))
    return (ended - begun).total_seconds()


def spent(record: Record, until: str) -> str:
    """How long a job has taken, and what that has cost."""
    taken = seconds(record, until)
    price = hourly(record)
    money = f", {taken / 3600 * price:,.2f} USD" if price else ""
    return f"{planning.duration(taken)}{money}"
