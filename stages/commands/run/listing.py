"""The jobs of this checkout in; a table of what runs where, since when, and at what cost, out."""

from datetime import UTC, datetime
from typing import Any

import orjson

from stages.commands.run import planning, records
from stages.commands.run.records import Record
from stages.core import jobs

HEAD = ("job", "place", "state", "since", "stage", "cost")


def show(as_json: bool) -> None:
    """Print the jobs, those under way first asked at their place."""
    rows = [row(record) for record in records.every()]
    if as_json:
        print(orjson.dumps(rows, option=orjson.OPT_INDENT_2).decode())
        return
    if not rows:
        print("No job was begun here. tunesmith run train@<model> --on <place> begins one.")
        return
    table = [HEAD, *(tuple(str(one[name]) for name in HEAD) for one in rows)]
    widths = [max(len(line[column]) for line in table) for column in range(len(HEAD))]
    for line in table:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        )
    at_work = [one for one in rows if one["under_way"]]
    print(f"{len(at_work)} under way")


def row(record: Record) -> dict[str, Any]:
    """A job, for a table and for JSON."""
    under_way = record.state in records.OPEN
    there = ""
    if under_way:
        there = record.place.plugin.state(record.job, record.place.options)
    until = datetime.now(UTC).isoformat(timespec="seconds") if under_way else record.ended
    words = {jobs.RUNNING: "running", jobs.ENDED: "ended there: --attach takes its result",
             jobs.NONE: "not begun there", jobs.UNKNOWN: "its place does not answer"}  # fmt: skip
    return {
        "job": record.job.id,
        "targets": record.job.targets,
        "place": record.job.place,
        "state": words[there] if under_way else record.state,
        "under_way": under_way,
        "since": record.begun,
        "stage": record.stage,
        "cost": spent(record, until),
        "reason": record.reason,
    }


def spent(record: Record, until: str) -> str:
    """How long a job has taken, and what that has cost."""
    begun, ended = (datetime.fromisoformat(text) for text in (record.begun, until))
    seconds = (ended - begun).total_seconds()
    options = record.place.options
    time = planning.duration(seconds)
    if not options.usd_per_hour:
        return time
    return f"{time}, {seconds / 3600 * options.usd_per_hour * options.nodes:,.2f} USD"
