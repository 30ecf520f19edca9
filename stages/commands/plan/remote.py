"""The cache and a remote in; what `dvc repro --pull` could take from both, out."""

import tempfile
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import orjson

from stages.core.cache import Cache
from stages.core.errors import TunesmithError


class Together:
    """The cache with a remote behind it; that is asked only for what the cache lacks.

    Args:
        name: of the remote; empty: the default one.
    """

    def __init__(self, cache: Cache, root: Path, name: str = "") -> None:
        self.cache, self._root, self._name = cache, root, name
        self._there: dict[str, bool] = {}
        self._trees: dict[str, dict[str, str] | None] = {}

    @cached_property
    def _remote(self) -> Any:
        """The remote, of objects."""
        return self._of("md5")

    def _of(self, kind: str) -> Any:
        from dvc.config import RemoteConfigError
        from dvc.repo import Repo

        try:
            cloud = Repo(str(self._root.absolute())).cloud
            return cloud.get_remote_odb(self._name or None, "plan", kind)
        except RemoteConfigError as failure:
            raise TunesmithError(
                f"There is no remote to ask: {failure}",
                where=".dvc/config, .dvc/config.local",
                why="--pull takes from the default remote what is not here.",
                do="tunesmith remote <name> <url>",
            ) from failure

    def has(self, md5: str) -> bool:
        """Whether cache and remote together hold an object; a folder with all its files."""
        if self.cache.has(md5):
            return True
        tree = self.tree(md5) if md5.endswith(".dir") else {}
        return tree is not None and self._all(self._lacking(md5, tree))

    def _lacking(self, md5: str, tree: Mapping[str, str]) -> list[str]:
        return sorted({m for m in (md5, *tree.values()) if not self.cache.path(m).is_file()})

    def _all(self, md5s: list[str]) -> bool:
        asked = [md5 for md5 in md5s if md5 not in self._there]
        if asked:
            there = set(self._remote.oids_exist(asked))
            self._there |= {md5: md5 in there for md5 in asked}
        return all(self._there[md5] for md5 in md5s)

    def tree(self, md5: str) -> dict[str, str] | None:
        """The md5 of each file of a folder by relative path; None where neither lists them."""
        if md5 not in self._trees:
            found = self.cache.tree(md5)
            self._trees[md5] = found if found is not None else self._listed(md5)
        return self._trees[md5]

    def _listed(self, md5: str) -> dict[str, str] | None:
        remote = self._remote
        try:
            rows = orjson.loads(remote.fs.cat_file(remote.oid_to_path(md5)))
            return {row["relpath"]: row["md5"] for row in rows}
        except (OSError, orjson.JSONDecodeError, KeyError, TypeError):
            return None

    def runs(self, entry: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Results of earlier runs; those of the remote are the newest, once they are pulled."""
        return [*self._runs.runs(entry), *self.cache.runs(entry)]

    @cached_property
    def _runs(self) -> Cache:
        """The remote's results of earlier runs, which DVC pulls all, in a folder of their own."""
        remote = self._of("md5-dos2unix")
        self._kept = tempfile.TemporaryDirectory(prefix="tunesmith-plan-")
        found = Cache(self._root)
        found.folder = Path(self._kept.name)
        above = remote.fs.join(remote.path, "runs")
        for path in remote.fs.find(above) if remote.fs.exists(above) else ():
            to = found.folder / "runs" / remote.fs.relpath(path, above)
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_bytes(remote.fs.cat_file(path))
        return found

    def missing(self, md5: str, size: int | None) -> int:
        """The bytes of an object, of this size if that is known, that the cache does not hold."""
        tree = (self.tree(md5) or {}) if md5.endswith(".dir") else {}
        lacking = self._lacking(md5, tree)
        if size is not None and tree and md5 in lacking:
            held = {m for m in tree.values() if m not in lacking}
            return size - sum(self.cache.path(m).stat().st_size for m in tree.values() if m in held)
        if size is not None and not tree:
            return size if lacking else 0
        return sum(self._remote.fs.size(self._remote.oid_to_path(m)) for m in lacking)
