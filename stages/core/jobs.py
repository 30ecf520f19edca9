"""A commit, targets and a place in; what runs there, and what a place is, out.

A job is stages that run elsewhere: the same commit, the inputs pulled, the same commands, the
outputs pushed. Its files meet in the DVC remote, which both sides reach: what it says, what it has
made and its checkpoints (`stages/commands/run/mailbox.py`).

A place is a kind of machine that is not this one: one module of `stages/places/` with

- `Options`, a `Common` with what this kind needs more: an entry of places.yaml;
- `describe(options)`: the machine in a few words, without a connection;
- `require(job, options)`: refuses what cannot work before anything is sent: a program, a package,
  a login that is missing, or a machine that does not answer. It starts nothing and costs nothing;
- `source(job, options)`: how the commit gets there: `""` where `start` brings it, else the git
  address that the machine fetches it from;
- `start(job, options, script)`: begins it, and returns once it was begun. `script` is the text of a
  Python 3.9 program of the standard library alone, which makes the workspace, prepares it and runs
  the job. What was started for it ends with it, also when nobody here asks for that;
- `state(job, options)`: one of STATES;
- `said(job, options)`: what the machine has printed outside of the job's own log, such as why it
  could not begin;
- `stop(job, options)`: ends the job and what was started for it, and returns when that is so. It
  may be called again, and for a job that never began;
- `BRINGS_DOWN`: whether `start` rents something that `stop` gives back, also after a good end.

It may have, too,

- `price(options)`: US dollars an hour of all its machines together, None where nobody knows;
- `BY_HAND`: a person begins the job after `start`, so nobody waits for it.

Each of them finds a job by its id alone, so that a start that was cut off in the middle is found.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from stages.core import beginning, local, plugins, secrecy
from stages.core.settings import Settings

# Running; ended by itself or by us; never begun or no trace; or it cannot be asked now.
RUNNING, ENDED, NONE, UNKNOWN = STATES = ("running", "ended", "none", "unknown")
LAUNCHES = ("auto", "native", "container")
VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")  # a value in its place has small letters, mostly
# Set for each job by what follows from its place.
OURS = tuple(f"TUNESMITH_{name}" for name in ("PROCESSES", "NODES", "NODE", "MASTER", "SHARD"))
SETTABLE = tuple(n for n in local.NAMES if n.startswith(local.PREFIX) and n not in OURS)


class Common(Settings):
    """What every entry of places.yaml may say.

    Attributes:
        kind: a plug-in of `stages/places`.
        usd_per_hour: what each of its machines costs; 0: what the provider says, where it is asked.
        hours: after so many a job there is ended, whatever it does; 0: never.
        remote: the DVC remote that both reach; empty: the default one.
        remote_url: its address as seen from there; empty: the same.
        remote_options: DVC's settings of the remote there, such as `keyfile`; no secrets.
        secrets: environment variables that must be set there; their values are never sent by us
            but to the place's own store of secrets. GIT_TOKEN signs in where the commit is fetched.
        env_file: a file there with lines NAME=value of them; empty: they are in the environment.
        settings: this machine's settings (local.env's) there, such as TUNESMITH_LAUNCH; GLOO_ and
            NCCL_ variables, too.
        setup: shell commands that prepare the checkout there, run again when they or the locks of
            `env/` have changed.
        python: what runs Tunesmith there, after the set-up; relative to the checkout or on PATH.
        folder: where clones, caches and jobs are kept there.
        at_once: how many jobs, such as points of a sweep, it takes.
        processes: training processes on each machine, one for each GPU.
        nodes: machines that train together.
        shard: fsdp: all processes share one model's weights.
        checkpoints: whether they are sent to the remote while a training runs, so that another
            machine can go on from them.
    """

    kind: str
    usd_per_hour: Annotated[float, Field(ge=0.0)] = 0.0
    hours: Annotated[float, Field(ge=0.0)] = 0.0
    remote: str = ""
    remote_url: str = ""
    remote_options: dict[str, str] = Field(default_factory=dict)
    secrets: list[str] = Field(default_factory=list)
    env_file: str = ""
    settings: dict[str, str] = Field(default_factory=dict)
    setup: list[str] = Field(default_factory=list)
    python: Annotated[str, Field(min_length=1)] = "python3"
    folder: Annotated[str, Field(min_length=1)] = "~/tunesmith-jobs"
    at_once: Annotated[int, Field(ge=1)] = 1
    processes: Annotated[int, Field(ge=1)] = 1
    nodes: Annotated[int, Field(ge=1)] = 1
    shard: Literal["none", "fsdp"] = "none"
    checkpoints: bool = True

    @field_validator("secrets")
    @classmethod
    def _named(cls, names: list[str]) -> list[str]:
        for name in names:
            if not VARIABLE.fullmatch(name):
                # What is no name may be the secret itself, and is not shown.
                raise ValueError("write names of environment variables, in capitals, never values")
        return names

    @field_validator("settings")
    @classmethod
    def _settable(cls, settings: dict[str, str]) -> dict[str, str]:
        for name, value in settings.items():
            network = name.startswith(("GLOO_", "NCCL_"))
            if name in OURS:
                raise ValueError(f"{name} follows from processes, nodes and shard")
            if name in local.NAMES and not name.startswith(local.PREFIX):
                raise ValueError(f"{name} is a secret; name it in `secrets` instead")
            if not network and name not in SETTABLE:
                raise ValueError(f"{name}: nothing reads it. {plugins.nearest(name, SETTABLE)}")
            if name == "TUNESMITH_LAUNCH" and value not in LAUNCHES:
                raise ValueError(f"{name}: {plugins.nearest(value, LAUNCHES)}")
            if secrecy.found(value):
                raise ValueError(f"{name} holds a secret; name it in `secrets` instead")
        return settings

    @field_validator("remote_url", "remote_options", "setup")
    @classmethod
    def _open(cls, value: Any) -> Any:
        texts = value.values() if isinstance(value, Mapping) else value
        for text in [texts] if isinstance(texts, str) else texts:
            if secrecy.found(text):
                raise ValueError("there is a secret in it; keep it there, and name it in `secrets`")
        return value

    @model_validator(mode="after")
    def _shared(self) -> Self:
        if self.shard == "fsdp" and self.processes * self.nodes == 1:
            raise ValueError("shard: fsdp needs several processes: set processes or nodes")
        return self


@dataclass(frozen=True, slots=True)
class Job:
    """All that the other side is told. It is sent as JSON, and has no secret in it.

    Attributes:
        id: of the targets, the files and the place; a folder's and a git reference's name.
        attempt: from 1; a job that ended badly is begun again under its id.
        place: its name in places.yaml.
        targets: what `dvc repro` is told there.
        needed: addresses of the stages that they need, upstream first.
        baseline: the commit that is checked out.
        snapshot: a commit of the files as they were here; the baseline where nothing differed.
        prefix: the project's folder inside its repository, "" or with a slash at its end.
        project: the name of the project's own folder there.
        git: where the commit is fetched from; empty where the place was given it.
        remote: name, url and options of the DVC remote, as seen from there.
        The others: as in `Common`.
    """

    id: str
    attempt: int
    place: str
    targets: list[str]
    needed: list[str]
    baseline: str
    snapshot: str
    prefix: str
    project: str
    git: str
    remote: dict[str, str]
    secrets: list[str]
    env_file: str
    settings: dict[str, str]
    setup: list[str]
    python: str
    folder: str
    hours: float
    processes: int
    nodes: int
    shard: str
    checkpoints: bool

    @property
    def reference(self) -> str:
        """The git reference under which the snapshot is sent."""
        return f"refs/tunesmith/jobs/{self.id}"

    def facts(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def again(self) -> "Job":
        """The same job, begun once more."""
        return replace(self, attempt=self.attempt + 1)


def read(facts: Mapping[str, Any]) -> Job:
    """What `Job.facts` gave."""
    return Job(**facts)


def script(job: Job) -> str:
    """The program that a place is to run for a job."""
    return beginning.text(job.facts())
