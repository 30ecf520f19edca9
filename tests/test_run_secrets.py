"""Secrets: planted wherever a machine keeps them, found nowhere that a job reaches.

A job runs for real, on "another machine" that a stand-in for `ssh` enters: a home and an
environment of its own. Its remote is S3. Every command line of every process is written down.
"""

import base64
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from stages.core import jobs
from stages.places import notebook, sky
from tests import machines, remote_servers, small_project

pytestmark = pytest.mark.remotes

# Each of no form that gives it away, but for HF_TOKEN's.
MINE, HUB, LOCAL = "plain-words-of-mine-4711", "hf_QwErTyUiOpAsDfGhJk", "hf_MnBvCxZlKjHgFdSaPo"
S3, PHRASE, ADDRESS = "s3-words-that-nobody-guesses", "open-sesame-9-times", "address-words-0815"
VALUES = {
    "the variable named in `secrets`": MINE,
    "HF_TOKEN of the environment": HUB,
    "HF_TOKEN of local.env": LOCAL,
    "the key of S3": S3,
    "the passphrase of a keyfile": PHRASE,
    "the token in git's address": ADDRESS,
}
# Python imports it before all else; it writes down each command line that Python begins.
AUDIT = """
import json, os, sys
def heard(event, args):
    if event == "subprocess.Popen" or event.startswith(("os.exec", "os.posix_spawn")):
        with open(os.environ["ARGV"], "a") as log:
            log.write(json.dumps([str(args[0]), str(args[1])]) + "\\n")
sys.addaudithook(heard)
"""
# `ssh [options] host command`, on a machine with nothing of our environment.
SSH = """#!{python} -S
import json, os, sys
words = sys.argv[1:]
with open({argv!r}, "a") as log:
    log.write(json.dumps(words) + "\\n")
while words[0].startswith("-"):
    words = words[2:]
env = {{"HOME": {home!r}, "PATH": {path!r}, "ARGV": {argv!r}, "PYTHONPATH": {site!r}}}
os.chdir({home!r})
os.execve("/bin/sh", ["sh", "-c", words[1]], env)
"""
PRINTS = """
import base64, os
for name in ("MY_WORDS", "AWS_SECRET_ACCESS_KEY"):
    print("it is", os.environ[name])
print("packed", base64.b64encode(os.environ["AWS_SECRET_ACCESS_KEY"].encode()).decode())
open("out.txt", "w").write("made")
"""


@dataclass(frozen=True)
class Ran:
    """A job that has run there and was not taken yet."""

    project: Path
    home: Path
    argv: Path
    env: dict[str, str]
    server: remote_servers.S3

    def tunesmith(self, *words: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "stages", *words], cwd=self.project, env=self.env,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        said = done.stdout + done.stderr
        assert done.returncode == code, said
        return said

    def record(self) -> dict[str, Any]:
        path = next((self.project / ".tunesmith/jobs").glob("*.json"))
        found: dict[str, Any] = json.loads(path.read_text())
        return found

    def objects(self) -> dict[str, bytes]:
        """Everything in the bucket."""
        import boto3

        client = boto3.client(
            "s3", endpoint_url=self.server.endpoint, region_name="us-east-1",
            aws_access_key_id=self.server.key_id, aws_secret_access_key="any",
        )  # fmt: skip
        rows = client.list_objects_v2(Bucket=self.server.bucket).get("Contents", [])
        return {
            row["Key"]: client.get_object(Bucket=self.server.bucket, Key=row["Key"])["Body"].read()
            for row in rows
        }


def write(folder: Path, server: remote_servers.S3) -> None:
    """A project of one stage, which prints what it must not."""
    folder.mkdir()
    stage = {"cmd": "python print.py", "deps": ["print.py"], "outs": ["out.txt"]}
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"loud": stage}}))
    (folder / "params.yaml").write_text("{}\n")
    (folder / "print.py").write_text(PRINTS)
    (folder / ".gitignore").write_text("/places.yaml\n/local.env\n/.tunesmith\n/out.txt\n")
    for words in (["git", "init", "-q"], ["dvc", "init", "-q"]):
        subprocess.run(words, cwd=folder, env=small_project.environment(), check=True)
    shared = f'[core]\n    remote = store\n[remote "store"]\n    url = {server.url}\n'
    (folder / ".dvc/config").write_text(f"{shared}    endpointurl = {server.endpoint}\n")
    own = f"    access_key_id = {server.key_id}\n    secret_access_key = {S3}\n"
    other = f'[remote "other"]\n    url = ssh://h/p\n    passphrase = {PHRASE}\n'
    (folder / ".dvc/config.local").write_text(f'[remote "store"]\n{own}{other}')
    (folder / "local.env").write_text(f"HF_TOKEN={LOCAL}\n")
    for words in (["add", "-A"], ["commit", "-q", "-m", "A project"]):
        small_project.git(folder, *words)
    address = f"https://me:{ADDRESS}@example.test/x.git"
    small_project.git(folder, "remote", "add", "origin", address)
    (folder / "params.yaml").write_text("edited: 1\n")  # so that there is a snapshot


