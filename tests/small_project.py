"""A copy of this project with one small model of a minute in it, to build for real with DVC."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
MODEL = "wzrdbrain"
BIN = Path(sys.executable).parent


class Plain(yaml.SafeDumper):
    """Writes out what occurs twice, since params.yaml may have no aliases."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def params() -> dict:
    """One model on the tiny base, every stage of it, seconds each; no gate on its scores."""
    every = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    base = every["bases"]["tiny"] | {"documents": 1500, "steps": 30}
    dataset = every["datasets"][MODEL]
    counts = {"simple": 150, "constrained": 60, "explanation": 20, "rules": 10, "progression": 10}
    dataset["options"] |= counts
    model = every["models"][MODEL]
    model["train"] |= {"max_steps": 24, "save_steps": 8, "eval_steps": 12}
    model["evaluate"] |= {"max_prompts": 8, "max_new_tokens": 12, "batch_size": 8}
    model["verify"] |= {"rows": 4, "greedy_prompts": 2, "stops": 0.0}
    model["gates"] = {"at_least": {}, "above_base": []}
    gguf = {f"{MODEL}-{quant}": {"model": MODEL, "judge": "rules", "quant": quant}
            for quant in ("f16", "q8_0")}  # fmt: skip
    return {
        "samples": {},
        "bases": {"tiny": base},
        "datasets": {MODEL: dataset},
        "models": {MODEL: model},
        "gguf": gguf,
    }


def make(folder: Path) -> Path:
    """The files of this checkout as they are now, committed in a repository of their own."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / "dvc.lock").unlink()
    text = yaml.dump(params(), Dumper=Plain, sort_keys=False)
    (folder / "params.yaml").write_text(text, encoding="utf-8")
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "A small project"]):
        git(folder, *words)
    return folder


def git(folder: Path, *words: str) -> str:
    """What git answers in a project."""
    who = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    done = subprocess.run(
        ["git", *who, *words], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout


def dvc(folder: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """`dvc <words>` in a project, with what the environment says more."""
    return subprocess.run(
        [str(BIN / "dvc"), *words], cwd=folder, env=environment(**env), capture_output=True,
        text=True, check=False,
    )  # fmt: skip


def environment(**env: str) -> dict[str, str]:
    """This process's, with this Python first on PATH and an author for DVC's commits."""
    who = {f"GIT_{role}_{what}": "test@localhost" for role in ("AUTHOR", "COMMITTER")
           for what in ("NAME", "EMAIL")}  # fmt: skip
    return {**os.environ, **who, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", **env}


def outputs(folder: Path) -> dict[str, str]:
    """Each output and its digest, of dvc.lock."""
    lock = yaml.safe_load((folder / "dvc.lock").read_text(encoding="utf-8"))
    return {
        out["path"]: out["md5"] for stage in lock["stages"].values() for out in stage["outs"]
    }  # fmt: skip
