"""A job in; the task that SkyPilot is given for it, out: a pure function, with no secret in it.

Keys of a task as of SkyPilot 0.14.1 (`sky/utils/schemas.py`). There is no `setup`: where that
fails SkyPilot leaves the machine running, and where `run` fails it ends it.
"""

import hashlib
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages.core.jobs import Job

PORT = 29500  # torchrun's own; where machines meet that train together
SLACK = 1800  # seconds beyond the job's hours, for the set-up and for ending in good order
RESOLVE = "import os, sys; print(os.path.expanduser(os.path.expandvars(sys.argv[1])))"


def name(job: Job) -> str:
    """The cluster of a job: letters, digits and dashes, the same for every attempt.

    Clouds that allow fewer letters get SkyPilot's own shortening of it.
    """
    plain = re.sub(r"[^a-z0-9]+", "-", job.id.lower()).strip("-")
    if plain == job.id and len(plain) <= 32:
        return f"ts-{plain}"
    return f"ts-{plain[:23].strip('-')}-{hashlib.sha256(job.id.encode()).hexdigest()[:8]}"


def folder(job: Job) -> Path:
    """Where the task and the commit are until the job is stopped; SkyPilot may read them later."""
    return Path(".tunesmith/sky") / name(job)


def bundle(job: Job) -> Path:
    """The commit in one file: of a folder SkyPilot leaves out what git ignores."""
    return folder(job) / "commit.bundle"


def task(job: Job, resources: Mapping[str, Any], script: str) -> dict[str, Any]:
    """What `sky launch` is given, for YAML."""
    commit = f".tunesmith/{name(job)}.bundle"
    made: dict[str, Any] = {
        "name": name(job),
        "resources": dict(resources),
        "num_nodes": job.nodes,
        "file_mounts": {f"~/{commit}": str(bundle(job))},
        "run": run(job, commit, script),
    }
    if job.secrets:  # names alone: `sky launch --secret NAME` reads the values
        made["secrets"] = dict.fromkeys(job.secrets)
    return made


def run(job: Job, commit: str, script: str) -> str:
    """What each machine runs, in bash: take the commit, say which machine it is, begin."""
    mark = f"END-{hashlib.sha256(script.encode()).hexdigest()[:16]}"
    reference = shlex.quote(f"+{job.reference}:{job.reference}")
    lines = [
        "set -e",
        f"home=$(python3 -c {shlex.quote(RESOLVE)} {shlex.quote(job.folder)})"
        f"/{shlex.quote(job.project)}",
        'mkdir -p "$home/repo"',
        # One at a time: machines may share their home.
        '( flock 9; git -C "$home/repo" init --quiet',
        f'git -C "$home/repo" fetch --quiet "$HOME/{commit}" {reference} ) 9>"$home/repo.lock"',
        'export TUNESMITH_NODE="${SKYPILOT_NODE_RANK:-0}"',
    ]
    if job.nodes > 1:
        first = '"$(echo "$SKYPILOT_NODE_IPS" | head -n 1)"'
        lines.append(f"export TUNESMITH_MASTER={first}:{PORT}")
    # The worker counts the hours; this holds where it does not come to that.
    limit = f"timeout --kill-after=120 {int(job.hours * 3600) + SLACK}"
    return "\n".join([*lines, f"{limit} python3 - <<'{mark}'", script.rstrip("\n"), mark, ""])
