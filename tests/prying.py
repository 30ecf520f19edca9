"""A maker that tries what a container must not let a stage do, and writes down how it went.

Copied into stages/makers/ of a small project by tests/test_containers.py.
"""

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, ConfigDict


class Options(BaseModel):
    """Paths and a port of the host that are tried."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cached: str
    home: str
    port: int
    seed: int


def make(options: Options, out: Path) -> None:
    """Try everything and write findings.json: `None` where it worked, else what was said."""
    out.mkdir(parents=True, exist_ok=True)
    cached, home = Path(options.cached), Path(options.home)
    tries: dict[str, Callable[[], object]] = {
        "write the cache": lambda: cached.open("r+b").write(b"x"),
        "make it writable": lambda: cached.chmod(0o666),
        "add to the cache": lambda: (cached.parent / "more").write_bytes(b"x"),
        "read the home directory": lambda: (home / "key").read_bytes(),
        "write outside": lambda: Path("/opt/more").write_bytes(b"x"),
        "reach the host": lambda: socket.create_connection(("127.0.0.1", options.port), 5),
        "look up a name": lambda: socket.getaddrinfo("localhost.localdomain.example", 80),
        "read local.env": lambda: _something(Path("local.env")),
        "read DVC's tokens": lambda: _something(Path(".dvc/config.local")),
        "read git's tokens": lambda: _something(Path(".git/config")),
        "leave a hook for git": lambda: Path(".git/hooks/post-commit").write_bytes(b"x"),
        "change DVC's settings": lambda: Path(".dvc/config").write_bytes(b""),
        "change the code": lambda: Path("stages/train.py").write_bytes(b""),
        "change the parameters": lambda: Path("params.yaml").write_bytes(b""),
        "read the workspace": lambda: _something(Path("params.yaml")),
        "write /tmp": lambda: Path("/tmp/note").write_bytes(b"x"),
    }
    found = {name: _tried(attempt) for name, attempt in tries.items()}
    found |= {"user": os.getuid(), "environment": dict(os.environ)}
    (out / "findings.json").write_text(json.dumps(found), encoding="utf-8")


def _something(path: Path) -> None:
    if not path.read_bytes():
        raise OSError("there is nothing in it")


def _tried(attempt: Callable[[], object]) -> str | None:
    try:
        attempt()
    except OSError as refused:
        return f"{type(refused).__name__}: {refused}"
    return None
