"""What is typed to machines behind `ssh`, with a program in its place that runs it here."""

from dataclasses import replace
from pathlib import Path

import pytest

from stages.commands.run import taking
from stages.core import beginning, repository
from stages.core.errors import TunesmithError
from stages.core.jobs import Job
from stages.places import ssh
from tests.test_run import git
from tests.test_run_post import job

# `ssh [-o OPTION]… host command`: its shell may greet.
SSH = """#!/bin/sh
while [ "$1" = -o ]; do shift 2; done
shift
export HOME="{there}" BOX="{there}/a box"
{greeting}
exec sh -c "$1"
"""
HOOK = "#!/bin/sh\necho no branch of mine >&2\nexit 1\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a commit and an edit, of a user with hooks and with signed commits."""
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "file").write_text("one\n")
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "A project")
    (folder / "file").write_text("two\n")
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    for name in ("pre-push", "pre-commit", "commit-msg"):
        (hooks / name).write_text(HOOK)
        (hooks / name).chmod(0o755)
    (tmp_path / "gitconfig").write_text(
        f"[core]\nhooksPath = {hooks}\n[commit]\ngpgSign = true\n[gpg]\nprogram = false\n"
        "[push]\ndefault = nothing\nfollowTags = true\n[receive]\ndenyDeletes = false\n"
    )
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.chdir(folder)
    answer(tmp_path, monkeypatch)
    return folder


def answer(folder: Path, monkeypatch: pytest.MonkeyPatch, greeting: str = "") -> Path:
    """Put the program on PATH; the home of the machine."""
    there, own = folder / "there", folder / "bin"
    for one in (there, own):
        one.mkdir(exist_ok=True)
    (own / "ssh").write_text(SSH.format(there=there, greeting=greeting))
    (own / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", str(own), prepend=":")
    return there


def of_edits(folder: Path) -> Job:
    baseline, _ = repository.head(folder)
    snapshot = repository.commit(folder, repository.tree(folder), baseline, "job")
    return replace(job(), baseline=baseline, snapshot=snapshot)


@pytest.mark.parametrize(
    "folder", ["~/jobs", "~/jobs/", "$BOX/jobs", "${BOX}/it's $5", "{there}/x"]
)
def test_the_commit_lies_where_the_job_looks_for_it_whatever_git_is_set_to(
    folder: str, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tmp_path / "there"
    wanted = replace(of_edits(here), folder=folder.replace("{there}", str(there)))
    options = ssh.Options(kind="ssh", host="me@box", folder=wanted.folder)
    ssh._push(wanted, options, "me@box")
    monkeypatch.setenv("HOME", str(there))
    monkeypatch.setenv("BOX", str(there / "a box"))
    repo = beginning.home(wanted.facts()) / "repo"
    assert repo.is_relative_to(there)
    assert git(repo, "show", f"{wanted.reference}:file") == "two"


def test_the_reference_of_a_job_is_removed_whatever_hooks_say(here: Path, tmp_path: Path) -> None:
    hub = tmp_path / "hub"
    git(tmp_path, "init", "-q", "--bare", str(hub))
    wanted = replace(of_edits(here), git=str(hub))
    for words in (("update-ref", wanted.reference, wanted.snapshot),
                  ("push", "-q", "--no-verify", str(hub), wanted.reference)):  # fmt: skip
        git(here, *words)
    taking.clean(taking.Record(wanted, {}))
    for folder in (here, hub):
        assert git(folder, "for-each-ref", "refs/tunesmith") == ""


def test_a_machine_that_greets_is_refused_with_what_it_says(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, options = of_edits(here), ssh.Options(kind="ssh", host="me@box", setup=["true"])
    ssh.require(wanted, options)
    answer(tmp_path, monkeypatch, "echo Welcome to the box; echo It is Sunday")
    with pytest.raises(TunesmithError) as failure:
        ssh.require(wanted, options)
    assert failure.value.what == "me@box prints something before each command: 'Welcome to the box'"
    # A job that was begun before is found all the same.
    assert ssh.state(wanted, options) == ssh.NONE
