"""Targets in; what their stages read and do not make, brought from the remote and compared."""

from collections.abc import Iterable, Mapping, Sequence

from stages.commands import plan
from stages.commands.remote import fetching, project
from stages.commands.remote.project import Made
from stages.commands.remote.store import Store
from stages.commands.run.there.post import Post
from stages.core import graph
from stages.core.cache import Cache
from stages.core.errors import TunesmithError
from stages.core.staleness import FOLLOWS, FRESH, RUNS, Step

WORK = (RUNS, FOLLOWS)


def fetch(targets: Sequence[str], store: Store, post: Post) -> None:
    """Bring what the stages that will run read.

    Raises:
        TunesmithError: something of it is not at the remote, or is damaged there.
    """
    _, steps = plan.decided(list(targets), pull=True)
    wanted = read_by(steps)
    bring(wanted, store, post)


def read_by(steps: Mapping[str, Step]) -> list[Made]:
    """The outputs that stages which will run read, of stages that will not; and imported data."""
    at_work = [step.stage for step in steps.values() if step.outcome in WORK]
    changed = [step.stage for step in steps.values() if step.outcome != FRESH]  # also restored
    made_anew = {out.path for stage in changed for out in stage.outs}
    every = project.outputs(graph.load(), graph.lock()) + project.imported()
    deps = {dep for stage in at_work for dep in stage.deps}
    return [
        one
        for one in every
        if one.path not in made_anew and any(graph.overlaps(dep, one.path) for dep in deps)
    ]


def bring(made: Iterable[Made], store: Store, post: Post) -> None:
    """Outputs from the remote into the cache and the workspace."""
    wanted = list(made)
    if not wanted:
        return
    needed, done = fetching.fetch(store, Cache(), wanted)
    post.say(f"  fetched {done.objects} files, {done.bytes / 1e6:,.1f} MB, from {store.name}")
    lost = [needed.objects.get(md5, md5) for md5 in [*done.missing, *done.damaged]]
    if lost:
        raise TunesmithError(
            f"{len(lost)} files are missing or damaged at {store.name}, such as {lost[0]}.",
            where=store.url,
            why="A stage reads them here.",
            do="On the machine that has them: tunesmith push --repair; then the same command again",
        )
    fetching.check_out(wanted)
