"""What the launcher knows and a stage in its container cannot: handed in, and read here.

A stage in a container ends when its launcher does, killed or not: their pipe ends then.
"""

import json
import os
import sys
import threading
from typing import Any

VARIABLE = "TUNESMITH_INSIDE"
ENDED = 143  # what a shell says of a process that SIGTERM ended


def facts() -> dict[str, Any] | None:
    """engine, image (a digest), commit, and terminal: whether a bar can be drawn; None outside."""
    text = os.environ.get(VARIABLE)
    return json.loads(text) if text else None


def terminal() -> bool:
    """Whether progress is seen on a terminal, which a container's output reaches by a pipe."""
    known = facts()
    return sys.stderr.isatty() if known is None else bool(known["terminal"])


def watch() -> None:
    """End this process as soon as the launcher is gone; outside a container, do nothing."""
    if facts() is not None:
        threading.Thread(target=_wait, daemon=True).start()


def _wait() -> None:
    while os.read(sys.stdin.fileno(), 1 << 16):
        continue
    os._exit(ENDED)
