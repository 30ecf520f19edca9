"""A repository and a commit in; what it holds, and its files in the hub's cache, out."""

import fnmatch
import glob
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from stages.bases.hub import failures
from stages.core import files, shards
from stages.core.errors import MissingPackage, TunesmithError

SINGLE = "model.safetensors"
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
TEXTS = (
    *("config.json", "generation_config.json", "README.md", "LICENSE*", "LICENCE*", "NOTICE*"),
    *("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json"),
    *("added_tokens.json", "vocab.json", "vocab.txt", "merges.txt"),
    *("chat_template*", "additional_chat_templates/*.jinja"),
)
SECONDS = 30.0  # to wait for the answer to the first question


@dataclass(frozen=True, slots=True)
class Entry:
    """One file: size in bytes; digest SHA-256 (64 hex digits), git's id (40), or "" if unknown."""

    size: int
    digest: str


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of one commit of one repository, by path."""

    repo: str
    revision: str
    files: dict[str, Entry]

    @property
    def name(self) -> str:
        """`owner/name@commit`, the commit shortened."""
        return f"{self.repo}@{self.revision[:12]}"


@contextmanager
def _asking(repo: str, revision: str) -> Iterator[None]:
    """Turn what the hub's client raises into an error for the user."""
    try:
        import huggingface_hub.errors as hub
    except ModuleNotFoundError as missing:
        raise MissingPackage(missing.name or "huggingface_hub", "torch") from missing
    try:
        yield
    except (hub.HTTPError, OSError, RuntimeError) as failure:  # hf_xet raises RuntimeError
        explained = failures.explain(failure, repo, revision)
        if explained is None:
            raise
        raise explained from failure


def listing(repo: str, revision: str) -> Listing:
    """What the commit holds, from the cache where a download once began, else from the hub.

    Raises:
        TunesmithError: no such repository or commit, no access, no connection, or a hub that
            answers for another commit.
    """
    with _asking(repo, revision):
        import huggingface_hub as hub
        from huggingface_hub.errors import CachedRepoTreeNotFoundError

        try:
            # A commit never changes, so its cached listing is as good as a new one.
            tree = hub.get_cached_repo_tree(repo, revision=revision)
            return Listing(repo, revision, {file.path: Entry(file.size, "") for file in tree})
        except CachedRepoTreeNotFoundError:
            info = hub.HfApi().model_info(
                repo, revision=revision, files_metadata=True, timeout=SECONDS
            )
    if info.sha != revision:
        raise _other_commit(repo, revision, f"the hub answered with {info.sha}")
    entries = {
        file.rfilename: Entry(file.size or 0, file.lfs.sha256 if file.lfs else file.blob_id or "")
        for file in info.siblings or []
    }
    return Listing(repo, revision, entries)


def _other_commit(repo: str, revision: str, found: str) -> TunesmithError:
    return TunesmithError(
        f"Commit {revision} of {repo} was asked for and {found}.",
        where=f"{repo}@{revision[:12]}",
        why="Only the pinned commit is known to be the model that was meant.",
        do="Check HF_ENDPOINT and what stands between here and the hub (mirror, proxy).",
    )


def require_safetensors(listing: Listing) -> None:
    """Refuse a repository that has no weights which are safe to open.

    Raises:
        TunesmithError: only pickled weights, or none.
    """
    if SINGLE in listing.files or shards.INDEX in listing.files:
        return
    pickled = _matching(listing, PICKLED)
    found = f"only pickled weights ({pickled[0]})" if pickled else "no weights"
    raise TunesmithError(
        f"{listing.repo} has {found}, not {SINGLE} or {shards.INDEX}.",
        where=listing.name,
        why="A pickle can run any code when it is opened, so none is ever downloaded.",
        do="Use a commit with safetensors weights; many repositories have one in refs/pr/.",
    )


def _matching(listing: Listing, patterns: Iterable[str]) -> list[str]:
    """The files that match a pattern, sorted; a file in a folder only where the pattern has one."""
    return sorted(
        name
        for name in listing.files
        if any(p.count("/") == name.count("/") and fnmatch.fnmatchcase(name, p) for p in patterns)
    )


def texts(listing: Listing) -> list[str]:
    """Config, tokenizer, template and licence files, and the index of several weight files."""
    single = SINGLE in listing.files  # transformers then reads no index either
    return _matching(listing, TEXTS if single else [*TEXTS, shards.INDEX])


def weights(listing: Listing, folder: Path) -> list[str]:
    """The weight files: the single one, or those that the index in `folder` names.

    Raises:
        TunesmithError: the index names a file that the repository does not have.
    """
    if SINGLE in listing.files:
        return [SINGLE]
    names = sorted(set(files.read_json(folder / shards.INDEX)["weight_map"].values()))
    for name in names:
        if name not in _matching(listing, ["model*.safetensors"]):
            raise TunesmithError(
                f"{shards.INDEX} names {name}, which the repository does not have.",
                where=f"{listing.name}/{shards.INDEX}",
                why="A model with a part missing cannot be used.",
                do="Pin another commit of this repository.",
            )
    return names


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
            hub.try_to_load_from_cache(listing.repo, name, revision=listing.revision), str
        )
    )
    cache = Path(HF_HUB_CACHE).expanduser()
    cache.mkdir(parents=True, exist_ok=True)
    files.require_space(cache, new, f"The download of {listing.name}")
    shared = new if cache.stat().st_dev == out.stat().st_dev else 0
    files.require_space(out, sum(sizes.values()) + shared, f"The base {listing.name}")


def fetch(listing: Listing, names: Iterable[str]) -> Path:
    """Download what the cache lacks; returns the folder of this commit in the hub's cache.

    A connection that breaks is taken up where it broke, some times; a later run starts only the
    unfinished files anew. Progress is shown by huggingface_hub.

    Raises:
        TunesmithError: as `listing`; or the hub served a file under another commit.
    """
    names = sorted(names)
    with _asking(listing.repo, listing.revision):
        import huggingface_hub as hub

        folder = Path(
            hub.snapshot_download(
                listing.repo,
                revision=listing.revision,
                allow_patterns=[glob.escape(name) for name in names],
            )
        )
    for name in names:
        if not (folder / name).is_file():
            found = f"{name} came under another commit"
            raise _other_commit(listing.repo, listing.revision, found)
    return folder
