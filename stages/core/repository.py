"""A git repository in; its commit, its files as they are now, and commits of them, out."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from stages.core.errors import TunesmithError


def git(folder: Path, *words: str, env: Mapping[str, str] | None = None) -> str:
    """What git answers.

    Raises:
        TunesmithError: it refuses, with its own words.
    """
    done = subprocess.run(
        ["git", *words], cwd=folder, env={**os.environ, **(env or {})}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise TunesmithError(
            f"git {words[0]} has failed: {(done.stderr or done.stdout).strip()[-300:]}",
            where=str(folder),
            why="What is built in another folder or elsewhere is a commit or a worktree of git.",
            do="Mend that, then type the same command again: what is finished is kept.",
        )
    return done.stdout.strip()


def head(folder: Path) -> tuple[str, str]:
    """The commit that is checked out, and the project's folder inside the repository.

    Raises:
        TunesmithError: no git repository, or one without a commit.
    """
    try:
        return git(folder, "rev-parse", "HEAD"), git(folder, "rev-parse", "--show-prefix")
    except TunesmithError as failure:
        raise TunesmithError(
            "This is no git repository with a commit.",
            where=str(folder),
            why="A build in another folder or on another machine begins from a commit.",
            do="git init; git add -A; git commit -m 'Begin'",
        ) from failure


def tree(folder: Path, also: Sequence[str] = ()) -> str:
    """The id of git's tree of all tracked files as they are now, committed or not.

    Args:
        also: files of the folder that are taken in though git does not track them yet.
    """
    index = Path(git(folder, "rev-parse", "--path-format=absolute", "--git-path", "index"))
    top = Path(git(folder, "rev-parse", "--show-toplevel"))
    with TemporaryDirectory() as own:
        env = {"GIT_INDEX_FILE": str(Path(own) / "index")}
        if index.is_file():
            # With its time: by it git tells which files it must read to know whether they changed.
            shutil.copy2(index, env["GIT_INDEX_FILE"])
        git(top, "add", "--update", env=env)
        if new := [name for name in also if (folder / name).is_file()]:
            git(folder, "add", "--", *new, env=env)
        return git(top, "write-tree", env=env)


def commit(folder: Path, tree_id: str, parent: str, message: str) -> str:
    """A commit of a tree, by the user or, where git does not know one, by nobody in particular."""
    who = ["-c", "user.name=tunesmith", "-c", "user.email=tunesmith@localhost"]
    asked = ["git", "var", "GIT_COMMITTER_IDENT"]
    known = subprocess.run(asked, cwd=folder, capture_output=True, check=False).returncode == 0
    words = ("commit-tree", tree_id, "-p", parent, "-m", message)
    return git(folder, *([] if known else who), *words)


def left_out(folder: Path, deps: list[str]) -> list[str]:
    """Untracked files inside folders that stages read and git tracks in part."""
    folders = [dep for dep in deps if (folder / dep).is_dir()]
    if not folders:
        return []
    listed = git(folder, "ls-files", "--others", "--exclude-standard", "--", *folders)
    tracked = git(folder, "ls-files", "--", *folders).splitlines()
    return [
        name
        for name in listed.splitlines()
        if any(name.startswith(f"{f}/") and any(t.startswith(f"{f}/") for t in tracked)
               for f in folders)
    ]  # fmt: skip
