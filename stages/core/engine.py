"""Docker or podman, and our images in it: which there are, and whether they are those of now."""

import hashlib
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stages.core import llamacpp, local
from stages.core.errors import TunesmithError

ENGINES = ("docker", "podman")
KINDS = ("cpu", "cuda")
LABEL = "tunesmith.pins"
SECONDS = 30.0  # an engine that says nothing for so long is not there
SERVER = {"docker": "{{.Server.Version}}", "podman": "{{.Client.Version}}"}


@dataclass(frozen=True, slots=True)
class Engine:
    """A container engine.

    Attributes:
        name: docker or podman; empty where none answers.
        version: of the engine.
        why: why there is none.
        rootless: whether it runs as the caller, so that a container's root is the caller.
    """

    name: str = ""
    version: str = ""
    why: str = ""
    rootless: bool = False


@dataclass(frozen=True, slots=True)
class Image:
    """An image: its content's digest, and what is wrong with it; nothing where all is right."""

    name: str
    digest: str = ""
    wrong: str = ""


class Silent(TunesmithError):  # noqa: N818 (it says what is the matter)
    """An engine does not answer in time."""


def find() -> Engine:
    """The engine to use: TUNESMITH_ENGINE, or the first that answers.

    Raises:
        TunesmithError: TUNESMITH_ENGINE names none that there is.
    """
    asked = local.get("TUNESMITH_ENGINE")
    if asked and asked not in ENGINES:
        raise local.wrong("TUNESMITH_ENGINE", f"Known: {', '.join(ENGINES)}.")
    found = [_asked(name) for name in ([asked] if asked else ENGINES)]
    silent = "; ".join(engine.why for engine in found)
    return next((engine for engine in found if engine.name), Engine(why=silent))


def _asked(name: str) -> Engine:
    if shutil.which(name) is None:
        return Engine(why=f"{name} is not installed")
    asked = "{{.Host.Security.Rootless}}" if name == "podman" else "{{.SecurityOptions}}"
    try:
        done = said([name, "version", "--format", SERVER[name]])
        info = said([name, "info", "--format", asked]).stdout
    except Silent as silent:
        return Engine(why=silent.what.rstrip("."))
    version = done.stdout.strip()
    if done.returncode or not version:
        last = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        return Engine(why=f"{name} does not answer ({last})")
    return Engine(name, version, rootless="true" in info or "name=rootless" in info)


def name(kind: str) -> str:
    """What the image for cpu or cuda is called on this machine."""
    return local.get(f"TUNESMITH_IMAGE_{kind.upper()}") or f"tunesmith-{kind}"


def build(kind: str, engine: Engine) -> str:
    """What to type for an image in this engine, under the name that it is to have."""
    made, called = f"tunesmith-{kind}", name(kind)
    used = engine.name or local.get("TUNESMITH_ENGINE") or ENGINES[0]
    word = "" if used == ENGINES[0] else f" ENGINE={used}"
    then = "" if called == made else f" && {used} tag {made} {called}"
    return f"make image-{kind}{word}{then}"


def pins(kind: str, root: Path) -> str:
    """SHA-256 of what an image's libraries are fixed by: its lock, and the llama.cpp source."""
    lock = (root / "env" / f"{kind}.lock").read_bytes()
    return hashlib.sha256(lock + llamacpp.SHA256.encode()).hexdigest()


def image(engine: Engine, kind: str, root: Path) -> Image:
    """The image for cpu or cuda, compared with the locks of the project in `root`."""
    called = name(kind)
    if not engine.name:
        return Image(called, wrong=engine.why)
    asked = '{{.Id}} {{with .Config.Labels}}{{index . "' + LABEL + '"}}{{end}}'  # or there are none
    try:
        done = said([engine.name, "image", "inspect", "--format", asked, called])
    except Silent as silent:
        return Image(called, wrong=silent.what.rstrip("."))
    if done.returncode:
        return Image(called, wrong=f"there is no image {called}")
    digest, _, label = done.stdout.strip().partition(" ")
    digest = digest if digest.startswith("sha256:") else f"sha256:{digest}"
    if label == pins(kind, root):
        return Image(called, digest)
    how = f"holds other versions than env/{kind}.lock" if label else f"has no label {LABEL}"
    return Image(called, digest, f"the image {called} {how}")


def said(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """What an engine's command answers.

    Raises:
        Silent: it does not answer in time.
    """
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=SECONDS
        )  # fmt: skip
    except subprocess.TimeoutExpired as late:
        raise Silent(
            f"{command[0]} does not answer within {SECONDS:.0f} seconds.",
            where=" ".join(command),
            do=f"Start {command[0]} anew, or run without it: TUNESMITH_LAUNCH=native",
        ) from late
