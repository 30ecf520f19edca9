"""A small project that runs on machines of `tests/machines.py`: built once, cloned often.

`build` makes the project with what a person with the data has: raw data, examples, a base; and then
all the rest of it here, so that there is a local build's dvc.lock to compare with. `checkout` gives
`here` a clone of that commit, without training packages, and declares the places and the remote.
"""

import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests import hiding, machines, small_project
from tests.machines import Machine, Network
from tests.small_project import MODEL, git

TRAIN, FUSE = f"train@{MODEL}", f"fuse@{MODEL}"
GGUF, VERIFY = f"gguf@{MODEL}-q8_0", f"verify@{MODEL}-q8_0"
FILE = Path("models") / "gguf" / MODEL / f"{MODEL}-q8_0.gguf"
STEPS, SAVED = 40, 10  # of a training, and between its checkpoints
# Packages that train: `here` has none of them.
TRAINING = ("peft", "trl", "accelerate", "bitsandbytes", *hiding.MLX)


@dataclass(frozen=True)
class Built:
    """A project and what a local build makes of it.

    Attributes:
        folder: its repository; its commit has dvc.lock as `here` has it.
        cache: DVC's cache as it was at that commit.
        before: the stages that `here` has built.
        lock: the entries of dvc.lock after a local build of all that GGUF needs.
    """

    folder: Path
    cache: Path
    before: list[str]
    lock: dict[str, Any]


def params(steps: int = STEPS, saved: int = SAVED) -> dict[str, Any]:
    """Less of everything but the steps of the training."""
    found = small_project.params()
    found["bases"]["tiny"] |= {"documents": 300, "steps": 5}
    train = {"max_steps": steps, "save_steps": saved, "eval_steps": steps}
    found["models"][MODEL]["train"] |= train
    return found


def build(folder: Path, steps: int = STEPS, saved: int = SAVED) -> Built:
    """The project, committed when its examples and its base were built, and then built on."""
    project = folder / "project"
    project.mkdir(parents=True)
    small_project.make(project)
    text = yaml.dump(params(steps, saved), Dumper=small_project.Plain, sort_keys=False)
    (project / "params.yaml").write_text(text, encoding="utf-8")
    git(project, "commit", "-q", "-a", "-m", "A training of a few steps")
    return _built(folder, project, f"validate@{MODEL} base@tiny", {})


def _built(folder: Path, project: Path, before: str, env: Mapping[str, str]) -> Built:
    repro(project, *before.split(), **env)
    git(project, "add", "-A")
    git(project, "commit", "-q", "-m", "What `here` has built")
    git(project, "branch", "-q", "-M", "main")
    shutil.copytree(project / ".dvc" / "cache", folder / "cache")
    repro(project, GGUF, **env)
    return Built(project, folder / "cache", before.split(), entries(project))


# Stages whose outputs are hashes of their inputs, and a training that takes each step when it may:
# when its machine's file PACE holds that number. Every step is logged with its process, in the file
# PACED of all machines; the stage that is named beside PACE, in `fails`, fails.
STUB = """
import hashlib
import json
import os
import sys
import time
from pathlib import Path

from stages.core import checkpoints, files, graph

STEPS, SAVED = %d, %d


def run(key):
    address = f"{Path(__file__).stem}@{key}"
    stage, fails = graph.load()[address], Path(os.environ["PACE"]).with_name("fails")
    if fails.exists() and fails.read_text() == address:
        sys.exit("it fails here")
    if address.startswith("train@"):
        train(key)
    digest = hashlib.sha256(address.encode())
    for dep in stage.deps:
        paths = [Path(dep), *sorted(Path(dep).rglob("*"))]
        digest.update(b"".join(path.read_bytes() for path in paths if path.is_file()))
    for path in (Path(out.path) for out in stage.outs):
        if path.suffix:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(digest.hexdigest())
            continue
        deps = [Path(dep) for one in graph.load().values() for dep in one.deps]
        with files.directory(path) as work:
            for name in {"made", *(dep.name for dep in deps if dep.parent == path)}:
                (work / name).write_text(f"{name} {digest.hexdigest()}")


def train(key):
    pace, log = Path(os.environ["PACE"]), Path(os.environ["PACED"])
    own = checkpoints.folder({"key": key})
    last = checkpoints.last(own)
    at = int(last.name.rpartition("-")[2]) if last else 0
    if at:
        print(f"{key}: goes on from step {at}", flush=True)
    while at < STEPS:
        while int(pace.read_text() or 0) <= at:
            time.sleep(0.01)
        at += 1
        with log.open("a") as file:
            file.write(f"{at} {os.getpid()}\\n")
        print(f"step {at}", flush=True)
        if at %% SAVED == 0:
            one = own / f"checkpoint-{at}"
            one.mkdir(parents=True)
            (one / "weights").write_text(str(at))
            (one / checkpoints.STATE).write_text(json.dumps({"step": at}))
    checkpoints.forget(own)
"""
STUBBED = ("base", "convert", "validate", "tokenise", "train", "fuse", "gguf")


