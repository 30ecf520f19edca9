"""Repositories in memory in; a hub on 127.0.0.1 out, speaking what huggingface_hub asks for.

Endpoints and headers are those of huggingface_hub's `repo_info`, `list_repo_tree` and
`hf_hub_download`. Files ending in `LFS` have a SHA-256, all others a git id.
"""

import hashlib
import json
import re
import socket
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub
import huggingface_hub.constants
import pytest

LFS = (".safetensors", ".bin", ".parquet")
DATASET = "datasets/"
API = re.compile(r"/api/(?:models/)?(?P<repo>.+?)/(?P<what>revision|tree)/(?P<revision>[^/?]+)")
FILE = re.compile(r"/(?P<repo>(?:datasets/)?[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<name>.+)")
CHUNK = 1 << 16  # how much of a download the client keeps at a time; its own value is 10 MiB
SECRET = "hf_veryveryverysecret"


class Hub:
    """What the server holds and how it misbehaves.

    Attributes:
        repos: (repo, commit or branch) -> {path: content}; data sets under `datasets/<repo>`.
        commits: what a branch points to.
        log: (method, path, Range header) of each request for a file's content.
        tokens: the Authorization header of each request.
        cuts: path -> how many bytes to send of the next answers before hanging up.
        wrong: path -> content served in place of the announced one.
        refuse: (status, X-Error-Code) for every request; its body repeats the token it was sent.
        refuse_files: the same, for files alone.
        info_as, files_as: the commit named in the answers, where it is another one.
    """

    def __init__(self) -> None:
        self.repos: dict[tuple[str, str], dict[str, bytes]] = {}
        self.log: list[tuple[str, str, str]] = []
        self.tokens: list[str] = []
        self.cuts: dict[str, list[int]] = {}
        self.wrong: dict[str, bytes] = {}
        self.refuse: tuple[int, str] | None = None
        self.refuse_files: tuple[int, str] | None = None
        self.info_as = self.files_as = ""
        self.url = ""

    def fetched(self) -> list[str]:
        """The paths whose content was asked for, in order."""
        return [path for method, path, _ in self.log if method == "GET"]


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """Serve `hub` on a free port while the block runs; `hub.url` is its address."""
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def point_client(hub: Hub, folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Set the client's constants as its environment would: this hub, a cache in `folder`."""
    constants = huggingface_hub.constants
    files_at = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    patch.setattr(constants, "ENDPOINT", hub.url)
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", files_at)
    patch.setattr(constants, "HF_HUB_CACHE", str(folder / "hub"))
    patch.setattr(constants, "HF_TOKEN_PATH", str(folder / "token"))
    patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    patch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    patch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", CHUNK)
    patch.setenv("NO_PROXY", "*")
    patch.setenv("HF_TOKEN", SECRET)
    patch.setattr("socket.getaddrinfo", _loopback_only)
    patch.setattr("time.sleep", lambda _: None)  # the client waits between its attempts


_resolve = socket.getaddrinfo


def _loopback_only(host: str, *rest: Any, **more: Any) -> Any:
    assert host == "127.0.0.1", f"a test asked for {host}"
    return _resolve(host, *rest, **more)


def git_id(content: bytes) -> str:
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        """Keep the tests' output to the tests."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        self.hub.tokens.append(self.headers.get("Authorization", ""))
        if self.hub.refuse:
            self._error(*self.hub.refuse)
        elif found := API.match(self.path):
            self._api(**found.groupdict())
        elif found := FILE.fullmatch(self.path):
            self._file(**found.groupdict())
        else:
            self._error(404, "")

    def _error(self, status: int, code: str) -> None:
        body = json.dumps({"error": f"no entry for {self.headers.get('Authorization')}"}).encode()
        self._send(status, {"X-Error-Code": code}, body)

    def _files(self, repo: str, revision: str) -> dict[str, bytes] | None:
        files = self.hub.repos.get((repo, revision))
        if files is None:
            known = any(name == repo for name, _ in self.hub.repos)
            self._error(404, "RevisionNotFound" if known else "RepoNotFound")
        return files

    def _api(self, repo: str, what: str, revision: str) -> None:
        files = self._files(repo, revision)
        if files is None:
            return
        if what == "tree":
            answer = [_tree_entry(name, content) for name, content in files.items()]
        else:
            siblings = [_sibling(name, content) for name, content in files.items()]
            answer = {
                "id": repo.removeprefix(DATASET),
                "sha": self.hub.info_as or revision,
                "siblings": siblings,
            }
        self._send(200, {"Content-Type": "application/json"}, json.dumps(answer).encode())

    def _file(self, repo: str, revision: str, name: str) -> None:
        name, span = urllib.parse.unquote(name), self.headers.get("Range", "")
        self.hub.log.append((self.command, name, span))
        if self.hub.refuse_files:
            self._error(*self.hub.refuse_files)
            return
        files = self._files(repo, revision)
        if files is None:
            return
        if name not in files:
            self._error(404, "EntryNotFound")
            return
        content = files[name]
        headers = {
            "ETag": f'"{git_id(content)}"',
            "X-Repo-Commit": self.hub.files_as or revision,
            "Accept-Ranges": "bytes",
        }
        if name.endswith(LFS):
            linked = {"X-Linked-Etag": f'"{sha256(content)}"', "X-Linked-Size": str(len(content))}
            headers |= linked
        content = self.hub.wrong.get(name, content)
        first = int(span.removeprefix("bytes=").rstrip("-")) if span else 0
        if span:
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        cuts = self.hub.cuts.get(name, []) if self.command == "GET" else []
        self._send(206 if span else 200, headers, content[first:], cuts.pop(0) if cuts else None)

    def _send(
        self, status: int, headers: dict[str, str], body: bytes, cut: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[:cut])
        if cut is not None:
            self.close_connection = True


def _sibling(name: str, content: bytes) -> dict[str, object]:
    entry: dict[str, object] = {"rfilename": name, "size": len(content), "blobId": git_id(content)}
    if name.endswith(LFS):
        entry["lfs"] = {"sha256": sha256(content), "size": len(content), "pointerSize": 130}
    return entry


def _tree_entry(name: str, content: bytes) -> dict[str, object]:
    entry: dict[str, object] = {
        "type": "file", "path": name, "size": len(content), "oid": git_id(content)
    }  # fmt: skip
    if name.endswith(LFS):
        entry["lfs"] = {"oid": sha256(content), "size": len(content), "pointerSize": 130}
    return entry
