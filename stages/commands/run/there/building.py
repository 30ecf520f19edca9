"""Stages in, run by DVC in a process of their own that ends with this one; its exit code out."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Protocol

from stages.core import running

STAGE = re.compile(r"Running stage '([^']+)'")
ENDED = 130  # exit code of what was told to end
HELD = "TUNESMITH_HELD"  # set by what begins a job (stages/core/beginning.py)
GRACE = 20.0  # seconds for a training to end by itself


class Told(Protocol):
    """Who hears what a process says, and knows when it is to end: a job's post, mostly."""

    ended: threading.Event

    def say(self, line: str) -> None:
        """A line of its log."""

    def runs(self, stage: str) -> None:
        """A stage has begun."""


def repro(targets: Sequence[str], env: Mapping[str, str], post: Told) -> int:
    """`dvc repro` of these targets, with what lacks taken from the remote."""
    words = ["repro", "--pull", "--allow-missing", *targets]
    program = "import json, sys; from stages.commands.run.there import building; "
    program += "sys.exit(building.dvc(json.loads(sys.argv[1])))"
    return run([sys.executable, "-c", program, json.dumps(words)], env, post)


def dvc(words: list[str]) -> int:
    """DVC in this process, which ends when its standard input does."""
    from dvc.cli import main

    running.end_with_input()
    return int(main(words))


def run(words: Sequence[str], env: Mapping[str, str], post: Told) -> int:
    """A process with all that it starts, its lines said; ended when the job is told to end."""
    if post.ended.is_set():
        return ENDED
    with subprocess.Popen(
        words, env={**os.environ, **env}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True,
        pass_fds=held(),
    ) as child:  # fmt: skip
        gone = threading.Event()
        watch = threading.Thread(target=_end, args=(child, post, gone))
        watch.start()
        try:
            assert child.stdout is not None
            for line in child.stdout:
                if found := STAGE.search(line):
                    post.runs(found[1])
                post.say(line.rstrip("\n"))
            child.wait()
        finally:
            gone.set()
            watch.join()
    return ENDED if post.ended.is_set() and child.returncode else child.returncode


def held() -> list[int]:
    """The job's lock, which what runs for it holds, too: free means that nothing of it runs."""
    return [int(os.environ[HELD])] if HELD in os.environ else []


def _end(child: "subprocess.Popen[str]", post: Told, gone: threading.Event) -> None:
    """End a process once the job is told to end: gently, and then at once."""
    while not gone.wait(0.2):
        if not post.ended.is_set():
            continue
        for how in (signal.SIGINT, signal.SIGKILL):
            try:
                os.killpg(child.pid, how)
            except ProcessLookupError:
                return
            if gone.wait(GRACE):
                return
        return
