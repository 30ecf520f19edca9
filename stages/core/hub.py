"""A repository of a hub and a commit in; what it holds, and its files in the hub's cache, out.

Shared by the base and the maker `hub`. What is written is fixed by the commit alone.
"""

import glob
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from stages.core import files, hub_failures
from stages.core.errors import MissingPackage, TunesmithError
from stages.core.settings import Settings

REPO = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
SECONDS = 30.0  # to wait for the answer to the first question

Kind = Literal["model", "dataset"]
CALLED = {"model": "base", "dataset": "dataset"}


class Pinned(Settings):
    """repo as `owner/name`; revision the 40 digits of a commit, never a branch or a tag."""

    repo: Annotated[str, Field(max_length=96)]
    revision: str

    @field_validator("repo")
    @classmethod
    def _named(cls, repo: str) -> str:
        if not REPO.fullmatch(repo) or "--" in repo or ".." in repo:
            raise ValueError("a repository is written owner/name, such as Qwen/Qwen3-0.6B")
        return repo

    @field_validator("revision")
    @classmethod
    def _pinned(cls, revision: str) -> str:
        if not re.fullmatch(r"[0-9a-f]{40}", revision):
            raise ValueError(
                "a revision is the 40 digits (0-9, a-f) of one commit, since branches and tags "
                "move. The repository's page lists them under Files > History; or: "
                "git ls-remote https://huggingface.co/<repo> HEAD (a data set's: datasets/<repo>)"
            )
        return revision


@dataclass(frozen=True, slots=True)
class Entry:
    """One file: size in bytes; digest SHA-256 (64 hex digits), git's id (40), or "" if unknown."""

    size: int
    digest: str


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of one commit of one repository, by path."""

    kind: Kind
    repo: str
    revision: str
    files: dict[str, Entry]

    @property
    def name(self) -> str:
        """`owner/name@commit`, the commit shortened."""
        return f"{self.repo}@{self.revision[:12]}"


@contextmanager
def _asking(kind: Kind, repo: str, revision: str) -> Iterator[None]:
    """Turn what the hub's client raises into an error for the user."""
    try:
        import huggingface_hub.errors as hub
    except ModuleNotFoundError as missing:
        raise MissingPackage(missing.name or "huggingface_hub", "torch") from missing
    try:
        yield
    except (hub.HTTPError, OSError, RuntimeError) as failure:  # hf_xet raises RuntimeError
        what = CALLED[kind]
        advice = hub_failures.explain(failure, repo, revision)
        if advice is None:
            raise
        raise TunesmithError(
            advice[0],
            where=f"{repo}@{revision[:12]}",
            why=f"The {what} is downloaded from there; half a {what} is never used.",
            do=advice[1],
        ) from failure


def listing(kind: Kind, repo: str, revision: str) -> Listing:
    """What the commit holds, from the cache where a download once began, else from the hub.

    Raises:
        TunesmithError: no such repository or commit, no access, no connection, or a hub that
            answers for another commit.
    """
    with _asking(kind, repo, revision):
        import huggingface_hub as hub
        from huggingface_hub.errors import CachedRepoTreeNotFoundError

        try:
            # A commit never changes, so its cached listing is as good as a new one.
            tree = hub.get_cached_repo_tree(repo, repo_type=kind, revision=revision)
            entries = {file.path: Entry(file.size, "") for file in tree}
            return Listing(kind, repo, revision, entries)
        except CachedRepoTreeNotFoundError:
            info = hub.HfApi().repo_info(
                repo, repo_type=kind, revision=revision, files_metadata=True, timeout=SECONDS
            )
    if info.sha != revision:
        raise _other_commit(kind, repo, revision, f"the hub answered with {info.sha}")
    entries = {
        file.rfilename: Entry(file.size or 0, file.lfs.sha256 if file.lfs else file.blob_id or "")
        for file in info.siblings or []
    }
    return Listing(kind, repo, revision, entries)


def _other_commit(kind: Kind, repo: str, revision: str, found: str) -> TunesmithError:
    return TunesmithError(
        f"Commit {revision} of {repo} was asked for and {found}.",
        where=f"{repo}@{revision[:12]}",
        why=f"Only the pinned commit is known to be the {kind} that was meant.",
        do="Check HF_ENDPOINT and what stands between here and the hub (mirror, proxy).",
    )


def require_space(listing: Listing, names: Iterable[str], out: Path) -> None:
    """Refuse to download what fits neither into the hub's cache nor, as a copy, into `out`.

    Raises:
        TunesmithError: as `files.require_space`.
    """
    import huggingface_hub as hub
    from huggingface_hub.constants import HF_HUB_CACHE

    names = list(names)
    sizes = {name: listing.files[name].size for name in names}
    new = sum(
        size
        for name, size in sizes.items()
        if not isinstance(
            hub.try_to_load_from_cache(
                listing.repo, name, revision=listing.revision, repo_type=listing.kind
            ),
            str,
        )
    )
    cache = Path(HF_HUB_CACHE).expanduser()
    cache.mkdir(parents=True, exist_ok=True)
    files.require_space(cache, new, f"The download of {listing.name}")
    shared = new if cache.stat().st_dev == out.stat().st_dev else 0
    called = CALLED[listing.kind]
    files.require_space(out, sum(sizes.values()) + shared, f"The {called} {listing.name}")


def fetch(listing: Listing, names: Iterable[str]) -> Path:
    """Download what the cache lacks; returns the folder of this commit in the hub's cache.

    A connection that breaks is taken up where it broke, some times; a later run starts only the
    unfinished files anew. Progress is shown by huggingface_hub.

    Raises:
        TunesmithError: as `listing`; or the hub served a file under another commit.
    """
    names = sorted(names)
    with _asking(listing.kind, listing.repo, listing.revision):
        import huggingface_hub as hub

        folder = Path(
            hub.snapshot_download(
                listing.repo,
                repo_type=listing.kind,
                revision=listing.revision,
                allow_patterns=[glob.escape(name) for name in names],
            )
        )
    for name in names:
        if not (folder / name).is_file():
            found = f"{name} came under another commit"
            raise _other_commit(listing.kind, listing.repo, listing.revision, found)
    return folder


def is_inside(name: str) -> bool:
    """Whether a path given by a hub stays inside the folder it is written to."""
    return bool(name) and "\\" not in name and not {"", ".", ".."} & set(name.split("/"))
