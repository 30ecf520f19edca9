"""A plan in; what would happen and what it costs shown, and the user's word for it, out."""

import sys
from collections.abc import Sequence

from stages.commands.remote.store import Store
from stages.commands.run import planning, records
from stages.commands.run.declared import Place
from stages.commands.run.planning import Plan
from stages.core.cache import Cache
from stages.core.errors import TunesmithError
from stages.core.jobs import Job

SHOWN = 5  # names of a list before it is cut


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
        if twice := [a for a in found.runs if a in record.job.targets]:
            raise TunesmithError(
                f"{twice[0]} is made on {record.job.place} already, by {record.job.id}.",
                why="Both would make the same at once.",
                do=f"tunesmith run --attach {record.job.id}    or first: --stop {record.job.id}",
            )
    there = [record.job.id for record in under_way if record.job.place == place.name]
    if len(there) >= place.options.at_once:
        raise TunesmithError(
            f"{place.name} is at work: {', '.join(there)}.",
            where=f"places.yaml: {place.name}.at_once",
            why=f"It takes {place.options.at_once} at a time.",
            do=f"tunesmith run --attach {there[0]}    or --stop; or set at_once",
        )


def show(job: Job, found: Plan, place: Place, store: Store) -> None:
    """Print what would run where, what is sent, and what it costs."""
    print(f"{job.id}: on {place.describe()}")
    print(f"  runs: {cut(found.runs)}")
    if found.restored:
        print(f"  known from earlier settings: {cut(found.restored)}")
    cache = Cache()
    size = sum(cache.path(md5).stat().st_size for md5 in objects(found, cache))
    lacking = "" if size else "; all that they read is there or comes with the commit"
    print(f"  reads: {cut([one.path for one in found.inputs]) or 'what the commit holds'}")
    print(f"  through the remote {store.name} ({store.url}){lacking}")
    if found.edited:
        print(f"  with what is not committed: {cut(found.edited)}")
    if found.left:
        print(f"  without what git does not track: {cut(found.left)}")
    for name in job.secrets:
        print(f"  needs {name}, which is kept there")
    print(f"  {planning.cost(found, place)[0]}")


def objects(found: Plan, cache: Cache) -> list[str]:
    """The inputs that are in the cache here."""
    every = {one.md5 for one in found.inputs}
    every |= {md5 for one in found.inputs for md5 in (cache.tree(one.md5) or {}).values()}
    return sorted(md5 for md5 in every if cache.path(md5).is_file())


def agree(yes: bool, found: Plan) -> None:
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
    edits = (
        f", with {len(found.edited)} edited files that are not committed" if found.edited else ""
    )
    print(f"send it{edits}? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise TunesmithError("Nothing was sent.", do="The answer was not y.")


def cut(names: Sequence[str]) -> str:
    """A list in a line, its end only counted."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
