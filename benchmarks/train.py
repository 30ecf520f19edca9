"""Training against trl's defaults: the same rows -> real tokens a second of both, and both losses.

    python -m benchmarks.train [--rows 2000] [--epochs 1] [--batch 32] [--repeat 1] [--threads 2]

A 1.1-million-parameter Qwen2 learns short chat rows (about 120 tokens, long tail) by full
fine-tuning. Both sides get the same tokens and labels, rows per step, steps, learning rate,
schedule and seed; `trl` is SFTConfig's defaults otherwise (bf16, activation checkpointing, its own
batches). Each runs in its own process. The time is that of the steps: imports, loading and set-up
are left out. A real token is one of a row that was trained in a step, padding and rows that were
only fetched ahead not counted. On a box that others use too, read the CPU seconds of
`--threads 1`: wall time then measures the neighbours. Both final losses are measured by one
function on the same rows.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import numpy as np

from stages.core import batches
from stages.core.batches import Rows

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from tiny import tiny_model

RATE, VOCAB = 3e-3, 2048


def main() -> None:
    options = arguments()
    if options.side:
        print(json.dumps(SIDES[options.side](options)))
        return
    with tempfile.TemporaryDirectory() as name:
        tiny_model(Path(name) / "base", hidden=128, layers=4, vocab=VOCAB)
        found = [
            {side: measure(side, name, options) for side in ("trl", "ours")}
            for _ in range(options.repeat)
        ]
    for side in ("trl", "ours"):
        best = max((run[side] for run in found), key=lambda run: run["tokens"] / run["seconds"])
        print(
            f"{side:>5}: {best['tokens'] / best['seconds']:8,.0f} real tokens/s  "
            f"{best['seconds']:6.1f} s ({best['cpu']:.1f} s CPU)  {best['steps']} steps  "
            f"valid loss {best['before']:.3f} -> {best['after']:.3f}"
        )
    for clock in ("seconds", "cpu"):
        rates = [{side: run[side]["tokens"] / run[side][clock] for side in run} for run in found]
        ratios = ", ".join(f"{rate['ours'] / rate['trl']:.1f}" for rate in rates)
        print(f"real tokens by {clock}: {ratios} times trl's defaults")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--side", choices=sorted(SIDES), help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    return parser.parse_args()


def measure(side: str, folder: str, options: argparse.Namespace) -> dict:
    """One side in its own process."""
    words = [sys.executable, "-m", "benchmarks.train", "--side", side, "--folder", folder]
    words += ["--rows", str(options.rows), "--epochs", str(options.epochs)]
    words += ["--batch", str(options.batch)]
    env = os.environ | {"OMP_NUM_THREADS": str(options.threads)}
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True, env=env)
    return json.loads(done.stdout.strip().splitlines()[-1])


def chats(count: int, seed: int) -> Rows:
    """A prompt of random tokens, then an answer that counts on from its last token."""
    draw = np.random.default_rng(seed)
    lengths = np.minimum(40 + draw.exponential(80, count).astype(int), 500)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids, trained = draw.integers(3, VOCAB, offsets[-1]), np.zeros(offsets[-1], np.uint8)
    for first, last in pairwise(offsets):
        start = first + 3 * (last - first) // 5
        ids[start:last] = 3 + (ids[start - 1] + np.arange(1, last - start + 1)) % (VOCAB - 3)
        trained[start:last] = 1
    return Rows(ids.astype(np.int32), trained, offsets)


def ours(options: argparse.Namespace) -> dict:
    from stages.backends.torch import train as backend
    from stages.core.settings import Lora, Model, Train

    rows, valid = chats(options.rows, 0), chats(200, 1)
    train = Train(
        seed=1, epochs=options.epochs, max_steps=0, batch_size=options.batch, accumulate=1,
        optimizer="adamw", learning_rate=RATE, schedule="linear", warmup=0.0, weight_decay=0.0,
        max_grad_norm=1.0, precision="auto", checkpointing=False, save_steps=0, eval_steps=0,
    )  # fmt: skip
    settings = Model.model_construct(
        base="base",
        method="full",
        train=train,
        lora=Lora(r=1, alpha=1.0, dropout=0.0, targets=["-"], layers=0),
    )
    base, times = Path(options.folder) / "base", Times()
    made = backend.start(settings, base, [], rows, valid, Path(options.folder) / "run")
    made.add_callback(times.callback())
    made.valid_loss = lambda: None  # measured outside the clock, for both sides alike
    made.run_from(None)
    tokens = sum(int(rows.lengths[m].sum()) for step in made.plan for m in step)
    return result(times, tokens, len(made.plan), base, made.model, valid)


def trl(options: argparse.Namespace) -> dict:
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    rows, valid = chats(options.rows, 0), chats(200, 1)
    base, times = Path(options.folder) / "base", Times()
    columns = {"input_ids": [], "labels": []}
    for row in range(len(rows)):
        ids, labels = rows.padded([row])
        columns["input_ids"].append(ids[0].tolist())
        columns["labels"].append(labels[0].tolist())

    class Counted(SFTTrainer):
        tokens = 0

        def training_step(self, model, inputs, *rest):  # only what is trained, not fetched ahead
            Counted.tokens += int(inputs["attention_mask"].sum())
            return super().training_step(model, inputs, *rest)

    tokenizer = AutoTokenizer.from_pretrained(base)
    trainer = Counted(
        model=AutoModelForCausalLM.from_pretrained(base),
        args=SFTConfig(
            str(Path(options.folder) / "trl"), per_device_train_batch_size=options.batch,
            num_train_epochs=options.epochs, learning_rate=RATE, seed=1, report_to="none",
            save_strategy="no", disable_tqdm=True, use_cpu=not torch.cuda.is_available(),
        ),
        train_dataset=Dataset.from_dict(columns),
        processing_class=tokenizer,
        data_collator=DataCollatorForLanguageModeling(tokenizer.pad_token_id),
        callbacks=[times.callback()],
    )  # fmt: skip
    trainer.train()
    steps = trainer.state.global_step
    return result(times, Counted.tokens, steps, base, trainer.model, valid)


class Times:
    """From the first step's begin to the last one's end."""

    def __init__(self) -> None:
        self.first: tuple[float, float] | None = None
        self.last = (0.0, 0.0)

    @property
    def seconds(self) -> float:
        return self.last[0] - self.first[0]

    @property
    def cpu(self) -> float:
        return self.last[1] - self.first[1]

    def callback(self):
        from transformers import TrainerCallback

        times = self

        def now() -> tuple[float, float]:
            return time.perf_counter(), time.process_time()

        class Clock(TrainerCallback):
            def on_step_begin(self, *_, **__):
                times.first = times.first or now()

            def on_step_end(self, *_, **__):
                times.last = now()

        return Clock()


def result(times: Times, tokens: int, steps: int, base: Path, trained, valid: Rows) -> dict:
    """What was measured, with the mean valid loss of the base and of the trained model, in fp32."""
    import torch
    from transformers import AutoModelForCausalLM

    from stages.backends.torch.train import loss

    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    weights = {name: value.float() for name, value in trained.state_dict().items()}
    found = []
    for _ in range(2):
        plain.eval()
        with torch.no_grad():
            batch = (valid.padded(rows) for rows in batches.by_length(valid.lengths, 32))
            sums = [loss.summed(plain, *map(torch.from_numpy, pair)).item() for pair in batch]
        found.append(sum(sums) / int(valid.targets.sum()))
        plain.load_state_dict(weights)
    return {
        "seconds": times.seconds, "cpu": times.cpu, "tokens": tokens, "steps": steps,
        "before": found[0], "after": found[1],
    }  # fmt: skip


SIDES = {"ours": ours, "trl": trl}

if __name__ == "__main__":
    main()
