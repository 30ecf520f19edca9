"""A job and an entry of places.yaml in; a rented machine of Hugging Face Jobs that runs it, out.

It asks what huggingface_hub 2.4.0 asks, by its source and the Hub's pages on jobs (configuration,
manage, pricing), read on 2026-11-22. What the Hub calls a Job is a `run` here. It is found by the
labels that it was given, so that a start that was cut off after the request is found as well.
"""

import base64
import math
import os
import time
import zlib
from hashlib import sha256
from typing import Any

from stages.core import plugins, secrecy
from stages.core.errors import TunesmithError
from stages.core.jobs import ENDED, NONE, RUNNING, UNKNOWN, Job
from stages.core.secrecy.kept import MARK
from stages.places.hfjobs.client import UnansweredError, asking, cancel, hardware, log, owner
from stages.places.hfjobs.options import Options

__all__ = ["Options", "describe", "price", "require", "said", "source", "start", "state", "stop"]

BRINGS_DOWN = True

FILE = "places.yaml"
ID, ATTEMPT = "tunesmith-job", "tunesmith-attempt"  # labels
OVER = ("COMPLETED", "CANCELED", "ERROR", "DELETED")  # the last stages of a run
UNITS = {"second": 3600, "minute": 60, "hour": 1}  # of a price, in an hour
POLL, DEADLINE = 2.0, 300.0  # seconds between two questions whether a run has ended, and in all
SLACK = 1800  # seconds beyond the job's hours, which its worker counts
SCRIPT = "TUNESMITH_SCRIPT"
LARGEST = 100_000  # bytes of the script, packed; Linux takes 128 KiB in one variable
BEGIN = f"import base64,os,zlib;exec(zlib.decompress(base64.b64decode(os.environ.pop('{SCRIPT}'))))"


def describe(options: Options) -> str:
    """The machine in a few words."""
    whose = f" of {options.namespace}" if options.namespace else ""
    limit = f"{options.hours:g} h, by the Hub after {options.hours + SLACK / 3600:g}"
    return f"Hugging Face Jobs{whose}, {options.flavor}, ended after {limit}"


def price(options: Options) -> float | None:
    """USD an hour, as the entry or else the Hub says; None where the Hub does not say.

    Raises:
        TunesmithError: the Hub refuses to say.
    """
    if options.usd_per_hour:
        return options.usd_per_hour
    try:
        with asking(f"{FILE}: {options.kind}", options.namespace) as api:
            found = [each for each in hardware(api) if each.name == options.flavor]
    except UnansweredError:
        return None
    if not found or found[0].unit_label not in UNITS:
        return None
    micro: int = found[0].unit_cost_micro_usd * UNITS[found[0].unit_label]
    return round(micro / 10_000) / 100  # the Hub lists whole cents an hour


def require(job: Job, options: Options) -> None:
    """Refuse what cannot work there; the Hub is only read.

    Raises:
        TunesmithError: several machines, a remote here, a container, a secret that is not set
            here, no access to the Hub, a flavor that it does not have or that has fewer GPUs than
            processes.
    """
    if options.nodes > 1:
        raise _wrong(
            job,
            f"Hugging Face Jobs gives a job one machine, and nodes is {options.nodes}.",
            "Several would not find each other.",
            "nodes: 1, a flavor of several GPUs and processes: <GPUs>    or another kind: sky",
        )
    url = job.remote.get("url", "")
    if not options.remote_url and "://" not in url:
        why = "The machine could neither take the inputs nor give what it makes."
        do = "Take one in S3 or over ssh (docs/remotes.md), or say its address there: remote_url"
        raise _wrong(job, f"The DVC remote is a folder of this machine: {url}", why, do)
    if options.settings.get("TUNESMITH_LAUNCH") == "container":
        why = "A job is a container there, and has no engine for another one."
        raise _wrong(job, "No container can run there.", why, "TUNESMITH_LAUNCH: native")
    _values(job)
    with asking(f"{FILE}: {job.place}", options.namespace) as api:
        machines = {each.name: each for each in hardware(api)}
        _runs(api, job, options)  # whether this token may see them
    if machines and options.flavor not in machines:
        why = "A job runs on one of its machines."
        do = plugins.nearest(options.flavor, machines)
        raise _wrong(job, f"The Hub has no flavor {options.flavor!r}.", why, do)
    gpus = machines[options.flavor].accelerator if machines else None
    if gpus and int(gpus.quantity) < options.processes:
        raise _wrong(
            job,
            f"GPUs of {options.flavor}: {gpus.quantity}, and processes is {options.processes}.",
            "Each process trains on a GPU of its own.",
            f"processes: {gpus.quantity}    or a flavor with more: hf jobs hardware",
        )


def source(job: Job, options: Options) -> str:
    """Where the machine fetches the commit from."""
    del job
    return options.git


