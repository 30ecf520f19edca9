"""A training's checkpoints in; the last whole one of each at the remote, for whoever goes on.

    tunesmith/checkpoints/<project>/<stage>-<key>/<run>/<step>/…   its files
    tunesmith/checkpoints/<project>/<stage>-<key>/<run>/<step>.json   their SHA-256, written last

A run is named by the fingerprint that `stages/core/checkpoints.py` gives it.
"""

import shutil
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import orjson
from fsspec.callbacks import NoOpCallback

from stages.commands.remote import failures, settings
from stages.commands.remote.store import Store
from stages.commands.run import mailbox
from stages.commands.run.there.post import Post
from stages.core import checkpoints, files, local
from stages.core.jobs import Job

CHECKPOINTS = "tunesmith/checkpoints"
LOOK = 5.0  # seconds between looks for a new one


def home() -> Path:
    """Where checkpoints lie here."""
    return local.root() / ".tunesmith" / "checkpoints"


def folder(store: Store, project: str, address: str) -> str:
    """Where those of a stage lie at the remote."""
    return mailbox.path(store, CHECKPOINTS, project, address.replace("@", "-"))


class Saver:
    """Sends checkpoints while stages run; brings those that others have sent before."""

    def __init__(self, job: Job, store: Store, post: Post) -> None:
        self.job, self.post = job, post
        self.stages = [a for a in job.needed if a.startswith("train@")]
        self._sent: dict[Path, Path] = {}
        for address in self.stages:
            for line in fetch(store, job.project, address):
                post.say(f"  {line}")
            there = found(store, job.project, address)
            same = {run: last for run, last in latest() if there.get(run.name) == step(last)}
            self._sent |= same
        self._gone = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Self:
        if self.job.checkpoints:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self._gone.set()
        if self._thread.ident:
            self._thread.join()
        self.send()

    def _work(self) -> None:
        while not self._gone.wait(LOOK):
            self.send()

    def send(self, address: str = "") -> None:
        """Send what is new; what fails is tried again with the next look.

        Args:
            address: whose they are, where that is known.
        """
        store = None
        for run, last in latest():
            if self._sent.get(run) == last or not (whose := address or self._of()):
                continue
            try:
                store = store or Store(self.job.remote["name"], settings.load())
                send(store, self.job.project, whose, run, last)
            except FileNotFoundError:
                continue  # the training has ended, and has deleted it
            except failures.kinds() as failure:
                print(f"  a checkpoint could not be sent: {failure}", flush=True)
                return
            self._sent[run] = last

    def _of(self) -> str:
        """The training whose checkpoints appear now: the only one, or the one that runs."""
        only = self.stages[0] if len(self.stages) == 1 else self.post.stage
        return only if only in self.stages else ""

    def forget(self, store: Store) -> None:
        """Remove from the remote those of trainings that ended here; other points' stay."""
        ended = [run.name for run in self._sent if checkpoints.last(run) is None]
        for address in self.stages if ended else ():
            top = folder(store, self.job.project, address)
            for entry in [one for name in ended for one in store.below(store.fs.join(top, name))]:
                store.remove(entry.path)


def latest() -> Iterable[tuple[Path, Path]]:
    """Each run with its newest whole checkpoint."""
    for run in sorted(home().glob("[!.]*/")):
        if (last := checkpoints.last(run)) is not None:
            yield run, last


def step(checkpoint: Path) -> int:
    """How many steps a checkpoint has behind it."""
    return int(checkpoint.name.rpartition("-")[2])


def steps() -> dict[str, int]:
    """The step of each run's newest checkpoint here, by the run's name."""
    return {run.name: step(last) for run, last in latest()}


def follow(store: Store, project: str, address: str, first: Mapping[str, int]) -> list[str]:
    """Bring a stage's checkpoints, and let go what the first machine does not have.

    Args:
        first: its `steps()`.
    """
    for run in home().glob("[!.]*/"):
        for own in run.glob("checkpoint-*"):
            if step(own) > first.get(run.name, 0):
                shutil.rmtree(own)
    return fetch(store, project, address)


def found(store: Store, project: str, address: str) -> dict[str, int]:
    """The newest step at the remote of each run of a stage, by the run's name."""
    _, runs = store.entries(folder(store, project, address))
    every = {path.rpartition("/")[2]: store.entries(path)[0] for path in runs}
    whole = {run: [int(e.name[:-5]) for e in entries if e.name.endswith(".json")]
             for run, entries in every.items()}  # fmt: skip
    return {run: max(made) for run, made in whole.items() if made}


def send(store: Store, project: str, address: str, run: Path, last: Path) -> None:
    """Send one checkpoint whole; older ones of the run are removed after that."""
    top = store.fs.join(folder(store, project, address), run.name)
    step = last.name.rpartition("-")[2]
    hashes = files.tree_hashes(last)
    for name in hashes:
        store.put(last / name, store.fs.join(top, step, *name.split("/")), NoOpCallback())
    mailbox.put(store, store.fs.join(top, f"{step}.json"), orjson.dumps(hashes))
    for entry in store.below(top):
        inner = entry.path.removeprefix(f"{top}/")
        if inner.partition("/")[0].removesuffix(".json") != step:
            store.remove(entry.path)


def fetch(store: Store, project: str, address: str) -> list[str]:
    """Bring what is newer there than here; a line for each that has come."""
    said = []
    for name, newest in found(store, project, address).items():
        run = home() / name
        have = checkpoints.last(run)
        if have and step(have) >= newest:
            continue
        if _bring(store, store.fs.join(folder(store, project, address), name), run, newest):
            said.append(
                f"{address} goes on from step {newest}: its checkpoint came from {store.name}"
            )
    return said


def _bring(store: Store, top: str, run: Path, newest: int) -> bool:
    """One checkpoint under a temporary name, renamed when every file is what it should be."""
    hashes: dict[str, str] = orjson.loads(store.read(f"{top}/{newest}.json"))
    final, work = run / f"checkpoint-{newest}", run / f".checkpoint-{newest}.tmp"
    shutil.rmtree(work, ignore_errors=True)
    for name in hashes:
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        store.get(f"{top}/{newest}/{name}", work / name, NoOpCallback())
    if files.tree_hashes(work) != hashes:
        shutil.rmtree(work)
        return False
    shutil.rmtree(final, ignore_errors=True)
    work.rename(final)
    return True
