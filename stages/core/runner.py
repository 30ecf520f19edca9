"""A stage's name and key in: the stage run where it is to run, its cost noted."""

import importlib
import resource
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from stages.core import (
    container,
    devices,
    engine,
    files,
    inside,
    launch,
    local,
    machine,
    plugins,
    runs,
    settings,
)  # fmt: skip
from stages.core.engine import Engine, Image
from stages.core.errors import TunesmithError
from stages.core.launch import Machine, Need, Place
from stages.core.settings import Params

CODE = Path(__file__).resolve().parents[2]  # where the package `stages` lies


def run(stage: str, section: str, key: str) -> None:
    """Run `stages/<stage>.py` for one entry of a section of params.yaml, here or in a container.

    Raises:
        TunesmithError: no such entry, nowhere to run it, or whatever the stage refuses.
        SystemExit: it ran in a container and failed there, which has said why.
    """
    params = settings.load()
    known = getattr(params, section)
    if key not in known:
        raise TunesmithError(
            f"There is no {key!r} in {section}.",
            where=f"params.yaml: {section}",
            do=plugins.nearest(key, known),
        )
    need = launch.need(stage, key, params)
    place, used, image = placed(need)
    if image:
        print(f"  {stage}@{key} in {image.name} ({image.digest[:19]})", file=sys.stderr)
        if code := container.run(need, used, image, CODE, gpu=place.where == "cuda"):
            sys.exit(code)
        return
    inside.watch()
    start = time.monotonic()
    importlib.import_module(f"stages.{stage}").run(key)
    seconds = time.monotonic() - start
    runs.note(f"{stage}@{key}", seconds, _peak_mb(), wrote(stage, key, params))


def placed(need: Need) -> tuple[Place, Engine, Image | None]:
    """Where a stage runs; in a container, also the engine and the image.

    Raises:
        TunesmithError: nowhere, with what to type.
    """
    way = local.one_of("TUNESMITH_LAUNCH", launch.WAYS)
    used, images = Engine(), dict[str, Image]()
    here = offered(need, used, images)
    if way == "container" or (way == "auto" and (here.missing or here.gpu)):  # else none is asked
        used, images = containers()
        here = offered(need, used, images)
    found = launch.place(need, way, here)
    return found, used, images.get(found.where)


def containers() -> tuple[Engine, dict[str, Image]]:
    """The engine to use, and our images in it by kind."""
    used = engine.find()
    return used, {kind: engine.image(used, kind, CODE) for kind in engine.KINDS}


def offered(need: Need, used: Engine, images: Mapping[str, Image]) -> Machine:
    """What this machine, with an engine and images, offers one stage."""
    missing = tuple(name for name in need.packages if not devices.version(name))
    gpu = need.backend == "torch" and need.stage in launch.ON_GPU and machine.driver()
    wrong = {kind: image.wrong for kind, image in images.items()}
    build = {kind: engine.build(kind, used) for kind in engine.KINDS}
    return Machine(gpu, used.name, used.why, wrong, build, missing)


def wrote(stage: str, key: str, params: Params) -> Path | None:
    """The weights that a stage has written, if it writes any."""
    if stage == "gguf":
        return files.gguf_path(params.gguf[key].model, key)
    folders = {"base": files.base_dir, "train": files.adapter_dir, "fuse": files.fused_dir}
    return folders[stage](key) if stage in folders else None


def _peak_mb() -> float:
    """Peak resident memory in MB of this process, or of the largest that it started."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    peak = max(resource.getrusage(kind).ru_maxrss for kind in kinds)
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)
