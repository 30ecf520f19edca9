"""The result of a job in; dvc.lock and the files here as if it had run here, out."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stages.commands.remote import failures, fetching, project
from stages.commands.remote.project import Made
from stages.commands.remote.store import Store
from stages.commands.run.following import Ended
from stages.commands.run.records import Record
from stages.commands.run.there import saving
from stages.core import graph, lockfile, repository, runs
from stages.core.cache import Cache
from stages.core.errors import TunesmithError
from stages.core.example import dumps

BRINGS = ("targets", "all", "nothing")


def take(record: Record, over: Ended, store: Store, root: Path = Path()) -> list[str]:
    """Put what a job has made into dvc.lock, and bring what is wanted of it; lines that say so.

    Raises:
        TunesmithError: a stage has other results here by now, or a file did not come whole.
    """
    lockfile.put(over.lock, root, lambda known: require_unchanged(record, over.lock, known))
    note(record, over.runs)
    said = [f"dvc.lock has the results of {', '.join(over.lock) or 'no stage'}"]
    wanted = chosen(record, list(over.lock), root)
    if wanted:
        again = f"tunesmith run --attach {record.job.id}"
        with failures.told(store.kind, store.url, "Fetching", again):
            needed, done = fetching.fetch(store, Cache(), wanted)
        lost = [needed.objects.get(md5, md5) for md5 in [*done.missing, *done.damaged]]
        if lost:
            raise TunesmithError(
                f"{len(lost)} files did not come whole, such as {lost[0]}.",
                where=store.url,
                why="dvc.lock names them, so `dvc pull` and a rebuild find out, too.",
                do=f"tunesmith run --attach {record.job.id}    tries again",
            )
        fetching.check_out(wanted)
        size = f"{done.objects} files, {done.bytes / 1e6:,.1f} MB"
        said.append(f"fetched {size}: {', '.join(one.path for one in wanted)}")
    return said


def require_unchanged(record: Record, lock: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Refuse to replace what was built here meanwhile.

    Args:
        lock: entries of dvc.lock as the job has them.
        here: as they are here now.

    Raises:
        TunesmithError: naming the first such stage.
    """
    for address, entry in lock.items():
        if here.get(address) not in (record.before.get(address), entry):
            raise TunesmithError(
                f"{address} was built here since the job began.",
                where=graph.LOCK,
                why="One of both results would be lost from dvc.lock.",
                do=f"To take the job's: git checkout {graph.LOCK}; then tunesmith run --attach "
                f"{record.job.id}. To keep yours: tunesmith run --forget {record.job.id}",
            )


def chosen(record: Record, addresses: Sequence[str], root: Path) -> list[Made]:
    """The outputs that are wanted here."""
    if record.bring == "nothing":
        return []
    stages = graph.load(root)
    every = [one for one in project.outputs(stages, graph.lock(root)) if one.by in addresses]
    if record.bring == "all":
        return every
    return [one for one in every if meant(record.job.targets, one)]


def meant(targets: Sequence[str], one: Made) -> bool:
    """Whether a target names an output, by its stage or by its path."""
    return any(target in (one.by, one.by.partition("@")[0], one.path) for target in targets)


def note(record: Record, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add the runs to this machine's log of runs, each with its place."""
    path = runs.path()
    path.parent.mkdir(parents=True, exist_ok=True)
    known = {dumps(row) for row in runs.rows()}
    with path.open("ab") as log:
        for row in rows:
            text = dumps(dict(row) | {"place": record.job.place, "job": record.job.id})
            if text not in known:
                log.write(text)


def checkpoints(record: Record, store: Store) -> list[str]:
    """Bring the checkpoints of a job that did not end well, for whoever goes on with it."""
    return [
        line
        for address in record.job.needed
        if address.startswith("train@")
        for line in saving.fetch(store, record.job.project, address)
    ]


def clean(record: Record, root: Path = Path()) -> None:
    """Remove the references that were made for a job."""
    job = record.job
    repository.git(root, "update-ref", "-d", job.reference)
    if job.git:
        repository.git(root, "push", "--quiet", "--no-verify", job.git, f":{job.reference}")