def build_paced(folder: Path) -> Built:
    """The same project with STUB in place of its stages: nothing of it takes time by itself."""
    project = folder / "paced"
    project.mkdir(parents=True)
    small_project.make(project)
    for name in STUBBED:
        (project / "stages" / f"{name}.py").write_text(STUB % (STEPS, SAVED), encoding="utf-8")
    git(project, "add", "-A")
    git(project, "commit", "-q", "-m", "Stages that are paced")
    return _built(folder, project, f"tokenise@{MODEL}", _paced(folder, "local", STEPS))


def _paced(folder: Path, name: str, steps: int = 0) -> dict[str, str]:
    """What the environment says to a training that is paced."""
    own = folder / f"pace-{name}"
    own.mkdir()
    (own / "pace").write_text(str(steps))
    return {"PACE": str(own / "pace"), "PACED": str(folder / "paced.txt")}


def repro(project: Path, *targets: str, **env: str) -> None:
    """Build here, with all packages."""
    done = small_project.dvc(project, "repro", *targets, **env)
    assert done.returncode == 0, f"{targets}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


def entries(project: Path) -> dict[str, Any]:
    """The stages of a project's dvc.lock."""
    found: dict[str, Any] = yaml.safe_load((project / "dvc.lock").read_text("utf-8"))["stages"]
    return found


@contextmanager
def network(
    folder: Path, names: Sequence[str] = ("gpu0", "store"), hidden: Sequence[str] = TRAINING
) -> Iterator[Network]:
    """Machines that can run Tunesmith, and `here`, which cannot train."""
    site = folder / "site"
    site.mkdir(parents=True)
    (site / "sitecustomize.py").write_text(hiding.CODE, encoding="utf-8")
    cache = os.environ.get("TUNESMITH_CACHE") or str(Path.home() / ".cache" / "tunesmith")
    envs = {name: {"TUNESMITH_CACHE": cache} for name in ("here", *names)}
    for name, env in envs.items():
        env |= _paced(folder, name)
        env["DVC_SITE_CACHE_DIR"] = str(folder / f"dvc-{name}")
    envs["here"] |= {"PYTHONPATH": str(site), "HIDDEN_PACKAGES": " ".join(hidden)}
    who = small_project.environment()
    envs["here"] |= {name: who[name] for name in who if name.startswith(("GIT_A", "GIT_C"))}
    with machines.network(folder / "net", envs) as net:
        yield net


def heal(net: Network) -> None:
    """Undo what a test has done to the machines, and may not have come to undo."""
    for machine in net.machines.values():
        if not (machines.NAMESPACES / machine.namespace).exists():
            machine.revive()
        machine.mend()
        if not any(one.name().startswith("sshd") for one in machine.processes()):
            machine.sshd()
    net.here.mend()


@dataclass(frozen=True)
class Checkout:
    """A clone on `here`, and what is typed there."""

    net: Network
    folder: Path

    @property
    def here(self) -> Machine:
        return self.net.here

    def tunesmith(self, *words: str, code: int | None = 0) -> str:
        """What `tunesmith <words>` says, both streams; it ends with this code (None: any)."""
        done = self.here.run([sys.executable, "-m", "stages", *words], cwd=self.folder)
        said = done.stdout + done.stderr
        assert code is None or done.returncode == code, f"{words}: {done.returncode}\n{said}"
        return said

    def start(self, *words: str) -> "Typed":
        """The same, going on."""
        return Typed(self, words)

    def dvc(self, *words: str) -> str:
        """What `dvc <words>` says; it must end well."""
        program = str(Path(sys.executable).parent / "dvc")
        return self.here.run([program, *words], cwd=self.folder, check=True).stdout

    def lock(self) -> dict[str, Any]:
        """The stages of dvc.lock."""
        return entries(self.folder)

    def jobs(self) -> dict[str, dict[str, Any]]:
        """The records of the jobs that this checkout knows, by id."""
        folder = self.folder / ".tunesmith" / "jobs"
        return {path.stem: json.loads(path.read_bytes()) for path in folder.glob("*.json")}

    def job(self) -> str:
        """The id of the only job."""
        (name,) = self.jobs()
        return name

    def places(self, **more: Mapping[str, Any]) -> None:
        """Declare every machine but the store as a place of its name, with options by name."""
        found = {}
        for name, machine in self.net.machines.items():
            if name != "store":
                found[name] = {
                    "kind": "ssh", "host": name, "folder": str(machine.home / "jobs"),
                    "python": sys.executable, "ssh_options": ["-o", "ConnectTimeout=2"],
                    "remote_options": {"keyfile": str(self.net.keyfile)},
                    **more.get(name, {}),
                }  # fmt: skip
        (self.folder / "places.yaml").write_text(yaml.safe_dump(found), encoding="utf-8")


