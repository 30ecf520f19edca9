"""Targets and a place in; what would run there, what it needs from here, and what it costs, out."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from stages.commands import plan
from stages.commands.remote import project
from stages.commands.remote.project import Made
from stages.commands.run.declared import Place
from stages.core import graph, repository, runs, secrecy
from stages.core.errors import TunesmithError
from stages.core.staleness import BLOCKED, FINISHED, FOLLOWS, RESTORE, RUNS, Project, Step

AT_WORK = (RUNS, FOLLOWS, FINISHED)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a job is to do.

    Attributes:
        targets: addresses of the stages that were named.
        needed: addresses of the targets and of all that they need, upstream first.
        runs: those that will run there.
        restored: those whose results are known from earlier settings.
        takes: md5s of these results.
        inputs: outputs of other stages that they read, and imported data.
        makes: bytes of the outputs of each stage that runs, where dvc.lock has some.
        edited: tracked files that are not as they are committed.
        left: untracked files that a build here would read.
    """

    targets: list[str]
    needed: list[str]
    runs: list[str]
    restored: list[str]
    takes: set[str]
    inputs: list[Made]
    makes: dict[str, int]
    edited: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Took:
    """How long a stage takes, by an earlier run.

    Attributes:
        seconds: None where none is known.
        on: the place of that run, "" for here.
        of: the stage that ran: it, or the same with another key.
    """

    stage: str
    seconds: float | None = None
    on: str = ""
    of: str = ""


def of(targets: Sequence[str], remote: str = "", root: Path = Path()) -> Plan:
    """The plan of these targets.

    Args:
        remote: in which the place looks for what is known; empty: the default one.

    Raises:
        TunesmithError: no commit; no such stage; one that can run nowhere; an input that cannot
            travel; a secret in a file that is not committed.
    """
    repository.head(root)  # else DVC refuses first, in its own words
    project, steps = plan.decided(list(targets), pull=True, root=root, remote=remote)
    _require_open(project, steps)
    runs = [address for address, step in steps.items() if step.outcome in AT_WORK]
    restored = [address for address, step in steps.items() if step.outcome == RESTORE]
    edited = repository.edited(root)
    _require_no_secret(edited, root)
    return Plan(
        targets=plan.addresses(list(targets), project.stages),
        needed=list(steps),
        runs=runs,
        restored=restored,
        takes={md5 for address in restored for md5 in steps[address].takes},
        inputs=list(_inputs(project, runs, restored, root)),
        makes={a: sum(row.get("size", 0) for row in project.lock[a].get("outs", ()))
               for a in runs if a in project.lock},
        edited=[name for name in edited if name != graph.LOCK],  # which every build changes
        left=repository.left_out(root, _deps(project.stages, runs)),
    )  # fmt: skip


def _require_open(found: Project, steps: Mapping[str, Step]) -> None:
    """Refuse stages that lack an input nobody has."""
    blocked = [step for step in steps.values() if step.outcome == BLOCKED]
    if blocked:
        address = blocked[0].stage.address
        lacks = [reason.name for reason in blocked[0].reasons if reason.name]
        made = {out.path for stage in found.stages.values() for out in stage.outs}
        push = "tunesmith push    on the machine that has it, or dvc repro here"
        raise TunesmithError(
            f"{address} cannot run, here or elsewhere: it lacks {', '.join(lacks)}.",
            why="It is neither here nor at the remote.",
            do=push if made & {*lacks} else f"tunesmith explain {address}    says what to type",
        )


def _require_no_secret(edited: Iterable[str], root: Path) -> None:
    """Refuse to send a secret with what is not committed."""
    here = [root / name for name in edited if (root / name).is_file()]
    if found := [line for path in here for line in secrecy.found_in(path)]:
        raise TunesmithError(
            f"There is a secret in what would be sent: {'; '.join(found)}.",
            where="files that are edited and not committed",
            why="They travel as a commit, and whoever reads that would have it.",
            do="Take it out; values are kept where they are used, in variables that `secrets` of "
            "places.yaml names",
        )


def _deps(stages: Mapping[str, graph.Stage], runs: Sequence[str]) -> list[str]:
    return sorted({dep for address in runs for dep in stages[address].deps})


