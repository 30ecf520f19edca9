"""A second clone, elsewhere, under another hash seed, locale and time zone: the same bytes.

Run by `make reproduce` in a built checkout: it clones the commit into a temporary folder, builds
every GGUF file there, and compares each file of examples, chat, tokens, base, adapter, fused and
GGUF with this checkout's. Ends with 1 where a byte differs. Minutes, as long as a first build.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from stages.core import files, settings  # noqa: E402

COMPARED = ("data/examples", "data/chat", "data/tokens", "models/base", "models/adapter")
COMPARED += ("models/fused", "models/gguf")


def main() -> int:
    """Build the clone, print what is equal and what is not."""
    with tempfile.TemporaryDirectory(prefix="another-place-") as folder:
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
        env = os.environ | {"PYTHONHASHSEED": "4242", "LC_ALL": "C", "TZ": "Asia/Kathmandu"}
        env["PATH"] = f"{ROOT / '.venv' / 'bin'}{os.pathsep}{env['PATH']}"
        targets = [f"gguf@{key}" for key in settings.load(ROOT / "params.yaml").gguf]
        dvc = str(ROOT / ".venv" / "bin" / "dvc")
        subprocess.run([dvc, "repro", *targets], cwd=clone, env=env, check=True)
        different = [name for part in COMPARED for name in compare(part, ROOT, clone)]
    for name in different:
        print(f"differs: {name}")
    return 1 if different else 0


def compare(part: str, here: Path, there: Path) -> list[str]:
    """The files below `part` that differ or stand on one side only; prints how many are equal."""
    ours, theirs = files.tree_hashes(here / part), files.tree_hashes(there / part)
    names = sorted({*ours, *theirs})
    different = [f"{part}/{name}" for name in names if ours.get(name) != theirs.get(name)]
    print(f"{part}: {len(names) - len(different)} of {len(names)} files equal")
    return different


if __name__ == "__main__":
    sys.exit(main())
