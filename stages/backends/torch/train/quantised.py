"""A base folder in; its model with every linear layer but the output layer in 4 or 8 bits out.

4 bits are QLoRA's (Dettmers et al. 2023, arXiv 2305.14314): nf4 with double quantisation. 8 bits
are LLM.int8 (Dettmers et al. 2022, arXiv 2208.07339). Embeddings, norms, biases and the output
layer stay whole.
"""

import logging
from pathlib import Path
from typing import Any

from stages.backends.torch import load
from stages.core.errors import require

KINDS = {"4bit": "bitsandbytes nf4, double quantisation", "8bit": "bitsandbytes LLM.int8"}
NOTICES = (  # of a faster kernel, for inference alone; of a cast, at each call of each layer
    "bitsandbytes.backends.cpu.ops",
    "bitsandbytes.autograd._functions",
)


def prepare(held: str) -> None:
    """Silence bitsandbytes's notices, which peft too would bring up, and import it if needed.

    Raises:
        MissingPackage: the base is to be quantised, and bitsandbytes is not installed.
    """
    for name in NOTICES:
        logging.getLogger(name).setLevel(logging.ERROR)
    if held != "none":
        require("torch", "bitsandbytes")


def model(base: Path, use: str, held: str, device: str) -> Any:
    """The model of a folder on its device (`cpu` or `cuda`), quantised while it is read.

    peft's `prepare_model_for_kbit_training` has nothing to do here: peft freezes the base for any
    adapter, the trainer prepares checkpointing, and what is not quantised need not be in fp32,
    as norms and the loss compute in it anyway.

    Args:
        use: what the rest is held in and what is computed in: fp32, bf16 or fp16.
        held: 4bit or 8bit.
    """
    config = _config(use, held)
    made = load.model(base, use, quantization_config=config, device_map={"": device})
    # trl rounds the adapter of a model that says so to bf16. peft would take layers of its own for
    # it, which compute the same: without, the adapter starts as it does on the whole base.
    made.is_loaded_in_4bit = made.is_loaded_in_8bit = False
    for weight in made.parameters():
        if weight.is_floating_point():  # part of a file, which would else stay mapped, whole
            weight.data = weight.data.clone()
    for layer in made.modules():
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            # Outside training a CPU with AVX512-BF16 repacks the weights, for good, into a form
            # that has no gradients: training would end with the first valid loss.
            layer.support_avx512bf16_for_cpu = False
        elif hasattr(layer, "init_8bit_state"):
            layer.register_forward_pre_hook(_keep_scales)
    return made


def holds(layer: Any) -> bool:
    """Whether a module is a linear layer of bitsandbytes's."""
    return type(layer).__name__ in ("Linear4bit", "Linear8bitLt")


def _config(use: str, held: str) -> Any:
    import torch
    from transformers import BitsAndBytesConfig

    if held == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtypes[use],
    )  # fmt: skip


def _keep_scales(layer: Any, _: Any) -> None:
    """Give a layer's weight its scales back: on a CPU, DoRA replaces it by a copy without them."""
    if layer.weight.SCB is None:
        layer.weight.SCB = layer.state.SCB
