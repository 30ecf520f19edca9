"""The Hub's client in, for jobs; what it raises out as one screen, with no secret in it."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from stages.core import hub_writing
from stages.core.errors import TunesmithError

QUIET = 5.0  # seconds without a byte, after which all lines of a running log have come
LINES = 200  # of a log, the last ones
# What cancelling a run, or asking for its log, may be answered when it has ended or not begun:
# nothing is wrong then, and its stage says how it stands.
NOT_NOW = (400, 404, 406, 409, 410)
GIVE = "Give a token that may start and manage jobs: HF_TOKEN=…, a line of local.env, hf auth login"
AGAIN = "Run the same command again: a job that was begun is found, and none is begun twice."
BILLING = "https://huggingface.co/settings/billing"


class UnansweredError(TunesmithError):
    """The Hub gave no answer, and may give one later."""


@contextmanager
def asking(where: str, namespace: str) -> Iterator[Any]:
    """The client; what it raises becomes an error for the user.

    Args:
        where: the entry of places.yaml, for the screen.
        namespace: whose jobs they are; "" for the token's owner.

    Raises:
        UnansweredError: the Hub did not answer, or asks to be asked later.
        TunesmithError: it refused.
    """
    api = hub_writing.client()
    import huggingface_hub
    import huggingface_hub.errors as hub

    hooks = huggingface_hub.get_session().event_hooks["request"]
    if _soon_quiet not in hooks:
        hooks.append(_soon_quiet)
    try:
        yield api
    except (hub.HTTPError, ValueError, OSError, KeyError, TypeError) as failure:
        raise _screen(failure, where, namespace) from failure


def _soon_quiet(request: Any) -> None:
    """End the log of what still runs: a sign of life every 30 s would keep it open for ever."""
    if request.url.path.startswith("/api/jobs/") and request.url.path.endswith("/logs"):
        request.extensions["timeout"] = {**request.extensions["timeout"], "read": QUIET}


def _screen(failure: Exception, where: str, namespace: str) -> TunesmithError:
    """What the Hub answered, in our words: its own may hold anything, even what it was sent."""
    import huggingface_hub
    import huggingface_hub.errors as hub

    status = failure.response.status_code if isinstance(failure, hub.HfHubHTTPError) else 0
    if isinstance(failure, hub.LocalTokenNotFoundError) or (
        status == 401 and not huggingface_hub.get_token()
    ):
        return TunesmithError("There is no token for the Hub.", where=where, do=GIVE)
    if status:
        if status == 429 or status >= 500:
            return UnansweredError(f"The Hub answered {status} for now.", where=where, do=AGAIN)
        return _refused(status, where, f"the jobs of {namespace}" if namespace else "your jobs")
    what, do = hub_writing.explain(failure, where)
    if isinstance(failure, hub.OfflineModeIsEnabled):
        return TunesmithError(what, where=where, do=do)
    return UnansweredError(what, where=where, do=AGAIN)


def _refused(status: int, where: str, jobs: str) -> TunesmithError:
    match status:
        case 401:
            what, do = "The Hub does not accept the token.", GIVE
        case 402:
            what = f"The Hub wants to be paid in advance for {jobs}."
            do = f"Add credit: {BILLING}    or set namespace to an organisation that has some"
        case 403:
            what, do = f"This token may not start {jobs}.", f"{GIVE}\n        or mend namespace"
        case 404:
            what = f"The Hub does not know {jobs}, the flavor or the image."
            do = "Check namespace, flavor (hf jobs hardware) and image."
        case _:
            what = f"The Hub refused what was asked of it ({status})."
            do = "Check flavor, image and hours in the entry."
    return TunesmithError(what, where=where, why="Nothing runs there without it.", do=do)


def owner(api: Any, namespace: str) -> str:
    """The namespace, or the name of the token's owner, asked for once: the Hub limits that."""
    import huggingface_hub

    return namespace or _name(api.endpoint, huggingface_hub.get_token())


@lru_cache(maxsize=4)
def _name(endpoint: str, token: str | None) -> str:
    import huggingface_hub

    return str(huggingface_hub.HfApi(endpoint, token).whoami()["name"])


def hardware(api: Any) -> list[Any]:
    """The flavors that there are; none where the Hub does not list them."""
    import huggingface_hub.errors as hub

    try:
        found: list[Any] = api.list_jobs_hardware()
    except hub.HfHubHTTPError as failure:
        if failure.response.status_code not in NOT_NOW:
            raise
        return []
    return found


def log(api: Any, run: Any, namespace: str) -> list[str]:
    """The last lines that a run has printed so far; none where it has no log now."""
    lines: list[str] = []
    with _forgiving():
        for line in api.fetch_job_logs(job_id=run.id, namespace=namespace, tail=LINES):
            lines.append(line.rstrip("\n"))
    return lines


def cancel(api: Any, run: Any, namespace: str) -> None:
    """Ask the Hub to end a run; nothing where it has ended or is gone."""
    with _forgiving():
        api.cancel_job(job_id=run.id, namespace=namespace)


@contextmanager
def _forgiving() -> Iterator[None]:
    """Let pass what a run that is over may be answered."""
    import huggingface_hub.errors as hub

    try:
        yield
    except hub.HfHubHTTPError as failure:
        if failure.response.status_code not in NOT_NOW:
            raise
