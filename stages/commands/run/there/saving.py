"""A training's checkpoints in; the last whole one of each at the remote, for whoever goes on.

    tunesmith/checkpoints/<project>/<stage>-<key>/<run>/<step>/…   its files
    tunesmith/checkpoints/<project>/<stage>-<key>/<run>/<step>.json   their SHA-256, written last

A run is named by the fingerprint that `stages/core/checkpoints.py` gives it.
"""

import shutil
import threading
from collections.abc import Iterable
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
        for address in self.stages:
            for line in fetch(store, job.project, address):
                post.say(f"  {line}")
        self._sent: dict[Path, Path] = dict(latest())
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

    def send(self) -> None:
        """Send what is new; what fails is tried again with the next look."""
        store = None
        for run, last in latest():
            if self._sent.get(run) == last or not (address := self._of()):
                continue
            try:
                store = store or Store(self.job.remote["name"], settings.load())
                send(store, self.job.project, address, run, last)
            except FileNotFoundError:
                continue  # the training has ended, and has deleted it
            except failures.kinds() as failure:
                print(f"  a checkpoint could not be sent: {failure}", flush=True)
                return
            self._sent[run] = last

    def _of(self) -> str:
        """The stage whose checkpoints appear now: the only one, or the one that runs."""
        return self.stages[0] if len(self.stages) == 1 else self.post.stage

    def forget(self, store: Store) -> None:
        """Remove from the remote what nobody goes on from any more."""
        for address in self.stages:
            for entry in store.below(folder(store, self.job.project, address)):
                store.remove(entry.path)


def latest() -> Iterable[tuple[Path, Path]]:
    """Each run with its newest whole checkpoint."""
    for run in sorted(home().glob("[!.]*/")):
        if (last := checkpoints.last(run)) is not None:
            yield run, last


def send(store: Store, project: str, address: str, run: Path, last: Path) -> None:
    """Send one checkpoint whole; older ones of the run are removed after that."""
    top = mailbox.path(store, folder(store, project, address), run.name)
    step = last.name.rpartition("-")[2]
    hashes = files.tree_hashes(last)
    for name in hashes:
        store.put(last / name, mailbox.path(store, top, step, name), NoOpCallback())
    mailbox.put(store, mailbox.path(store, top, f"{step}.json"), orjson.dumps(hashes))
    for entry in store.below(top):
        inner = entry.path.removeprefix(f"{top}/")
        if inner.partition("/")[0].removesuffix(".json") != step:
            store.remove(entry.path)


def fetch(store: Store, project: str, address: str) -> list[str]:
    """Bring what is newer there than here; a line for each that has come."""
    top = folder(store, project, address)
    said = []
    _, found = store.entries(top)
    for path in found:
        run = home() / path.rpartition("/")[2]
        lists, _ = store.entries(path)
        steps = sorted((int(e.name[:-5]), e.path) for e in lists if e.name.endswith(".json"))
        have = checkpoints.last(run)
        if not steps or (have and int(have.name.rpartition("-")[2]) >= steps[-1][0]):
            continue
        step, where = steps[-1]
        if _bring(store, orjson.loads(store.read(where)), f"{path}/{step}", run, step):
            said.append(
                f"{address} goes on from step {step}: its checkpoint came from {store.name}"
            )
    return said


def _bring(store: Store, hashes: dict[str, str], source: str, run: Path, step: int) -> bool:
    """One checkpoint under a temporary name, renamed when every file is what it should be."""
    final, work = run / f"checkpoint-{step}", run / f".checkpoint-{step}.tmp"
    shutil.rmtree(work, ignore_errors=True)
    for name in hashes:
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        store.get(f"{source}/{name}", work / name, NoOpCallback())
    if files.tree_hashes(work) != hashes:
        shutil.rmtree(work)
        return False
    shutil.rmtree(final, ignore_errors=True)
    work.rename(final)
    return True
