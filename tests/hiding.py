"""Packages as if they were not installed, in a process of its own and in all that it starts."""

import os
import subprocess
import sys
from pathlib import Path

import project

# Python imports `sitecustomize` before anything else it is told to run. What `import`,
# `find_spec` and `importlib.metadata` see goes through the finders, so each of them is
# wrapped: a hidden package is then as absent as one that was never installed.
CODE = """
import os
import sys

HIDDEN = frozenset(os.environ["HIDDEN_PACKAGES"].split())


class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name.split(".")[0] in HIDDEN else self.finder.find_spec(name, path, target)

    def find_distributions(self, *context):
        found = getattr(self.finder, "find_distributions", lambda *_: ())(*context)
        return (each for each in found if each.name.lower().replace("-", "_") not in HIDDEN)

    def __getattr__(self, name):
        return getattr(self.finder, name)


sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
"""
TORCH = ("torch", "peft", "trl", "accelerate")
MLX = ("mlx", "mlx_lm", "mlx_cpu", "mlx_metal")


def python(
    folder: Path, *words: str, hidden: tuple[str, ...], **env: str
) -> subprocess.CompletedProcess[str]:
    """Python in a folder, on a machine without the packages `hidden`."""
    site = folder / ".site"
    site.mkdir(exist_ok=True)
    (site / "sitecustomize.py").write_text(CODE, encoding="utf-8")
    paths = os.pathsep.join([str(site), str(project.ROOT)])
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": paths, "HIDDEN_PACKAGES": " ".join(hidden), **env},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )


def door(
    folder: Path, *words: str, hidden: tuple[str, ...], **env: str
) -> subprocess.CompletedProcess[str]:
    """`python -m stages <words>` there."""
    return python(folder, "-m", "stages", *words, hidden=hidden, **env)
