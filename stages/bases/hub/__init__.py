"""A hub base: a repository and a commit -> its config, tokenizer, template and safetensors."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator

from stages.bases.hub import copies, remote
from stages.core import files
from stages.core.errors import TunesmithError
from stages.core.settings import Settings

REPO = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


class Options(Settings):
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
                "git ls-remote https://huggingface.co/<repo> HEAD"
            )
        return revision


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

    listing = remote.listing(options.repo, options.revision)
    remote.require_safetensors(listing)
    texts = remote.texts(listing)
    digests = copies.copy(remote.fetch(listing, texts), texts, listing, out)
    with _named_as(listing.name, out):
        card.write_template(out)
        card.write_stops(out)
        basedir.check_texts(out)
        weights = remote.weights(listing, out)
    remote.require_space(listing, weights, out)
    digests |= copies.copy(remote.fetch(listing, weights), weights, listing, out)
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
