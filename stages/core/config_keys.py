"""A config.json in; the same with the keys that other readers look for, or a refusal by name, out.

Three programs read a base: transformers (5, which newer configs are written for), mlx-lm and,
through transformers, llama.cpp's converter. Where a key is absent or spelt the newer way, mlx-lm
takes a default of its own and says nothing. So every such key is written out, with the value that
transformers reads. Keys and defaults are those of transformers' configuration classes and of
mlx-lm's ModelArgs (versions in env/); `tests/test_readers.py` compares the two, field by field.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from stages.core import files, rotary_keys
from stages.core.rotary_keys import refuse

Config = Mapping[str, Any]
FAMILIES = {
    "Gemma2ForCausalLM": "gemma2",
    "Gemma3ForCausalLM": "gemma3_text",
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "mistral",
    "Phi3ForCausalLM": "phi3",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
    "SmolLM3ForCausalLM": "smollm3",
}
# fmt: off
# family -> what transformers takes for an absent key, where mlx-lm takes another value or stops
_GEMMA = {
    "head_dim": 256, "num_key_value_heads": 4, "query_pre_attn_scalar": 256,
    "rms_norm_eps": 1e-6, "sliding_window": 4096, "tie_word_embeddings": True,
}
_LLAMA = {"rms_norm_eps": 1e-6, "tie_word_embeddings": False}
ABSENT: dict[str, dict[str, Any]] = {
    "gemma2": _GEMMA,
    "gemma3_text": _GEMMA,
    "llama": _LLAMA,
    "mistral": _LLAMA | {"num_key_value_heads": 8, "sliding_window": 4096},
    "phi3": {"rms_norm_eps": 1e-5, "tie_word_embeddings": False},
    "qwen2": _LLAMA | {"num_key_value_heads": 32},
    "qwen3": _LLAMA | {"num_key_value_heads": 32, "head_dim": 128},
    "smollm3": {"num_key_value_heads": 4, "rms_norm_eps": 1e-6, "tie_word_embeddings": True},
}
# family -> what mlx-lm or llama.cpp takes for granted, whatever the config says
_SILU = {"hidden_act": "silu", "rope_traditional": False}
_GELU = {
    "hidden_activation": "gelu_pytorch_tanh", "rope_traditional": False, "attention_bias": False,
    "use_bidirectional_attention": False,
}
GRANTED: dict[str, dict[str, Any]] = {
    "gemma2": _GELU | {"tie_word_embeddings": True},
    "gemma3_text": _GELU | {
        "attn_logit_softcapping": None, "final_logit_softcapping": None,
        "sliding_window_pattern": 6,
    },
    "llama": _SILU,
    "mistral": _SILU,
    "phi3": _SILU,
    "qwen2": _SILU,
    "qwen3": _SILU | {"attention_bias": False},
    "smollm3": _SILU | {"no_rope_layer_interval": 4},
}
# fmt: on


def write(path: Path) -> list[str]:
    """Complete a config.json in place; returns the added keys, and without any leaves its bytes.

    Raises:
        TunesmithError: as `complete`.
    """
    config = files.read_json(path)
    made = complete(config, path)
    added = [key for key in made if key not in config]
    if added:
        path.write_bytes(orjson.dumps(made, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    return added


def complete(config: Config, where: Path | None = None) -> dict[str, Any]:
    """The config with the keys added that some reader needs; none is changed, dropped or moved.

    What comes out is read by transformers as what went in, and by the others as by transformers.
    An architecture that is not in FAMILIES comes back as it is.

    Args:
        config: the content of config.json, in transformers' older or newer spelling.
        where: the file, for messages.

    Raises:
        TunesmithError: two spellings that disagree, or a value that some reader would not heed.
    """
    named = _named(config)
    if named not in FAMILIES:
        return dict(config)
    family, place = FAMILIES[named], str(where or "config.json")
    _check_granted(config, family, place)
    _check_layers(config, family, place)
    wanted = rotary_keys.older(config, family, place) | ABSENT[family]
    kind, older = config.get("dtype"), config.get("torch_dtype")
    if kind and older and kind != older:
        refuse(f"dtype is {kind!r} and torch_dtype is {older!r}.", place)
    if kind:
        wanted["torch_dtype"] = kind
    return {**config, **{key: value for key, value in wanted.items() if key not in config}}


def agree_to(config: Config) -> int | None:
    """The longest row (tokens) that every reader computes alike; None where that is any row.

    mlx-lm sees past the sliding window of these families, and llama.cpp past most of them.
    """
    family = FAMILIES.get(_named(config), "")
    window = config.get("sliding_window", ABSENT.get(family, {}).get("sliding_window"))
    off = family.startswith(("qwen", "smollm")) and not config.get("use_sliding_window")
    if family in ("", "llama", "gemma3_text") or off or window is None:
        return None
    return int(window) if window < config["max_position_embeddings"] else None


def _named(config: Config) -> str:
    return str((config.get("architectures") or [""])[0])


def _check_granted(config: Config, family: str, where: str) -> None:
    """Refuse what only some readers heed."""
    if config.get("model_type") != family:
        said = f"model_type is {config.get('model_type')!r}"
        refuse(f"{said} where {_named(config)} has {family!r}.", where)
    for key, value in GRANTED[family].items():
        found = config.get(key, value)
        if found != value and (found or value):
            refuse(f"{key} is {found!r}; all readers know only {value!r} of {family}.", where)
    if family in ("qwen2", "phi3"):
        size = config["hidden_size"] // config["num_attention_heads"]
        if config.get("head_dim", size) not in (None, size):
            refuse(f"head_dim is {config['head_dim']}; mlx-lm takes {size} for {family}.", where)
    for key in ("attn_logit_softcapping", "final_logit_softcapping"):
        if family == "gemma2" and not config.get(key, 1.0):
            refuse(f"{key} is {config[key]!r}; the other readers need a number there.", where)


def _check_layers(config: Config, family: str, where: str) -> None:
    """Refuse layers of other kinds, or in another order, than mlx-lm and llama.cpp take them."""
    types, rotated = config.get("layer_types"), config.get("no_rope_layers")
    count = config.get("num_hidden_layers", 0)
    every = {"gemma2": 2, "gemma3_text": 6}.get(family)
    if types and every:
        usual = [layer % every != every - 1 for layer in range(count)]
        if [kind == "sliding_attention" for kind in types] != usual:
            refuse(f"layer_types is not full attention in every {every}th layer alone.", where)
    if types and family in ("llama", "mistral") and "sliding_attention" in types:
        refuse("layer_types names sliding_attention, which only mlx-lm would heed.", where)
    if rotated and family == "smollm3" and rotated != [int(i % 4 != 3) for i in range(count)]:
        refuse("no_rope_layers is not every fourth layer, as llama.cpp takes it.", where)
