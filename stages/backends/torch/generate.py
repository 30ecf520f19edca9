"""A model folder and token prompts in, new token ids out: batched, cached, and repeatable."""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from stages.backends.torch import load
from stages.core import batches, scoring


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

    The token that stops is not among the ids. Temperature 0 takes the likeliest token. Else each
    token is drawn by one uniform number that depends on seed, index and position alone, so the
    batch a prompt is in does not change its draws.

    Raises:
        TunesmithError: a prompt without tokens, or a model that names no end-of-turn token.
        MissingPackage: torch or transformers is not installed.
    """
    scoring.require_tokens(prompts)
    stops = scoring.stop_ids(model)
    loaded = ready(model)
    lengths = [len(prompt) for prompt in prompts]
    for rows in batches.by_length(lengths, batch_size):
        draws = None if temperature == 0 else [random.Random(f"{seed}/{row}") for row in rows]
        batch = [prompts[row] for row in rows]
        made = _decode(loaded, batch, max_new_tokens, temperature, draws, stops)
        for row, (ids, stopped) in zip(rows, made, strict=True):
            yield row, ids, stopped


def ready(folder: Path) -> Any:
    """The model ready to run: fp32 on a CPU, its own type on a CUDA device."""
    load.quiet()
    kind = load.device().kind
    return load.model(folder, "auto" if kind == "cuda" else "fp32").eval().to(kind)


def _decode(
    model: Any,
    prompts: Sequence[Sequence[int]],
    most: int,
    temperature: float,
    draws: list[random.Random] | None,
    stops: list[int],
) -> list[tuple[list[int], bool]]:
    """The answers of one batch; rows that stop leave it, so the others go on faster."""
    import torch

    found: list[list[int]] = [[] for _ in prompts]
    stopped = [False] * len(prompts)
    live = list(range(len(prompts)))
    with torch.inference_mode():
        ids, mask = _left_padded(prompts, model.device)
        cache: Any = None
        for _ in range(most):
            logits, cache = _next(model, ids, mask, cache)
            picked = _pick(logits, temperature, draws and [draws[row] for row in live])
            for row, token in zip(live, picked, strict=True):
                stopped[row] = token in stops
                if not stopped[row]:
                    found[row].append(token)
            keep = [place for place, row in enumerate(live) if not stopped[row]]
            if not keep:
                break
            if len(keep) < len(live):
                chosen = torch.tensor(keep, device=model.device)
                cache.batch_select_indices(chosen)
                mask = mask[chosen]
                live = [live[place] for place in keep]
            ids = torch.tensor([[found[row][-1]] for row in live], device=model.device)
            mask = torch.nn.functional.pad(mask, (0, 1), value=1)
    return list(zip(found, stopped, strict=True))


def _left_padded(prompts: Sequence[Sequence[int]], device: Any) -> tuple[Any, Any]:
    """[rows, longest] ids padded on the left with id 0, and the mask of the real ones."""
    import torch

    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(p)) + list(p) for p in prompts], device=device)
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=device)
    return ids, mask


def _next(model: Any, ids: Any, mask: Any, cache: Any) -> tuple[Any, Any]:
    """The logits [rows, words] after the last token, and the cache with `ids` added."""
    places = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
    out = model(
        input_ids=ids, attention_mask=mask, position_ids=places, past_key_values=cache,
        use_cache=True, logits_to_keep=1,
    )  # fmt: skip
    return out.logits[:, -1], out.past_key_values


def _pick(logits: Any, temperature: float, draws: list[random.Random] | None) -> list[int]:
    """The likeliest token of each row, or the one where the row's draw falls in its CDF."""
    import torch

    if not draws:
        return list(logits.argmax(-1).tolist())
    chances = torch.softmax(logits.double() / temperature, -1).cumsum(-1)
    numbers = torch.tensor([[draw.random()] for draw in draws], device=logits.device).double()
    places = torch.searchsorted(chances, numbers * chances[:, -1:], right=True)
    return list(places.clamp(max=logits.shape[-1] - 1)[:, 0].tolist())
