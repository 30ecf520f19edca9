"""What went wrong with a remote in; one screen with what to type out."""

import errno
import importlib.util
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from stages.core.errors import TunesmithError

PACKAGES = {"ssh": ("dvc_ssh", "dvc-ssh>=4.3,<5"), "s3": ("dvc_s3", "dvc-s3>=3.3,<4")}
SIGN_IN = {
    "ssh": "ssh-add KEY, or: tunesmith remote NAME URL --option keyfile=PATH; try: ssh {host}",
    "s3": "export AWS_ACCESS_KEY_ID=… AWS_SECRET_ACCESS_KEY=…, or --option profile=NAME",
    "folder": "ls -ld {host}: it must be yours to write to",
}
WHOLE = "What was complete stays; nothing that is half there has its final name."
LOST = "the connection does not hold"  # what may be there again in a moment
NO_SIGN_IN = ("NoCredentialsError", "ProfileNotFound", "PartialCredentialsError")
WRONG_KEY = ("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken")


def require_package(kind: str) -> None:
    """Refuse a kind of remote whose package is not installed.

    Raises:
        TunesmithError: with the command that installs it.
    """
    module, pin = PACKAGES.get(kind, ("", ""))
    if module and importlib.util.find_spec(module) is None:
        raise TunesmithError(
            f"The package {pin.partition('>')[0]!r} is not installed.",
            why=f"DVC needs it for {kind}:// remotes; the light install leaves it out.",
            do=f".venv/bin/pip install -c env/data.lock -c env/dev.lock '{pin}'",
        )


def kinds() -> tuple[type[Exception], ...]:
    """The exceptions of the file systems that remotes are read through."""
    from dvc.exceptions import DvcException
    from dvc_objects.fs.errors import ConfigError

    found: list[type[Exception]] = [OSError, DvcException, ConfigError]
    if importlib.util.find_spec("asyncssh"):
        import asyncssh

        found += [asyncssh.Error, asyncssh.KeyImportError, asyncssh.KeyEncryptionError]
    if importlib.util.find_spec("botocore"):
        from botocore.exceptions import BotoCoreError, ClientError

        found += [BotoCoreError, ClientError]
    return tuple(found)


@contextmanager
def told(kind: str, url: str, doing: str, again: str, why: str = WHOLE) -> Iterator[None]:
    """Turn a failing file system into one screen.

    Args:
        kind: of the remote.
        url: of the remote, without secrets.
        doing: what failed, such as "sending".
        again: what is to be typed once it works again.
        why: what that means for what is there already.

    Raises:
        TunesmithError: instead of what the file system raised.
    """
    try:
        yield
    except kinds() as failure:
        what, do = cause(kind, url, failure)
        raise TunesmithError(
            f"{doing} failed: {what}",
            where=url,
            why=why,
            do=f"{do}; then: {again}" if again else do,
        ) from failure


def cause(kind: str, url: str, failure: BaseException) -> tuple[str, str]:
    """What is wrong, in a sentence, and what to type."""
    host = url.rpartition("@")[2].removeprefix("ssh://").partition("/")[0].partition(":")[0]
    sign_in = SIGN_IN.get(kind, "Sign in").format(host=url if kind == "folder" else host)
    names = {type(one).__name__ for one in _chain(failure)}
    if names & {"PermissionDenied", *NO_SIGN_IN}:
        return f"it does not let you in ({failure}).", sign_in
    for one in _chain(failure):
        name, code = type(one).__name__, _code(one)
        text = str(one).strip() or name
        if code == "NoSuchBucket" or "bucket does not exist" in text:
            return "there is no such bucket.", "aws s3 mb s3://BUCKET, or mend the URL"
        if code in WRONG_KEY:
            return f"it does not let you in ({text}).", sign_in
        if name in ("KeyImportError", "KeyEncryptionError"):
            return (
                f"the key cannot be used ({text}).",
                "ssh-add KEY asks its passphrase once",
            )
        if isinstance(one, PermissionError) or code in ("AccessDenied", "403"):
            return f"you may not do that there ({text}).", sign_in
        if isinstance(one, OSError) and one.errno in (errno.ENOSPC, errno.EDQUOT):
            return "no space is left there.", "Free some (df -h), or take another remote"
        if name == "gaierror" or "Name or service not known" in text:
            return f"there is no host of that name ({text}).", "Mend the URL"
        if name in ("FileNotFoundError", "FileExistsError", "NotADirectoryError"):
            return f"{text}.", sign_in if kind == "ssh" else f"See that {url} is there"
    text = str(failure).strip() or type(failure).__name__
    return (
        f"{LOST} ({text}).",
        f"See that {host if kind == 'ssh' else url} answers",
    )


def _chain(failure: BaseException) -> Iterator[BaseException]:
    """A failure and what caused it, the deepest last."""
    seen: BaseException | None = failure
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def _code(failure: BaseException) -> str:
    answer: Mapping[str, Any] = getattr(failure, "response", None) or {}
    return str((answer.get("Error") or {}).get("Code", "")) if isinstance(answer, dict) else ""
