"""A stage and a machine in; where the stage runs, and why, out. Where it runs is not what it makes.

`place` is pure: every combination is in a table of tests/test_launch.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Literal

from stages.core import plugins
from stages.core.errors import TunesmithError
from stages.core.settings import Params

WAYS = ("auto", "native", "container")
# What a stage imports of the optional packages, by backend or kind where it has one.
# tests/test_without_packages.py runs the stages with all others hidden.
READERS = ("transformers", "safetensors")
MLX = ("mlx", "mlx-lm")
PACKAGES: dict[str, tuple[str, ...]] = {
    "sample hub": ("huggingface_hub",),
    "base hub": ("huggingface_hub",),
    "base tiny": ("torch", *READERS),
    "train torch": ("torch", "peft", "trl", "accelerate", *READERS),
    "train mlx": (*MLX, *READERS),
    "fuse": ("torch",),
    "gguf": ("torch", "sentencepiece", *READERS),
    "evaluate torch": ("torch", *READERS),
    "evaluate mlx": (*MLX, *READERS),
    "verify": ("torch", "xllamacpp", *READERS),
}
ON_GPU = ("train", "evaluate")


@dataclass(frozen=True, slots=True)
class Need:
    """What one stage of one entry needs.

    Attributes:
        stage, key: as in `python -m stages <stage> <key>`.
        backend: who computes, torch or mlx; empty where nobody does.
        packages: the optional packages that it imports.
        network: whether it downloads; a container has no network otherwise.
        secrets: the environment variables that it may see.
        reads: what it reads that may lie outside the project.
    """

    stage: str
    key: str
    backend: str = ""
    packages: tuple[str, ...] = ()
    network: bool = False
    secrets: tuple[str, ...] = ()
    reads: tuple[Path, ...] = ()

    @property
    def command(self) -> str:
        return f"python -m stages {self.stage} {self.key}"


@dataclass(frozen=True, slots=True)
class Machine:
    """What a machine offers one stage.

    Attributes:
        gpu: whether NVIDIA's driver is here.
        engine: docker or podman, when it answers; empty otherwise.
        engine_why: why there is none.
        images: what is wrong with the image of each kind, cpu and cuda; empty where nothing is.
        build: what to type for each of them.
        missing: the stage's packages that are not installed here.
    """

    gpu: bool = False
    engine: str = ""
    engine_why: str = "no docker and no podman is here"
    images: Mapping[str, str] = field(default_factory=dict)
    build: Mapping[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Place:
    """Where a stage runs: `native`, or the `cpu` or `cuda` image."""

    where: Literal["native", "cpu", "cuda"]
    why: str


def need(stage: str, key: str, params: Params) -> Need:
    """What a stage needs, by its entry of params.yaml and what its plug-in declares.

    A maker or kind of base that downloads says `NETWORK = True`, and names in `SECRETS` the
    environment variables that it may see.
    """
    by, plugin = _by(stage, key, params)
    backend = by if stage in ON_GPU else "torch" if f"{stage} {by}".strip() in PACKAGES else ""
    return Need(
        stage,
        key,
        backend,
        PACKAGES.get(f"{stage} {by}".strip(), ()),
        getattr(plugin, "NETWORK", False),
        getattr(plugin, "SECRETS", ()),
        (Path(params.datasets[key].source),) if stage == "convert" else (),
    )


def _by(stage: str, key: str, params: Params) -> tuple[str, ModuleType | None]:
    """The backend, maker or kind of base that decides what a stage imports, and its plug-in."""
    if stage == "sample":
        maker = params.samples[key].maker
        return maker, plugins.load("makers", maker)
    if stage == "base":
        kind = params.bases[key].kind
        return kind, plugins.load("bases", kind)
    if stage == "train":
        return params.models[key].backend, None
    if stage == "evaluate":
        return params.models[key].evaluate.engine, None
    return "", None


def place(need: Need, way: str, machine: Machine) -> Place:
    """Where a stage runs.

    Args:
        need: of the stage.
        way: auto, native or container.
        machine: what is here.

    Raises:
        TunesmithError: it can run nowhere here, with what to type.
    """
    on_gpu = machine.gpu and need.stage in ON_GPU
    kind: Literal["cpu", "cuda"] = "cuda" if on_gpu else "cpu"
    if need.backend == "mlx":
        if machine.missing:
            raise _no_mlx(need, machine)
        return Place("native", "MLX runs natively: no container reaches a Mac's GPU")
    if way == "native":
        return Place("native", "TUNESMITH_LAUNCH=native")
    wrong = _wrong(kind, machine)
    if way == "container":
        if wrong:
            raise _no_container(need, kind, machine, wrong)
        return Place(kind, "TUNESMITH_LAUNCH=container")
    if on_gpu and not wrong:
        return Place("cuda", f"an NVIDIA GPU and {machine.engine} are here")
    if not machine.missing:
        why = "its packages are installed" if need.packages else "the light install is enough"
        return Place("native", why + (f"; {wrong}" if on_gpu else ""))
    if not wrong:
        return Place(kind, f"{_listed(machine)} not installed")
    raise _nowhere(need, kind, machine, wrong)


def _wrong(kind: str, machine: Machine) -> str:
    """Why no container of a kind can run; empty where it can."""
    if not machine.engine:
        return machine.engine_why
    return machine.images.get(kind, "")


def _listed(machine: Machine) -> str:
    return ", ".join(machine.missing)


def _build(kind: str, machine: Machine) -> str:
    """What to type for a container."""
    start = ""
    if "permission denied" in machine.engine_why:
        start = "sudo usermod -aG docker $USER    and log in anew, then: "
    elif not machine.engine:
        start = "install and start docker or podman, then: "
    return start + machine.build.get(kind, f"make image-{kind}")


def _no_mlx(need: Need, machine: Machine) -> TunesmithError:
    return TunesmithError(
        f"MLX does not run here: {_listed(machine)} not installed.",
        where=f"{need.stage}@{need.key}",
        why="MLX runs natively, on Macs with Apple silicon and Linux CPUs; no container has it.",
        do=f"make setup    there, then: dvc repro {need.stage}@{need.key}\n"
        f"        or here on torch: dvc exp run -S models.{need.key}."
        f"{'backend' if need.stage == 'train' else 'evaluate.engine'}=torch",
    )


def _no_container(need: Need, kind: str, machine: Machine, wrong: str) -> TunesmithError:
    return TunesmithError(
        f"{need.stage}@{need.key} is to run in a container, and cannot: {wrong}.",
        where="TUNESMITH_LAUNCH=container",
        why="It would run beside the images that were asked for, not in them.",
        do=f"{_build(kind, machine)}\n        or here: TUNESMITH_LAUNCH=auto",
    )


def _nowhere(need: Need, kind: str, machine: Machine, wrong: str) -> TunesmithError:
    return TunesmithError(
        f"{need.stage}@{need.key} can run nowhere here: {_listed(machine)} not installed, "
        f"and no container: {wrong}.",
        where=need.command,
        why="The light install leaves the training packages out.",
        do=f"make setup\n        or in a container: {_build(kind, machine)}",
    )
