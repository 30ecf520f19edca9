"""Settings of this machine, which change where a stage runs and never what it makes.

An environment variable, or a line `NAME=value` in `local.env`, which git ignores, in the main
checkout: experiments in folders of their own read that one too.
"""

import os
from pathlib import Path

from stages.core import inside, plugins
from stages.core.errors import TunesmithError

FILE = "local.env"
PREFIX = "TUNESMITH_"
# Every name there is, with what it says.
NAMES = {
    "TUNESMITH_LAUNCH": "where stages run: auto, native or container",
    "TUNESMITH_ENGINE": "the container engine: docker or podman; else the first found",
    "TUNESMITH_IMAGE_CPU": "the image for stages that need no GPU; else tunesmith-cpu",
    "TUNESMITH_IMAGE_CUDA": "the image for NVIDIA GPUs; else tunesmith-cuda",
    "TUNESMITH_SHM": "shared memory of a container; else 1g",
    "TUNESMITH_PROCESSES": "training processes on this machine; else 1",
    "TUNESMITH_NODES": "machines that train together; else 1",
    "TUNESMITH_NODE": "which of them this is, from 0",
    "TUNESMITH_MASTER": "host:port of the first of them",
    "TUNESMITH_SHARD": "none, or fsdp: processes share one model's weights",
    "TUNESMITH_MEMORY": "ignore: train whatever the memory estimate says",
    "TUNESMITH_BLAS": "a BLAS library that MLX uses on Linux",
    "TUNESMITH_CACHE": "where llama.cpp's source is kept; else ~/.cache/tunesmith",
    "HF_TOKEN": "your token of the Hugging Face Hub, for stages that download",
}


def root() -> Path:
    """The main checkout: DVC names it, in an experiment's own folder too."""
    return Path(os.environ.get("DVC_ROOT") or ".")


def load() -> None:
    """Put the lines of local.env into the environment, whose own values come first.

    A container's stage is given what it may see and reads no file.

    Raises:
        TunesmithError: local.env holds something else than such lines.
    """
    if inside.facts() is not None:
        return
    for name, value in stated(root() / FILE).items():
        os.environ.setdefault(name, value)


def get(name: str) -> str:
    """The value of one of NAMES; nothing where it is not set."""
    assert name in NAMES, name
    return os.environ.get(name, "")


def one_of(name: str, allowed: tuple[str, ...]) -> str:
    """A setting that must be one of these words; the first of them where it is not set.

    Raises:
        TunesmithError: it is another word.
    """
    value = get(name) or allowed[0]
    if value not in allowed:
        raise wrong(name, plugins.nearest(value, allowed))
    return value


def wrong(name: str, do: str) -> TunesmithError:
    """The refusal of a setting's value."""
    return TunesmithError(
        f"{name} is {get(name)!r}.",
        where=f"the environment, or {FILE}",
        why=f"It says {NAMES[name]}.",
        do=do,
    )


def stated(path: Path) -> dict[str, str]:
    """The lines of a local.env; nothing where there is none.

    Raises:
        TunesmithError: a line that is no `NAME=value`, or a name that nothing reads.
    """
    if not path.exists():
        return {}
    found = {}
    for number, text in enumerate(_text(path).splitlines(), 1):
        line = text.strip().removeprefix("export ")
        if not line or line.startswith("#"):
            continue
        name, equals, value = (part.strip() for part in line.partition("="))
        if not equals or name not in NAMES:
            # What is no name of ours may be a token, and is not shown.
            shown = repr(name) if equals and name.startswith(PREFIX) else "This"
            raise TunesmithError(
                f"{shown} is no setting of a machine.",
                where=f"{path}:{number}",
                why="A name that nothing reads would be taken for one that works.",
                do=f"Write NAME=value. {plugins.nearest(name if shown != 'This' else '', NAMES)}",
            )
        found[name] = value.strip("\"'")
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as failure:
        raise TunesmithError(
            f"It cannot be read: {type(failure).__name__}.",
            where=str(path),
            why="Settings that are not heard would send stages elsewhere.",
            do="Write it as UTF-8 text, readable by you, a line NAME=value each; or delete it.",
        ) from failure
