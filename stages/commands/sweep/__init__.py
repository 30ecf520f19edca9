"""Sweep: a grid of settings in; each point built in a workspace of its own, N at a time, and one
table, a plot and DVC experiments out."""

import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path

import orjson

from stages.commands.experiments import measures, screen
from stages.commands.sweep import (
    crew,
    dividing,
    grid,
    places,
    plot,
    seats,
    spread,
    store,
    table,
    workspace,
)
from stages.commands.sweep.store import ENDED, Point, Sweep
from stages.core import graph, params_text, repository, settings
from stages.core.errors import TunesmithError


@dataclass(frozen=True, slots=True)
class Request:
    """What was typed beside settings and targets.

    Attributes:
        name: of the sweep; empty: made from the settings and the files as they are.
        at_once: how many points at a time on this machine; 0: nothing was typed.
        on: places, with commas between them; empty: this machine alone.
        yes: whether it may begin elsewhere without a question.
        dry_run: whether only to show what would be done elsewhere.
    """

    name: str = ""
    at_once: int = 0
    on: str = ""
    yes: bool = False
    dry_run: bool = False


def run(texts: list[str], targets: list[str], request: Request) -> None:
    """Begin a sweep, or go on with one that was cut off; points that have ended are not repeated.

    Args:
        texts: `key=value,value`, as for `dvc exp run -S`; none goes on with the sweep of a name.
        targets: what to build of each point; none: the releases of the models that are swept.

    Raises:
        TunesmithError: settings, targets, places or a name that cannot be meant; nothing has run
            then.
        SystemExit: 1 where a point failed or is left, 130 where the user has ended the sweep.
    """
    machines = seats.named(request.on, request.at_once) if request.on else []
    if request.dry_run and not machines:
        raise TunesmithError("--dry-run is about other machines.", do="--on PLACE,PLACE")
    sweep = begun(texts, targets, request.name) if texts else gone_on(request.name)
    with store.alone(sweep.name):
        if machines:
            spread.work(sweep, machines, request.yes, request.dry_run)
        else:
            work(sweep, request.at_once or 1)
        finish(sweep)


def gone_on(name: str) -> Sweep:
    """The sweep of a name, as it was begun."""
    if not name:
        raise TunesmithError(
            "No settings to sweep were given.",
            where="-S",
            do="-S models.<model>.lora.r=8,16    or --name NAME goes on with a sweep.",
        )
    return store.named(name)


def begun(texts: list[str], targets: list[str], name: str) -> Sweep:
    """The sweep of these settings: the one that was begun with them, or a new one."""
    here = Path.cwd()
    baseline, prefix = repository.head(here)
    found = grid.parse(texts)
    params = settings.load()
    source = settings.PARAMS.read_text(encoding="utf-8")
    made = grid.texts(source, found)
    keys = [setting.key for setting in found]
    wanted = targets or places.targets(keys, params)
    stages = graph.load()
    needed = places.needed(stages, wanted)
    every = places.affecting(stages, keys)
    affected = {address: every[address] for address in needed}
    places.require_effect(keys, affected)
    files = repository.tree(here)
    digest = hashlib.sha256(orjson.dumps([texts, wanted, baseline, files])).hexdigest()
    short = "-".join(part.rpartition(".")[2] for part in screen.short(keys).values())
    own = name or f"{short}-{digest[:6]}"
    if (old := store.load(own)) is not None:
        return same(old, texts, wanted, (old.tree, old.baseline) == (files, baseline))
    require_name(own)
    values = zip(grid.product(found), made, strict=True)
    points = [Point(f"{own}-{n}", one, text) for n, (one, text) in enumerate(values, 1)]
    models = {key: measures.gates(params.models[key]) for key in models_of(needed)}
    require_free(here, baseline, points)
    snapshot = repository.commit(here, files, baseline, f"tunesmith sweep {own}")
    sweep = Sweep(
        own, texts, wanted, baseline, snapshot, files, prefix, needed, affected, models, points
    )  # fmt: skip
    repository.git(here, "update-ref", sweep.reference, snapshot)
    store.save(sweep)
    say_left_out(here, stages, needed)
    return sweep


