"""The project's git repository in; workspaces of points, made and removed, and experiments out.

A workspace is a worktree of the project's own repository: it has its configuration, and what is
committed in it is at once in the project.
"""

import shutil
import threading
from collections.abc import Sequence
from pathlib import Path

import psutil

from stages.core.errors import TunesmithError
from stages.core.repository import commit, git

TURN = threading.Lock()  # points begin and end in threads, and git has locks of its own
GRACE = 5  # seconds for a killed process to be gone


def make(main: Path, workspace: Path, baseline: str, snapshot: str) -> None:
    """A new worktree with the files of a snapshot, on top of the baseline as uncommitted changes.

    What an interrupted try has left there is ended and removed first.
    """
    end_all(workspace)
    remove(main, workspace)
    workspace.parent.mkdir(parents=True, exist_ok=True)
    with TURN:
        git(main, "worktree", "add", "--detach", "--no-checkout", str(workspace), baseline)
        git(workspace, "read-tree", "--reset", "-u", snapshot)


def remove(main: Path, workspace: Path) -> None:
    """Remove a worktree, half-made ones too; no other is touched."""
    common = Path(git(main, "rev-parse", "--path-format=absolute", "--git-common-dir"))
    with TURN:
        if workspace.exists():
            shutil.rmtree(workspace)
        for known in common.glob("worktrees/*/gitdir"):
            if known.read_text(encoding="utf-8").strip() == str(workspace / ".git"):
                shutil.rmtree(known.parent)


def end_all(workspace: Path) -> None:
    """End the processes that still work in a workspace, of a sweep that was killed."""
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(workspace):
                process.kill()
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    psutil.wait_procs(found, timeout=GRACE)


def experiment(workspace: Path, baseline: str, name: str, message: str) -> str:
    """The workspace's tracked files as a DVC experiment of the baseline; its commit.

    It is in the project at once: `refs/exps/<baseline>/<name>` is how DVC keeps experiments.
    """
    with TURN:
        git(workspace, "add", "--update")
        if (workspace / "dvc.lock").is_file():  # a new one, in a project that was never built
            git(workspace, "add", "dvc.lock")
        made = commit(workspace, git(workspace, "write-tree"), baseline, message)
        git(workspace, "update-ref", reference(baseline, name), made)
    return made


def reference(baseline: str, name: str) -> str:
    """Where DVC looks for an experiment."""
    return f"refs/exps/{baseline[:2]}/{baseline[2:]}/{name}"


def git_remote(main: Path) -> str:
    """The git remote that `dvc exp push` would be told: DVC's exp.git_remote, else origin.

    Empty where there is none.
    """
    from dvc.config import Config

    stated = Config(str(main / ".dvc"))["exp"].get("git_remote")
    known = git(main, "remote").splitlines()
    return str(stated) if stated else "origin" if "origin" in known else ""


def push(folder: Path, remote: str, references: Sequence[str]) -> str:
    """Send experiments to a git remote; what git says where it does not take them."""
    try:
        with TURN:
            git(folder, "push", "--quiet", remote, *(f"{one}:{one}" for one in references))
    except TunesmithError as refused:
        return refused.what
    return ""
