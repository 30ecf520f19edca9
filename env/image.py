"""Build the image that Dockerfile.<kind> describes; run by `make image-cpu`, `make image-cuda`.

From the environment: ENGINE (docker or podman; else TUNESMITH_ENGINE), BASE_IMAGE (in place of the
Dockerfile's), and BUILD_ARGS (more options for the engine's build). The standard library is enough:
a machine that only builds images needs no `make setup`.
"""

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
INSTALL = {
    "docker": "Install Docker (Debian: apt install docker.io), or take podman: ENGINE=podman",
    "podman": "Install podman (Debian: apt install podman), or take docker: ENGINE=docker",
}
START = {
    "docker": "Start it: sudo systemctl start docker   (Docker Desktop: open it)\n"
    "  You may need to be in the group docker: sudo usermod -aG docker $USER",
    "podman": "On a Mac: podman machine start   (elsewhere: podman info, and mend what it names)",
}


def git(*arguments: str) -> str:
    """What git answers; nothing outside a repository."""
    done = subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )  # fmt: skip
    return done.stdout.strip()


def labels(kind: str) -> dict[str, str]:
    """The build arguments that become the image's labels; PINS is what `engine.pins` compares."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    changed = "-dirty" if git("status", "--porcelain") else ""
    source = (ROOT / "stages" / "core" / "llamacpp.py").read_text()
    llama = re.search(r'^SHA256 = "([0-9a-f]{64})"$', source, re.MULTILINE)
    assert llama is not None
    pins = hashlib.sha256((ROOT / "env" / f"{kind}.lock").read_bytes() + llama[1].encode())
    return {
        "VERSION": project["version"],
        "REVISION": (git("rev-parse", "HEAD") or "unknown") + changed,
        "PINS": pins.hexdigest(),
    }


def unusable(engine: str) -> str:
    """Why the engine cannot build, and what to type; nothing where it can."""
    if shutil.which(engine) is None:
        return f"{engine} is not installed.\n  {INSTALL.get(engine, 'ENGINE=docker or podman')}"
    done = subprocess.run([engine, "info"], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return ""
    last = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
    return f"{engine} does not answer: {last}\n  {START.get(engine, '')}"


def environment(engine: str) -> dict[str, str]:
    """Ours; where docker lacks its plugin for BuildKit, its own older builder is asked for."""
    found = dict(os.environ)
    if engine == "docker":
        plugin = subprocess.run([engine, "buildx", "version"], capture_output=True, check=False)
        if plugin.returncode:
            found.setdefault("DOCKER_BUILDKIT", "0")
    return found


def main() -> None:
    """Build, and end with the engine's exit status."""
    asked = os.environ.get("ENGINE") or os.environ.get("TUNESMITH_ENGINE")
    kind, engine = sys.argv[1], asked or "docker"
    if wrong := unusable(engine):
        sys.exit(wrong)
    arguments = labels(kind)
    if base := os.environ.get("BASE_IMAGE"):
        arguments["BASE_IMAGE"] = base
    options = [
        part for name, value in arguments.items() for part in ("--build-arg", f"{name}={value}")
    ]
    command = [engine, "build", "-f", f"Dockerfile.{kind}", "-t", f"tunesmith-{kind}", *options]
    extra = shlex.split(os.environ.get("BUILD_ARGS", ""))
    done = subprocess.run([*command, *extra, "."], cwd=ROOT, env=environment(engine), check=False)
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
