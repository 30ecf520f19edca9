"""Plan: the graph and the workspace in; what `dvc repro` would do, why and at what cost, out.

Nothing is run. DVC itself is imported only where dvc.yaml or params.yaml has changed, or for a
remote.
"""

import subprocess
from collections.abc import Iterable, Mapping
from functools import cache as once
from pathlib import Path
from typing import Any

import orjson

from stages.commands.plan import costs, screen
from stages.core import finished, graph, plugins, settings, staleness
from stages.core.cache import Cache
from stages.core.errors import TunesmithError
from stages.core.expected import Expected
from stages.core.graph import Stage
from stages.core.hashing import Hashes
from stages.core.staleness import (
    BLOCKED,
    FOLLOWS,
    RUNS,
    Project,
    Results,
    Step,
)


def run(targets: list[str], as_json: bool, pull: bool) -> None:
    """Print what `dvc repro` would do with these stages and all that they need.

    Raises:
        TunesmithError: no such stage, or a project that cannot be read.
    """
    found = facts(targets, pull)
    show(found, as_json, screen.plan(found))


def explain(address: str, as_json: bool) -> None:
    """Print everything about one stage.

    Raises:
        TunesmithError: no such stage, or a project that cannot be read.
    """
    found = one(address)
    show(found, as_json, screen.explain(found))


def show(found: Mapping[str, Any], as_json: bool, lines: Iterable[str]) -> None:
    """One JSON object, or a screen."""
    if as_json:
        print(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())
    else:
        print("\n".join(lines))


def facts(targets: list[str], pull: bool = False, root: Path = Path()) -> dict[str, Any]:
    """The outcome of every stage, with reasons and costs; and the totals.

    Raises:
        TunesmithError: no such stage, or a project that cannot be read.
    """
    project, steps = decided(targets, pull, root)
    weigh = costs.Costs(project.lock, _places(steps))
    rows = [row(step) | {"do": _mend(step, root, pull)} | weigh.of(step) for step in steps.values()]
    fetched = {md5 for step in steps.values() for md5 in step.takes}
    return {
        "targets": targets,
        "pull": pull,
        "stages": rows,
        "total": {name: sum(r["outcome"] == name for r in rows) for name in staleness.OUTCOMES}
        | costs.total(rows)
        | {"download": weigh.download(fetched, project.store) if pull else 0},
    }


def decided(
    targets: list[str], pull: bool = False, root: Path = Path(), remote: str = ""
) -> tuple[Project, dict[str, Step]]:
    """A project, and what becomes of each stage of it that the targets need.

    Args:
        remote: that is asked with `pull`; empty: the default one.

    Raises:
        TunesmithError: no such stage, or a project that cannot be read.
    """
    project = read(root, pull, remote)
    steps = staleness.simulate(project, addresses(targets, project.stages))
    project.expected.hashes.save()
    return project, steps


def one(address: str, root: Path = Path()) -> dict[str, Any]:
    """Everything about one stage: inputs, parameters, reasons, root causes, cost.

    Raises:
        TunesmithError: no such stage, or a project that cannot be read.
    """
    project = read(root)
    if address not in project.stages:
        addresses([address], project.stages)
        raise TunesmithError(
            f"{address!r} is not one stage.",
            do=_nearest(address, project.stages),
        )
    steps = staleness.simulate(project, [address])
    project.expected.hashes.save()
    step, lock = steps[address], project.lock.get(address, {})
    weigh = costs.Costs(project.lock, _places({address: step}))
    values = project.settings(step.stage)
    return row(step) | {"do": _mend(step, root, pull=False)} | weigh.of(step) | {
        "cmd": step.stage.cmd,
        "causes": causes(address, steps),
        "inputs": [_path(step, dep, "input") for dep in step.stage.deps],
        "parameters": {name: value for file in values.values() for name, value in file.items()},
        "outputs": [_path(step, out.path, "output") for out in step.stage.outs],
        "built": bool(lock),
        "last_run": weigh.last(address),
    }  # fmt: skip


def read(root: Path, pull: bool = False, remote: str = "") -> Project:
    """A project as it lies there.

    Raises:
        TunesmithError: none that DVC knows, or files that cannot be read.
    """
    graph.require_dvc(root)
    cache, hashes = Cache(root), Hashes(root)
    store: Results = cache
    if pull:
        from stages.commands.plan.remote import Together

        store = Together(cache, root, remote)
    return Project(
        stages=graph.load(root),
        lock=graph.lock(root),
        params=once(lambda file: graph.params(root, file)),
        cache=cache,
        store=store,
        expected=Expected(hashes, store),
        finished=lambda address, entry: _finished(address, entry, cache, hashes),
        recorded=once(lambda path: _recorded(root, path)),
        pull=pull,
    )


