"""A model folder and token prompts in, new token ids out: batched, cached, and repeatable."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stages.backends.torch import load
from stages.core import decoding
from stages.core.decoding import Draws, Prompts


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

    Temperature 0 takes the likeliest token; `decoding.generate` says how others are drawn.

    Raises:
        TunesmithError: a prompt without tokens, or a model that names no end-of-turn token.
        MissingPackage: torch or transformers is not installed.
    """
    decoding.require_tokens(prompts)
    stops = decoding.stop_ids(model)
    loaded = ready(model)
    return decoding.generate(
        prompts, lambda some: Answering(loaded, some, temperature), stops=stops,
        most=max_new_tokens, drawn=temperature > 0, seed=seed, batch_size=batch_size,
    )  # fmt: skip


def ready(folder: Path) -> Any:
    """The model ready to run: fp32 on a CPU, its own type on a CUDA device."""
    load.quiet()
    kind = load.device().kind
    return load.model(folder, "auto" if kind == "cuda" else "fp32").eval().to(kind)


class Answering:
    """Rows padded on the left, with the mask of their real tokens and the cache of those read."""

    def __init__(self, model: Any, prompts: Prompts, temperature: float) -> None:
        self.model, self.temperature = model, temperature
        self.ids, self.mask = _left_padded(prompts, model.device)
        self.cache: Any = None

    def following(self, draws: Draws) -> list[int]:
        """Read what was not read yet; the token that follows each row."""
        import torch

        places = (self.mask.cumsum(1) - 1).clamp(min=0)[:, -self.ids.shape[1] :]
        with torch.inference_mode():
            out = self.model(
                input_ids=self.ids, attention_mask=self.mask, position_ids=places,
                past_key_values=self.cache, use_cache=True, logits_to_keep=1,
            )  # fmt: skip
        self.cache = out.past_key_values
        return _pick(out.logits[:, -1], self.temperature, draws)

    def go_on(self, keep: list[int], last: list[int]) -> None:
        """Keep the rows at these places alone, each with one token more."""
        import torch

        if len(keep) < len(self.mask):
            chosen = torch.tensor(keep, device=self.model.device)
            with torch.inference_mode():
                self.cache.batch_select_indices(chosen)
            self.mask = self.mask[chosen]
        self.ids = torch.tensor(last, device=self.model.device)[:, None]
        self.mask = torch.nn.functional.pad(self.mask, (0, 1), value=1)


def _left_padded(prompts: Prompts, device: Any) -> tuple[Any, Any]:
    """[rows, longest] ids padded on the left with id 0, and the mask of the real ones."""
    import torch

    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(p)) + list(p) for p in prompts], device=device)
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=device)
    return ids, mask


def _pick(logits: Any, temperature: float, draws: Draws) -> list[int]:
    """The likeliest token of each row, or the one where the row's draw falls in its CDF."""
    import torch

    if not draws:
        return list(logits.argmax(-1).tolist())
    chances = torch.softmax(logits.double() / temperature, -1).cumsum(-1)
    numbers = torch.tensor([[draw.random()] for draw in draws], device=logits.device).double()
    places = torch.searchsorted(chances, numbers * chances[:, -1:], right=True)
    return list(places.clamp(max=logits.shape[-1] - 1)[:, 0].tolist())
