"""Entries of stages in; dvc.lock with them, as DVC itself would have written it, out."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages.core import files, graph


def put(entries: Mapping[str, Mapping[str, Any]], root: Path = Path()) -> None:
    """Replace or add entries of dvc.lock; those of other stages stay as they are.

    No DVC is at work here meanwhile: it waits, or this does.
    """
    from dvc.repo import Repo, lock_repo
    from dvc.utils.serialize import dump_yaml

    if not entries:
        return
    with Repo(str(root.absolute())) as repo, lock_repo(repo):
        known = graph.lock(root) | dict(entries)
        with files.file(root / graph.LOCK) as work:
            dump_yaml(str(work), {"schema": "2.0", "stages": known})
