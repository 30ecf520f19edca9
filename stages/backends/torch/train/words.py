"""Our settings in, the words of trl, peft and torch out: pure, and tested without a GPU."""

from collections.abc import Sequence
from typing import Any

from stages.backends.torch.load import Device
from stages.core import training
from stages.core.errors import TunesmithError
from stages.core.settings import Lora, Model, Train

OPTIMIZERS = {"adamw": "adamw_torch_fused", "adafactor": "adafactor", "sgd": "sgd"}
SCHEDULES = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}


def precision(wanted: str, device: Device) -> str:
    """fp32, bf16 or fp16; `auto` is fp32 on a CPU, where bf16 gains nothing on small models.

    Raises:
        TunesmithError: a precision that the device does not compute in.
    """
    if wanted == "auto":
        return "fp32" if device.kind == "cpu" else "bf16" if device.bf16 else "fp16"
    if (wanted == "fp16" and device.kind == "cpu") or (wanted == "bf16" and not device.bf16):
        raise TunesmithError(
            f"{device.name} does not train in {wanted}.",
            where="models.<model>.train.precision",
            why="It would be emulated slowly, or overflow.",
            do="Set train.precision to auto or fp32.",
        )
    return wanted


def trainer_words(train: Train, steps: int, use: str, device: Device) -> dict[str, Any]:
    """Arguments of SFTConfig and DPOConfig; whatever could change a result is written out.

    `steps` counts the optimizer steps of the whole run, and `use` is fp32, bf16 or fp16. One batch
    of the trainer is one whole step: accumulation happens inside it, weighted by tokens.
    """
    return {
        "max_steps": steps,
        "per_device_train_batch_size": train.batch_size,
        "gradient_accumulation_steps": 1,
        "learning_rate": train.learning_rate,
        "lr_scheduler_type": SCHEDULES[train.schedule],
        "warmup_steps": training.warmup_steps(train.warmup, steps),
        "weight_decay": train.weight_decay,
        "max_grad_norm": train.max_grad_norm,
        "optim": OPTIMIZERS[train.optimizer],
        "adam_beta1": 0.9,
        "adam_beta2": 0.999,
        "adam_epsilon": 1e-8,
        "seed": train.seed,
        "data_seed": train.seed,
        "bf16": use == "bf16",
        "fp16": use == "fp16",
        "use_cpu": device.kind == "cpu",
        "gradient_checkpointing": train.checkpointing,
        "save_strategy": "steps" if train.save_steps else "no",
        "save_steps": train.save_steps or 1,
        "save_total_limit": 1,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "max_length": None,
        "remove_unused_columns": False,
        "dataloader_pin_memory": False,
        "report_to": "none",
        "disable_tqdm": True,
    }


def checkpointing_words(held: str) -> dict[str, Any]:
    """How activation checkpointing works under a base held as models.<m>.quantise_base says.

    bitsandbytes's 8-bit layers keep their inputs where autograd does not see them; only reentrant
    checkpointing lets these go.
    """
    return {"gradient_checkpointing_kwargs": {"use_reentrant": held == "8bit"}}


def method_words(settings: Model) -> dict[str, Any]:
    """The arguments that SFTConfig alone has, or for method dpo those of DPOConfig."""
    if settings.train.dpo is None:
        return {"packing": False, "dataset_kwargs": {"skip_prepare_dataset": True}}
    return {
        "beta": settings.train.dpo.beta,
        "loss_type": ["sigmoid"],
        "label_smoothing": 0.0,
        "f_divergence_type": "reverse_kl",
        "ld_alpha": None,
        "use_weighting": False,
        "disable_dropout": True,
        "precompute_ref_log_probs": False,
        "sync_ref_model": False,
    }


def lora_words(
    method: str, lora: Lora, targets: Sequence[str], blocks: Sequence[int] | None
) -> dict[str, Any]:
    """LoraConfig's arguments for any method but full; targets and blocks as resolved."""
    return {
        "task_type": "CAUSAL_LM",
        "r": lora.r,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "target_modules": list(targets),
        "layers_to_transform": None if blocks is None else list(blocks),
        "use_rslora": method == "rslora",
        "use_dora": method == "dora",
        "bias": "none",
    }
