"""A URL and an object in; the JSON object that answers, asked again where that may help, out."""

import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

import orjson

from stages.core.errors import TunesmithError

T = TypeVar("T")
MOST = 16 << 20  # bytes of an answer
LONGEST_WAIT = 30.0  # seconds before another try
BUSY = (408, 425, 429)
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class FailedError(Exception):
    """This request will not succeed; the text says why."""


class PassingError(FailedError):
    """This request may succeed if it is tried again."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would take the key to another server."""

    def redirect_request(self, *_: Any) -> None:
        return None


@dataclass(frozen=True, slots=True)
class Pace:
    """How often something is tried, and how fast.

    Attributes:
        retries: tries after the first.
        seconds: the least time from one episode's start to the next one's.
        now: seconds of a clock that never goes back.
        sleep: waits for seconds.
    """

    retries: int
    seconds: float
    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def again(self, work: Callable[[int], T]) -> T:
        """What `work` gives, which is told the number of the try, from 0; waits 1, 2, 4 … s.

        Raises:
            FailedError: it failed for good, or as often as it may.
        """
        for number in range(self.retries + 1):
            try:
                return work(number)
            except PassingError as failure:
                if number == self.retries:
                    tries = f"; tried {number + 1} times" if number else ""
                    raise FailedError(f"{failure}{tries}") from failure
            self.sleep(min(2.0**number, LONGEST_WAIT))
        raise AssertionError("unreachable: the last try returns or raises")

    def wait(self, last: float | None) -> float:
        """Wait until an episode may start after one that started at `last`; the time it is then."""
        if last is not None and (left := last + self.seconds - self.now()) > 0:
            self.sleep(left)
        return self.now()


@dataclass(frozen=True, slots=True)
class Site:
    """A server.

    Attributes:
        url: without a slash at its end.
        key: sent as a bearer token, where there is one.
        timeout: seconds without a byte after which a request has failed.
    """

    url: str
    key: str
    timeout: float

    def ask(self, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Any:
        """GET, or POST where there is a body; the JSON that answers.

        Raises:
            PassingError: no connection, no answer in time, a server's error, an answer that is no
                JSON object.
            FailedError: any other refusal.
        """
        sent = {"Content-Type": "application/json", "Accept": "application/json"} | (headers or {})
        if self.key:
            sent["Authorization"] = f"Bearer {self.key}"
        data = None if body is None else orjson.dumps(body)
        request = urllib.request.Request(f"{self.url}{path}", data, sent)  # noqa: S310 (checked)
        try:
            with self._sender()(request, timeout=self.timeout) as answer:
                raw = bytes(answer.read(MOST + 1))
        except urllib.error.HTTPError as refusal:
            raise _refusal(path, refusal) from refusal
        except (OSError, http.client.HTTPException) as problem:  # URLError, timeouts, resets
            reason = getattr(problem, "reason", None) or str(problem) or type(problem).__name__
            raise PassingError(f"{path}: {reason}") from problem
        return _object(path, raw)

    def _sender(self) -> Callable[..., Any]:
        """What sends requests: through the machine's proxy, except to the machine itself."""
        near = urlsplit(self.url).hostname in LOOPBACK
        proxies = [urllib.request.ProxyHandler({})] if near else []
        return urllib.request.build_opener(_NoRedirect(), *proxies).open


def _refusal(path: str, refusal: urllib.error.HTTPError) -> FailedError:
    try:
        said = orjson.loads(refusal.read(MOST)).get("error", "")
    except (orjson.JSONDecodeError, AttributeError, OSError, http.client.HTTPException):
        said = ""
    finally:
        refusal.close()
    text = f"{path}: {refusal.code} {said or refusal.reason}"
    again = refusal.code >= 500 or refusal.code in BUSY
    return PassingError(text) if again else FailedError(text)


def _object(path: str, raw: bytes) -> dict[str, Any]:
    if len(raw) > MOST:
        raise PassingError(f"{path}: an answer of more than {MOST >> 20} MB")
    try:
        found = orjson.loads(raw)
    except orjson.JSONDecodeError as problem:
        raise PassingError(f"{path}: the answer is not JSON ({problem})") from problem
    if not isinstance(found, dict):
        raise PassingError(f"{path}: the answer is a JSON {type(found).__name__}, not an object")
    return found


def site(option: str, url: str, key: str, timeout: float) -> Site:
    """A server to ask.

    Raises:
        TunesmithError: the URL is none of http, or has a name and password in it.
    """
    try:
        parts = urlsplit(url)
        right = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        right = False
    if not right:
        raise TunesmithError(
            f"{url!r} is no address of a server.",
            where=option,
            why="An address begins with http:// or https://, and a host comes next.",
            do=f"{option} http://localhost:8787, or https://host/path",
        )
    if parts.username or parts.password or parts.query or parts.fragment:
        raise TunesmithError(
            "An address holds no secrets.",
            where=option,
            why="Command lines are seen by others and kept in histories.",
            do=f"{option} https://host/path, and a key by the name of its environment variable.",
        )
    return Site(url.rstrip("/"), key, timeout)
