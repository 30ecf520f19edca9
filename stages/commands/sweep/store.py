"""A sweep's own folder: what is to be done, what has been done, and the lock of who does it."""

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from stages.core import files, local, plugins
from stages.core.errors import TunesmithError

DONE, GATE, FAILED = "done", "gate failed", "failed"
ENDED = (DONE, GATE)  # another try would end the same
LOST = "lost"  # with its place; it is not kept, since the point is built elsewhere


def home() -> Path:
    """Where sweeps are kept, below the main checkout."""
    return local.root().absolute() / ".tunesmith" / "sweeps"


@dataclass(frozen=True, slots=True)
class Point:
    """One point of the grid.

    Attributes:
        name: of the DVC experiment that it becomes.
        values: by key of params.yaml.
        params: the text of its params.yaml.
    """

    name: str
    values: dict[str, Any]
    params: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a point ended.

    Attributes:
        state: done, gate failed or failed.
        reason: why, where it is not done.
        stage: the stage at which it failed.
        seconds: wall time of the try that ended it.
        experiment: the commit of its DVC experiment; empty where there is none.
        metrics: by name, as the table shows them.
        place: where it was built; empty where the sweep had this machine alone.
    """

    state: str
    reason: str = ""
    stage: str = ""
    seconds: float = 0.0
    experiment: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    place: str = ""


@dataclass(frozen=True, slots=True)
class Sweep:
    """All that a sweep needs to be begun, and to be gone on with in files that have changed since.

    Attributes:
        settings: as typed behind -S.
        baseline: the commit that the experiments belong to.
        snapshot: a commit of the tracked files as they were, with what was not committed.
        tree: git's tree of it, known by the same text while the files are the same.
        prefix: the project's folder inside its git repository, "" or with a slash at its end.
        needed: addresses of the stages that each point needs, upstream first.
        affected: the swept keys on which each of them depends.
        models: whose metrics are shown, each with the metrics of its gates.
    """

    name: str
    settings: list[str]
    targets: list[str]
    baseline: str
    snapshot: str
    tree: str
    prefix: str
    needed: list[str]
    affected: dict[str, list[str]]
    models: dict[str, list[str]]
    points: list[Point]

    @property
    def folder(self) -> Path:
        return home() / self.name

    @property
    def keys(self) -> list[str]:
        """What is swept."""
        return list(self.points[0].values)

    def note(self, point: Point) -> Path:
        """Where the job under way of a point is named."""
        return self.folder / "jobs" / f"{point.name}.json"

    @property
    def reference(self) -> str:
        """The git reference that keeps the snapshot while the sweep is not finished."""
        return f"refs/tunesmith/sweeps/{self.name}"


def save(sweep: Sweep) -> None:
    """Write what is to be done."""
    sweep.folder.mkdir(parents=True, exist_ok=True)
    with files.file(sweep.folder / "sweep.json") as work:
        files.write_json(work, asdict(sweep))


def load(name: str) -> Sweep | None:
    """The sweep of a name; None where there is none."""
    path = home() / name / "sweep.json"
    if not path.is_file():
        return None
    row = files.read_json(path)
    return Sweep(**row | {"points": [Point(**point) for point in row["points"]]})


def named(name: str) -> Sweep:
    """The sweep of a name.

    Raises:
        TunesmithError: there is none.
    """
    found = load(name)
    if found is None:
        known = [path.parent.name for path in home().glob("*/sweep.json")]
        raise TunesmithError(
            f"There is no sweep {name!r} to go on with.",
            where=str(home()),
            do=f"{plugins.nearest(name, known)} A new one needs its settings: -S key=a,b",
        )
    return found


def note(sweep: Sweep, point: Point, outcome: Outcome) -> None:
    """Write how a point ended."""
    with files.file(sweep.folder / "points" / f"{point.name}.json") as work:
        files.write_json(work, asdict(outcome))


def outcome(sweep: Sweep, point: Point) -> Outcome | None:
    """How a point ended; None where it has not."""
    path = sweep.folder / "points" / f"{point.name}.json"
    return Outcome(**files.read_json(path)) if path.is_file() else None


def pending(sweep: Sweep) -> list[Point]:
    """The points that have not ended, or have failed."""
    ends = {point.name: outcome(sweep, point) for point in sweep.points}
    return [p for p in sweep.points if (one := ends[p.name]) is None or one.state not in ENDED]


@contextmanager
def alone(name: str) -> Iterator[None]:
    """Hold the lock of a sweep, which the system frees when the process ends.

    Raises:
        TunesmithError: it runs already.
    """
    folder = home() / name
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a+b") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as held:
            raise TunesmithError(
                f"The sweep {name!r} runs already.",
                where=str(folder),
                why="Two of them would write the same files.",
                do="Wait for it, or end it with Ctrl-C and go on with it later.",
            ) from held
        yield


def forget(sweep: Sweep, point: Point) -> None:
    """Take away how a point ended, for another try."""
    (sweep.folder / "points" / f"{point.name}.json").unlink(missing_ok=True)


def remove(sweep: Sweep) -> None:
    """Remove a sweep's folder."""
    shutil.rmtree(sweep.folder)