class Typed:
    """A command that goes on at `here`, with all that it says in a file."""

    def __init__(self, checkout: Checkout, words: Sequence[str]) -> None:
        self.path = checkout.here.home / f"said-{len(list(checkout.here.home.glob('said-*')))}"
        with self.path.open("wb") as file:
            self.process = subprocess.Popen(
                checkout.here.words([sys.executable, "-u", "-m", "stages", *words]),
                cwd=checkout.folder, env=checkout.here.env, stdin=subprocess.DEVNULL, stdout=file,
                stderr=file, start_new_session=True,
            )  # fmt: skip

    def said(self) -> str:
        return self.path.read_text("utf-8", errors="replace")

    def until(self, happened: str | Callable[[], object], seconds: float = 60) -> None:
        """Wait for a text of it, or for something else, while it goes on."""

        def has() -> bool:
            over = self.process.poll() is not None
            found = happened in self.said() if isinstance(happened, str) else bool(happened())
            assert found or not over, f"it ended before {happened}:\n{self.said()}"
            return found

        try:
            machines.wait_for(has, str(happened), seconds)
        except AssertionError as failure:
            raise AssertionError(f"{failure}\n{self.said()}") from failure

    def end(self, code: int | None = 0, seconds: float = 120) -> str:
        """Wait for its end; what it said."""
        found = self.process.wait(seconds)
        assert code is None or found == code, f"{found} instead of {code}\n{self.said()}"
        return self.said()

    def signal(self, number: int) -> None:
        self.process.send_signal(number)


def checkout(net: Network, built: Built, name: str = "project", **places: Any) -> Checkout:
    """A clone at `here`, with what it has built, the places, and the remote on `store`.

    Clones of different names are different projects to the places and have remotes of their own.
    """
    folder = net.here.home / name
    git(net.here.home, "clone", "-q", str(built.folder), str(folder))
    shutil.copytree(built.cache, folder / ".dvc" / "cache")
    found = Checkout(net, folder)
    found.places(**places)
    url = f"{net['store'].ssh.url}/{name}"
    (net["store"].ssh.folder / name).mkdir()
    config = folder / ".dvc" / "config"
    text = config.read_text().replace("[core]\n", "[core]\n    remote = store\n", 1)
    own = {"url": url, "keyfile": net.keyfile, "verify": "true"}
    lines = ["['remote \"store\"']", *(f"    {key} = {value}" for key, value in own.items())]
    config.write_text(text + "\n".join([*lines, ""]))
    found.dvc("checkout", "-q", *built.before)
    git(folder, "commit", "-q", "-a", "-m", "The store")
    return found


@dataclass(frozen=True)
class Paced:
    """The trainings of STUB on some machines.

    Attributes:
        log: each step that was taken, with the process that took it.
    """

    files: dict[str, Path]
    log: Path

    @classmethod
    def of(cls, net: Network) -> "Paced":
        """All of them, yet at their beginning."""
        files = {name: Path(machine.env["PACE"]) for name, machine in net.machines.items()}
        found = cls(files, Path(net.here.env["PACED"]))
        found.log.write_text("")
        found.to(0)
        return found

    def to(self, step: int) -> None:
        """Let them go up to a step."""
        for path in self.files.values():
            work = path.with_suffix(".new")
            work.write_text(str(step))
            work.replace(path)

    def fails(self, address: str) -> None:
        """The stage that fails everywhere; none: `""`."""
        for path in self.files.values():
            path.with_name("fails").write_text(address)

    def steps(self) -> list[tuple[int, int]]:
        """The steps so far, each with its process."""
        rows = [line.split() for line in self.log.read_text().splitlines()]
        return [(int(step), int(process)) for step, process in rows]

    def at(self, step: int) -> Callable[[], bool]:
        """Whether this step was the last one."""
        return lambda: [one for one, _ in self.steps()][-1:] == [step]

    def trainings(self) -> list[list[int]]:
        """The steps of each process in order; one after the other, and never two at once."""
        groups = [list(group) for _, group in itertools.groupby(self.steps(), lambda row: row[1])]
        processes = [group[0][1] for group in groups]
        assert len(set(processes)) == len(processes), f"two at once: {self.steps()}"
        return [[step for step, _ in group] for group in groups]


def objects(cache: Path) -> set[str]:
    """The names of everything in a cache."""
    return {path.parent.name + path.name for path in cache.glob("files/md5/??/*")}


def objects_of(built: Built, *paths: str) -> set[str]:
    """The objects of outputs of a project."""
    found = set()
    for name in (small_project.outputs(built.folder)[path] for path in paths):
        listing = built.folder / ".dvc" / "cache" / "files" / "md5" / name[:2] / name[2:]
        inner = json.loads(listing.read_text()) if name.endswith(".dir") else []
        found |= {name, *(entry["md5"] for entry in inner)}
    return found
