"""Machines that are reached by SSH: a commit pushed into a repository there, jobs begun by Python.

It is OpenSSH's own client that connects, so what stands in ~/.ssh/config holds here, too.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import Field, model_validator

from stages.core import beginning
from stages.core.errors import TunesmithError
from stages.core.jobs import ENDED, NONE, RUNNING, UNKNOWN, Common, Job

BRINGS_DOWN = False  # the machines are yours, and stay
LOST = 255  # ssh's own exit code where there is no connection
OPTIONS = (  # ssh takes the first that it is given: the user's own come before these
    *("-o", "BatchMode=yes", "-o", "ConnectTimeout=15"),
    *("-o", "ServerAliveInterval=10", "-o", "ServerAliveCountMax=3"),
)
MASTER = re.compile(r"\S+:([0-9]{1,5})")
LOOK = (
    "import json, os, shutil, socket, subprocess, sys\n"
    "have = {'python': list(sys.version_info[:2]), 'git': bool(shutil.which('git'))}\n"
    "python = os.path.expanduser(os.path.expandvars(sys.argv[1]))\n"
    "words = [python, '-c', 'import dvc, typer, pydantic, psutil']\n"
    "try:\n"
    "    done = subprocess.run(words, capture_output=True, text=True)\n"
    "    have['said'] = done.stderr.strip().splitlines()[-1:]\n"
    "except OSError as failure:\n"
    "    have['said'] = [str(failure)]\n"
    "try:\n"
    "    socket.create_server(('', int(sys.argv[2]))).close()\n"
    "except OSError as failure:\n"
    "    have['port'] = str(failure)\n"
    "print(json.dumps(have))\n"
)


class Options(Common):
    """Machines that SSH reaches.

    Attributes:
        host: as `ssh` takes it: a name of ~/.ssh/config, or user@host.
        others: further machines that train together with it, of the same user and folders.
        master: host:port of the first machine, as the others reach it; with `others`.
        ssh_options: more words for `ssh`, such as -p 2222.
    """

    host: str = Field(pattern=r"^[^\s-]\S*$")
    others: list[str] = Field(default_factory=list)
    master: str = ""
    ssh_options: list[str] = Field(default_factory=list)

    @model_validator(mode="before")
    @classmethod
    def _counted(cls, values: Any) -> Any:
        """`others` says how many nodes there are."""
        if not isinstance(values, dict) or not isinstance(values.get("others", []), list):
            return values
        count = 1 + len(values.get("others", []))
        nodes = values.get("nodes", count)
        if isinstance(nodes, int) and nodes != count:
            raise ValueError(f"nodes is 1 and the number of others: {count}")
        found = MASTER.fullmatch(str(values.get("master", "")))
        if count > 1 and not (found and 0 < int(found[1]) < 1 << 16):
            raise ValueError("master is missing: host:port of the first, as the others reach it")
        hosts = [values.get("host"), *values.get("others", [])]
        if twice := next((host for host in hosts if hosts.count(host) > 1), None):
            raise ValueError(f"{twice} is named twice, and would train with itself")
        return {"nodes": count} | values

    @property
    def hosts(self) -> list[str]:
        return [self.host, *self.others]


def describe(options: Options) -> str:
    """The machines, in words."""
    return f"ssh {', '.join(options.hosts)}"


def require(job: Job, options: Options) -> None:
    """Refuse machines that do not answer or lack what a job needs.

    Raises:
        TunesmithError: with what is missing where.
    """
    if shutil.which("ssh") is None:
        raise TunesmithError("There is no `ssh` here.", do="Install OpenSSH's client.")
    python = "" if options.setup else shlex.quote(options.python)
    for node, host in enumerate(options.hosts):
        port = "0" if node or not options.others else options.master.rpartition(":")[2]
        done = _ssh(options, host, f"python3 - {python or 'python3'} {port}", LOOK)
        if done.returncode:
            raise _refusal(options, host, done)
        *greeting, found = done.stdout.splitlines()
        if greeting:
            raise _greets(host, greeting[0])
        have = json.loads(found)
        if have["python"] < [3, 9] or not have["git"]:
            lacks = "git" if not have["git"] else "a Python of 3.9 or newer"
            raise TunesmithError(f"{host} lacks {lacks}.", where=f"{job.place}.host")
        if "port" in have:
            raise TunesmithError(
                f"Port {port} is taken on {host}: {have['port']}",
                where=f"places.yaml: {job.place}.master",
                why="The machines of a training meet there; another one may be under way.",
                do="Write another free port, or wait until that has ended.",
            )
        if python and have["said"]:
            raise TunesmithError(
                f"{options.python} of {host} does not run Tunesmith: {have['said'][0]}",
                where=f"{job.place}.python",
                why="DVC and the light install run there; the stages run in its image or natively.",
                do="On it: pip install the project there (make setup), and write python: "
                "PATH/.venv/bin/python; or write `setup`, which does it for every job",
            )


def source(job: Job, options: Options) -> str:
    """Nothing: the commit is pushed."""
    del job, options
    return ""


def start(job: Job, options: Options, script: str) -> None:
    """Push the commit to each machine and begin the job there, the first machine last.

    Raises:
        TunesmithError: a machine refused or did not answer.
    """
    for node, host in reversed(list(enumerate(options.hosts))):
        _push(job, options, host)
        words = {"TUNESMITH_NODE": str(node), "TUNESMITH_DETACH": "1"}
        if options.master:
            words["TUNESMITH_MASTER"] = options.master
        done = _ssh(options, host, f"env {_assigned(words)} python3 -", script)
        if done.returncode == beginning.OTHER:
            raise TunesmithError(
                f"{host}: {done.stdout.strip()}.",
                where=f"places.yaml: {job.place}",
                why="Two of them at once would do the same work twice.",
                do="The same command again follows it.",
            )
        if done.returncode not in (0, beginning.BUSY):
            raise _refusal(options, host, done)


def state(job: Job, options: Options) -> str:
    """What the first machine says; where it has ended, the others count as long as they run."""
    found = [word for _, word in _asked(job, options, "state")]
    if UNKNOWN in found[:1]:
        return UNKNOWN
    return RUNNING if RUNNING in found else UNKNOWN if UNKNOWN in found else found[0]


def said(job: Job, options: Options) -> str:
    """What was said beside the job's log, machine by machine."""
    rows = list(_asked(job, options, "said"))
    alone = len(rows) == 1
    return "\n".join(text if alone else f"{host}:\n{text}" for host, text in rows if text)


