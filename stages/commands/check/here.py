"""What this machine is and has, and which of its settings are set."""

import os
from dataclasses import asdict
from typing import Any

from stages.commands.check.places import Places
from stages.core import engine, inside, local, machine, plugins
from stages.core.engine import KINDS
from stages.core.machine import Space


def facts(where: Places, disk: Space) -> dict[str, Any]:
    """This machine, its sizes in bytes."""
    gpu = machine.driver()
    return {
        **machine.system(),
        "memory": asdict(machine.memory()),
        "disk": asdict(disk),
        "gpus": [asdict(one) for one in where.gpus],
        "engine": asdict(where.engine),
        "images": {kind: _image(kind, where, gpu) for kind in KINDS},
        "launch": where.way,
        "settings": settings(),
        "unread": unread(),
    }


def _image(kind: str, where: Places, gpu: bool) -> dict[str, str]:
    """current, outdated, missing, or unknown where no engine can tell; and what to type."""
    image = where.images[kind]
    if not where.engine.name:
        return {**asdict(image), "state": "unknown", "do": ""}
    state = "missing" if not image.digest else "outdated" if image.wrong else "current"
    of_use = kind == "cpu" or gpu
    do = engine.build(kind, where.engine) if of_use and state != "current" else ""
    return {**asdict(image), "state": state, "do": do}


def settings() -> list[dict[str, str]]:
    """Those of local.NAMES that are set, and where; what is no word of ours may be a secret."""
    read = inside.facts() is None
    stated = local.stated(local.root() / local.FILE) if read else {}
    found = []
    for known in filter(local.get, local.NAMES):
        value = local.get(known)
        source = local.FILE if stated.get(known) == value else "the environment"
        over = f", over {local.FILE}" if stated.get(known, value) != value else ""
        shown = value if known.startswith(local.PREFIX) else "set"
        found.append({"name": known, "value": shown, "from": f"{source}{over}"})
    return found


def unread() -> dict[str, str]:
    """Names in the environment that look like ours and that nothing reads, each with a hint."""
    known = {*local.NAMES, inside.VARIABLE}
    names = [name for name in os.environ if name.startswith(local.PREFIX) and name not in known]
    hints = (plugins.nearest(name, local.NAMES) for name in names)
    return {n: hint.partition("Known: ")[0].strip() for n, hint in zip(names, hints, strict=True)}
