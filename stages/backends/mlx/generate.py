"""A model folder and token prompts in, new token ids out: batched, cached, and repeatable."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from stages.backends.mlx import load
from stages.core import decoding
from stages.core.decoding import Draws, Prompts

CHUNK = 512  # prompt tokens of a row read at once, so that their scores fit into memory


def generate(
    model: Path,
    prompts: Prompts,
    *,
    max_new_tokens: int,
    temperature: float,
    seed: int,
    batch_size: int,
) -> Iterator[tuple[int, list[int], bool]]:
    """Yield (index of the prompt, its new ids, whether it stopped by itself), batch by batch.

    What it promises is what the torch engine promises, and the numbers it draws are the same.

    Raises:
        TunesmithError: a prompt without tokens, or a model that names no end-of-turn token.
        MissingPackage: mlx or mlx-lm is not installed.
    """
    decoding.require_tokens(prompts)
    stops = decoding.stop_ids(model)
    loaded = ready(model, max(map(len, prompts), default=0) + max_new_tokens)
    return decoding.generate(
        prompts, lambda some: Answering(loaded, some, temperature), stops=stops,
        most=max_new_tokens, drawn=temperature > 0, seed=seed, batch_size=batch_size,
    )  # fmt: skip


def ready(folder: Path, longest: int) -> Any:
    """The model ready for rows of up to `longest` tokens: fp32 on a CPU, its own type on Metal."""
    use = "fp32" if load.device().kind == "cpu" else "auto"
    model = load.model(folder, use)
    model.eval()
    load.mend_masks(model, folder, longest)
    return model


class Answering:
    """Rows whose tokens are all in the cache but the last of each."""

    def __init__(self, model: Any, prompts: Prompts, temperature: float) -> None:
        self.model, self.temperature = model, temperature
        self.cache = _read(model, [prompt[:-1] for prompt in prompts])
        self.last = [prompt[-1] for prompt in prompts]

    def following(self, draws: Draws) -> list[int]:
        """The token that follows each row."""
        import mlx.core as mx

        logits = self.model(mx.array(self.last)[:, None], cache=self.cache)[:, -1]
        return _pick(logits, self.temperature, draws)

    def go_on(self, keep: list[int], last: list[int]) -> None:
        """Keep the rows at these places alone, each with one token more."""
        import mlx.core as mx

        if len(keep) < len(self.last):
            for layer in self.cache:
                layer.filter(mx.array(keep))
        self.last = last


def _read(model: Any, prompts: Prompts) -> list[Any]:
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


def _pick(logits: Any, temperature: float, draws: Draws) -> list[int]:
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