def _inputs(
    found: Project, runs: Sequence[str], restored: Sequence[str], root: Path
) -> Iterator[Made]:
    """What stages read that neither they nor restored ones make, and that git does not carry."""
    made = {out.path for address in [*runs, *restored] for out in found.stages[address].outs}
    imported = project.imported()
    every = [*project.outputs(found.stages, found.lock), *imported]
    every = [one for one in every if one.path not in made]
    seen: set[str] = set()
    by_git = []
    for dep in _deps(found.stages, runs):
        matching = [one for one in every if graph.overlaps(dep, one.path)]
        fresh = [one for one in matching if one.path not in seen]
        seen |= {one.path for one in fresh}
        yield from fresh
        if not matching and not any(graph.overlaps(dep, path) for path in made):
            by_git.append(dep)
    for one in imported:
        now = found.expected.md5(one.path) if one.path in seen else ""
        if now and now != one.md5:
            raise _stays(f"{one.path} is not as {one.by} has it.", f"dvc add {one.path}", one.path)
    _require_carried(by_git, found.stages, runs, root)


def _require_carried(
    deps: Sequence[str], stages: Mapping[str, graph.Stage], runs: Sequence[str], root: Path
) -> None:
    """Refuse what a commit does not bring.

    Raises:
        TunesmithError: a file that neither git nor DVC keeps, or that git keeps elsewhere.
    """
    for dep, kept in repository.carried(root, deps).items():
        reader = next(address for address in runs if dep in stages[address].deps)
        instead = f"or build here what reads it: dvc repro {reader}"
        if kept == repository.UNKNOWN:
            what = f"{dep} cannot travel: neither git nor DVC keeps it."
            raise _stays(what, f"git add {dep}; or, for data: dvc add {dep}; {instead}", dep)
        if kept:
            what = f"{dep} cannot travel: it is in {kept}, of which a commit has a mark alone."
            raise _stays(what, f"git rm --cached {dep}; dvc add {dep}; {instead}", dep)


def _stays(what: str, do: str, path: str) -> TunesmithError:
    why = "A stage reads it there, and nothing would bring it as it is here."
    return TunesmithError(what, where=path, why=why, do=do)


def priced(place: Place) -> Place:
    """The place with what a machine costs, where its provider is to say that.

    Raises:
        TunesmithError: the provider refuses to say.
    """
    ask, options = getattr(place.plugin, "price", None), place.options
    if options.usd_per_hour or ask is None:
        return place
    each = (ask(options) or 0.0) / options.nodes
    return replace(place, options=options.model_copy(update={"usd_per_hour": each}))


def times(stages: Iterable[str], place: str) -> list[Took]:
    """How long each takes: by its last run there, else here, else by its like there or here."""
    last: dict[tuple[str, str], Took] = {}
    for row in runs.rows():
        address, on = str(row.get("stage", "")), str(row.get("place", ""))
        for name in (address, address.partition("@")[0]):
            last[name, on] = Took("", row.get("seconds"), on, address)
    found = []
    for address in stages:
        asked = [(name, on) for name in (address, address.partition("@")[0]) for on in (place, "")]
        took = next((last[key] for key in asked if key in last), Took(""))
        found.append(replace(took, stage=address))
    return found


def cost(runs: Sequence[str], place: Place) -> tuple[str, float | None]:
    """The estimate for these stages in words; and US dollars, None where nothing is known."""
    took = times(runs, place.name)
    known = [one.seconds for one in took if one.seconds is not None]
    options = place.options
    hourly = options.usd_per_hour * options.nodes
    many = f" x {options.nodes} machines" if options.nodes > 1 else ""
    each = f"{options.usd_per_hour:g} USD an hour{many}"
    limit = f", at most {options.hours * hourly:,.2f}" if options.hours and hourly else ""
    price = each + limit if hourly else "no price is known (usd_per_hour in places.yaml)"
    if not known:
        return f"how long it takes is not known: nothing of it ran on {place.name} or here; " \
            f"{price}", None  # fmt: skip
    more = " or more" if len(known) < len(took) else ""
    said = f"about {duration(sum(known))}{more}, by earlier runs ({counted(took, place.name)})"
    if not hourly:
        return f"{said}; {price}", None
    dollars = sum(known) / 3600 * hourly
    return f"{said}; {dollars:,.2f} USD{more} at {price}", dollars


def counted(took: Sequence[Took], place: str) -> str:
    """Of how many stages a time is known from where: "2 there, 1 here, 1 not known"."""
    known = [one for one in took if one.seconds is not None]
    other = [one for one in known if one.of != one.stage]
    counts = {
        f"on {place}": sum(one.on == place for one in known),
        "here": sum(one.on != place for one in known),
        "not known": len(took) - len(known),
    }
    said = ", ".join(f"{count} {where}" for where, count in counts.items() if count)
    return f"{said}; {len(other)} of them with another key" if other else said


def duration(seconds: float) -> str:
    """Seconds in words: 45 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