def entry(home: Path) -> dict[str, Any]:
    names = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "MY_WORDS"]
    return {
        "kind": "ssh",
        "host": "box",
        "python": sys.executable,
        "secrets": names,
        "env_file": str(home / "secrets.env"),
    }


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    folder = tmp_path_factory.mktemp("secrets")
    home, site, own, argv = (folder / name for name in ("home", "site", "bin", "argv.jsonl"))
    for made in (home, site, own):
        made.mkdir()
    (site / "sitecustomize.py").write_text(AUDIT)
    code = os.pathsep.join([str(site), str(small_project.ROOT)])
    path = f"{own}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    program = SSH.format(
        python=sys.executable, argv=str(argv), home=str(home), path=path, site=code
    )
    (own / "ssh").write_text(program)
    (own / "ssh").chmod(0o755)
    with remote_servers.s3() as server:
        write(folder / "project", server)
        there = {"AWS_ACCESS_KEY_ID": server.key_id, "AWS_SECRET_ACCESS_KEY": S3}
        there["MY_WORDS"] = MINE
        lines = "".join(f"{name}={value}\n" for name, value in there.items())
        (home / "secrets.env").write_text(lines)
        (folder / "project/places.yaml").write_text(yaml.safe_dump({"box": entry(home)}))
        env = small_project.environment(
            PATH=path, ARGV=str(argv), PYTHONPATH=code, HF_TOKEN=HUB,
            MY_WORDS=MINE,
        )  # fmt: skip
        found = Ran(folder / "project", home, argv, env, server)
        said = found.tunesmith("run", "loud", "--on", "box", "--yes", "--detach")
        (folder / "said.txt").write_text(said)
        machines.wait_for(
            lambda: any(b'"result"' in text for text in found.objects().values()),
            "the result of the job", seconds=120,
        )  # fmt: skip
        yield found


def shapes(value: str) -> list[bytes]:
    """A value as it is, and in base64."""
    return [value.encode(), base64.b64encode(value.encode()).rstrip(b"=")]


def leaks(content: bytes) -> list[str]:
    return [name for name, value in VALUES.items() if any(one in content for one in shapes(value))]


def below(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def blobs(repo: Path) -> bytes:
    """All of git's objects, and its references."""
    words = ["git", "cat-file", "--batch-all-objects", "--batch"]
    found = subprocess.run(words, cwd=repo, capture_output=True, check=True).stdout
    refs = subprocess.run(["git", "for-each-ref"], cwd=repo, capture_output=True, check=True)
    return found + refs.stdout


def test_what_a_stage_prints_of_a_secret_is_marked_in_every_letter(ran: Ran) -> None:
    letters = {name: text for name, text in ran.objects().items() if "tunesmith/jobs" in name}
    said = b"".join(letters.values())
    assert said.count(b"it is [redacted]") == 2
    assert b"packed [redacted]" in said
    assert b'"code":0' in said
    assert {name: leaks(text) for name, text in ran.objects().items() if leaks(text)} == {}


def test_no_value_is_in_what_the_job_is_told_or_what_is_kept_of_it(ran: Ran) -> None:
    job = jobs.read(ran.record()["job"])
    assert job.secrets == ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "MY_WORDS"]
    assert "secret_access_key" not in job.remote
    assert leaks(jobs.script(job).encode()) == []
    kept = below(ran.project / ".tunesmith")
    assert kept
    assert {name: leaks(text) for name, text in kept.items() if leaks(text)} == {}


def test_no_value_is_in_the_snapshot_here_or_there(ran: Ran) -> None:
    job = jobs.read(ran.record()["job"])
    assert job.snapshot != job.baseline
    there = ran.home / "tunesmith-jobs" / job.project / "repo"
    for repo in (ran.project, there):
        found = blobs(repo)
        assert job.snapshot.encode() in found
        assert leaks(found) == []


def test_no_value_is_in_any_file_there_but_the_one_that_keeps_them(ran: Ran) -> None:
    found = {Path(name).name for name, text in below(ran.home).items() if leaks(text)}
    assert found == {"secrets.env"}


def test_no_value_is_in_any_command_line_here_or_there(ran: Ran) -> None:
    text = ran.argv.read_bytes()
    for begun in (b"git-receive-pack", b"python3 -", b"repro", b"print.py"):
        assert begun in text  # of ssh, of the program there, of the worker, of the stage
    assert leaks(text) == []


def test_no_value_is_on_the_screen(ran: Ran) -> None:
    begun = (ran.project.parent / "said.txt").read_text()
    listed = ran.tunesmith("run", "--list", "--json")
    followed = ran.tunesmith("run", "--attach")
    assert "it is [redacted]" in followed
    assert "out.txt" in followed
    assert leaks((begun + listed + followed).encode()) == []


def test_no_value_is_in_a_notebook_or_a_task_of_the_same_job(
    ran: Ran, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_WORDS", MINE)
    job = jobs.read(ran.record()["job"])
    script = jobs.script(job)
    book = notebook.writing.notebook(job, "colab", script, True)
    task = sky.task(job, {"cpus": 2}, script)
    for made in (book, task):
        assert "MY_WORDS" in json.dumps(made)
        assert leaks(json.dumps(made).encode()) == []


def test_what_git_says_of_an_address_is_shown_without_its_token(ran: Ran, tmp_path: Path) -> None:
    program = (
        f"import sys; sys.stderr.write('fatal: https://me:{ADDRESS}@example.test'); sys.exit(1)"
    )
    git = shutil.which("git")
    own = tmp_path / "git"
    own.write_text(
        f'#!/bin/sh\ncase "$*" in *write-tree*) exec {sys.executable} -c "{program}";; esac\n'
        f'exec {git} "$@"\n'
    )
    own.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{ran.env['PATH']}"
    (ran.project / "params.yaml").write_text("edited: 2\n")
    words = [sys.executable, "-m", "stages", "run", "loud", "--on", "box", "--dry-run"]
    (ran.project / "print.py").write_text(PRINTS + "# other\n")
    done = subprocess.run(
        words, cwd=ran.project, env=ran.env | {"PATH": path}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert "git write-tree has failed: fatal: https://me:[redacted]@" in done.stderr
    assert leaks((done.stdout + done.stderr).encode()) == []
