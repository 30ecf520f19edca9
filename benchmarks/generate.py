"""Answers in batches against one by one -> new tokens a second of both, and whether they agree.

    python -m benchmarks.generate [--prompts 128] [--alone 24] [--new 48] [--batch 64] [--threads 2]

A 1.1-million-parameter random Qwen2 answers prompts of about 90 tokens with exactly `--new` greedy
tokens each. One by one is transformers' `generate` on the first `--alone` of the prompts. Imports
and loading are left out; both run in this process, one after the other, after a short warm-up.
On a box that others use too, read the CPU seconds of `--threads 1`.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from stages.backends.torch import generate
from stages.core import files

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
        # An id that no token has: every answer has the full length on both sides.
        files.write_json(base / "generation_config.json", {"eos_token_id": [VOCAB]})
        model = generate.load(base)
        sides = {
            "one by one": lambda count: one_by_one(
                model, prompts[: min(count, options.alone)], options
            ),
            "batched": lambda count: batched(base, prompts[:count], options),
        }
        found = {side: measure(side, make, options.prompts) for side, make in sides.items()}
    answers, rates = zip(*found.values(), strict=True)
    same = sum(answers[1][row] == answer for row, answer in answers[0].items())
    print(f"{same} of {len(answers[0])} answers are the same on both sides")
    for clock, alone, together in zip(("seconds", "cpu"), *rates, strict=True):
        print(f"new tokens by {clock}: {together / alone:.1f} times one by one")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--prompts", type=int, default=128)
    parser.add_argument("--alone", type=int, default=24)
    parser.add_argument("--new", type=int, default=48)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    return parser.parse_args()


def measure(side: str, make: Callable, count: int) -> tuple[dict, tuple[float, float]]:
    """The answers by prompt, and new tokens by wall second and by CPU second."""
    make(2)
    start = time.perf_counter(), time.process_time()
    answers = make(count)
    seconds, cpu = time.perf_counter() - start[0], time.process_time() - start[1]
    tokens = sum(map(len, answers.values()))
    print(
        f"{side:>10}: {tokens / seconds:7,.0f} new tokens/s, "
        f"{len(answers) / seconds:6.1f} prompts/s, {seconds:.1f} s ({cpu:.1f} s CPU)"
    )
    return answers, (tokens / seconds, tokens / cpu)


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


def batched(base: Path, prompts: list, options: argparse.Namespace) -> dict:
    made = generate.generate(
        base, prompts, max_new_tokens=options.new, temperature=0.0, seed=1,
        batch_size=options.batch,
    )  # fmt: skip
    return {row: ids for row, ids, _ in made}


if __name__ == "__main__":
    main()
