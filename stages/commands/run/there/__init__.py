"""A job in, on the machine that runs it: inputs pulled, stages run, outputs and the result sent.

It runs in the job's own checkout. All that it says goes to the job's mailbox, and to its own
output, which is all there is where the remote cannot be reached.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from stages.commands.remote import failures, project, settings
from stages.commands.remote.sending import push
from stages.commands.remote.store import Store
from stages.commands.resume import leftovers, mending
from stages.commands.run.there import building, inputs, nodes
from stages.commands.run.there.post import Post
from stages.commands.run.there.saving import Saver
from stages.core import cache, files, finished, graph, jobs, processes, running, runs, yaml12
from stages.core.errors import TunesmithError
from stages.core.jobs import Job

REFUSED, FAILED = 2, 1
SETTLES = 60.0  # seconds for what an earlier try has left here to end
AGAIN = 5.0  # seconds until a remote that does not answer is tried again
PATIENCE = 900.0  # seconds in which it is

T = TypeVar("T")


def main(told: str) -> int:
    """Run a job, or one machine's part of it; the exit code that its place is to see.

    Args:
        told: the file that the program which began it has written.
    """
    facts = files.read_json(Path(told))
    job, node = jobs.read(facts["job"]), int(facts["node"])
    prepare(job)
    post = Post(job, node)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: post.end("it was told to end there"))
    try:
        post.reach()
    except TunesmithError as barred:  # so that no letter can tell it
        missing = lacking(job)
        print(f"error: {missing or barred}", flush=True)
        return REFUSED
    try:
        if (missing := lacking(job)) is not None:
            raise missing
        post.begin()
        code, result = work(job, node, facts["master"], post)
    except TunesmithError as refused:
        post.say(f"\nerror: {refused}")
        code, result = REFUSED, {"reason": refused.what}
    return code if post.close({"code": code, **result}) else code or FAILED


def prepare(job: Job) -> None:
    """Give this checkout the cache of all jobs here and the remote as it is seen from here."""
    from dvc.config import Config

    name = job.remote["name"]
    remote = {key: value for key, value in job.remote.items() if key != "name"}
    with Config(str(Path(".dvc").absolute())).edit("local", validate=False) as own:
        own["cache"] = {"dir": str(Path(os.environ["TUNESMITH_HOME"]) / "cache")}
        own["core"] = {"remote": name}
        own["remote"] = {name: remote | {"verify": True}}
    os.environ.update(job.settings)
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


def lacking(job: Job) -> TunesmithError | None:
    """The refusal to begin without the secrets that the place names; None where all are set."""
    missing = [name for name in job.secrets if not os.environ.get(name)]
    if not missing:
        return None
    return TunesmithError(
        f"{', '.join(missing)} is not set on this machine.",
        where=f"places.yaml: {job.place}.secrets",
        why="The place promises it, and what needs it would fail in the middle.",
        do=f"Write it into {job.env_file or 'its environment, or a file there that env_file names'}"
        "; or into the place's own store of secrets",
    )


def work(job: Job, node: int, master: str, post: Post) -> tuple[int, dict[str, Any]]:
    """Do this machine's part; the exit code and what is sent back of it."""
    name = job.remote["name"]
    config = settings.load()
    with failures.told(post.store.kind, post.store.url, "The job", ""):
        store = Store(name, config)
        store.require()
        if node:
            return nodes.follow(job, node, master, store, post), {"reason": post.reason}
        return lead(job, master, store, post)


def lead(job: Job, master: str, store: Store, post: Post) -> tuple[int, dict[str, Any]]:
    """Run the stages; the first machine's part, or all of it."""
    settle(post)
    with mending.held():
        for line in [*mending.mend(), *leftovers.clear(graph.load().values())]:
            post.say(f"  {line}")
    finished.sweep()
    before, start = sent(), _length(runs.path())
    with Saver(job, store, post) as saver:
        steadily(store, post, lambda store: inputs.fetch(job.targets, store, post))
        if job.nodes > 1:
            code = nodes.lead(job, master, store, saver, post)
        else:
            code = building.repro(job.targets, several(job), post)
    made = {a: entry for a, entry in graph.lock().items() if entry != before.get(a)}
    made = {address: made[address] for address in job.needed if address in made}
    if made:
        steadily(store, post, lambda store: send(list(made), store, post))
    if code == 0:
        steadily(store, post, saver.forget)
    result = {"lock": made, "runs": list(runs.rows(start=start)), "reason": post.reason}
    return code, result


def settle(post: Post) -> None:
    """Wait until nothing works in this checkout: what an earlier try began ends with that one.

    Raises:
        TunesmithError: it does not end.
    """
    until = time.monotonic() + SETTLES
    while at_work := running.busy():
        if time.monotonic() > until or post.ended.is_set():
            raise TunesmithError(
                f"{at_work[0]} is at work in the job's checkout already.",
                where=str(Path.cwd()),
                why="Both would write the same files.",
                do="End it there, then type the same command again.",
            )
        time.sleep(AGAIN / 10)


def sent() -> dict[str, Any]:
    """dvc.lock's entries as they came: what an earlier try has made here was not taken yet."""
    words = ["git", "show", f":./{graph.LOCK}"]
    done = subprocess.run(words, capture_output=True, check=False)
    found = yaml12.loads(done.stdout) if done.returncode == 0 else None
    return dict((found or {}).get("stages") or {})


def steadily(store: Store, post: Post, act: Callable[[Store], T]) -> T:
    """Do what needs the remote, and again with a new connection when one breaks."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            return act(store)
        except failures.kinds() as failure:
            what, _ = failures.cause(store.kind, store.url, failure)
            late = time.monotonic() > until or post.ended.is_set()
            if late or not what.startswith(failures.LOST):
                raise
            post.say(f"  {store.name}: {what} Trying again")
            post.ended.wait(AGAIN)
            store = Store(store.name, settings.load())


def several(job: Job) -> dict[str, str]:
    """The variables by which a training takes several processes of this machine."""
    alone = job.processes * job.nodes == 1
    return {} if alone else {processes.COUNT: str(job.processes), processes.SHARD: job.shard}


def send(addresses: list[str], store: Store, post: Post) -> None:
    """Push what stages have made.

    Raises:
        TunesmithError: it could not be sent; it stays in the cache here.
    """
    held = cache.Cache()
    done = push(store, held, project.needed(addresses, held, here=True))
    post.say(f"  sent {done.objects} files, {done.bytes / 1e6:,.1f} MB, to {store.name}")
    if done.bad:
        raise TunesmithError(
            f"{len(done.bad)} files in the cache there are damaged and were not sent.",
            why="Their content is not what their md5 says.",
            do="The same command again makes them anew.",
        )


def _length(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
