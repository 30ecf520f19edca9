"""A model's chain and this machine in; where each stage runs, on what, and why, out."""

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stages.core import devices, files, launch, local, machine, plugins, runner
from stages.core.devices import Device
from stages.core.engine import Engine, Image
from stages.core.errors import TunesmithError
from stages.core.machine import Gpu
from stages.core.settings import Params

NOWHERE = "nowhere"
AMPERE = 8.0  # the compute capability from which on a GPU computes in bf16


@dataclass(frozen=True, slots=True)
class Places:
    """What this machine offers to stages, looked up once.

    Attributes:
        way: auto, native or container.
        engine, images: as `runner.containers` finds them.
        native: the device of each backend outside containers.
        gpus: as machine.gpus() lists them.
    """

    way: str
    engine: Engine
    images: Mapping[str, Image]
    native: Mapping[str, Device]
    gpus: list[Gpu]

    def backends(self) -> dict[str, dict[str, Any]]:
        """The device of each backend outside containers, for JSON."""
        return {name: devices.said(device) for name, device in self.native.items()}

    def spot(self, stage: str, key: str, params: Params) -> dict[str, Any]:
        """Where a stage runs: native, cpu or cuda (the images), or nowhere; why, and what to type.

        Nothing is refused: what the launcher would refuse is told.
        """
        need = launch.need(stage, key, params)
        found = {"stage": stage, "key": key, "network": need.network, "secrets": need.secrets}
        offered = runner.offered(need, self.engine, self.images)
        try:
            place = launch.place(need, self.way, offered)
        except TunesmithError as refused:
            do = [line.strip() for line in refused.do.splitlines()]
            return found | {"where": NOWHERE, "image": "", "why": refused.what, "do": do}
        if place.where == "native" and offered.missing:  # asked for; the stage itself refuses
            why = f"{place.why}, and {', '.join(offered.missing)} not installed"
            return found | {"where": NOWHERE, "image": "", "why": why, "do": ["make setup"]}
        image = self.images[place.where].name if place.where != "native" else ""
        return found | {"where": place.where, "image": image, "why": place.why, "do": []}

    def device(self, backend: str, spot: Mapping[str, Any]) -> Device:
        """The device of a backend where a stage runs; `kind` is empty where that is nowhere."""
        native, where = self.native[backend], spot["where"]
        if where == NOWHERE:
            return replace(native, kind="", why=spot["why"])
        if where == "native" or backend != "torch":
            return native
        within = Device(backend, why=f"in the image {spot['image']}")
        if where == "cpu":
            return replace(within, kind="cpu", name="cpu", memory=machine.memory())
        return replace(within, **_gpu(self.gpus))


def look() -> Places:
    """Ask the engine, the backends and nvidia-smi.

    Raises:
        TunesmithError: a setting of this machine that is not right.
    """
    way = local.one_of("TUNESMITH_LAUNCH", launch.WAYS)
    native = {name: devices.of(name) for name in plugins.names("backends")}
    return Places(way, *runner.containers(), native, machine.gpus())


def _gpu(gpus: list[Gpu]) -> dict[str, Any]:
    """What a container with GPUs computes on, by nvidia-smi: torch may be in the image alone.

    The first GPU, or the first of CUDA_VISIBLE_DEVICES, as stages/backends/torch has it.
    """
    asked = os.environ.get("CUDA_VISIBLE_DEVICES", "").partition(",")[0].strip()
    if asked == "-1":
        why = "CUDA_VISIBLE_DEVICES=-1 hides the GPU from the image"
        return {"kind": "cpu", "name": "cpu", "memory": machine.memory(), "why": why}
    if not gpus:
        return {"kind": "cuda", "name": "a GPU that nvidia-smi does not list"}
    number = int(asked) if asked.isdecimal() and int(asked) < len(gpus) else 0
    chosen = gpus[number]
    found = {"kind": "cuda", "name": chosen.name, "memory": chosen.memory}
    return {**found, "bf16": _bf16(number)}


def _bf16(number: int) -> bool:
    """Whether NVIDIA's GPU of this number computes in bf16, which one that does not say does."""
    asked = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader", f"--id={number}"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return True
    said = done.stdout.strip()
    return float(said) >= AMPERE if said.replace(".", "", 1).isdecimal() else True


def chain(params: Params, key: str) -> list[tuple[str, str]]:
    """Every stage and its key, from raw data to the release of a model."""
    files_of = [name for name, one in params.gguf.items() if one.model == key]
    return [
        *_until_fused(params, key),
        *(("gguf", name) for name in files_of),
        ("evaluate", key),
        *(("verify", name) for name in files_of),
        ("release", key),
    ]


def _until_fused(params: Params, key: str) -> list[tuple[str, str]]:
    """To the fused model, with all that its base was tuned from."""
    model, base = params.models[key], Path(params.models[key].base)
    source = Path(params.datasets[model.dataset].source)
    made = [name for name in params.samples if source.is_relative_to(files.raw_dir(name))]
    earlier = before(params, key)
    own = [("base", name) for name in params.bases if files.base_dir(name) == base]
    found = [
        *(("sample", name) for name in made),
        *(_until_fused(params, earlier) if earlier else own),
        ("convert", model.dataset),
        ("validate", model.dataset),
        *((stage, key) for stage in ("tokenise", "train", "fuse")),
    ]
    return list(dict.fromkeys(found))


def before(params: Params, key: str) -> str:
    """The model that a model's base is, tuned; empty where its base is none of them."""
    base = Path(params.models[key].base)
    tuned = base.name in params.models and base == files.fused_dir(base.name)
    return base.name if tuned else ""
