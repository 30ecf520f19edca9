"""A plan in; what would happen and what it costs shown, and the user's word for it, out."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import orjson

from stages.commands.remote.store import Store
from stages.commands.run import planning, records, sending
from stages.commands.run.declared import Place
from stages.commands.run.planning import Plan
from stages.core.errors import TunesmithError
from stages.core.jobs import Common, Job

SHOWN = 5  # names of a list before it is cut
LAUNCH = {
    "native": "natively",
    "container": "in the container image that is there",
    "": "in the container image where there is an engine, else natively",
}


def nothing_to_run(targets: Sequence[str], found: Plan) -> None:
    """Say why nothing is sent: all is built, or known from earlier settings."""
    names = " ".join(targets)
    if found.restored:
        print(f"nothing to run for {names}: its results are known. Take them here:")
        print(f"  dvc repro --pull --allow-missing {names}")
    else:
        print(f"nothing to run for {names}: it is as dvc.lock has it. Its files: dvc pull {names}")


def require_free(found: Plan, place: Place) -> None:
    """Refuse a stage that a job makes already, and more jobs than a place takes.

    Raises:
        TunesmithError: with what to type.
    """
    under_way = [record for record in records.every() if record.state in records.OPEN]
    for record in under_way:
        job = record.job
        named = {*found.targets, *job.targets}  # one of both wants it, and the other makes it
        if twice := [a for a in found.runs if a in job.needed and a in named]:
            raise TunesmithError(
                f"{twice[0]} is made on {job.place} already, by {job.id}.",
                why="Both would make the same at once.",
                do=f"tunesmith run --attach {job.id}    or first: tunesmith run --stop {job.id}",
            )
    there = [record.job.id for record in under_way if record.job.place == place.name]
    if len(there) >= place.options.at_once:
        raise TunesmithError(
            f"{place.name} is at work: {', '.join(there)}.",
            where=f"places.yaml: {place.name}.at_once",
            why=f"It takes {place.options.at_once} at a time.",
            do=f"tunesmith run --attach {there[0]}    or --stop; or set at_once",
        )


def show(job: Job, found: Plan, place: Place, store: Store, as_json: bool = False) -> None:
    """Print what would run where, what is sent, and what it costs.

    Raises:
        TunesmithError: something that a stage reads is neither here nor at the remote.
    """
    sizes = sending.lacks(found, store)
    if as_json:
        facts = _facts(job, found, place, store, sizes)
        print(orjson.dumps(facts, option=orjson.OPT_INDENT_2).decode())
    else:
        print("\n".join(_lines(job, found, place, store, sizes)))


def _facts(
    job: Job, found: Plan, place: Place, store: Store, sizes: Sequence[int]
) -> dict[str, Any]:
    """The plan, for JSON."""
    words, dollars = planning.cost(found.runs, place)
    return {
        "job": job.id,
        "place": place.name,
        "machine": place.plugin.describe(place.options),
        "runs": found.runs,
        "restored": found.restored,
        "reads": [one.path for one in found.inputs],
        "send": {"files": len(sizes), "bytes": sum(sizes), "remote": store.name},
        "makes": {"bytes": sum(found.makes.values()), "unknown": _unknown(found)},
        "edited": found.edited,
        "left": found.left,
        "secrets": job.secrets,
        "times": [asdict(one) for one in planning.times(found.runs, place.name)],
        "cost": words,
        "usd": dollars,
    }


def _lines(
    job: Job, found: Plan, place: Place, store: Store, sizes: Sequence[int]
) -> Iterator[str]:
    """The plan, for people."""
    yield f"{job.id}: on {place.describe()}"
    yield f"  runs: {cut(found.runs)}"
    yield f"  {ways(place.options)}"
    if found.restored:
        yield f"  known from earlier settings: {cut(found.restored)}"
    yield f"  reads: {cut([one.path for one in found.inputs]) or 'what the commit holds'}"
    size = f"{len(sizes)} files, {sum(sizes) / 1e6:,.1f} MB" if sizes else "nothing; it has it all"
    yield f"  sends to the remote {store.name} ({store.url}): {size}"
    if found.makes:
        less = f"; of {_unknown(found)} more it is not known" if _unknown(found) else ""
        about = f"{sum(found.makes.values()) / 1e6:,.1f} MB{less}"
        yield f"  comes back through it, as dvc.lock has it now: about {about}"
    if found.edited:
        yield f"  with what is not committed: {cut(found.edited)}"
    if found.left:
        yield f"  without what git does not track: {cut(found.left)}"
    for name in job.secrets:
        yield f"  needs {name}, whose value is not sent with it"
    yield f"  {planning.cost(found.runs, place)[0]}"


def _unknown(found: Plan) -> int:
    """Of how many stages it is not known what they make."""
    return len([address for address in found.runs if address not in found.makes])


def ways(options: Common) -> str:
    """How stages run there, as the entry says it."""
    launch = options.settings.get("TUNESMITH_LAUNCH", "").replace("auto", "")
    images = [value for name, value in options.settings.items() if "_IMAGE_" in name]
    image = f" ({', '.join(images)})" if images else ""
    many = options.processes * options.nodes
    how = f"{LAUNCH.get(launch, launch)}{'' if launch == 'native' else image}"
    several = f", trained by {many} processes" if many > 1 else ""
    setup = "; after `setup`, where that has changed" if options.setup else ""
    return f"there: {how}{several}{setup}"


def agree(yes: bool, edited: Sequence[str]) -> None:
    """Ask, unless --yes was typed.

    Raises:
        TunesmithError: nobody is there to ask, or the answer is no.
    """
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise TunesmithError(
            "Nobody is here to say yes.",
            where="no terminal",
            why="Files leave this machine, and a machine that costs may be started.",
            do="Look at it with --dry-run, then type the command with --yes",
        )
    edits = f", with {len(edited)} edited files that are not committed" if edited else ""
    print(f"send it{edits}? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise TunesmithError("Nothing was sent: the answer was not y.")


def cut(names: Sequence[str]) -> str:
    """A list in a line, its end only counted."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
