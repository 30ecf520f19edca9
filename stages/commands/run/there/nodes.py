"""Several machines for one training: the first runs the stages, the others join each training.

They meet in the mailbox: before a training the first machine says which stage it is, what its
inputs are and which checkpoints it has; the others bring those, and run the same stage as another
node. A machine that falls out ends the training on all of them, and the job with it.
"""

import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from stages.commands import plan
from stages.commands.remote import project
from stages.commands.remote.project import Made
from stages.commands.remote.sending import push
from stages.commands.remote.store import Store
from stages.commands.run.there import building, inputs, others, saving
from stages.commands.run.there.others import Others
from stages.commands.run.there.post import Post
from stages.commands.run.there.saving import Saver
from stages.core import cache, graph, lockfile, processes
from stages.core.jobs import Job
from stages.core.staleness import FRESH

LOOK = 1.0  # seconds between looks
SILENCE = 900.0  # seconds for which the others wait for a word of the first machine
WORD = 30.0  # seconds to wait for what another machine says of its end
REFUSED = re.compile(r"error: (.+)")  # one screen's first line
ELSEWHERE = "A process on another machine has ended"  # what torch's backend says of such an end
# As `python -m stages`, but ended with the process that holds its input.
STAGE = "from stages.core import running; running.end_with_input(); "
STAGE += "import runpy; runpy.run_module('stages', run_name='__main__')"


class Training:
    """One training on this machine, where `building.run` takes it for the job's post.

    Attributes:
        ended: set once it is to end.
        reason: why, in a sentence.
        said: what it refused last, in its own words.
    """

    def __init__(self, post: Post) -> None:
        self.post, self.ended = post, threading.Event()
        self.reason = self.said = ""

    def say(self, line: str) -> None:
        """A line of its log."""
        if found := REFUSED.match(line):
            self.said = found[1].rstrip(".")
        self.post.say(line)

    def runs(self, stage: str) -> None:
        """It has begun."""
        self.post.runs(stage)

    @contextmanager
    def watched(self, trouble: Callable[[], str]) -> Iterator[None]:
        """End it inside once there is trouble, or when the job is to end."""
        over = threading.Event()

        def watch() -> None:
            while not over.wait(LOOK):
                self.reason = self.post.reason if self.post.ended.is_set() else trouble()
                if self.reason:
                    self.ended.set()
                    return

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def lead(job: Job, master: str, store: Store, saver: Saver, post: Post) -> int:
    """Run the targets, each training with all machines; the exit code of DVC."""
    post.tell(machine=socket.gethostname())
    rest, above = Others(job, range(1, job.nodes)), graph.upstream(graph.load())
    for address in [a for a in job.needed if a.startswith("train@")]:
        before = sorted(above[address])
        code = alone(before, post)
        if code:
            return code
        _, steps = plan.decided([address], pull=True)
        if steps[address].outcome not in inputs.WORK:
            continue
        held, made = cache.Cache(), [a for a in job.needed if a in before]
        push(store, held, project.needed(made, held, here=True))
        saver.send(address)
        lock = {a: graph.lock()[a] for a in made}
        post.tell(meet={"stage": address, "lock": lock, "steps": saving.steps()})
        code = together(job, address, master, rest, post)
        if code:
            return code
    return alone(job.targets, post)


def alone(targets: Sequence[str], post: Post) -> int:
    """What this machine runs by itself; DVC is not asked where there is nothing to run."""
    _, steps = plan.decided(list(targets), pull=True) if targets else (None, {})
    if all(step.outcome == FRESH for step in steps.values()):
        return 0
    return building.repro(targets, {}, post)


def together(job: Job, address: str, master: str, rest: Others, post: Post) -> int:
    """The first machine's part of a training; its end names the machine that ended it."""
    training, steps = Training(post), others.Steps()

    def trouble() -> str:
        still = steps.still() > others.STILL
        if still and (name := rest.silent(others.STILL)):
            return f"{name} has said nothing for {others.STILL:.0f} s, and no step was made"
        return rest.left()

    with training.watched(trouble):
        code = building.repro([address], variables(job, 0, master), training)
    if code and not post.ended.is_set():
        post.end(training.reason or cause(training, rest) or f"{address} ended with {code}")
    return code


def cause(training: Training, rest: Others) -> str:
    """Why a training of several machines ended, by the machine where that began."""
    if training.said and not training.said.startswith(ELSEWHERE):
        return f"{socket.gethostname()}: {training.said}"
    until = time.monotonic() + WORD
    while not rest.left() and time.monotonic() < until:
        time.sleep(LOOK)
    return rest.left() or training.said


def follow(job: Job, node: int, master: str, store: Store, post: Post) -> int:
    """Join the trainings of the first machine until it ends."""
    post.tell(machine=socket.gethostname())
    first, patience = Others(job, [0]), SILENCE
    while not post.ended.is_set():
        while not first.letters.empty():
            letter = first.letters.get()
            if "meet" in letter and not join(job, node, master, letter["meet"], store, first, post):
                patience = others.STILL  # the first machine has heard of it, or is no more there
            if "result" in letter:
                return int(letter["result"]["code"])
        if first.silence(0) > patience:
            post.end(f"{first.name(0)} has said nothing for {patience:.0f} s")
        if first.blind() > SILENCE:
            post.end(f"the remote could not be read for {SILENCE / 60:.0f} minutes")
        time.sleep(LOOK)
    return building.ENDED


def join(
    job: Job, node: int, master: str, meet: Mapping[str, Any], store: Store, first: Others,
    post: Post,
) -> bool:  # fmt: skip
    """Run one training as another node of it; whether it ended well."""
    address = str(meet["stage"])
    lockfile.put(meet["lock"])
    stage = graph.load()[address]
    every = project.outputs(graph.load(), graph.lock())
    wanted: list[Made] = [
        one for one in every if any(graph.overlaps(dep, one.path) for dep in stage.deps)
    ]
    inputs.bring(wanted, store, post)
    for line in saving.follow(store, job.project, address, meet["steps"]):
        post.say(f"  {line}")
    training, port = Training(post), others.Port(master)

    def trouble() -> str:
        if port.dead() > others.STILL:
            return f"{first.name(0)} has not answered at {master} for {others.STILL:.0f} s"
        return first.left()

    words = [sys.executable, "-c", STAGE, *stage.cmd.split()[3:]]
    post.runs(address)
    with training.watched(trouble):
        code = building.run(words, variables(job, node, master), training)
    if code:
        post.tell(left=training.reason or training.said or f"{address} ended with {code}")
    return not code


def variables(job: Job, node: int, master: str) -> dict[str, str]:
    """The environment of a training on several machines."""
    return {
        processes.COUNT: str(job.processes),
        processes.NODES: str(job.nodes),
        processes.NODE: str(node),
        processes.MASTER: master,
        processes.SHARD: job.shard,
    }
