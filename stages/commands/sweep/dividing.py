"""How many points run here at once in; what each of them gets of this machine, out."""

import os
from collections.abc import Mapping

from stages.core import machine, processes


def environment(at_once: int, slot: int) -> dict[str, str]:
    """This machine, divided: the variables of one of the points that run at once."""
    found = {}
    if "OMP_NUM_THREADS" not in os.environ:
        found["OMP_NUM_THREADS"] = str(max(1, machine.cores() // at_once))
    gpus = visible_gpus()
    if at_once > 1 and len(gpus) > 1 and processes.COUNT not in os.environ:
        found["CUDA_VISIBLE_DEVICES"] = gpus[slot % len(gpus)]
    return found


def visible_gpus() -> list[str]:
    """NVIDIA's GPUs that may be used, by the names that CUDA_VISIBLE_DEVICES takes."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [] if chosen in processes.NO_GPU else chosen.split(",")
    return [str(number) for number, one in enumerate(machine.gpus()) if one.memory is not None]


def division(at_once: int) -> str:
    """How the machine is divided, in words."""
    given: Mapping[str, str] = {**os.environ, **environment(at_once, 0)}
    text = f"{at_once} at a time, {given['OMP_NUM_THREADS']} thread(s) each on {machine.cores()}"
    text += f" cores, {machine.memory().free / 1e9:.1f} GB of free memory between them"
    if gpus := visible_gpus():
        text += f", {len(gpus)} GPU(s)" + (", shared" if at_once > len(gpus) else "")
    return text
