"""What the hub's client raised in; what went wrong and what to do out. No token is ever in it."""

ACCESS = (
    "Accept the terms on the repository's page if it asks for that, then give a token that may "
    "read it: HF_TOKEN=…, or: hf auth login"
)
Advice = tuple[str, str]


def explain(failure: Exception, repo: str, revision: str) -> Advice | None:
    """What happened and what to do; None for a failure of this machine's disk.

    Texts of the server are left out: they may hold anything, even the token that was sent.
    """
    import huggingface_hub.errors as hub

    cause = failure
    while isinstance(cause, hub.LocalEntryNotFoundError) and isinstance(cause.__cause__, Exception):
        cause = cause.__cause__
    status = cause.response.status_code if isinstance(cause, hub.HfHubHTTPError) else 0
    if isinstance(cause, hub.GatedRepoError) or status == 403:
        return f"{repo} is gated, and this access was refused.", ACCESS
    if isinstance(cause, hub.RevisionNotFoundError):
        what = f"{repo} has no commit {revision}."
        return what, "Take the commit from the repository's page: Files > History."
    if isinstance(cause, hub.RepositoryNotFoundError) or status in (401, 404):
        what = f"The hub knows no {repo}, or does not show it to you."
        return what, f"Check the name. If the repository is private or gated: {ACCESS}"
    if status:
        what = f"The hub answered {status} ({cause.response.reason_phrase})."  # type: ignore[attr-defined]
        return what, "Try again later; what is complete stays in the cache."
    return _unreachable(failure, cause)


def _unreachable(failure: Exception, cause: Exception) -> Advice | None:
    """The advice for no connection or a broken one."""
    import huggingface_hub.errors as hub

    if isinstance(cause, hub.OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set and the cache lacks files of this commit.", "Unset it."
    if isinstance(cause, (hub.HTTPError, hub.FileMetadataError, hub.LocalEntryNotFoundError)):
        what = f"The hub cannot be reached ({type(cause).__name__})."
        return what, "Check the connection, HF_ENDPOINT and proxies, then run it again."
    if getattr(failure, "errno", None) is None:  # a file too short, or whatever hf_xet met
        what = f"The download broke off ({type(failure).__name__})."
        return what, "Run it again: only the files that are not complete are fetched."
    return None
