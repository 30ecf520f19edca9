"""What the tests of several processes share: what is trained, and one of the processes itself.

As a program, under torchrun, it trains what is named, one thing after another:
`two_processes.py <folder> <name> …`; a name that ends in `-fsdp` is trained with shared weights.
"""

import os
import socket
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import project
import tiny

from stages.core import files, processes
from stages.core.batches import Rows
from stages.core.settings import Dpo, Lora, Model, Train

STEPS = 6


def rows(count: int, seed: int) -> Rows:
    """Rows of 8 to 24 tokens: four random ones that are not trained, then token 7 throughout;
    from seed 10 on token 8, for answers that are not wanted."""
    draw = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(draw.integers(8, 24, count))])
    ids, trained = draw.integers(3, 500, offsets[-1]), np.ones(offsets[-1], np.uint8)
    for first, last in pairwise(offsets):
        trained[first : first + 4] = 0
        ids[first + 4 : last] = 8 if seed > 9 else 7
    return Rows(ids.astype(np.int32), trained, offsets)


def tokens(folder: Path, pairs: bool = False) -> Path:
    """A tokens folder of 24 rows to train on and 7 to validate."""
    with files.directory(folder) as out:
        for split, number, seed in (("train", 24, 0), ("valid", 7, 1)):
            for side, made in (("", rows(number, seed)), ("rejected_", rows(number, seed + 10))):
                for name in ("ids", "trained", "offsets"):
                    if pairs or not side:
                        np.save(out / f"{split}.{side}{name}.npy", getattr(made, name))
            np.save(out / f"{split}.prompts.npy", np.full(number, 4, np.int32))
        counts = {"checked": True, "rows": {"train": 24, "valid": 7}}
        files.write_json(out / "checks.json", counts | ({"pairs": True} if pairs else {}))
    return folder


def chosen(method="lora", held="none", dropout=0.0, **train) -> Model:
    given = {
        "seed": 1, "epochs": 4, "max_steps": STEPS, "batch_size": 8, "accumulate": 1,
        "optimizer": "adamw", "learning_rate": 1e-2, "schedule": "cosine", "warmup": 0.0,
        "weight_decay": 0.01, "max_grad_norm": 1.0, "precision": "fp32", "checkpointing": False,
        "save_steps": 0, "eval_steps": 3, "dpo": Dpo(beta=0.2) if method == "dpo" else None,
    }  # fmt: skip
    return Model.model_construct(
        base="models/base/tiny", dataset="echo", backend="torch", method=method,
        quantise_base=held, train=Train(**given | train),
        lora=Lora(r=4, alpha=8.0, dropout=dropout, targets=["all-linear"], layers=0),
    )  # fmt: skip


CASES = {
    "lora": chosen(),
    "accumulating": chosen(batch_size=4, accumulate=2),
    "odd": chosen(batch_size=5),  # 24 rows: steps of 4 and 5
    "uneven": chosen(batch_size=2, accumulate=3, max_steps=5),  # 3 + 3: two micro-batches each
    "five": chosen(batch_size=2, accumulate=5),  # steps of 8: 4 + 4
    "single": chosen(batch_size=1),  # one process has no row
    "one-more": chosen(batch_size=1, accumulate=3),  # two micro-batches and one
    "rslora": chosen("rslora", checkpointing=True, max_grad_norm=0.1),
    "dora": chosen("dora"),
    "full": chosen("full", learning_rate=1e-3),
    "full-checkpointing": chosen("full", checkpointing=True, batch_size=3, learning_rate=1e-3),
    "bf16": chosen("full", precision="bf16", learning_rate=1e-3),
    "dpo": chosen("dpo"),
    "dpo-accumulating": chosen("dpo", batch_size=1, accumulate=5, checkpointing=True),
    "4bit": chosen(held="4bit"),
    "4bit-accumulating": chosen(held="4bit", batch_size=2, accumulate=3, checkpointing=True),
    "8bit": chosen(held="8bit", checkpointing=True),
    "adafactor": chosen("full", optimizer="adafactor", learning_rate=1e-3),
    "sgd": chosen(optimizer="sgd", learning_rate=0.1),
    "dropout": chosen(dropout=0.2, save_steps=2),
}


