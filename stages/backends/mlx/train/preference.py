"""Preference pairs in; direct preference optimisation on our token rows, and its measures, out."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from stages.backends.mlx.train import loss
from stages.backends.mlx.train.loss import Trained
from stages.backends.mlx.train.trainer import Planned
from stages.core import tokens, training
from stages.core.batches import Array, Rows


@dataclass(frozen=True)
class Pairs:
    """Chosen rows above the rejected ones, and each row's log-likelihood under the base."""

    rows: Trained
    reference: Any


class Preferring(Planned):
    """The loss of Rafailov et al. 2023 (arXiv 2305.18290, equation 7), with sigmoid and beta.

    Its reference is the base without its adapter. Every pair counts the same, however steps are
    cut up.
    """

    measures = training.REWARDS

    def whole(self, rows: Rows, numbers: Any) -> int:  # noqa: ARG002 (pairs are counted, not sizes)
        """The number of pairs."""
        return len(numbers)

    def batch(self, rows: Rows, numbers: list[int]) -> Pairs:
        """One micro-batch, its reference already computed: no gradient goes there."""
        import mlx.core as mx

        self.place(self.params)
        both = Trained(*stacked(rows, numbers))
        layers = [part for _, part in self.model.named_modules() if hasattr(part, "lora_b")]
        scales = [layer.scale for layer in layers]
        for layer in layers:
            layer.scale = 0.0
        reference = likelihoods(self.model, both)
        mx.eval(reference)
        for layer, scale in zip(layers, scales, strict=True):
            layer.scale = scale
        return Pairs(both, reference)

    def summed(self, batch: Pairs) -> tuple[Any, ...]:
        """The loss, then the rewards in the order of training.REWARDS, summed over the pairs."""
        import mlx.core as mx
        import mlx.nn as nn

        dpo = self.setup.settings.train.dpo
        assert dpo is not None  # the linter refuses method dpo without it
        ratios = likelihoods(self.model, batch.rows) - batch.reference
        chosen, rejected = mx.split(ratios, 2)
        lost = -nn.log_sigmoid(dpo.beta * (chosen - rejected)).sum()
        kept = [dpo.beta * mx.stop_gradient(side) for side in (chosen, rejected)]
        better = (kept[0] > kept[1]).astype(mx.float32)
        return lost, *(part.sum() for part in (better, kept[0] - kept[1], *kept))


def stacked(rows: Rows, numbers: list[int]) -> tuple[Array, Array]:
    """Ids and labels [2 * pairs, longest], the chosen rows above the rejected ones."""
    sides = [side.padded(numbers) for side in (rows, rows.rejected) if side]
    longest = max(ids.shape[1] for ids, _ in sides)
    ids, labels = (
        np.concatenate([
            np.pad(side[part], ((0, 0), (0, longest - side[part].shape[1])), constant_values=fill)
            for side in sides
        ])
        for part, fill in ((0, 0), (1, tokens.IGNORED))
    )  # fmt: skip
    return ids, labels


def likelihoods(model: Any, batch: Trained) -> Any:
    """[rows] log-likelihood of each row's trained tokens, summed."""
    import mlx.core as mx

    return mx.zeros(batch.count).at[batch.rows].add(-loss.losses(model, batch))
