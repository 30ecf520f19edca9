"""A model, rows and a plan in, trl's trainer out: its loop and optimizer, our batches."""

import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages.backends.torch.train import loss
from stages.core import batches, training
from stages.core.batches import Rows, Step
from stages.core.progress import Progress


class Planned:
    """What trl's trainer does otherwise: every batch is a whole optimizer step of the plan.

    Its loss is that of supervised fine-tuning; `preference.Preferring` changes it.
    """

    TRL = "SFT"  # whose trainer and configuration of trl it builds on

    plan: list[Step]
    rows: Rows
    valid: Rows
    eval_steps: int
    progress: Progress
    model: Any
    args: Any
    state: Any
    accelerator: Any
    train: Any

    def run_from(self, checkpoint: Path | None) -> None:
        """Train from the start, or go on from a checkpoint."""
        self.progress = Progress("training", len(self.plan))
        self.progress.count = int(checkpoint.name.split("-")[1]) if checkpoint else 0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # trl uses transformers' older names
            self.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        self.progress.close()

    def get_train_dataloader(self) -> Any:
        """The steps of the plan, in order; resuming skips the first of them."""
        from torch.utils.data import DataLoader

        order = [[number] for number in range(len(self.plan))]
        return DataLoader(_Numbers(len(order)), batch_sampler=order, collate_fn=self._step)

    def _step(self, numbers: list[int]) -> dict[str, Any]:
        """The micro-batches of one step and what their summed losses are divided by."""
        step = self.plan[numbers[0]]
        tokens = sum(self.rows.targets[row] for micro in step for row in micro)
        return {"micro": [self.rows.padded(micro) for micro in step], "whole": int(tokens)}

    def training_step(self, model: Any, inputs: Mapping[str, Any], *_: Any) -> Any:
        """Forward and backward over the micro-batches; the loss is a mean over the whole step.

        Raises:
            TunesmithError: the loss is not finite, naming the step.
        """
        model.train()
        total = 0.0
        for micro in inputs["micro"]:
            part = self._summed(micro) / inputs["whole"]
            self.accelerator.backward(part)
            total = total + part.detach()
        if not math.isfinite(float(total)):
            raise training.not_finite("loss", self.state.global_step + 1, len(self.plan))
        return total

    def _summed(self, micro: Any) -> Any:
        """The loss of one micro-batch (padded ids and labels), summed over its trained tokens."""
        import torch

        ids, labels = (torch.from_numpy(part).to(self.model.device) for part in micro)
        causal = getattr(self.model, "get_base_model", lambda: self.model)()
        with self.accelerator.autocast():
            return loss.summed(causal, ids, labels)

    def on_valid(self) -> dict[str, float]:
        """valid_loss: mean loss per trained token of the valid split; nothing without rows."""
        import torch

        if not len(self.valid):
            return {}
        self.model.eval()
        total = 0.0
        with torch.no_grad():
            size = self.args.per_device_train_batch_size
            for rows in batches.by_length(self.valid.lengths, size):
                total += float(self._summed(self.valid.padded(rows)))
        return {"valid_loss": total / int(self.valid.targets.sum())}

    def measured(self) -> dict[str, float]:
        """What was measured at the step just made, beside its loss."""
        return {}

    def log(self, logs: dict[str, float], *_: Any) -> None:
        """Keep the step's loss, with the valid loss where one is due; show the progress.

        Raises:
            TunesmithError: gradients that are not finite (in fp16 such a step is skipped).
        """
        step = self.state.global_step
        if "loss" not in logs:
            return  # the closing summary: wall times, which differ from run to run
        if not self.args.fp16 and not math.isfinite(logs["grad_norm"]):
            raise training.not_finite("gradient", step, len(self.plan))
        due = self.eval_steps and step % self.eval_steps == 0
        found = {"valid_loss": None, **self.measured()}
        if due or step == len(self.plan):
            found |= self.on_valid()
        self.state.log_history.append({"step": step, **found, **logs})
        self.progress.step(note=f"loss {logs['loss']:.4f}")

    def floating_point_ops(self, inputs: Any) -> int:  # noqa: ARG002 (the trainer's signature)
        """Not counted."""
        return 0

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """None: the manifest says what was trained."""

    def _send_telemetry(self) -> None:
        """Nothing is sent anywhere."""


class _Numbers:
    """0 … length - 1, as the dataset of a DataLoader."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, number: int) -> int:
        return number


def build(
    kind: type[Planned],
    model: Any,
    tokenizer: Any,
    words: Mapping[str, Any],
    lora: Mapping[str, Any] | None,
    plan: list[Step],
    rows: Rows,
    valid: Rows,
    eval_steps: int,
) -> Any:
    """The trainer; making it seeds everything and then adds the adapter to `model`."""
    import trl
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import PrinterCallback

    trainer = type("PlannedTrainer", (kind, getattr(trl, f"{kind.TRL}Trainer")), {})(
        model=model,
        args=getattr(trl, f"{kind.TRL}Config")(**words),
        # trl looks at the columns of one row; the rows themselves come from the plan.
        train_dataset=Dataset.from_dict({"input_ids": [[0]], "labels": [[0]]}),
        processing_class=tokenizer,
        data_collator=list,
        peft_config=LoraConfig(**lora) if lora else None,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.plan, trainer.rows, trainer.valid = plan, rows, valid
    trainer.eval_steps = eval_steps
    return trainer
