"""A point's workspace in, its targets built by DVC; the process that does it, and ends if left.

It runs in the workspace, and is told by its arguments.
"""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages.commands.run import points
from stages.commands.sweep import places
from stages.core import graph, running
from stages.core.graph import Stage

PLAN = "plan: "  # begins the line of a plan


def main(words: list[str], remote: str | None = None) -> int:
    """Take from the main checkout what git does not bring, then `dvc repro`; its exit code.

    Args:
        words: the main checkout, and the targets.
        remote: what other machines made is taken from there, and results are sent there.
    """
    from dvc.cli import main as dvc

    running.end_with_input()  # the sweep holds it open
    root, *targets = words
    share(Path(root), remote or "")
    every = graph.load()
    stages = {address: every[address] for address in places.needed(every, targets)}
    lend(Path(root), stages)
    have = fresh(stages)
    code = int(dvc(["checkout", "--quiet", "--allow-missing", *have])) if have else 0
    if remote is None:
        return code or int(dvc(["repro", *targets]))
    code = code or int(dvc(["repro", "--pull", "--allow-missing", *targets]))
    points.share(targets)
    return code


def beside(words: list[str]) -> int:
    """The same beside other machines.

    Args:
        words: the remote in which they meet, empty for the default one, and as for `main`.
    """
    remote, *rest = words
    return main(rest, remote)


def elsewhere(words: list[str]) -> int:
    """The same as a job on a place.

    Args:
        words: the main checkout, and what `points.Asked` is, as JSON.
    """
    running.end_with_input()
    root, facts = words
    asked = points.Asked(**json.loads(facts))
    share(Path(root), asked.remote)
    return points.main(asked)


def plan(told: Mapping[str, Any]) -> int:
    """Print what `foretell.main` says."""
    from stages.commands.sweep import foretell

    running.end_with_input()
    share(Path(told["root"]), told["remote"])
    print(f"{PLAN}{json.dumps(foretell.main(told))}")
    return 0


def share(main: Path, remote: str = "") -> None:
    """Give this workspace the cache, the remotes and the other local settings of the main one.

    Args:
        remote: its default one; empty: that of the main one.
    """
    from dvc.config import Config
    from dvc.repo import Repo

    with Repo(str(main)) as repo:
        local = repo.config.read("local")
        local["cache"] = {**local.get("cache", {}), "dir": repo.cache.local_cache_dir}
    if remote:
        local["core"] = {**local.get("core", {}), "remote": remote}
    with Config(str(Path(".dvc").absolute())).edit("local") as own:
        own.update(local)


def lend(main: Path, stages: Mapping[str, Stage]) -> None:
    """Link the inputs that no stage makes and git does not track, such as raw data."""
    made = [out.path for stage in stages.values() for out in stage.outs]
    for dep in {dep: None for stage in stages.values() for dep in stage.deps}:
        if Path(dep).exists() or any(graph.overlaps(dep, out) for out in made):
            continue
        if (main / dep).exists():
            _link(main / dep, Path(dep))


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.stat().st_dev != target.parent.stat().st_dev:  # data on a disk of its own
        target.symlink_to(source.resolve(), source.is_dir())
    elif source.is_dir():
        shutil.copytree(source, target, copy_function=os.link)
    else:
        os.link(source, target)


def fresh(stages: Mapping[str, Stage]) -> list[str]:
    """The stages whose outputs dvc.lock knows for these parameters: they may be had from the cache.

    Others would be fetched only to be made anew.
    """
    lock, above = graph.lock(), graph.upstream(stages)
    values: dict[str, dict[str, Any]] = {}
    found: set[str] = set()
    for address, stage in stages.items():
        entry = lock.get(address)
        if entry is None or any(a not in found for a in above[address]):
            continue
        known = entry.get("params") or {}
        now: dict[str, dict[str, Any]] = {}
        for file, keys in stage.params:
            of = values.setdefault(file, graph.params(file=file))
            now[file] = {key: graph.value(of, key) for key in keys or of}
        if known == now:
            found.add(address)
    return [address for address in stages if address in found]
