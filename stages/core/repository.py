"""A git repository in; its commit, its files as they are now, and commits of them, out."""

import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from stages.core import secrecy
from stages.core.errors import TunesmithError

# How git has a path: whole, not at all, or as a mark of what lies elsewhere.
HERE, UNKNOWN, SUBMODULE, LFS = "", "unknown", "a submodule", "Git LFS"
LINK = "160000"  # the mode of a submodule in git's index


def git(folder: Path, *words: str, env: Mapping[str, str] | None = None) -> str:
    """What git answers.

    Raises:
        TunesmithError: it refuses, with its own words; there is no git.
    """
    if shutil.which("git") is None:
        raise TunesmithError("There is no `git` here.", do="Install git, which carries the files.")
    done = subprocess.run(
        ["git", *words], cwd=folder, env={**os.environ, **(env or {})}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        said = secrecy.redact((done.stderr or done.stdout).strip())  # an address may hold a token
        raise TunesmithError(
            f"git {words[0]} has failed: {said[-300:]}",
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
        if not failure.what.startswith("git "):  # there is none
            raise
        raise TunesmithError(
            "This is no git repository with a commit.",
            where=str(folder.absolute()),
            why="A build in another folder or on another machine begins from a commit.",
            do="git init; git add -A; git commit -m 'Begin'",
        ) from failure


def tree(folder: Path, also: Sequence[str] = ()) -> str:
    """The id of git's tree of all tracked files as they are now, committed or not.

    Args:
        also: files of the folder that are taken in though git does not track them yet.

    Raises:
        TunesmithError: a merge is under way, whose marks would be taken for content.
    """
    index = Path(git(folder, "rev-parse", "--path-format=absolute", "--git-path", "index"))
    top = Path(git(folder, "rev-parse", "--show-toplevel"))
    if unmerged := git(top, "ls-files", "--unmerged"):
        raise TunesmithError(
            f"{unmerged.splitlines()[0].partition(chr(9))[2]} is not merged yet.",
            where=str(top),
            why="The marks of a conflict would be taken for what the file says.",
            do="Settle the conflict and commit, or: git merge --abort",
        )
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


def edited(folder: Path) -> list[str]:
    """Tracked files that differ from the commit, as seen from the folder, those above it too."""
    top = Path(git(folder, "rev-parse", "--show-toplevel"))
    names = git(top, "diff", "--name-only", "-z", "HEAD").split("\0")
    here = folder.resolve()
    return [os.path.relpath(top.resolve() / name, here) for name in names if name]


def carried(folder: Path, paths: Iterable[str]) -> dict[str, str]:
    """How git has each path: one of HERE, UNKNOWN, SUBMODULE, LFS."""
    rows = [row for row in git(folder, "ls-files", "-z", "--stage").split("\0") if row]
    modes = {name: facts.partition(" ")[0] for facts, _, name in (r.partition("\t") for r in rows)}
    links = [name for name, mode in modes.items() if mode == LINK]
    wanted = list(paths)
    asked = [f":(top,attr:filter=lfs){git(folder, 'rev-parse', '--show-prefix')}{one}"
             for one in wanted]  # fmt: skip
    large = git(folder, "ls-files", "-z", "--", *asked).split("\0") if asked else []
    return {one: _kept(one, modes, links, large) for one in wanted}


def _kept(path: str, modes: Iterable[str], links: Iterable[str], large: Iterable[str]) -> str:
    if any(_within(path, link) or _within(link, path) for link in links):
        return SUBMODULE
    if any(name and _within(name, path) for name in large):
        return LFS
    return HERE if any(_within(name, path) for name in modes) else UNKNOWN


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder.rstrip('/')}/")


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