def train(folder: Path, name: str, out: str) -> Path:
    """Train a case in this process; returns what it wrote."""
    from stages.backends.torch import train as backend

    case = CASES[name.removesuffix("-fsdp")]
    given = folder / ("pairs" if case.method == "dpo" else "tokens")
    backend.train(case, folder / "base", given, folder / out, folder / f"{out}-report")
    return folder / out


def series(folder: Path, out: str) -> list[dict[str, float]]:
    """loss.tsv as rows; cells not measured are left out."""
    lines = (folder / f"{out}-report" / "loss.tsv").read_text().splitlines()
    names = lines[0].split("\t")
    return [
        {key: float(cell) for key, cell in zip(names, line.split("\t"), strict=True) if cell}
        for line in lines[1:]
    ]


# Python imports `sitecustomize` first of all: in one of the processes something happens at a step.
HURTING = """
import os, signal

what, rank, step = (os.environ.get("HURT") or "::").split(":")
if what and os.environ.get("RANK") == rank:
    from stages.backends.torch.train import team

    if what == "differ":
        agree = team.Team.agree
        team.Team.agree = lambda self, facts, rows: agree(
            self, {**facts, "base": "another"}, rows
        )
    calls, whole = [], team.Team.plus_gradients

    def hurt(self, weights):
        calls.append(1)
        if len(calls) == int(step):
            if what == "raise":
                raise ValueError("made up")
            if what == "memory":
                raise MemoryError("out of memory, it says")
            if what in ("SIGKILL", "SIGTERM", "SIGINT"):
                os.kill(os.getpid(), getattr(signal, what))
            if what.startswith("starter-"):
                os.kill(os.getppid(), getattr(signal, what.removeprefix("starter-")))
        return whole(self, weights)

    team.Team.plus_gradients = hurt
"""


def made(folder: Path, *changes: tuple[str, str]) -> Path:
    """A project whose model `first` can be trained at once; 12 steps of 4 rows."""
    text = project.params(
        ("max_steps: 0", "max_steps: 12"), ("save_steps: 0", "save_steps: 2"),
        ("learning_rate: 1.0e-4", "learning_rate: 1.0e-2"), ("[q_proj]", "[all-linear]"), *changes,
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "params.yaml").write_text(text, encoding="utf-8")
    with files.directory(folder / "models/base/small") as out:
        tiny.tiny_model(out, hidden=32, layers=2)
    tokens(folder / "data/tokens/first")
    (folder / ".hurting").mkdir()
    (folder / ".hurting/sitecustomize.py").write_text(HURTING, encoding="utf-8")
    return folder


def door(folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """`python -m stages train first` with TUNESMITH_PROCESSES=2, unless `env` says otherwise."""
    return project.door(folder, "train", "first", **given(folder) | env)


def start(folder: Path, **env: str) -> subprocess.Popen[str]:
    """The same, not waited for; its stdout and stderr are one."""
    return subprocess.Popen(
        [sys.executable, "-m", "stages", "train", "first"], cwd=folder, text=True,
        env={**os.environ, **given(folder), **env},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def given(folder: Path) -> dict[str, str]:
    return {
        "TUNESMITH_PROCESSES": "2", "OMP_NUM_THREADS": "1", "TUNESMITH_LAUNCH": "native",
        "PYTHONPATH": os.pathsep.join([str(folder / ".hurting"), str(project.ROOT)]),
    }  # fmt: skip


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def main(folder: Path, names: list[str]) -> None:
    from torch import distributed

    told = {name: os.environ[name] for name in processes.TOLD}
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    meet = distributed.init_process_group
    for name in names:
        os.environ |= told  # training hides them from what it uses
        os.environ["TUNESMITH_SHARD"] = "fsdp" if name.endswith("-fsdp") else "none"
        train(folder, name, f"two-{name}")
        distributed.barrier()
        distributed.init_process_group = lambda *_, **__: None  # they have met
    distributed.init_process_group = meet
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
