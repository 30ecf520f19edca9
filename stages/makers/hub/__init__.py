"""A data set on a hub and a commit in; its data files, checked and as plain files, out.

Only files that hold nothing but data are ever fetched: no loading scripts, no pickles. The recipes
chats and table read them.
"""

import fnmatch
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from pydantic import Field

from stages.core import files, hub, hub_copies
from stages.core.errors import TunesmithError

DATA = (
    *(".json", ".jsonl", ".ndjson", ".json.gz", ".jsonl.gz"),
    *(".csv", ".tsv", ".parquet", ".txt", ".md"),
)
CARD = ("README.md", "LICENSE*", "LICENCE*", "NOTICE*")  # they come in any case
NOTE = "hub.yaml"
SHOWN = 10

NETWORK, SECRETS = True, ("HF_TOKEN",)  # what it may use in a container


class Options(hub.Pinned):
    """Which repository, at which commit, and which of its files.

    Attributes:
        files: glob patterns of paths in the repository, such as `data/train-*.parquet`; `*` stands
            for any text without a slash.
    """

    files: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]


def make(options: Options, out: Path) -> None:
    """Download the data files of the pinned commit that a pattern fits, under their own paths.

    Beside them goes `hub.yaml`, which says where they come from. Needs HF_ENDPOINT reachable, or
    all files in the hub's cache below HF_HOME.

    Raises:
        TunesmithError: no such repository or commit, no access, no connection, a disk too small, a
            pattern that fits no data file, or bytes that are not the announced ones.
    """
    listing = hub.listing("dataset", options.repo, options.revision)
    names = _chosen(listing, options.files)
    hub.require_space(listing, names, out)
    digests = hub_copies.copy(hub.fetch(listing, names), names, listing, out)
    # JSON is YAML, and by this name no recipe takes the note for data.
    files.write_json(
        out / NOTE, {"repo": options.repo, "revision": options.revision, "files": digests}
    )


def _chosen(listing: hub.Listing, patterns: Iterable[str]) -> list[str]:
    """The data files that a pattern fits, and the card and licence, sorted."""
    data = [name for name in listing.files if hub.is_inside(name) and name.endswith(DATA)]
    chosen = {name for name in listing.files if _fits(name, CARD)}
    for pattern in patterns:
        fitting = {name for name in data if _fits(name, [pattern])}
        if not fitting:
            raise _no_data(listing, pattern, sorted(data))
        chosen |= fitting
    return sorted(chosen)


def _fits(name: str, patterns: Iterable[str]) -> bool:
    return any(p.count("/") == name.count("/") and fnmatch.fnmatchcase(name, p) for p in patterns)


def _no_data(listing: hub.Listing, pattern: str, data: list[str]) -> TunesmithError:
    others = sorted(name for name in listing.files if _fits(name, [pattern]))
    found = f"fits only {others[0]}, which is no data file" if others else "fits no file"
    more = f" and {len(data) - SHOWN} more" if len(data) > SHOWN else ""
    return TunesmithError(
        f"The pattern {pattern!r} {found}.",
        where=listing.name,
        why=f"Only files of data are fetched ({', '.join(DATA)}); a script or a pickle runs code.",
        do=f"Choose among its data files: {', '.join(data[:SHOWN]) or 'it has none'}{more}.",
    )
