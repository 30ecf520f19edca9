"""Several machines for one training: the first runs the stages, the others join each training.

They meet in the mailbox: before a training the first machine says which stage it is and what its
inputs are; the others bring those, and run the same stage as another node.
"""

import sys
import time
from collections.abc import Mapping
from typing import Any

from stages.commands import plan
from stages.commands.remote import failures, project, settings
from stages.commands.remote.project import Made
from stages.commands.remote.sending import push
from stages.commands.remote.store import Store
from stages.commands.run import mailbox
from stages.commands.run.there import building, inputs, saving
from stages.commands.run.there.post import Post
from stages.commands.run.there.saving import Saver
from stages.core import cache, graph, lockfile, processes
from stages.core.jobs import Job

LOOK = 1.0  # seconds between looks into the mailbox
SILENCE = 900.0  # seconds without a letter after which the first machine is given up


def lead(job: Job, master: str, store: Store, saver: Saver, post: Post) -> int:
    """Run the targets, each training with all machines; the exit code of DVC."""
    above = graph.upstream(graph.load())
    for address in [a for a in job.needed if a.startswith("train@")]:
        if before := sorted(above[address]):
            code = building.repro(before, {}, post)
            if code:
                return code
        _, steps = plan.decided([address], pull=True)
        if steps[address].outcome not in inputs.WORK:
            continue
        held = cache.Cache()
        made = [a for a in job.needed if a in before]
        push(store, held, project.needed(made, held, here=True))
        saver.send()
        post.tell(meet={"stage": address, "lock": {a: graph.lock()[a] for a in made}})
        code = building.repro([address], variables(job, 0, master), post)
        if code:
            return code
    return building.repro(job.targets, {}, post)


def follow(job: Job, node: int, master: str, store: Store, post: Post) -> int:
    """Join the trainings of the first machine until it ends."""
    box, number, seen = mailbox.Mailbox(store, job.id, job.attempt), 0, time.monotonic()
    while not post.ended.is_set():
        try:
            letters = list(box.read(0, number))
        except failures.kinds() as failure:
            post.say(f"  {store.url} does not answer: {failure}")
            letters, store = [], Store(job.remote["name"], settings.load())
            box = mailbox.Mailbox(store, job.id, job.attempt)
        for last, letter in letters:
            seen, number = time.monotonic(), last
            if "meet" in letter:
                join(job, node, master, letter["meet"], store, post)
            if "result" in letter:
                return int(letter["result"]["code"])
        if time.monotonic() - seen > SILENCE:
            post.end(f"the first machine said nothing for {SILENCE / 60:.0f} minutes")
        time.sleep(LOOK)
    return building.ENDED


def join(
    job: Job, node: int, master: str, meet: Mapping[str, Any], store: Store, post: Post
) -> None:
    """Run one training as another node of it; a failure is the first machine's to tell."""
    address = str(meet["stage"])
    lockfile.put(meet["lock"])
    stage = graph.load()[address]
    every = project.outputs(graph.load(), graph.lock())
    wanted: list[Made] = [
        one for one in every if any(graph.overlaps(dep, one.path) for dep in stage.deps)
    ]
    inputs.bring(wanted, store, post)
    for line in saving.fetch(store, job.project, address):
        post.say(f"  {line}")
    words = [sys.executable, "-m", "stages", *stage.cmd.split()[3:]]
    post.runs(address)
    building.run(words, variables(job, node, master), post)


def variables(job: Job, node: int, master: str) -> dict[str, str]:
    """The environment of a training on several machines."""
    return {
        processes.COUNT: str(job.processes),
        processes.NODES: str(job.nodes),
        processes.NODE: str(node),
        processes.MASTER: master,
        processes.SHARD: job.shard,
    }
