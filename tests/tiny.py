"""A folder in, a whole tiny base model out: random Qwen2 weights, tokenizer and chat template.

Made with numpy alone, so that tests which only read such a folder need no torch.
"""

from pathlib import Path

import numpy as np
import orjson
from safetensors.numpy import save_file
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

END, START, STOP = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
WORDS = """
front open close box spin turn forward fakie back system user assistant name arguments
start from end with tricks combo move attack card board you are a helpful the of and
""".split()  # noqa: SIM905 (thirty-odd quotes)

# ChatML with tools and tool calls in the form that Qwen2.5 reads and writes.
TEMPLATE = """\
{%- set first = 1 if messages[0].role == 'system' else 0 -%}
{%- set system = messages[0].content if first else 'You are a helpful assistant.' -%}
{{- '<|im_start|>system\\n' + system -}}
{%- if tools -%}
{{- '\\n\\n# Tools\\n\\nFunction signatures are within <tools></tools> XML tags:\\n<tools>' -}}
{%- for tool in tools -%}{{- '\\n' + tool | tojson -}}{%- endfor -%}
{{- '\\n</tools>\\n\\nAnswer a call with a JSON object within <tool_call></tool_call>.' -}}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- for message in messages[first:] -%}
{%- if message.role == 'tool' -%}
{{- '<|im_start|>user\\n<tool_response>\\n' + message.content + '\\n</tool_response>' -}}
{%- else -%}
{{- '<|im_start|>' + message.role + '\\n' + (message.content or '') -}}
{%- for call in message.tool_calls or [] -%}
{%- set call = call.function if call.function is defined else call -%}
{{- '\\n<tool_call>\\n{"name": "' + call.name + '", "arguments": ' -}}
{{- call.arguments | tojson + '}\\n</tool_call>' -}}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""


def tiny_model(
    folder: Path, hidden: int = 64, layers: int = 2, vocab: int = 512, seed: int = 1
) -> Path:
    """Write a base model of random fp32 weights and return its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    tiny_tokenizer(folder, vocab)
    shape = config(hidden, layers, vocab)
    write(folder / "config.json", shape)
    save_file(weights(shape, seed), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def tiny_tokenizer(folder: Path, vocab: int = 512) -> Tokenizer:
    """Write tokenizer.json, its config, the template and generation_config.json."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(SPLIT), behavior="isolated")
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, level])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab, special_tokens=[END, START, STOP], show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )  # fmt: skip
    texts = [f"{a} {b} {a}{b} {b}{a}, {a}." for a in WORDS for b in WORDS]
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    write(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "Qwen2Tokenizer", "add_bos_token": False, "add_prefix_space": False,
            "bos_token": None, "eos_token": STOP, "pad_token": END, "unk_token": None,
            "model_max_length": 2048, "clean_up_tokenization_spaces": False,
        },
    )  # fmt: skip
    ends = [tokenizer.token_to_id(STOP), tokenizer.token_to_id(END)]
    write(folder / "generation_config.json", {"eos_token_id": ends, "pad_token_id": ends[1]})
    return tokenizer


def config(hidden: int, layers: int, vocab: int) -> dict:
    """config.json of a Qwen2 with heads of 16 and half as many key-value heads; tied."""
    return {
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "vocab_size": vocab,
        "hidden_size": hidden, "intermediate_size": 3 * hidden, "num_hidden_layers": layers,
        "num_attention_heads": hidden // 16, "num_key_value_heads": max(1, hidden // 32),
        "max_position_embeddings": 2048, "max_window_layers": layers, "hidden_act": "silu",
        "rope_theta": 10000.0, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "initializer_range": 0.02, "rms_norm_eps": 1e-6, "tie_word_embeddings": True,
        "use_sliding_window": False, "attention_dropout": 0.0, "bos_token_id": None,
        "eos_token_id": 2, "pad_token_id": 0, "torch_dtype": "float32",
    }  # fmt: skip


def weights(shape: dict, seed: int) -> dict[str, np.ndarray]:
    """Random weights by the names Qwen2 gives them."""
    draw = np.random.default_rng(seed)
    hidden, inner = shape["hidden_size"], shape["intermediate_size"]
    keys = hidden // shape["num_attention_heads"] * shape["num_key_value_heads"]
    linear = {
        "self_attn.q_proj": (hidden, hidden), "self_attn.k_proj": (keys, hidden),
        "self_attn.v_proj": (keys, hidden), "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_proj": (inner, hidden), "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }  # fmt: skip

    def random(*size: int) -> np.ndarray:
        return draw.normal(0, 0.05, size).astype(np.float32)

    found = {"model.embed_tokens.weight": random(shape["vocab_size"], hidden)}
    for layer in range(shape["num_hidden_layers"]):
        for name, size in linear.items():
            found[f"model.layers.{layer}.{name}.weight"] = random(*size)
            if name[-6:] in ("q_proj", "k_proj", "v_proj"):
                found[f"model.layers.{layer}.{name}.bias"] = random(size[0])
        for name in ("input_layernorm", "post_attention_layernorm"):
            found[f"model.layers.{layer}.{name}.weight"] = np.ones(hidden, np.float32)
    return found | {"model.norm.weight": np.ones(hidden, np.float32)}


def write(path: Path, value: dict) -> None:
    path.write_bytes(orjson.dumps(value, option=orjson.OPT_INDENT_2))
