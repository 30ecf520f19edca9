"""The installed environment in; env/{data,torch,mlx,dev}.lock, one exact version a line, out.

Run by `make lock` after an upgrade. Each lock holds what its part of pyproject.toml needs and an
earlier lock does not hold already; DVC stages depend on the locks that shape their result.
"""

import re
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

PARTS = {
    # Only what shapes bytes of data; the tools around it (dvc, typer) are pinned for convenience.
    "data": ["jinja2", "jsonschema", "numpy", "orjson", "pyarrow", "pydantic", "PyYAML"]
    + ["tokenizers", "wzrdbrain"],
    "torch": ["torch", "accelerate", "bitsandbytes", "huggingface_hub", "peft", "protobuf"]
    + ["safetensors", "sentencepiece", "transformers", "trl", "xllamacpp"],
    "mlx": ["mlx", "mlx-cpu", "mlx-lm"],
    "dev": ["dvc", "hypothesis", "ruamel.yaml", "typer", "mypy", "pytest", "ruff", "types-jsonschema"]
    + ["types-PyYAML"],
}


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


def main() -> None:
    """Write the locks beside this file."""
    locked: dict[str, str] = {}
    for part, roots in PARTS.items():
        found = {n: v for n, v in closure(roots).items() if n not in locked}
        if "mlx-cpu" in found:  # what Macs have in its place comes in the same version
            found["mlx-metal"] = found["mlx-cpu"]
        lines = [f"{package}=={version}" for package, version in sorted(found.items())]
        Path(__file__).with_name(f"{part}.lock").write_text("\n".join(lines) + "\n")
        locked |= found


if __name__ == "__main__":
    main()
