"""The facts of a machine and its models in; the lines of one screen out."""

import textwrap
from collections.abc import Iterator
from typing import Any

from stages.core.smaller import words

SUGGESTED = 3
WIDTH = 96
LAUNCH = {
    "auto": "auto: natively or in a container, as suits the stage and this machine",
    "native": "native: everything outside containers",
    "container": "container: everything but MLX in a container",
}
IN = {"native": "native", "cpu": "cpu image", "cuda": "cuda image", "nowhere": "nowhere"}


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
    yield from of_engine(machine["engine"], machine["images"])
    yield f"  launch    {LAUNCH[machine['launch']]}"
    for one in machine["settings"]:
        said = f"={one['value']}" if one["value"] != "set" else " is set"
        yield f"  setting   {one['name']}{said}    (from {one['from']})"
    for name, hint in machine["unread"].items():
        yield f"  setting   {name} is read by nothing. {hint}".rstrip()


def of_engine(engine: dict[str, Any], images: dict[str, Any]) -> Iterator[str]:
    """The container engine, and a line for each image."""
    if not engine["name"]:
        yield from folded("  engine    ", f"none: {engine['why']}")
        return
    rights = "rootless" if engine["rootless"] else "with root's rights"
    yield f"  engine    {engine['name']} {engine['version']}, {rights}"
    wide = max(len(image["name"]) for image in images.values()) + 2
    for image in images.values():
        head = f"  image     {image['name']:<{wide}}"
        text, do = _image(image), image["do"]
        beside = f": {do}" if do and len(f"{head}{text}: {do}") <= WIDTH else ""
        yield from folded(head, f"{text}{beside}")
        if do and not beside:  # what is typed is not broken
            yield f"            {do}"


def _image(image: dict[str, Any]) -> str:
    """Whether an image is there and of now."""
    if image["state"] == "current":
        return f"current, {image['digest'][:19]}"
    if not image["do"]:
        return f"{image['state']}; it is for NVIDIA GPUs, and none is here"
    wrong = image["wrong"].removeprefix(f"the image {image['name']} ")
    return f"{image['state']} ({wrong})" if image["state"] == "outdated" else image["state"]


def of_backends(backends: dict[str, Any]) -> Iterator[str]:
    """Which device each backend uses outside containers, or why it does not run there."""
    yield "backends outside containers"
    for name, device in backends.items():
        head = f"  {name:<9} {device['version'] or '-':<12} "
        if device["kind"]:
            yield from folded(head, f"on {_named(device)}: {device['why']}")
        else:
            yield from folded(head, f"does not run: {device['why']}")
            yield f"            {device['do']}"


def table(models: dict[str, Any]) -> Iterator[str]:
    """A line for each model, and under it what is wrong; then what to type where one cannot run."""
    width = max(6, *map(len, models)) + 2
    head = f"{'memory to train':<18}{'disk':<14}{'batch':<16}{'on':<12}stages run"
    yield f"{'models':<{width + 2}}{head}"
    for key, model in models.items():
        memory, disk = (_verdict(model.get(kind)) for kind in ("memory", "disk"))
        on = dict.fromkeys(_place(model[stage]) for stage in ("train", "evaluate"))
        cells = f"{memory:<18}{disk:<14}{_batch(model):<16}{', '.join(on):<11} {_runs(model)}"
        yield f"  {key:<{width}}{cells}"
        yield from _mended(model, 4)
    yield "  batch: rows x tokens of the longest row; ~ where tokens.max_length stands for it"
    ways = dict.fromkeys(line for model in models.values() for line in _ways(model))
    if ways:
        yield "  where a stage runs nowhere, type (tunesmith check <model> says why):"
        yield from (f"    {way}" for way in ways)


def _runs(model: dict[str, Any]) -> str:
    """Where a model's stages run, in a few words: those that cannot, or every place."""
    lost = list(dict.fromkeys(s["stage"] for s in model["stages"] if s["where"] == "nowhere"))
    if not lost:
        at = {stage["where"] for stage in model["stages"]}
        images = "+".join(kind for kind in ("cpu", "cuda") if kind in at)
        said = ["native" if "native" in at else "", f"{images} image" if images else ""]
        return ", ".join(filter(None, said))
    lost.sort(key=lambda name: name != "train")
    more = f", {len(lost) - 1} more" if lost[1:] else ""
    return f"nowhere: {lost[0]}{more}"


def _ways(model: dict[str, Any]) -> Iterator[str]:
    """What to type for the stages that run nowhere, a line each."""
    return (line for stage in model["stages"] for line in stage["do"])


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
        of = f" ({model['of']})" if model["processes"] > 1 else ""
        yield from folded("  memory    ", f"{_verdict(model['memory'])}{of}: {model['parts']}")
        yield f"            {model['rows']}"
    if "disk" in model:
        names = ("base", "adapter", "fused", "gguf", "checkpoint")
        sizes = ", ".join(
            f"{n} {words(model['disk'][n]) if model['disk'][n] else 0}" for n in names
        )
        yield from folded("  disk      ", f"{_verdict(model['disk'])}: {sizes}")
    for stage in ("train", "evaluate"):
        at = model[stage]
        if at["where"] == "nowhere":  # the stages say why
            continue
        yield from folded(f"  {stage:<9} ", f"{at['backend']} {_named(at)}: {at['why']}")
    yield from _mended(model, 2)
    yield "  stages"
    yield from chain(model["stages"])


def chain(stages: list[dict[str, Any]]) -> Iterator[str]:
    """A line for each stage: where it runs and why; then what to type for those that cannot."""
    names = [f"{stage['stage']}@{stage['key']}" for stage in stages]
    wide = max(map(len, names)) + 2
    for name, stage in zip(names, stages, strict=True):
        head = f"    {name:<{wide}}{IN[stage['where']]:<12}"
        yield from folded(head, _why(name, stage))
    ways = dict.fromkeys(line for stage in stages for line in stage["do"])
    if ways:
        yield "  to type, for those that run nowhere here:"
        yield from (f"    {way}" for way in ways)


def _mended(model: dict[str, Any], margin: int) -> Iterator[str]:
    """What is not known, or what would make it fit."""
    space = " " * margin
    if "note" in model:
        yield from folded(space, model["note"])
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
    device = "" if found["device"] == "nowhere" else found["device"]
    return f"{found['backend']} {device}".rstrip()


def _named(device: dict[str, Any]) -> str:
    """A device; a GPU by its name."""
    kind = str(device.get("device") or device["kind"])
    return kind if kind in ("cpu", "nowhere") else f"{kind} ({device['name']})"


def _why(name: str, stage: dict[str, Any]) -> str:
    """Why a stage runs where it does, its name not said twice; what a container lets it have."""
    refused = (f"{name} can run nowhere here: ", f"{name} is to run in a container, and cannot: ")
    why: str = stage["why"].rstrip(".")
    for prefix in refused:
        why = why.removeprefix(prefix)
    if not stage["image"] or not stage["network"]:
        return why
    return "; with ".join([why, ", ".join(["network", *stage["secrets"]])])


def folded(head: str, text: str) -> Iterator[str]:
    """A text behind its head, in lines of at most WIDTH that begin where it began."""
    margin = " " * len(head)
    return iter(
        textwrap.wrap(
            text, WIDTH, initial_indent=head, subsequent_indent=margin, break_long_words=False,
            break_on_hyphens=False,
        )
    )  # fmt: skip


def _of(space: dict[str, int]) -> str:
    return f"{words(space['total'])}, {words(space['free'])} free"
