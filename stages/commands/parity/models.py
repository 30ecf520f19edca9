"""An architecture's name in; a small random Hugging Face model of it out, the same every time."""

from pathlib import Path
from typing import Any

import numpy as np

from stages.commands.parity import backends
from stages.core import config_keys, files

# fmt: off
SHAPE: dict[str, Any] = {
    "vocab_size": 512, "hidden_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 2048,
    "bos_token_id": None, "eos_token_id": 2, "pad_token_id": 0, "tie_word_embeddings": True,
}
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 256,
}
# name -> (transformers' class of the config, what differs from SHAPE); in two of them what
# mlx-lm takes for granted is wrong, in one a rope scaling must be read
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen2": ("Qwen2Config", {"rope_parameters": 10000.0, "tie_word_embeddings": False}),
    "qwen3": ("Qwen3Config", {"rope_parameters": 1000000.0, "head_dim": 32}),
    "llama": ("LlamaConfig", {"rope_parameters": 10000.0, "tie_word_embeddings": False}),
    "llama3": ("LlamaConfig", {"rope_parameters": LLAMA3}),
    "mistral": ("MistralConfig", {
        "rope_parameters": 1000000.0, "head_dim": 32, "sliding_window": None,
        "tie_word_embeddings": False,
    }),
    "phi3": ("Phi3Config", {"rope_parameters": 10000.0, "tie_word_embeddings": False}),
    "gemma2": ("Gemma2Config", {
        "rope_parameters": 10000.0, "head_dim": 32, "query_pre_attn_scalar": 32,
    }),
    "gemma3": ("Gemma3TextConfig", {
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": 1000000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        },
        # one layer of six sees past the window
        "num_hidden_layers": 6, "head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 16,
    }),
    # one layer of four has no rotary embedding
    "smollm3": ("SmolLM3Config", {"rope_parameters": 2000000.0, "num_hidden_layers": 4}),
}
# fmt: on
ARCHITECTURES = tuple(KINDS)
INNER = 96


def make(
    name: str, folder: Path, *, seed: int = 0, dtype: str = "float32", inner: int = INNER
) -> Path:
    """Write config.json, model.safetensors and generation_config.json; return the folder.

    The logits of random tokens span about -4 to 4. The same seed gives the same weights in every
    dtype but for rounding. A tokenizer is not among the files.

    Args:
        name: one of ARCHITECTURES.
        folder: where to write; made when it is not there.
        seed: of the weights.
        dtype: float32, bfloat16 or float16, of the stored weights.
        inner: intermediate_size; weights are held in few bits where it is a multiple of 64.

    Raises:
        MissingPackage: torch or transformers is not installed.
    """
    transformers = backends.part("torch.load").quiet()
    import torch

    kind, differs = KINDS[name]
    theta = differs["rope_parameters"]
    rope = {"rope_type": "default", "rope_theta": theta} if isinstance(theta, float) else theta
    sizes = SHAPE | {"intermediate_size": inner}
    config = getattr(transformers, kind)(**sizes | differs | {"rope_parameters": rope})
    model = transformers.AutoModelForCausalLM.from_config(config)
    draw = np.random.default_rng(seed)
    with torch.no_grad():
        for key, weight in sorted(model.named_parameters()):
            weight.copy_(torch.from_numpy(_values(draw, key, tuple(weight.shape), name)))
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    said = config_keys.complete(files.read_json(folder / "config.json"))
    files.write_json(folder / "config.json", said)
    return folder


def _values(draw: Any, key: str, shape: tuple[int, ...], name: str) -> np.ndarray:
    """float32 of the given shape: each layer's output about as large as its input."""
    found: np.ndarray = draw.standard_normal(shape).astype(np.float32)
    if key.endswith("norm.weight"):
        # Gemma's norms multiply by one more than what is stored
        return found * np.float32(0.1) + np.float32(0 if name.startswith("gemma") else 1)
    if key.endswith(".bias"):
        return found * np.float32(0.1)
    return found / np.float32(np.sqrt(shape[1]))
