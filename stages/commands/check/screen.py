"""The facts of a machine and its models in; the lines of one screen out."""

from collections.abc import Iterator
from typing import Any

from stages.core.smaller import words

SUGGESTED = 3


def lines(found: dict[str, Any], one: bool) -> Iterator[str]:
    """All lines; `one` model is told in full, several have a line each and what is wrong."""
    yield from of_machine(found["machine"])
    yield from of_backends(found["backends"])
    yield ""
    if one:
        for key, model in found["models"].items():
            yield from in_full(key, model)
    else:
        yield from table(found["models"])


def of_machine(machine: dict[str, Any]) -> Iterator[str]:
    """What is here."""
    memory, disk = machine["memory"], machine["disk"]
    yield f"machine     {machine['system']}, {machine['architecture']}, Python {machine['python']}"
    yield f"  CPU       {machine['cpu'] or 'does not say its name'}, {machine['cores']} cores"
    yield f"  memory    {_of(memory)}"
    yield f"  disk      {_of(disk)}"
    gpus = [
        f"{gpu['name']}, {_of(gpu['memory'])}" if gpu["memory"] else gpu["name"]
        for gpu in machine["gpus"]
    ]
    yield f"  GPU       {'; '.join(gpus) or 'none found'}"
    engines = machine["engines"]
    have = [name for name, there in engines.items() if there]
    lack = [name for name, there in engines.items() if not there]
    said = [*have, *([f"no {' or '.join(lack)}"] if lack else [])]
    yield f"  engine    {', '.join(said)}"


def of_backends(backends: dict[str, Any]) -> Iterator[str]:
    """Which device each backend uses, or why it does not run."""
    yield "backends"
    for name, device in backends.items():
        version = device["version"] or "-"
        if device["kind"]:
            at = (
                device["kind"]
                if device["kind"] == "cpu"
                else f"{device['kind']} ({device['name']})"
            )
            yield f"  {name:<9} {version:<12} on {at}: {device['why']}"
        else:
            yield f"  {name:<9} {version:<12} does not run here: {device['why']}"
            yield f"            {device['do']}"


def table(models: dict[str, Any]) -> Iterator[str]:
    """A line for each model, and under it what is wrong."""
    width = max(6, *map(len, models)) + 2
    head = f"{'memory to train':<18}{'disk':<16}{'train on':<12}{'evaluate on':<13}batch"
    yield f"{'models':<{width + 2}}{head}"
    for key, model in models.items():
        memory, disk = (_verdict(model.get(kind)) for kind in ("memory", "disk"))
        train, evaluate = (_place(model[stage]) for stage in ("train", "evaluate"))
        cells = f"{memory:<18}{disk:<16}{train:<12}{evaluate:<13}{_batch(model)}"
        yield f"  {key:<{width}}{cells}".rstrip()
        yield from _mended(model, 4)
    yield "  batch: rows x tokens of the longest row; ~ where tokens.max_length stands for it"


def _batch(model: dict[str, Any]) -> str:
    if "length" not in model:
        return ""
    near = "" if model["length_from"] == "stats.json" else "~"
    return f"{model['batch']} x {near}{model['length']} {model['precision']}"


def in_full(key: str, model: dict[str, Any]) -> Iterator[str]:
    """One model with the parts of its memory and the reasons for its places."""
    held = "" if model["quantise_base"] == "none" else f" in {model['quantise_base']}"
    yield f"{key}: {model['method']} on {model['base']}{held}"
    if "memory" in model:
        yield f"  memory    {_verdict(model['memory'])}: {model['parts']}"
        yield f"            {model['rows']}"
    if "disk" in model:
        names = ("base", "adapter", "fused", "gguf", "checkpoint")
        sizes = ", ".join(
            f"{n} {words(model['disk'][n]) if model['disk'][n] else 0}" for n in names
        )
        yield f"  disk      {_verdict(model['disk'])}: {sizes}"
    for stage in ("train", "evaluate"):
        yield f"  {stage:<9} {_place(model[stage])}: {model[stage]['why']}"
    yield from _mended(model, 2)


def _mended(model: dict[str, Any], margin: int) -> Iterator[str]:
    """What is not known, or what would make it fit."""
    space = " " * margin
    if "note" in model:
        yield f"{space}{model['note']}"
    verdict = model.get("memory", {}).get("verdict", "fits")
    if verdict == "fits":
        return
    over = "this machine has in all" if verdict == "too big" else "is free now"
    ways = model["smaller"][:SUGGESTED]
    yield f"{space}{verdict}: more than {over} ({words(_room(model, verdict))}); what would fit:"
    for way in ways:
        yield f"{space}  {way['text']}    ({words(way['needed'])})"
    if not ways:
        yield f"{space}  no change of the settings: a smaller base, or another machine"


def _room(model: dict[str, Any], verdict: str) -> int:
    size: int = model["memory"]["total" if verdict == "too big" else "free"]
    return size


def _verdict(found: dict[str, Any] | None) -> str:
    """A size and how it fits; a question mark where it is not known."""
    if found is None:
        return "?"
    return f"{words(found['needed'])}  {found.get('verdict', '')}".rstrip()


def _place(found: dict[str, str]) -> str:
    return f"{found['backend']} {found['device']}"


def _of(space: dict[str, int]) -> str:
    return f"{words(space['total'])}, {words(space['free'])} free"
