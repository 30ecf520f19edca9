"""A model folder and token prompts in, new token ids out: batched, cached, and repeatable."""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stages.backends.mlx import load
from stages.core import batches, scoring

CHUNK = 512  # prompt tokens of a row read at once, so that their scores fit into memory


def generate(
    model: Path,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    temperature: float,
    seed: int,
    batch_size: int,
) -> Iterator[tuple[int, list[int], bool]]:
    """Yield (index of the prompt, its new ids, whether it stopped by itself), batch by batch.

    What it promises is what the torch engine promises: the token that stops is not among the ids,
    temperature 0 takes the likeliest token, and else each token is drawn by one uniform number
    that depends on seed, index and position alone. The numbers are the torch engine's own.

    Raises:
        TunesmithError: a prompt without tokens, or a model that names no end-of-turn token.
        MissingPackage: mlx or mlx-lm is not installed.
    """
    scoring.require_tokens(prompts)
    stops = scoring.stop_ids(model)
    lengths = [len(prompt) for prompt in prompts]
    loaded = ready(model, max(lengths, default=0) + max_new_tokens)
    for rows in batches.by_length(lengths, batch_size):
        draws = None if temperature == 0 else [random.Random(f"{seed}/{row}") for row in rows]
        batch = [prompts[row] for row in rows]
        made = _decode(loaded, batch, max_new_tokens, temperature, draws, stops)
        for row, (ids, stopped) in zip(rows, made, strict=True):
            yield row, ids, stopped


def ready(folder: Path, longest: int) -> Any:
    """The model ready for rows of up to `longest` tokens: fp32 on a CPU, its own type on Metal."""
    use = "fp32" if load.device().kind == "cpu" else "auto"
    model = load.model(folder, use)
    model.eval()
    load.mend_masks(model, folder, longest)
    return model


def _decode(
    model: Any,
    prompts: Sequence[Sequence[int]],
    most: int,
    temperature: float,
    draws: list[random.Random] | None,
    stops: list[int],
) -> list[tuple[list[int], bool]]:
    """The answers of one batch; rows that stop leave it, so the others go on faster."""
    import mlx.core as mx

    found: list[list[int]] = [[] for _ in prompts]
    stopped = [False] * len(prompts)
    live = list(range(len(prompts)))
    cache = _read(model, [prompt[:-1] for prompt in prompts])
    last = [prompt[-1] for prompt in prompts]
    for _ in range(most):
        logits = model(mx.array(last)[:, None], cache=cache)[:, -1]
        picked = _pick(logits, temperature, draws and [draws[row] for row in live])
        for row, token in zip(live, picked, strict=True):
            stopped[row] = token in stops
            if not stopped[row]:
                found[row].append(token)
        keep = [place for place, row in enumerate(live) if not stopped[row]]
        if not keep:
            break
        if len(keep) < len(live):
            for layer in cache:
                layer.filter(mx.array(keep))
            live = [live[place] for place in keep]
        last = [found[row][-1] for row in live]
    return list(zip(found, stopped, strict=True))


def _read(model: Any, prompts: Sequence[Sequence[int]]) -> list[Any]:
    """Each layer's cache of these rows, their last tokens side by side.

    The rows are padded on the right while they are read, so that no token, of the padding
    either, sees nothing: a softmax over nothing is NaN on some devices. Then they are shifted.
    """
    import mlx.core as mx
    from mlx_lm.models.cache import BatchKVCache

    longest = max(map(len, prompts))
    padding = [longest - len(prompt) for prompt in prompts]
    ids = mx.array([[*prompt, *[0] * pad] for prompt, pad in zip(prompts, padding, strict=True)])
    cache = [BatchKVCache([0] * len(prompts)) for _ in model.layers]
    for layer in cache:
        layer.prepare(right_padding=padding)
    for first in range(0, longest, CHUNK):
        model(ids[:, first : first + CHUNK], cache=cache)  # its logits are never computed
        mx.eval([layer.state for layer in cache])
    if longest:
        for layer in cache:
            layer.finalize()
    return cache


def _pick(logits: Any, temperature: float, draws: list[random.Random] | None) -> list[int]:
    """The likeliest token of each row, or the one where the row's draw falls in its CDF."""
    import mlx.core as mx

    if not draws:
        likeliest: Any = mx.argmax(logits, axis=-1)
        return list(likeliest.tolist())
    scores = np.array(logits.astype(mx.float32), np.float64) / temperature
    chances = np.cumsum(np.exp(scores - scores.max(-1, keepdims=True)), -1)
    numbers = [draw.random() * row[-1] for draw, row in zip(draws, chances, strict=True)]
    places = [
        int(np.searchsorted(row, number, side="right"))
        for row, number in zip(chances, numbers, strict=True)
    ]
    return [min(place, scores.shape[1] - 1) for place in places]
