"""Entries of stages in; dvc.lock with them, as DVC itself would have written it, out."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stages.core import files, graph
from stages.core.errors import TunesmithError

PATIENCE = 60.0  # seconds for a DVC that commits


def put(
    entries: Mapping[str, Mapping[str, Any]],
    root: Path = Path(),
    require: Callable[[Mapping[str, Any]], None] | None = None,
) -> None:
    """Replace or add entries of dvc.lock; those of other stages stay as they are.

    No DVC writes it meanwhile: that one waits, or this does.

    Args:
        require: is given the entries that are there, and may refuse.

    Raises:
        TunesmithError: DVC holds its lock for long; or what `require` raises.
    """
    from dvc.utils.serialize import dump_yaml

    if not entries:
        return
    with _alone(root):
        known = graph.lock(root)
        if require is not None:
            require(known)
        found = known | dict(entries)
        if found != known:
            with files.file(root / graph.LOCK) as work:
                dump_yaml(str(work), {"schema": "2.0", "stages": found})


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Hold DVC's own lock of a project."""
    from dvc.lock import LockError
    from dvc.repo import Repo

    with Repo(str(root.absolute())) as repo:
        until = time.monotonic() + PATIENCE
        while True:  # a try of DVC's own takes three seconds
            try:
                repo.lock.lock()
                break
            except LockError as failure:
                if time.monotonic() > until:
                    raise TunesmithError(
                        "DVC is at work here.",
                        where=str(root.absolute()),
                        why="It and this would both write dvc.lock.",
                        do="Wait for its end, then type the same command again.",
                    ) from failure
        try:
            yield
        finally:
            repo.lock.unlock()
