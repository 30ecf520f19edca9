"""Machines that SkyPilot rents: clouds, RunPod, Lambda, Kubernetes, Slurm.

The machine is told at its launch to end itself when it has been idle, so it ends although nobody
asks. What SkyPilot 0.14.1 answers was read in its source and seen on 2026-11-22: `sky down` ends
with 0 where it has failed, and `-o json` may stand below other lines.
"""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, field_validator

from stages.core import secrecy
from stages.core.errors import TunesmithError
from stages.core.jobs import ENDED, NONE, RUNNING, UNKNOWN, Job
from stages.core.preparing import Prepared, RentedHours
from stages.places.sky import program, tasks
from stages.places.sky.tasks import name, task

__all__ = ["BRINGS_DOWN", "Options", "describe", "name", "price", "require", "said", "source"]
__all__ += ["start", "state", "stop", "task"]

BRINGS_DOWN = True
AT_WORK = ("INIT", "PENDING", "SETTING_UP", "RUNNING")  # sky/skylet/job_lib.py, JobStatus
LINES = "500"


class Options(Prepared):
    """Machines that SkyPilot rents.

    Attributes:
        resources: what is rented, in SkyPilot's own words: infra, accelerators, cpus, memory,
            disk_size, image_id, use_spot and so on.
        hours: after so many the job ends itself, and half an hour later from outside; never 0.
        idle_minutes: the machine is given back after so many without a job.
        program: `sky`, by name or path.
    """

    resources: dict[str, Any]
    hours: RentedHours = 24.0
    idle_minutes: int = Field(default=5, ge=1)
    program: str = Field(default="sky", min_length=1)

    @field_validator("resources")
    @classmethod
    def _rented(cls, resources: dict[str, Any]) -> dict[str, Any]:
        if "autostop" in resources:
            raise ValueError("autostop is set by idle_minutes")
        if secrecy.found(str(resources)):
            raise ValueError("there is a secret in it; name it in `secrets` instead")
        return resources


def describe(options: Options) -> str:
    """What is rented, in words."""
    said = [str(options.resources[key]) for key in ("infra", "accelerators", "cpus", "memory")
            if key in options.resources]  # fmt: skip
    spot = ["spot"] if options.resources.get("use_spot") else []
    many = [f"{options.nodes} machines"] if options.nodes > 1 else []
    return ", ".join(["SkyPilot", *said, *spot, *many])


def require(job: Job, options: Options) -> None:
    """Refuse what SkyPilot refuses, by its own parser and by a dry run of the launch.

    Raises:
        TunesmithError: no program, a secret that is not set here, a wrong key, no such machine, no
            login, or an infrastructure that does not end machines by itself.
    """
    for secret in job.secrets:
        if not os.environ.get(secret):
            raise TunesmithError(
                f"{secret} is not set here.",
                where=f"places.yaml: {job.place}.secrets",
                why="SkyPilot takes its value from this environment to the machine.",
                do=f"export {secret}=…    in this terminal",
            )
    answer = program.ask(options.program, "check", task(job, options.resources, ""))
    if answer.code:
        raise _refused(job, "SkyPilot refuses this entry", answer)
    bare = {"resources": options.resources, "num_nodes": job.nodes, "run": "true"}
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / "task.yaml"
        file.write_text(yaml.safe_dump(bare), encoding="utf-8")
        answer = program.sky(options.program, "launch", "--dryrun", *_down(options), str(file))
    if answer.code:
        raise _refused(job, "SkyPilot would not rent this", answer)


def source(job: Job, options: Options) -> str:
    """Nothing: the commit travels with the task."""
    del job, options
    return ""


def start(job: Job, options: Options, script: str) -> None:
    """Rent the machines and submit the job; what SkyPilot says of it goes to stderr.

    Raises:
        TunesmithError: SkyPilot could not; what it had rented has been given back.
    """
    folder = tasks.folder(job)
    _commit(job, tasks.bundle(job))
    file = folder / "task.yaml"
    told = task(job, options.resources, script)
    file.write_text(yaml.safe_dump(told, sort_keys=False), encoding="utf-8")
    secrets = [word for secret in job.secrets for word in ("--secret", secret)]
    words = ["launch", "--cluster", name(job), "--detach-run", *_down(options), *secrets, str(file)]
    answer = program.sky(options.program, *words, shown=True)
    if answer.code:
        stop(job, options)
        raise _refused(job, "SkyPilot has not begun the job", answer)


