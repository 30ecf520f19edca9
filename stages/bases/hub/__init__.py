"""A hub base: a repository and a commit -> its config, tokenizer, template and safetensors."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stages.bases.hub import remote
from stages.core import files, hub, hub_copies
from stages.core.errors import TunesmithError

NETWORK, SECRETS = True, ("HF_TOKEN",)  # what it may use in a container


class Options(hub.Pinned):
    """Which repository, at which commit."""


def make(options: Options, out: Path) -> None:
    """Download the files of the pinned commit into `out`, checked, and write base.json.

    Needs HF_ENDPOINT reachable, or all files in the hub's cache below HF_HOME. Texts come and
    are checked before the weights, so that a base that is refused costs no download.

    Raises:
        TunesmithError: no such repository or commit, no access, no connection, a disk too small,
            bytes that are not the announced ones, or a base that `basedir` refuses.
    """
    from stages.bases.hub import card  # these two need jinja2, and the linter only the Options
    from stages.core import basedir

    listing = hub.listing("model", options.repo, options.revision)
    remote.require_safetensors(listing)
    texts = remote.texts(listing)
    digests = hub_copies.copy(hub.fetch(listing, texts), texts, listing, out)
    with _named_as(listing.name, out):
        card.write_template(out)
        card.write_stops(out)
        basedir.check_texts(out)
        weights = remote.weights(listing, out)
    hub.require_space(listing, weights, out)
    digests |= hub_copies.copy(hub.fetch(listing, weights), weights, listing, out)
    with _named_as(listing.name, out):
        facts = basedir.describe(out)
    files.write_json(
        out / "base.json",
        {
            "id": f"{options.repo}@{options.revision[:12]}",
            "kind": "hub",
            "repo": options.repo,
            "revision": options.revision,
            "licence": card.licence(out),
            "files": digests,
            **facts,
        },
    )


@contextmanager
def _named_as(name: str, out: Path) -> Iterator[None]:
    """Name the repository where a refusal would name a folder that is about to vanish."""
    try:
        yield
    except TunesmithError as found:
        what, where = (text.replace(str(out), name) for text in (found.what, found.where))
        raise TunesmithError(what, where=where, why=found.why, do=found.do) from found