def start(job: Job, options: Options, script: str) -> None:
    """Begin a run, unless there is one of this attempt; one of an earlier attempt is ended first.

    Raises:
        TunesmithError: a secret is not set here, or the Hub refused. Where it did not answer, the
            run may have begun.
    """
    env, secrets = _variables(job, script), _values(job)
    with asking(f"{FILE}: {job.place}", options.namespace) as api:
        if any(_is_of(run, job) for run in _runs(api, job, options)):
            return
        _end(api, job, options)
        api.run_job(
            image=options.image,
            command=["python3", "-c", BEGIN],
            env=env,
            secrets=secrets,
            flavor=options.flavor,
            timeout=math.ceil(options.hours * 3600) + SLACK,  # else the Hub takes 30 minutes
            name=_label(job),
            labels={ID: _label(job), ATTEMPT: str(job.attempt)},
            namespace=owner(api, options.namespace),
        )


def state(job: Job, options: Options) -> str:
    """Running while any attempt is, the others by this one's; unknown where nobody answers.

    Raises:
        TunesmithError: the Hub refuses to say.
    """
    try:
        with asking(f"{FILE}: {job.place}", options.namespace) as api:
            found = _runs(api, job, options)
    except UnansweredError:
        return UNKNOWN
    if any(_active(run) for run in found):
        return RUNNING
    return ENDED if any(_is_of(run, job) for run in found) else NONE


def said(job: Job, options: Options) -> str:
    """The last lines of the last run, and its stage at the Hub; "" where there is no run.

    Raises:
        TunesmithError: the Hub cannot be asked.
    """
    with asking(f"{FILE}: {job.place}", options.namespace) as api:
        found = _runs(api, job, options)
        if not found:
            return ""
        run = found[-1]
        lines = log(api, run, owner(api, options.namespace))
    message = f", {run.status.message}" if run.status.message else ""
    text = "\n".join([*lines, f"{run.url}: {run.status.stage}{message}"])
    for name in job.secrets:
        if value := os.environ.get(name):
            text = text.replace(value, MARK)
    return secrecy.redact(text)


def stop(job: Job, options: Options) -> None:
    """End every run of this job, and wait until the Hub says so.

    Raises:
        TunesmithError: the Hub cannot be asked, or has not ended them in time.
    """
    with asking(f"{FILE}: {job.place}", options.namespace) as api:
        _end(api, job, options)


def _end(api: Any, job: Job, options: Options) -> None:
    until = time.monotonic() + DEADLINE
    while running := [run for run in _runs(api, job, options) if _active(run)]:
        if time.monotonic() >= until:
            raise _wrong(
                job,
                f"The Hub has not ended {running[0].id} within {DEADLINE:.0f} seconds.",
                f"It costs on, until it has run for {options.hours + SLACK / 3600:g} h.",
                f"hf jobs cancel {running[0].id}    or on its page: {running[0].url}",
            )
        for run in running:
            cancel(api, run, owner(api, options.namespace))
        time.sleep(POLL)


def _runs(api: Any, job: Job, options: Options) -> list[Any]:
    """The runs of this job, of all its attempts, the newest last."""
    label = _label(job)
    found = api.list_jobs(labels={ID: label}, namespace=owner(api, options.namespace))
    # What is found is also cancelled: a Hub that knew no filter would end strangers' runs.
    mine = [run for run in found if (run.labels or {}).get(ID) == label]
    return sorted(mine, key=lambda run: (run.created_at.timestamp(), run.id))


def _active(run: Any) -> bool:
    return run.status.stage not in OVER


def _is_of(run: Any, job: Job) -> bool:
    return bool(run.labels.get(ATTEMPT) == str(job.attempt))


def _label(job: Job) -> str:
    """The id where it may be a label (letters, digits, - and _), else a digest of it."""
    if (
        len(job.id) <= 60
        and job.id.isascii()
        and job.id.replace("-", "").replace("_", "").isalnum()
    ):
        return job.id
    return sha256(job.id.encode()).hexdigest()[:32]


def _values(job: Job) -> dict[str, str]:
    """The secrets for the Hub's own store, from the environment of who types."""
    missing = [name for name in job.secrets if not os.environ.get(name)]
    if missing:
        raise _wrong(
            job,
            f"Not set here: {', '.join(missing)}.",
            "The Hub keeps a job's secrets encrypted; they come from your environment.",
            f"export {missing[0]}=…    in this terminal, or take it out of secrets",
        )
    return {name: os.environ[name] for name in job.secrets}


def _variables(job: Job, script: str) -> dict[str, str]:
    """The environment there, with the script, which sets out from it.

    It is packed, and no argument: clusters replace `$(name)` and `$$` in those.
    """
    packed = base64.b64encode(zlib.compress(script.encode(), 9)).decode()
    if len(packed) > LARGEST:
        why = f"It is sent in one variable, packed, and has {len(packed)} bytes there."
        raise _wrong(job, "The job is too large to send.", why, "Shorten setup in the entry.")
    return {SCRIPT: packed, "PYTHONUNBUFFERED": "1", "GIT_TERMINAL_PROMPT": "0"}


def _wrong(job: Job, what: str, why: str, do: str) -> TunesmithError:
    return TunesmithError(what, where=f"{FILE}: {job.place}", why=why, do=do)
