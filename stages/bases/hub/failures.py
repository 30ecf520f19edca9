"""What the hub's client raised in; an error that says what to do out. No token is ever in it."""

from stages.core.errors import TunesmithError

ACCESS = (
    "Accept the terms on the repository's page if it asks for that, then give a token that may "
    "read it: HF_TOKEN=…, or: hf auth login"
)


def explain(failure: Exception, repo: str, revision: str) -> TunesmithError | None:
    """The user's error for a failure of the hub's client; None for one of this machine's disk.

    Texts of the server are left out: they may hold anything, even the token that was sent.
    """
    import huggingface_hub.errors as hub

    cause = failure
    while isinstance(cause, hub.LocalEntryNotFoundError) and isinstance(cause.__cause__, Exception):
        cause = cause.__cause__
    status = cause.response.status_code if isinstance(cause, hub.HfHubHTTPError) else 0
    if isinstance(cause, hub.GatedRepoError) or status == 403:
        return _error(f"{repo} is gated, and this access was refused.", repo, revision, ACCESS)
    if isinstance(cause, hub.RevisionNotFoundError):
        what = f"{repo} has no commit {revision}."
        do = "Take the commit from the repository's page: Files > History."
        return _error(what, repo, revision, do)
    if isinstance(cause, hub.RepositoryNotFoundError) or status in (401, 404):
        what = f"The hub knows no {repo}, or does not show it to you."
        do = f"Check the name. If the repository is private or gated: {ACCESS}"
        return _error(what, repo, revision, do)
    if status:
        what = f"The hub answered {status} ({cause.response.reason_phrase})."  # type: ignore[attr-defined]
        return _error(what, repo, revision, "Try again later; what is complete stays in the cache.")
    return _unreachable(failure, cause, repo, revision)


def _unreachable(
    failure: Exception, cause: Exception, repo: str, revision: str
) -> TunesmithError | None:
    """The error for no connection or a broken one."""
    import huggingface_hub.errors as hub

    if isinstance(cause, hub.OfflineModeIsEnabled):
        what, do = "HF_HUB_OFFLINE is set and the cache lacks files of this commit.", "Unset it."
    elif isinstance(cause, (hub.HTTPError, hub.FileMetadataError, hub.LocalEntryNotFoundError)):
        what = f"The hub cannot be reached ({type(cause).__name__})."
        do = "Check the connection, HF_ENDPOINT and proxies, then run it again."
    elif getattr(failure, "errno", None) is None:  # a file too short, or whatever hf_xet met
        what = f"The download broke off ({type(failure).__name__})."
        do = "Run it again: only the files that are not complete are fetched."
    else:
        return None
    return _error(what, repo, revision, do)


def _error(what: str, repo: str, revision: str, do: str) -> TunesmithError:
    why = "The base is downloaded from there; half a base is never used."
    return TunesmithError(what, where=f"{repo}@{revision[:12]}", why=why, do=do)
