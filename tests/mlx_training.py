"""What the tests of the MLX trainer share: rows by the real path, settings, and a run to kill.

As a program it trains and says each event on stdout, then waits for a line on stdin, so that a
test can kill it at any of them: `python mlx_training.py <folder> <method>`.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tiny import tiny_model

from stages.core import files, tokenising
from stages.core.example import Example, write_lines
from stages.core.settings import Dpo, Lora, Model, Train
from stages.core.tokenising import Rules

ARCHITECTURES = (
    "qwen2", "qwen3", "llama", "llama3", "mistral", "phi3", "gemma2", "gemma3", "smollm3",
)  # fmt: skip
SAID = ("front open", "back close", "spin turn", "box attack", "card board move")
TOOL = {
    "type": "function",
    "function": {
        "name": "move",
        "description": "Move.",
        "parameters": {"type": "object", "properties": {"to": {}}},
    },
}


LONG = (
    "\\n\\nAnswer a call with a JSON object within <tool_call></tool_call>.",
    "\\n\\n# Tools\\n\\nFunction signatures are within <tools></tools> XML tags:",
    "You are a helpful assistant.",
)


def base(folder: Path, hidden: int = 32) -> Path:
    """A tiny base whose template says less, so that rows with tools stay short."""
    path = tiny_model(folder, hidden=hidden, layers=2) / "chat_template.jinja"
    text = path.read_text()
    for long in LONG:
        assert long in text
        text = text.replace(long, "")
    path.write_text(text)
    return folder


def settings(
    method="lora", dropout=0.0, layers=0, quantise="none", r=4, beta=0.2, **train
) -> Model:
    chosen = {
        "seed": 1, "epochs": 1, "max_steps": 0, "batch_size": 4, "accumulate": 1,
        "optimizer": "adamw", "learning_rate": 5e-3, "schedule": "cosine", "warmup": 0.0,
        "weight_decay": 0.01, "max_grad_norm": 1.0, "precision": "auto", "checkpointing": False,
        "save_steps": 0, "eval_steps": 0, "dpo": Dpo(beta=beta) if method == "dpo" else None,
    }  # fmt: skip
    return Model.model_construct(
        base="models/base/tiny", dataset="chats", backend="mlx", method=method,
        quantise_base=quantise,
        lora=Lora(r=r, alpha=8.0, dropout=dropout, targets=["all-linear"], layers=layers),
        train=Train(**chosen | train),
    )  # fmt: skip


def chat(number: int) -> Example:
    """One turn, several turns, or a call of a tool and its answer."""
    draw = np.random.default_rng(number)
    a, b, c = (f"{SAID[n]} {number}" for n in draw.integers(0, 5, 3))
    messages: list[dict[str, Any]] = [{"role": "user", "content": f"{a}?"}]
    if number % 5 == 0:
        call = {"type": "function", "function": {"name": "move", "arguments": {"to": b}}}
        messages += [
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "content": f"{b} done"},
        ]
    if number % 5 in (1, 2):
        messages += [{"role": "assistant", "content": b}, {"role": "user", "content": f"{c} {a}"}]
    messages.append({"role": "assistant", "content": f"{c} {SAID[number % 4]}"})
    tools = [TOOL] if number % 5 == 0 else None
    return Example(messages, f"a#{number + 1}", f"g{number}", {}, tools)


def pair(number: int) -> Example:
    """A question with a wanted and an unwanted answer of another length."""
    asked = f"move {SAID[number % 5]} from the {SAID[number % 3]} board {number}"
    said = [f"spin {SAID[number % 4]}", f"turn back {SAID[(number + 2) % 5]} end"]
    messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": said[0]}]
    rejected = {"role": "assistant", "content": said[1]}
    return Example(messages, f"a#{number + 1}", f"g{number}", {}, rejected=rejected)


def tokens(folder: Path, base: Path, make: Callable[[int], Example] = chat, count=20) -> Path:
    """A tokens folder of `count` rows to train on and 6 to validate, made by `tokenise` itself."""
    rows = [make(number) for number in range(count + 6)]
    (folder / "chat").mkdir(parents=True)
    for name, part in (("train", rows[6:]), ("valid", rows[:6]), ("test", rows[:1])):
        write_lines(folder / "chat" / f"{name}.jsonl", (row.row() for row in part))
    with files.directory(folder / "tokens") as out:
        rules = Rules(max_length=512, drop=False, by=(), pairs=make is pair)
        tokenising.write(folder / "chat", base, out, rules)
    return folder / "tokens"


def series(report: Path) -> list[dict[str, float]]:
    """loss.tsv as rows; cells not measured are left out."""
    lines = (report / "loss.tsv").read_text().splitlines()
    names = lines[0].split("\t")
    return [
        {key: float(cell) for key, cell in zip(names, line.split("\t"), strict=True) if cell}
        for line in lines[1:]
    ]


# What the kill test runs; dropout where there is an adapter.
TO_KILL = {
    "lora": settings("lora", dropout=0.2, epochs=2, accumulate=2, batch_size=2, save_steps=1),
    "full": settings("full", epochs=2, accumulate=2, batch_size=2, save_steps=1),
}


def _said(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """The function, saying its name and waiting for a line before it runs, and again after."""

    def run(*arguments: Any, **named: Any) -> Any:
        for moment in ("before", "after"):
            if moment == "after":
                found = function(*arguments, **named)
            print(json.dumps([name, moment]), flush=True)
            if not sys.stdin.readline():
                raise SystemExit("nobody listens")
        return found

    return run


def main(folder: Path, method: str) -> None:
    from stages.backends.mlx import train
    from stages.backends.mlx.train import saving, trainer

    trainer.Planned._step = _said(trainer.Planned._step, "step")
    trainer.clipped = _said(trainer.clipped, "clip")
    saving.files.write_json = _said(saving.files.write_json, "write_json")
    saving.shutil.rmtree = _said(saving.shutil.rmtree, "delete")
    train.train(
        TO_KILL[method], folder / "base", folder / "tokens", folder / method,
        folder / f"{method}-report",
    )  # fmt: skip


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    main(Path(sys.argv[1]), sys.argv[2])