def _finished(
    address: str, entry: Mapping[str, Any], cache: Cache, hashes: Hashes
) -> dict[str, str] | None:
    """The md5 of each output that a run with these inputs has left, if one has."""
    deps = sorted(entry["deps"], key=lambda dep: str(dep["path"]))
    whole = {"params": {}, **entry, "deps": deps, "outs": sorted(entry["outs"])}
    left = finished.read(finished.folder() / finished.Asked(address, whole).fingerprint)
    if left is None or not finished.whole(left) or finished.committed(left, cache):
        return None
    kept = left.folder.absolute() / finished.OUTS
    return {out: hashes.md5(str(kept / str(number))) for number, out in enumerate(left.outs)}


def _recorded(root: Path, path: str) -> str:
    """The md5 that a .dvc file has for a path; nothing where none is about it."""
    file = root / f"{path}.dvc"
    outs = (graph.read(file) or {}).get("outs", []) if file.is_file() else []
    return str(outs[0].get("md5", "")) if len(outs) == 1 else ""


def addresses(targets: list[str], stages: Mapping[str, Stage]) -> list[str]:
    """The stages that targets mean: an address, a stage with all its keys, or an output's path.

    Raises:
        TunesmithError: one of them means none.
    """
    found: list[str] = []
    makers = {out.path: stage.address for stage in stages.values() for out in stage.outs}
    for target in targets or [graph.FILE]:
        name = target.removeprefix(f"{graph.FILE}:").rstrip("/")
        if name == graph.FILE:
            chosen = list(stages)
        elif name in stages or name in makers:
            chosen = [name if name in stages else makers[name]]
        else:
            chosen = [stage.address for stage in stages.values() if stage.name == name]
        if not chosen:
            raise TunesmithError(
                f"There is no stage {target!r}.", where=graph.FILE, do=_nearest(name, stages)
            )
        found += chosen
    return list(dict.fromkeys(found))


def _nearest(target: str, stages: Mapping[str, Stage]) -> str:
    """The nearest address among those of the stage that is meant; else the nearest stage."""
    names = {stage.name for stage in stages.values()}
    meant = target.partition("@")[0]
    if meant not in names:
        return plugins.nearest(meant, names)
    return plugins.nearest(target, [a for a, stage in stages.items() if stage.name == meant])


def row(step: Step) -> dict[str, Any]:
    """A stage's outcome and reasons, for JSON."""
    return {
        "stage": step.stage.address,
        "outcome": step.outcome,
        "after": step.after,
        "reasons": [reason.facts() for reason in step.reasons],
    }


def _mend(step: Step, root: Path, pull: bool) -> list[str]:
    """What to type for a blocked stage, for each input that nothing makes."""
    if step.outcome != BLOCKED:
        return []
    found = []
    for reason in step.reasons:
        if reason.kind == "parameter" and reason.state == "removed":
            found.append(f"write {reason.name} into {graph.PARAMS}")
        elif reason.kind == "input" and reason.state == "missing":
            found.append(_back(reason.name, root, pull))
    return found


def _back(path: str, root: Path, pull: bool) -> str:
    """How a file or folder comes back that is not here and that no stage makes."""
    if (root / f"{path}.dvc").is_file():
        return f"dvc pull {path}.dvc" + ("    (the remote does not have all of it)" if pull else "")
    known = ["git", "ls-files", "--", path]
    done = subprocess.run(known, cwd=root, capture_output=True, text=True, check=False)
    return f"git checkout -- {path}" if done.stdout else f"put your data into {path}"


def causes(address: str, steps: Mapping[str, Step]) -> list[list[dict[str, Any]]]:
    """Each way up from a stage to a root cause, a step a stage, the nearest first."""
    found: list[list[dict[str, Any]]] = []
    seen = {address}
    todo = [[address]]
    while todo:
        way = todo.pop(0)
        step = steps[way[-1]]
        if any(reason.kind != "upstream" for reason in step.reasons) and way[1:]:
            found.append([row(steps[one]) for one in way[1:]])
        for above in step.after:
            if above not in seen:
                seen.add(above)
                todo.append([*way, above])
    return found


def _path(step: Step, path: str, kind: str) -> dict[str, Any]:
    """A path of a stage with its state and what is known of why."""
    for reason in step.reasons:
        if reason.name == path and (reason.kind == kind or reason.kind == "upstream"):
            return {"path": path, "state": "upstream"} | reason.facts()
    return {"path": path, "state": "as_built"}


def _places(steps: Mapping[str, Step]) -> Any:
    """Where stages run, for those that do; the engine is not asked for nothing."""
    if not any(step.outcome in (RUNS, FOLLOWS) for step in steps.values()):
        return None
    from stages.commands.check import places

    found, params = places.look(), settings.load()
    return lambda stage: found.spot(stage.name, stage.key, params)
