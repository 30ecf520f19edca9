"""The machine that runs this cell in; what it has, and what it lacks for the job, out."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ASKED = "name,memory.total,driver_version"
ROOM = 20  # GB: an environment with PyTorch and CUDA takes 6, the rest is for models


def look(folder: str) -> None:
    """Print what is here; end this cell where the job could not even begin."""
    print("Python:", sys.version.split()[0])
    print("git:   ", said("git", "--version") or ["none"])
    gpus = said("nvidia-smi", f"--query-gpu={ASKED}", "--format=csv,noheader")
    print("GPU:   ", gpus or "none that nvidia-smi names: a training takes very long without one")
    there = Path(os.path.expandvars(folder)).expanduser().absolute()
    free = shutil.disk_usage(next(p for p in (there, *there.parents) if p.is_dir())).free / 1e9
    print(f"Disk:   {free:.0f} GB free", "" if free >= ROOM else f"(less than {ROOM} GB)")
    if shutil.which("git") is None:
        raise SystemExit("There is no git here. Install it (apt-get install git), then Run all.")


def said(*words: str) -> list[str]:
    """What a program prints, by line; nothing where it is not there or has failed."""
    if shutil.which(words[0]) is None:
        return []
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.stdout.splitlines() if done.returncode == 0 else []
