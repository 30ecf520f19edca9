"""The installed environment in; env/*.lock out: one exact version a line, with hashes for images.

Run by `make lock` after an upgrade, on Linux. Each of data, torch, mlx and dev holds what its part
of pyproject.toml needs and an earlier one does not hold already; DVC stages depend on the locks
that shape their result. cpu and cuda hold all that an image installs, with the sha256 of every
wheel that Linux may take, as the index that pip is configured for names them.
"""

import itertools
import json
import re
import subprocess
import sys
import tempfile
import venv
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

PARTS = {
    # Only what shapes bytes of data; the tools around it (dvc, typer) are pinned for convenience.
    "data": [
        "jinja2",
        "jsonschema",
        "numpy",
        "orjson",
        "pyarrow",
        "pydantic",
        "PyYAML",
        "tokenizers",
        "wzrdbrain",
    ],
    "torch": [
        "torch",
        "accelerate",
        "bitsandbytes",
        "huggingface_hub",
        "peft",
        "protobuf",
        "safetensors",
        "sentencepiece",
        "transformers",
        "trl",
        "xllamacpp",
    ],
    "mlx": ["mlx", "mlx-cpu", "mlx-lm"],
    "dev": [
        "dvc",
        "axe-playwright-python",
        "bcrypt",
        "cyclonedx-python-lib",
        "dvc-s3",
        "dvc-ssh",
        "flask",
        "flask-cors",
        "gradio",
        "httpx",
        "hypothesis",
        "ipykernel",
        "fqdn",
        "isoduration",
        "jsonpointer",
        "rfc3339-validator",
        "rfc3987-syntax",
        "uri-template",
        "webcolors",
        "model-signing",
        "moto",
        "openai",
        "playwright",
        "pyOpenSSL",
        "py-partiql-parser",
        "rich",
        "ruamel.yaml",
        "typer",
        "uvicorn",
        "mypy",
        "nbclient",
        "nbformat",
        "pytest",
        "pytest-xdist",
        "ruff",
        "types-jsonschema",
        "types-PyYAML",
        "vl-convert-python",
    ],
}
# What `python -m stages` imports inside a container: no DVC and no tools of development.
IMAGE = [*PARTS["data"], *PARTS["torch"], "ruamel.yaml", "typer"]

# The images run on Linux; other bases may bring another Python that pyproject.toml allows.
MACHINES = ("x86_64", "aarch64")
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
GLIBC = range(5, 37)  # up to Debian 12's, the images' own
LEGACY = ("manylinux1", "manylinux2010", "manylinux2014", "linux")

Hashes = dict[str, set[str]]  # of every wheel, by "name==version"


def name(text: str) -> str:
    """A project name as the index spells it."""
    return re.sub(r"[-_.]+", "-", text).lower()


def closure(roots: list[str]) -> dict[str, str]:
    """Name -> version of the roots and all that they need on this machine."""
    found: dict[str, str] = {}
    todo = list(roots)
    while todo:
        wanted = name(todo.pop())
        if wanted in found:
            continue
        try:
            installed = distribution(wanted)
        except PackageNotFoundError:
            continue
        found[wanted] = installed.version.split("+")[0]
        needs = [Requirement(text) for text in installed.requires or []]
        todo += [n.name for n in needs if n.marker is None or n.marker.evaluate({"extra": ""})]
    return found


def write(part: str, lines: list[str]) -> None:
    """One lock beside this file."""
    Path(__file__).with_name(f"{part}.lock").write_text("\n".join(lines) + "\n")


def versions() -> None:
    """The locks of versions: data, torch, mlx, dev."""
    locked: dict[str, str] = {}
    for part, roots in PARTS.items():
        found = {n: v for n, v in closure(roots).items() if n not in locked}
        if "mlx-cpu" in found:  # what Macs have in its place comes in the same version
            found["mlx-metal"] = found["mlx-cpu"]
        write(part, [f"{package}=={version}" for package, version in sorted(found.items())])
        locked |= found


def report(pip: str, wanted: list[str], *options: str) -> Hashes:
    """What pip would install, by its own report: nothing is installed, no wheel is downloaded."""
    command = [pip, "install", "--dry-run", "--quiet", "--ignore-installed", "--report", "-"]
    done = subprocess.run(
        [*command, "--only-binary", ":all:", *options, *wanted],
        stdout=subprocess.PIPE,
        check=True,
    )
    found: Hashes = {}
    for item in json.loads(done.stdout)["install"]:
        metadata, archive = item["metadata"], item["download_info"]["archive_info"]
        pin = f"{name(metadata['name'])}=={metadata['version'].split('+')[0]}"
        found[pin] = {archive["hashes"]["sha256"]}
    return found


def everywhere(pip: str, wanted: list[str]) -> Hashes:
    """The hashes for every machine and Python that an image may be built for."""

    def one(target: tuple[str, str]) -> Hashes:
        machine, python = target
        tags = [*(f"manylinux_2_{minor}" for minor in reversed(GLIBC)), *LEGACY]
        platforms = [f"--platform={tag}_{machine}" for tag in tags]
        options = ["--no-deps", "--target=unused", f"--python-version={python}", *platforms]
        return report(pip, wanted, *options)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(one, itertools.product(MACHINES, PYTHONS)))
    return {pin: set().union(*(one[pin] for one in found)) for pin in found[0]}


def images() -> None:
    """The locks with hashes: cpu and cuda.

    The index's torch needs the CUDA packages, and `===` names it alone; its CPU build is another
    wheel of the same version (`+cpu`), which `==` prefers where pip knows a place that has it.
    """
    pins = [f"{package}=={version}" for package, version in sorted(closure(IMAGE).items())]
    torch = next(pin for pin in pins if pin.startswith("torch=="))
    rest = [pin for pin in pins if pin != torch]
    plain = torch.replace("==", "===")
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True, upgrade_deps=True)  # older ones download every wheel
        pip = str(Path(folder, "bin", "pip"))
        linked = report(pip, [plain, *rest])
        cuda = everywhere(pip, [plain, *rest, *(pin for pin in linked if pin not in pins)])
        cpu = everywhere(pip, [torch])[torch] - cuda[torch]
    write("cuda", lines(cuda))
    if not cpu:
        sys.exit(
            "env/cpu.lock is left as it was: pip knows no CPU build of torch (docs/containers.md)"
        )
    write("cpu", lines({pin: cuda[pin] for pin in rest} | {torch: cpu}))


def lines(hashes: Hashes) -> list[str]:
    """One line a package, so that Dockerfiles can take lines by their names."""
    return [
        " ".join([pin, *(f"--hash=sha256:{digest}" for digest in sorted(hashes[pin]))])
        for pin in sorted(hashes)
    ]


if __name__ == "__main__":
    versions()
    images()
