"""What a repository holds in; which of its files make a base out."""

import fnmatch
from collections.abc import Iterable
from pathlib import Path

from stages.core import files, shards
from stages.core.errors import TunesmithError
from stages.core.hub import Listing

SINGLE = "model.safetensors"
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
TEXTS = (
    *("config.json", "generation_config.json", "README.md", "LICENSE*", "LICENCE*", "NOTICE*"),
    *("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json"),
    *("added_tokens.json", "vocab.json", "vocab.txt", "merges.txt"),
    *("chat_template*", "additional_chat_templates/*.jinja"),
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