def state(job: Job, options: Options) -> str:
    """What SkyPilot says of the machine, and where it is up of the last job on it."""
    words = ("status", name(job), "--refresh", "--output", "json")
    records = _json(program.sky(options.program, *words))
    if not records:
        return UNKNOWN if records is None else NONE
    cluster = records[0]
    if cluster["status"] == "INIT":  # the launch is at work, or it cannot be reached
        return RUNNING if cluster.get("init_kind") == "launching" else UNKNOWN
    if cluster["status"] != "UP":
        return ENDED
    queues = _json(program.sky(options.program, "queue", name(job), "--output", "json"))
    queue = (queues or {}).get(name(job))
    if not queue:  # it could not be asked, or the job is not submitted yet
        return UNKNOWN
    last = max(queue, key=lambda one: int(one["job_id"]))
    return RUNNING if last["status"] in AT_WORK else ENDED


def said(job: Job, options: Options) -> str:
    """The last lines of the job on its machines; before there is one, of their making."""
    words = ("logs", name(job), "--no-follow", "--tail", LINES)
    for more in ((), ("--provision",)):
        answer = program.sky(options.program, *words, *more)
        # A job that has failed is 100: sky/exceptions.py, JobExitCode.
        if answer.code in (0, 100, 101, 103):
            return answer.text
    return ""


def stop(job: Job, options: Options) -> None:
    """End the machines, and a launch that is still at work for them.

    Raises:
        TunesmithError: SkyPilot does not say that they are gone.
    """
    cluster = name(job)
    words = ("api", "status", "--cluster", cluster, "--output", "json")
    for request in _json(program.sky(options.program, *words)) or []:
        if request["name"].endswith("launch"):
            program.sky(options.program, "api", "cancel", request["request_id"])
    answer = program.sky(options.program, "down", "--yes", cluster)
    left = _json(program.sky(options.program, "status", cluster, "--output", "json"))
    if answer.code or left is None or left:
        raise TunesmithError(
            f"The machine {cluster} may still be running, and cost: {answer.last()}",
            where=f"places.yaml: {job.place}",
            why="SkyPilot could not end it, or did not say that it has.",
            do=f"{options.program} down {cluster}    until `{options.program} status --refresh` no "
            "longer shows it; then look at the provider's own console",
        )
    if tasks.folder(job).exists():
        shutil.rmtree(tasks.folder(job))


def price(options: Options) -> float | None:
    """Dollars an hour of the cheapest machines that SkyPilot would rent, by its own catalogue.

    None where it does not know: no login, no catalogue, or machines of your own.
    """
    bare = {"resources": options.resources, "num_nodes": options.nodes, "run": "true"}
    answer = program.ask(options.program, "price", bare)
    found = _json(answer)
    return found["usd_per_hour"] or None if found else None


def _down(options: Options) -> list[str]:
    """Given back when it was idle; somebody's open shell on it does not count."""
    return ["--yes", "--down", "--idle-minutes-to-autostop", str(options.idle_minutes),
            "--wait-for", "jobs"]  # fmt: skip


def _json(answer: program.Answer) -> Any:
    """What it answered in JSON; None where it did not."""
    if answer.code:
        return None
    try:
        return answer.json()
    except ValueError:
        return None


def _commit(job: Job, bundle: Path) -> None:
    """The job's commit under its reference, as one file."""
    bundle.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as bare:  # a bundle needs a reference, and here is none
        subprocess.run(["git", "init", "--quiet", "--bare", bare], check=True)
        pushed = f"+{job.snapshot}:{job.reference}"
        subprocess.run(["git", "push", "--quiet", bare, pushed], check=True)
        words = ["bundle", "create", "--quiet", str(bundle.absolute()), job.reference]
        subprocess.run(["git", "-C", bare, *words], check=True)


def _refused(job: Job, what: str, answer: program.Answer) -> TunesmithError:
    return TunesmithError(
        f"{what}: {answer.last()}",
        where=f"places.yaml: {job.place}.resources",
        why="Nothing runs there.",
        do="Mend the entry, or what it says; `sky check` shows which clouds can be used.",
    )