def stop(job: Job, options: Options) -> None:
    """End the job on every machine.

    Raises:
        TunesmithError: a machine does not answer.
    """
    lost = [host for host, word in _asked(job, options, "stop") if word == UNKNOWN]
    if lost:
        raise TunesmithError(
            f"{', '.join(lost)} does not answer, so nobody knows whether {job.id} has ended there.",
            where=f"places.yaml: {job.place}",
            why="It may still be at work.",
            do=f"tunesmith run --stop {job.id}    once it answers; where that will never be: "
            f"tunesmith run --forget {job.id} --yes",
        )


def _asked(job: Job, options: Options, act: str) -> Iterator[tuple[str, str]]:
    """Each machine with what it answers; `unknown` where it does not."""
    program = beginning.text(job.facts(), act)
    for node, host in enumerate(options.hosts):
        done = _ssh(options, host, f"env TUNESMITH_NODE={node} python3 -", program)
        answer = done.stdout.strip()
        if act == "state":  # a shell there may greet before it
            answer = answer.rpartition("\n")[2]
        known = answer in (RUNNING, ENDED, NONE) or act != "state"
        yield host, answer if done.returncode == 0 and known else UNKNOWN


def _push(job: Job, options: Options, host: str) -> None:
    """Put the commit into the project's repository there."""
    folder = _path(f"{options.folder.rstrip('/')}/{job.project}/repo")
    words = f"git init --quiet {folder} && git -C {folder} rev-parse --absolute-git-dir"
    made = _ssh(options, host, words, "")
    if made.returncode:
        raise _refusal(options, host, made)
    ssh = shlex.join(["ssh", *options.ssh_options, *OPTIONS])
    target = f"{host}:{made.stdout.strip()}"
    # The user's own hooks are about branches, and not about this reference.
    push = ["git", "push", "--quiet", "--force", "--no-verify", target]
    push += [f"{job.snapshot}:{job.reference}"]
    env = {**os.environ, "GIT_SSH_COMMAND": ssh}
    done = subprocess.run(push, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise _refusal(options, host, done)


def _path(folder: str) -> str:
    """A path for the shell there, which knows its home and its variables."""
    head, rest = ("~/", folder[2:]) if folder.startswith("~/") else ("", folder)
    escaped = re.sub(r'["\\`]|\$(?![A-Za-z_{])', r"\\\g<0>", rest)
    return f'{head}"{escaped}"'


def _assigned(words: Mapping[str, str]) -> str:
    return " ".join(f"{name}={shlex.quote(value)}" for name, value in words.items())


def _ssh(
    options: Options, host: str, command: str, program: str
) -> "subprocess.CompletedProcess[str]":
    """Run a command there, with a text as its input."""
    words = ["ssh", *options.ssh_options, *OPTIONS, host, command]
    return subprocess.run(words, input=program, capture_output=True, text=True, check=False)


def _refusal(
    options: Options, host: str, done: "subprocess.CompletedProcess[str]"
) -> TunesmithError:
    text = (done.stderr or done.stdout).strip().splitlines()
    if done.returncode == LOST:
        return TunesmithError(
            f"{host} cannot be reached: {text[-1] if text else 'ssh ended without a word'}",
            where=f"places.yaml, host {host}",
            why="What runs there already goes on; nothing else was begun.",
            do=f"Try: {shlex.join(['ssh', *options.ssh_options, host, 'true'])}    which also asks "
            "about a host key that is new; then the same command again",
        )
    return TunesmithError(
        f"{host} has failed: {text[-1] if text else f'exit code {done.returncode}'}",
        where=f"places.yaml, host {host}",
        why="Nothing was started there by this try.",
        do="Mend that there, then type the same command again.",
    )


def _greets(host: str, line: str) -> TunesmithError:
    return TunesmithError(
        f"{host} prints something before each command: {line.strip()!r}",
        where=f"{host}: ~/.bashrc, or what its shell reads besides",
        why="Git takes it for its own answer, and no commit can be sent there.",
        do="Write at its beginning: case $- in *i*) ;; *) return;; esac",
    )
