"""Answers in batches against one by one -> new tokens a second of each engine, and who agrees.

    python -m benchmarks.generate [--prompts 128] [--alone 24] [--new 48] [--batch 64] [--threads 2]

A 1.1-million-parameter random Qwen2 answers prompts of about 90 tokens with exactly `--new` greedy
tokens each. One by one is transformers' `generate` on the first `--alone` of the prompts; batched
are the engines `torch` and `mlx`, and mlx-lm's own `batch_generate` beside the latter. Imports
and loading are left out; all run in this process, one after the other, after a short warm-up.
MLX cannot be told how many cores to use on a CPU. On a box that others use too, read the CPU
seconds of `--threads 1`.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from stages.backends.mlx import generate as mlx_engine
from stages.backends.mlx import load as mlx_load
from stages.backends.torch import generate as torch_engine
from stages.core import files
from stages.core.errors import TunesmithError

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from tiny import tiny_model

VOCAB = 2048


def main() -> None:
    options = arguments()
    import torch

    torch.set_num_threads(options.threads)
    draw = np.random.default_rng(0)
    lengths = np.minimum(40 + draw.exponential(50, options.prompts).astype(int), 400)
    prompts = [draw.integers(3, VOCAB, length).tolist() for length in lengths]
    with tempfile.TemporaryDirectory() as name:
        base = tiny_model(Path(name) / "base", hidden=128, layers=4, vocab=VOCAB)
        # An id that no token has: every answer has the full length on all sides.
        files.write_json(base / "generation_config.json", {"eos_token_id": [VOCAB]})
        found = {side: measure(side, make, prompts) for side, make in sides(base, options).items()}
    first, second, *others = found
    compare(found, second, first)
    for other in others:
        compare(found, other, second)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--prompts", type=int, default=128)
    parser.add_argument("--alone", type=int, default=24)
    parser.add_argument("--new", type=int, default=48)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    return parser.parse_args()


def sides(base: Path, options: argparse.Namespace) -> dict[str, Callable[[list], dict]]:
    """What answers, by its name; the MLX ones only where MLX is installed."""
    model = torch_engine.ready(base)
    found = {
        "one by one": lambda prompts: one_by_one(model, prompts[: options.alone], options),
        "torch": lambda prompts: batched(torch_engine, base, prompts, options),
    }
    try:
        mlx_load.require()
    except TunesmithError as refusal:
        print(f"{'mlx':>10}: skipped. {refusal.what}")
        return found
    return found | {
        "mlx": lambda prompts: batched(mlx_engine, base, prompts, options),
        "mlx-lm": lambda prompts: by_mlx_lm(base, prompts, options),
    }


def measure(side: str, make: Callable[[list], dict], prompts: list) -> tuple[dict, dict]:
    """The answers by prompt, and new tokens by wall second and by CPU second."""
    make(prompts[:2])
    start = time.perf_counter(), time.process_time()
    answers = make(prompts)
    seconds, cpu = time.perf_counter() - start[0], time.process_time() - start[1]
    tokens = sum(map(len, answers.values()))
    print(
        f"{side:>10}: {tokens / seconds:7,.0f} new tokens/s, "
        f"{len(answers) / seconds:6.1f} prompts/s, {seconds:.1f} s ({cpu:.1f} s CPU)"
    )
    return answers, {"second": tokens / seconds, "CPU second": tokens / cpu}


def compare(found: dict, side: str, other: str) -> None:
    """Print how many answers of two sides are the same, and the ratio of their speeds."""
    (answers, rates), (others, other_rates) = found[side], found[other]
    both = answers.keys() & others.keys()
    same = sum(answers[row] == others[row] for row in both)
    ratios = ", ".join(f"{rates[clock] / other_rates[clock]:.1f} by {clock}" for clock in rates)
    print(f"{side} / {other}: {ratios}; {same} of {len(both)} answers are the same")


def one_by_one(model, prompts: list, options: argparse.Namespace) -> dict:
    import torch

    found = {}
    for row, prompt in enumerate(prompts):
        ids = torch.tensor([prompt])
        out = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=options.new, do_sample=False,
            pad_token_id=0,
        )  # fmt: skip
        found[row] = out[0, len(prompt) :].tolist()
    return found


def batched(engine, base: Path, prompts: list, options: argparse.Namespace) -> dict:
    made = engine.generate(
        base, prompts, max_new_tokens=options.new, temperature=0.0, seed=1,
        batch_size=options.batch,
    )  # fmt: skip
    return {row: ids for row, ids, _ in made}


def by_mlx_lm(base: Path, prompts: list, options: argparse.Namespace) -> dict:
    from mlx_lm.generate import BatchGenerator

    generator = BatchGenerator(
        mlx_engine.ready(base, 0), max_tokens=options.new, completion_batch_size=options.batch,
        prefill_batch_size=options.batch,
    )  # fmt: skip
    rows = dict(zip(generator.insert(prompts), range(len(prompts)), strict=True))
    found: dict = {row: [] for row in rows.values()}
    while made := generator.next_generated():
        for answer in made:
            found[rows[answer.uid]].append(answer.token)
    generator.close()
    return found


if __name__ == "__main__":
    main()
