"""Preference pairs in; trl's DPO loss on our own token rows, with what it measures, out."""

from collections.abc import Mapping
from typing import Any

from stages.backends.torch.train.trainer import Planned
from stages.core import training
from stages.core.batches import Rows

# trl's names of training.REWARDS, in their order
THEIRS = ("rewards/accuracies", "rewards/margins", "rewards/chosen", "rewards/rejected")
MEASURES = dict(zip(training.REWARDS, THEIRS, strict=True))


class Preferring(Planned):
    """What DPOTrainer does otherwise: our rows, whole, in the order and company of the plan.

    The loss is DPOTrainer's own (Rafailov et al. 2023, arXiv 2305.18290), with the base without
    its adapter as the reference. Every pair counts the same, however steps are cut up.
    """

    TRL = "DPO"
    INSIDE = False

    sums: dict[str, float]

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        """The rows are token ids already; nothing is rendered, tokenised or cut here."""
        return dataset

    def _batch(self, rows: Rows, numbers: list[int]) -> Any:
        """One micro-batch: the chosen rows above the rejected ones."""
        return pairs(rows, numbers)

    def _weight(self, numbers: list[int]) -> int:
        """Every pair counts the same."""
        return len(numbers)

    def training_step(self, model: Any, inputs: Mapping[str, Any], *_: Any) -> Any:
        """As ever; what it measures is added up anew at each step."""
        self.sums = dict.fromkeys(MEASURES, 0.0)
        found = super().training_step(model, inputs)
        self._add_up()
        return found

    def _add_up(self) -> None:
        """Make the measures of this process those of all."""
        if self.team.world > 1:
            total = self.team.plus([self.sums[name] for name in MEASURES], self.model.device)
            self.sums = dict(zip(MEASURES, total.tolist(), strict=True))

    def _counting_nothing(self, micro: Any) -> Any:
        """As ever; what it measures is forgotten."""
        kept = dict(self.sums)
        found = self._summed(micro)
        self.sums = kept
        return found

    def _summed(self, micro: dict[str, Any]) -> Any:
        """DPOTrainer's loss of one micro-batch, summed over its pairs; adds up its measures."""
        import torch

        device = self.model.device
        inputs = {name: torch.from_numpy(part).to(device) for name, part in micro.items()}
        count = len(micro["input_ids"]) // 2
        with self.autocast():
            found = self.compute_loss(self.model, inputs) * count
        metrics = self._metrics["train" if self.model.training else "eval"]
        for name, theirs in MEASURES.items():
            self.sums[name] += count * metrics[theirs][-1]
        metrics.clear()
        return found

    def measured(self) -> dict[str, float]:
        """The rewards of the step just made, averaged over its pairs."""
        count = sum(map(len, self.plan[self.state.global_step - 1]))
        return {name: value / count for name, value in self.sums.items()}

    def on_valid(self) -> dict[str, float]:
        """Mean loss, reward accuracy and margin over the pairs of the valid split."""
        if not len(self.valid):
            return {}
        self.sums = dict.fromkeys(MEASURES, 0.0)
        total = self._on_valid()
        self._add_up()
        count = len(self.valid)
        found = {f"valid_{name}": self.sums[name] / count for name in training.VALID}
        return {"valid_loss": total / count, **found}


def pairs(rows: Rows, numbers: list[int]) -> dict[str, Any]:
    """DPOTrainer's batch: the chosen rows above the rejected ones, padded on the right.

    Nothing is masked from attention: a causal model's real tokens never see what stands behind
    them, and without a mask attention costs half.

    Returns: int64 [2 * pairs, longest] input_ids, attention_mask (all 1) and completion_mask (1
        where a token is trained).
    """
    import numpy as np

    sides = [side for side in (rows, rows.rejected) if side is not None]
    shape = (2 * len(numbers), int(max(rows.sizes[row] for row in numbers)))
    ids, trained = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for place, (side, row) in enumerate((side, row) for side in sides for row in numbers):
        length = int(side.lengths[row])
        piece = slice(side.offsets[row], side.offsets[row + 1])
        ids[place, :length], trained[place, :length] = side.ids[piece], side.trained[piece]
    mask = np.ones(shape, np.int64)
    return {"input_ids": ids, "attention_mask": mask, "completion_mask": trained}
