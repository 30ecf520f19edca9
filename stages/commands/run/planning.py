"""Targets and a place in; what would run there, what it needs from here, and what it costs, out."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stages.commands import plan
from stages.commands.remote import project
from stages.commands.remote.project import Made
from stages.commands.run.declared import Place
from stages.core import graph, repository
from stages.core.errors import TunesmithError
from stages.core.staleness import BLOCKED, FINISHED, FOLLOWS, RESTORE, RUNS

AT_WORK = (RUNS, FOLLOWS, FINISHED)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a job is to do.

    Attributes:
        needed: addresses of the targets and of all that they need, upstream first.
        runs: those that will run there.
        restored: those whose results are known from earlier settings.
        inputs: outputs of other stages that they read, and imported data.
        seconds: about how long that takes, by runs of this checkout; None where none is known.
        unknown: of how many stages it is not known.
        edited: tracked files that are not as they are committed.
        left: untracked files that a build here would read.
    """

    needed: list[str]
    runs: list[str]
    restored: list[str]
    inputs: list[Made]
    seconds: float | None
    unknown: int
    edited: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


def of(targets: Sequence[str], root: Path = Path()) -> Plan:
    """The plan of these targets.

    Raises:
        TunesmithError: no such stage; one that can run nowhere; an input that cannot travel.
    """
    found = plan.facts(list(targets), pull=True, root=root)
    rows: list[dict[str, Any]] = found["stages"]
    if blocked := [row for row in rows if row["outcome"] == BLOCKED]:
        raise TunesmithError(
            f"{blocked[0]['stage']} cannot run, here or elsewhere.",
            why="; ".join(str(reason.get("name", "")) for reason in blocked[0]["reasons"]),
            do=next(iter(blocked[0]["do"]), f"tunesmith explain {blocked[0]['stage']}"),
        )
    stages = graph.load(root)
    runs = [row["stage"] for row in rows if row["outcome"] in AT_WORK]
    inputs = list(_inputs(stages, runs, root))
    return Plan(
        [row["stage"] for row in rows],
        runs,
        [row["stage"] for row in rows if row["outcome"] == RESTORE],
        inputs,
        found["total"]["seconds"],
        found["total"]["seconds_unknown"],
        _edited(root),
        _left(stages, runs, root),
    )


def _inputs(stages: Mapping[str, graph.Stage], runs: Sequence[str], root: Path) -> Iterator[Made]:
    """What stages read that they do not make, and that git does not carry."""
    made = {out.path for address in runs for out in stages[address].outs}
    every = [
        one
        for one in [*project.outputs(stages, graph.lock(root)), *project.imported()]
        if one.path not in made
    ]
    seen: set[str] = set()
    for dep in dict.fromkeys(dep for address in runs for dep in stages[address].deps):
        matching = [one for one in every if graph.overlaps(dep, one.path)]
        fresh = [one for one in matching if one.path not in seen]
        seen |= {one.path for one in fresh}
        yield from fresh
        comes = matching or any(graph.overlaps(dep, path) for path in made)
        if not comes and not repository.git(root, "ls-files", "--", dep):
            raise TunesmithError(
                f"{dep} cannot travel: neither git nor DVC keeps it.",
                where=str(root / dep),
                why="A stage reads it there, and nothing would bring it.",
                do=f"dvc add {dep}    or build here what reads it: "
                f"dvc repro {_reader(stages, runs, dep)}",
            )


def _reader(stages: Mapping[str, graph.Stage], runs: Iterable[str], dep: str) -> str:
    return next(address for address in runs if dep in stages[address].deps)


def _edited(root: Path) -> list[str]:
    """Tracked files that differ from the commit, but for dvc.lock, which every build changes."""
    changed = repository.git(root, "diff", "--name-only", "--relative", "HEAD").splitlines()
    return [name for name in changed if name != graph.LOCK]


def _left(stages: Mapping[str, graph.Stage], runs: Sequence[str], root: Path) -> list[str]:
    deps = sorted({dep for address in runs for dep in stages[address].deps})
    return repository.left_out(root, deps)


def cost(found: Plan, place: Place) -> tuple[str, float | None]:
    """The estimate in words; and US dollars, None where nothing is known."""
    price = place.options.usd_per_hour
    ask = getattr(place.plugin, "price", None)
    if not price and ask:
        price = ask(place.options) or 0.0
    if found.seconds is None:
        time = "how long it takes is not known here"
    else:
        more = " or more" if found.unknown else ""
        time = f"about {duration(found.seconds)}{more}, by runs of this checkout"
    if not price:
        return f"{time}; places.yaml gives no price", None
    nodes = place.options.nodes
    many = f" x {nodes} machines" if nodes > 1 else ""
    hourly = price * nodes
    limit = f", at most {place.options.hours * hourly:,.2f}" if place.options.hours else ""
    if found.seconds is None:
        return f"{time}; {price:g} USD an hour{many}{limit}", None
    dollars = found.seconds / 3600 * hourly
    return f"{time}; {dollars:,.2f} USD at {price:g} an hour{many}{limit}", dollars


def duration(seconds: float) -> str:
    """Seconds in words: 45 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
