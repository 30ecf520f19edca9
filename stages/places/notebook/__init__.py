"""A notebook for Colab, Kaggle or Jupyter: we write it, and a person runs it.

Nobody can ask such a service from here how a job goes: the job's mailbox tells, and ends it.
"""

import re
import subprocess
from pathlib import Path
from typing import Annotated, Literal

import orjson
from pydantic import Field, field_validator

from stages.core import files, secrecy
from stages.core.errors import TunesmithError
from stages.core.jobs import UNKNOWN, Job
from stages.core.preparing import Prepared
from stages.places.notebook import writing

BRINGS_DOWN = False  # whoever started the runtime ends it
BY_HAND = True  # a person begins the job: until then, its silence is no failure
NAMES = {"colab": "Google Colab", "kaggle": "Kaggle", "jupyter": "Jupyter"}
STEPS = {
    "colab": "https://colab.research.google.com: File > Upload notebook",
    "kaggle": "https://www.kaggle.com/code: New Notebook, File > Import Notebook",
    "jupyter": "open it in Jupyter",
}
ENDING = {
    "colab": "Runtime > Disconnect and delete runtime",
    "kaggle": "Stop Session, or Cancel the version that runs",
    "jupyter": "shut its kernel down",
}
# An address over HTTP(S), or of git's own protocol: a notebook has no key for SSH.
OPEN = re.compile(r"(?:https?|git)://\S+")
SSH = re.compile(r"(?:ssh://)?(?:[^@/\s]+@)(?P<host>[^:/\s]+)[:/](?P<path>[^\s]+)")


class Options(Prepared):
    """A notebook that a person runs.

    Attributes:
        service: where: it decides what the notebook says is to do, and what it asks for.
        path: the folder that it is written into, as `<job>.ipynb`.
        git: where the commit is fetched from; empty: the address of this repository's `origin`.
        end_runtime: whether it gives Colab's runtime back once the job has ended well.
    """

    service: Literal["colab", "kaggle", "jupyter"] = "colab"
    path: Annotated[str, Field(min_length=1)] = "exports"
    git: str = ""
    end_runtime: bool = False

    @field_validator("nodes")
    @classmethod
    def _alone(cls, nodes: int) -> int:
        if nodes != 1:
            raise ValueError("a notebook runs on one machine: 1")
        return nodes

    @field_validator("env_file")
    @classmethod
    def _kept_there(cls, file: str) -> str:
        if file:
            raise ValueError("a notebook takes its secrets from the service's own store")
        return file

    @field_validator("git")
    @classmethod
    def _without_secret(cls, address: str) -> str:
        if secrecy.found(address):
            raise ValueError("there is a secret in it; name GIT_TOKEN in `secrets` instead")
        return address


def describe(options: Options) -> str:
    """The service, and who begins it."""
    return f"a notebook for {NAMES[options.service]}, which you run"


def require(job: Job, options: Options) -> None:
    """Refuse addresses that a machine of the service cannot reach.

    Raises:
        TunesmithError: the remote is a folder of this machine, or `origin` cannot be fetched from.
    """
    source(job, options)
    url = job.remote.get("url", "")
    if options.service != "jupyter" and not options.remote_url and "://" not in url:
        raise TunesmithError(
            f"The remote {job.remote.get('name', '')} is a folder of this machine: {url}",
            where=f"places.yaml: {job.place}.remote",
            why=f"{NAMES[options.service]} cannot reach it: the job could neither take its inputs "
            "nor give what it makes.",
            do="Take one in S3 or over ssh (docs/remotes.md), or say its address there in "
            "remote_url.",
        )
    if options.end_runtime and options.service != "colab":
        raise TunesmithError(
            f"end_runtime is of Colab alone, and this is {NAMES[options.service]}.",
            where=f"places.yaml: {job.place}.end_runtime",
            do="Remove it.",
        )


def source(job: Job, options: Options) -> str:
    """The address that `git` says, else that of `origin`, which must need no key for SSH.

    Raises:
        TunesmithError: there is no `origin`, or a notebook cannot fetch from it.
    """
    if options.git:
        return options.git
    words = ["git", "remote", "get-url", "origin"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    address = done.stdout.strip()
    if done.returncode == 0 and OPEN.fullmatch(address) and not secrecy.found(address):
        return address
    known = SSH.fullmatch(address)
    example = f"https://{known['host']}/{known['path']}" if known else "https://HOST/PROJECT.git"
    raise TunesmithError(
        "The notebook cannot fetch the commit from `origin`." if address else "There is no origin.",
        where=f"places.yaml: {job.place}.git",
        why="It has no key for SSH and no folder of this machine; a token in an address would "
        "stand in the notebook.",
        do=f"Write git: {example}    (a private one: name GIT_TOKEN in `secrets`)",
    )


def start(job: Job, options: Options, script: str) -> None:
    """Write the notebook, and say what is to do with it.

    Raises:
        TunesmithError: there would be a secret in it.
    """
    text = orjson.dumps(
        writing.notebook(job, options.service, script, options.end_runtime),
        option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE,
    )
    if kinds := secrecy.found(text.decode()):
        raise TunesmithError(
            f"The notebook would have {kinds[0]} in it, and was not written.",
            where=f"places.yaml: {job.place}",
            why="Whoever gets the notebook would have it.",
            do="Keep its value there, and name it in `secrets`.",
        )
    path = Path(options.path).expanduser() / f"{job.id}.ipynb"
    with files.file(path) as half:
        half.write_bytes(text)
    print(f"The notebook: {path} ({len(text) / 1000:.0f} kB)")
    print(f"Now: {STEPS[options.service]}; {writing.STEPS[options.service]}.")
    for name in job.secrets:
        print(f"It needs the secret {name}.")


def state(job: Job, options: Options) -> str:
    """Unknown: only the job's mailbox tells. That the file was moved away says nothing."""
    del job, options
    return UNKNOWN


def said(job: Job, options: Options) -> str:
    """Nothing: it stands in the notebook that runs there."""
    del job, options
    return ""


def stop(job: Job, options: Options) -> None:
    """Say who ends the runtime; the job there ends by the note in its mailbox."""
    del job
    print(f"The job ends when it reads that. The runtime is yours to end, in "
          f"{NAMES[options.service]}: {ENDING[options.service]}.")  # fmt: skip
