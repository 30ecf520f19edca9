"""A folder in, the model on this machine's device out: shared by training and generation."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.core.errors import require


def quiet() -> Any:
    """transformers, which neither asks the hub about a folder nor shows bars of its own.

    Raises:
        MissingPackage: torch or transformers is not installed.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    require("torch", "torch", "transformers")
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers


@dataclass(frozen=True, slots=True)
class Device:
    """Where it runs: `cpu` or `cuda`, its name, and whether it computes in bf16."""

    kind: str
    name: str
    bf16: bool


def device() -> Device:
    """The first CUDA device where there is one, else the CPU."""
    import torch

    if not torch.cuda.is_available():
        return Device("cpu", "cpu", bf16=True)
    bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return Device("cuda", torch.cuda.get_device_name(0), bf16)


def model(folder: Path, use: str, **more: Any) -> Any:
    """The model of a folder, on the CPU; its weights in fp32, bf16, fp16, or `auto`: their own.

    `more` goes to transformers' from_pretrained.
    """
    transformers = quiet()
    import torch

    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "auto": "auto"}
    config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
    capped = getattr(config, "attn_logit_softcapping", None)  # only eager attention caps
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, config=config, dtype=dtypes[use], use_safetensors=True, trust_remote_code=False,
        attn_implementation="eager" if capped else "sdpa", **more,
    )  # fmt: skip
