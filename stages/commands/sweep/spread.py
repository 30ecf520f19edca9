"""A sweep and places in; its points spread over them, once the user has seen what that costs, out.

The plan is made for all points together before anything is sent, in a workspace of its own: the
files of a sweep are those of when it began.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stages.commands.run import asking, planning
from stages.commands.run.declared import Place
from stages.commands.run.records import Record
from stages.commands.sweep import build, crew, point, seats, store, table, workspace
from stages.commands.sweep.seats import HERE, Seat
from stages.commands.sweep.store import Point, Sweep
from stages.core import graph, local, repository
from stages.core.errors import TunesmithError

PLAN = "plan"  # the name of the workspace in which the plan is made


def work(sweep: Sweep, machines: list[Seat], yes: bool, dry_run: bool) -> None:
    """Build the points that have not ended on these machines, after asking.

    Raises:
        TunesmithError: a place refuses, or the user does; nothing has begun then.
        SystemExit: 130 after a signal; 1 where no place is left; 0 after a dry run.
    """
    pending = store.pending(sweep)
    remote = workspace.git_remote(Path.cwd())
    if not pending:
        if not dry_run:
            send(sweep, remote)
        return
    under_way = seats.under_way(sweep, pending)
    try:
        seats.require_free(machines, list(under_way.values()))
        plan = planned(sweep, pending, machines) | {"edited": edited(sweep)}
        show(sweep, pending, machines, under_way, plan, remote)
        if not dry_run:
            asking.agree(yes, plan["edited"])
    except TunesmithError:
        withdraw(sweep, under_way)
        raise
    if dry_run:
        print("This was a dry run: nothing was sent or started.")
        withdraw(sweep, under_way)
        sys.exit(0)
    for one in pending:  # a failed one is tried again
        store.forget(sweep, one)
    bound = {name: record.job.place for name, record in under_way.items()}
    team = crew.Crew(sweep, machines, say, set(plan["made"]), bound, remote, seats.remote(machines))
    try:
        team.work(pending)
    except crew.Stopped:
        leave(sweep, machines)
    except crew.NoPlace:
        nowhere(sweep, machines)
    send(sweep, remote)


def withdraw(sweep: Sweep, under_way: dict[str, Record]) -> None:
    """Forget a sweep of which nothing has begun: it would be gone on with in files of today."""
    if not under_way and not any(store.outcome(sweep, one) for one in sweep.points):
        store.remove(sweep)
        repository.git(Path.cwd(), "update-ref", "-d", sweep.reference)


def planned(sweep: Sweep, pending: Sequence[Point], machines: Sequence[Seat]) -> dict[str, Any]:
    """What `foretell.main` says of these points.

    Raises:
        TunesmithError: a place refuses, or a point can run nowhere.
    """
    main = local.root().absolute()
    top = sweep.folder / "work" / PLAN
    told = {
        "root": str(main),
        "remote": seats.remote(machines),
        "targets": sweep.targets,
        "places": [seat.name for seat in machines if seat.name != HERE],
        "needed": sweep.needed,
        "affected": sweep.affected,
        "points": [{"values": one.values, "params": one.params} for one in pending],
    }
    words = [sys.executable, "-c", point.BUILD, str(point.CODE), json.dumps(told), "plan"]
    site = str(top.with_name(f"{PLAN}.site"))
    env = {**os.environ, "DVC_ROOT": str(main), "DVC_SITE_CACHE_DIR": site}
    try:
        workspace.make(main, top, sweep.baseline, sweep.snapshot)
        with subprocess.Popen(
            words, cwd=top / sweep.prefix, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True,
        ) as child:  # fmt: skip
            assert child.stdout is not None
            text = child.stdout.read()
    finally:
        workspace.remove(main, top)
    found: dict[str, Any] = json.loads(text.rpartition(build.PLAN)[2])
    if found["refused"]:
        raise TunesmithError(**found["refused"])
    return found


def edited(sweep: Sweep) -> list[str]:
    """Files of the points that are not as they are committed, but for what is swept."""
    words = ("diff", "--name-only", sweep.baseline, sweep.snapshot)
    changed = repository.git(Path.cwd(), *words).splitlines()
    return [name for name in changed if name != f"{sweep.prefix}{graph.LOCK}"]


def show(
    sweep: Sweep,
    pending: Sequence[Point],
    machines: Sequence[Seat],
    under_way: dict[str, Record],
    plan: dict[str, Any],
    remote: str,
) -> None:
    """Print what would run where, and what all of it costs."""
    kept = len(sweep.points) - len(pending)
    print(f"sweep {sweep.name}: {len(sweep.points)} points, {kept} of them done")
    for name, record in under_way.items():
        print(f"  {name} is under way on {record.job.place}, as {record.job.id}")
    counts = Counter(plan["runs"])
    named = [f"{address} {n} times" if n > 1 else address for address, n in counts.items()]
    print(f"  runs: {asking.cut(named) or 'nothing: all results are known'}")
    print(f"  reads: {asking.cut(plan['inputs']) or 'what the commit holds'}")
    print(f"  through the remote {plan['store']} ({plan['url']})")
    if plan["edited"]:
        print(f"  with what is not committed: {asking.cut(plan['edited'])}")
    where = f"the git remote {remote}" if remote else "no git remote: there is no origin"
    print(f"  experiments go to {where}")
    for seat in machines:
        many = f"{seat.at_once} at a time"
        print(f"  {seat.place.describe() if seat.place else 'this machine'}: {many}")
        for secret in seat.place.options.secrets if seat.place else ():
            print(f"    needs {secret}, which is kept there")
    print(f"  all together: {cost([seat.place for seat in machines if seat.place], plan)}")


def cost(where: Sequence[Place], plan: dict[str, Any]) -> str:
    """The estimate for all points together, in words."""
    said = {one.name: planning.cost(plan["runs"], planning.priced(one))[0] for one in where}
    if len(said) == 1:
        return next(iter(said.values()))
    return "".join(f"\n    if all ran on {name}: {text}" for name, text in said.items())


def leave(sweep: Sweep, machines: Sequence[Seat]) -> None:
    """Say what goes on without this end.

    Raises:
        SystemExit: always.
    """
    table.write(sweep)
    print("\nended here")
    for name, record in seats.under_way(sweep, sweep.points).items():
        print(f"  {name} goes on, on {record.job.place}; tunesmith run --stop {record.job.id}    "
              "ends it")  # fmt: skip
    print(f"to go on: {again(sweep, machines)}")
    sys.exit(130)


def nowhere(sweep: Sweep, machines: Sequence[Seat]) -> None:
    """Say that points are left and no place is.

    Raises:
        SystemExit: always.
    """
    table.write(sweep)
    left = store.pending(sweep)
    print(f"\n{len(left)} of {len(sweep.points)} points are left, and no place:", file=sys.stderr)
    for seat in machines:
        print(f"  {seat.lost}", file=sys.stderr)
    go_on = f"tunesmith sweep --name {sweep.name} --on PLACE"
    print(f"to go on elsewhere: {go_on}    what is finished is kept", file=sys.stderr)
    sys.exit(1)


def again(sweep: Sweep, machines: Sequence[Seat]) -> str:
    """What goes on with a sweep."""
    on = ",".join(seat.name for seat in machines if not seat.lost)
    return f"tunesmith sweep --name {sweep.name} --on {on or 'PLACE'}"


def send(sweep: Sweep, remote: str) -> None:
    """Send all experiments of a sweep to git's remote; those that are there are not sent again."""
    ends = {one.name: store.outcome(sweep, one) for one in sweep.points}
    kept = [name for name, end in ends.items() if end and end.experiment]
    made = [workspace.reference(sweep.baseline, name) for name in kept]
    if not made:
        return
    if not remote:
        print("  the experiments are in this clone alone: git has no origin to push them to")
    elif refused := workspace.push(Path.cwd(), remote, made):
        print(f"  the experiments were not pushed: {refused}\n"
              f"  later: git push {remote} 'refs/exps/*:refs/exps/*'", file=sys.stderr)  # fmt: skip


def say(line: str) -> None:
    """Print a line."""
    print(line, flush=True)