def models_of(needed: list[str]) -> list[str]:
    """The models that are trained or scored by these stages."""
    keys = (a.partition("@")[2] for a in needed if a.startswith(("train@", "evaluate@")))
    return list(dict.fromkeys(keys))


def same(old: Sweep, texts: list[str], targets: list[str], unchanged: bool) -> Sweep:
    """A sweep that was begun, if what was typed is that sweep."""
    if (old.settings, old.targets) != (texts, targets):
        raise TunesmithError(
            f"The sweep {old.name!r} has other settings.",
            where=str(old.folder),
            why=f"It was begun with {' '.join(f'-S {text}' for text in old.settings)}.",
            do=f"tunesmith sweep --name {old.name}    goes on with it; or choose another name.",
        )
    if unchanged:
        return old
    if all(one and one.state in ENDED for one in (store.outcome(old, p) for p in old.points)):
        raise TunesmithError(
            f"The sweep {old.name!r} has ended, and the project has changed since.",
            where=str(old.folder),
            why="Its results are those of the files as they were.",
            do="Choose another --name.",
        )
    print("  the project has changed since; the sweep goes on with its files as they were")
    return old


def require_name(name: str) -> None:
    """Refuse a name that is none for a folder and for git's references."""
    if not params_text.KEY.fullmatch(name) or name.startswith("-"):
        raise TunesmithError(
            f"{name!r} is no name for a sweep.",
            where="--name",
            why="Its experiments and its folder are called by it.",
            do="Use a-z, 0-9, _ and -.",
        )


def require_free(here: Path, baseline: str, points: list[Point]) -> None:
    """Refuse a name under which there are experiments of this commit already."""
    for point in points:
        reference = workspace.reference(baseline, point.name)
        if repository.git(here, "for-each-ref", reference):
            raise TunesmithError(
                f"There is an experiment {point.name!r} already.",
                where="dvc exp list",
                why="It would be lost.",
                do=f"Choose another --name; or: dvc exp remove {point.name}",
            )


def say_left_out(here: Path, stages: dict[str, graph.Stage], needed: list[str]) -> None:
    """Name untracked files that a `dvc repro` here would read and the points will not."""
    deps = sorted({dep for address in needed for dep in stages[address].deps})
    if left := repository.left_out(here, deps):
        shown = ", ".join(left[:5]) + (f" and {len(left) - 5} more" if len(left) > 5 else "")
        print(f"  not part of the sweep, since git does not track it: {shown}")


def work(sweep: Sweep, at_once: int) -> None:
    """Build the points that have not ended on this machine."""
    pending = store.pending(sweep)
    if not pending:
        return
    at_once = min(at_once, len(pending))
    kept = len(sweep.points) - len(pending)
    print(f"sweep {sweep.name}: {len(sweep.points)} points, {kept} of them done; "
          f"{dividing.division(at_once)}", flush=True)  # fmt: skip
    elsewhere = {name: one.job.place for name, one in seats.under_way(sweep, pending).items()}
    for point in pending:  # a failed one is tried again
        store.forget(sweep, point)
    try:
        crew.Crew(sweep, seats.local(at_once), spread.say, bound=elsewhere).work(pending)
    except crew.Stopped:
        table.write(sweep)
        print(f"\nended; to go on: tunesmith sweep --name {sweep.name} --at-once {at_once}")
        sys.exit(130)


def finish(sweep: Sweep) -> None:
    """Write the table and the plot, and say how the points ended."""
    table.write(sweep)
    plot.write(sweep)
    screen.show(*table.rows(sweep))
    ends = [store.outcome(sweep, point) for point in sweep.points]
    if all(one and one.state in ENDED for one in ends):
        repository.git(Path.cwd(), "update-ref", "-d", sweep.reference)
    print(f"in {sweep.folder}/: table.tsv, table.md, plot.svg, points/*.log")
    good = [p.name for p, e in zip(sweep.points, ends, strict=True) if e and e.state == store.DONE]
    if good:
        print(f"to take one: dvc exp apply {good[0]}")
    if bad := [one for one in ends if one is None or one.state != store.DONE]:
        print(f"{len(bad)} of {len(ends)} did not end well", file=sys.stderr)
        sys.exit(1)
