"""The points of a sweep in; what of them would run elsewhere, and whether the places take it, out.

It is a process of its own in a workspace with the sweep's files.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache as once
from pathlib import Path
from typing import Any

from stages.commands import plan
from stages.commands.run import declared, planning, sending
from stages.commands.sweep import build, places
from stages.core import graph, staleness
from stages.core.errors import TunesmithError
from stages.core.expected import Expected


def main(told: Mapping[str, Any]) -> dict[str, Any]:
    """What was planned, or the refusal, as the words of a TunesmithError.

    Args:
        told: root, remote, targets, places, needed, affected, and of each point values and params.
    """
    try:
        return foretold(told) | {"refused": None}
    except TunesmithError as one:
        refused = {"what": one.what, "where": one.where, "why": one.why, "do": one.do}
        return {"refused": refused}


def foretold(told: Mapping[str, Any]) -> dict[str, Any]:
    """What of the points runs, and what of it is known.

    Returns:
        runs: stages that run, each as often as there are results of it that no points share;
        made: results that need no run, as `Crew.result` calls them; inputs: paths that are sent;
        store and url: the remote.

    Raises:
        TunesmithError: a place refuses, or a point can run nowhere.
    """
    where = [declared.place(name) for name in told["places"]]
    opened = sending.opened(told["remote"], "Looking at the remote", "the same command")
    project = plan.read(Path(), pull=True, remote=told["remote"])
    runs: dict[str, str] = {}
    made: set[str] = set()
    inputs: dict[str, None] = {}
    for number, point in enumerate(told["points"]):
        Path(graph.PARAMS).write_text(point["params"], encoding="utf-8")
        stages = graph.load()
        if number == 0:
            build.lend(Path(told["root"]), {a: stages[a] for a in told["needed"]})
            found = planning.of(told["targets"], told["remote"])
            inputs |= dict.fromkeys(one.path for one in found.inputs)
            for place in where if found.runs else ():
                place.plugin.require(sending.job(found, place), place.options)
        steps = simulated(project, told["targets"])
        for address, step in steps.items():
            result = places.sharing(address, told["affected"].get(address, ()), point["values"])
            if step.outcome in planning.AT_WORK:
                runs[result] = address
            else:
                made.add(result)
    return {
        "runs": list(runs.values()), "made": sorted(made - runs.keys()), "inputs": list(inputs),
        "store": opened.name, "url": opened.url,
    }  # fmt: skip


def simulated(project: staleness.Project, targets: Sequence[str]) -> dict[str, staleness.Step]:
    """What becomes of each stage with params.yaml as it is now; the remote is asked but once."""
    now = replace(
        project,
        stages=graph.load(),
        params=once(lambda file: graph.params(Path(), file)),
        expected=Expected(project.expected.hashes, project.store),
    )
    return staleness.simulate(now, plan.addresses(list(targets), now.stages))
