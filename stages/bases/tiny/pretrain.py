"""Token ids in, a small Qwen2 model pre-trained on them out (config.json, model.safetensors)."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from stages.bases.tiny.tokenizer import END_OF_TEXT, TURN_START
from stages.core import files
from stages.core.errors import MissingPackage
from stages.core.progress import Progress

WARMUP_STEPS = 30
# Strengths of the heads that training starts with, against embeddings of size 0.02 * EMBEDDING.
LOOK, NOTE, MATCH, EMBEDDING = 8.0, 0.2, 2.0, 5.0


def stream(tokenizer: Any, documents: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """All documents as one stream: ids (uint16), and whether each token is learned (bool).

    Learned is the last turn of a document, after the start mark, the role and the line break;
    what asks for it is noise that nobody needs to predict.
    """
    start, end = tokenizer.token_to_id(TURN_START), tokenizer.token_to_id(END_OF_TEXT)
    rows = [np.array([*found.ids, end]) for found in tokenizer.encode_batch_fast(documents)]
    learned = [np.arange(len(row)) >= np.flatnonzero(row == start)[-1] + 3 for row in rows]
    return np.concatenate(rows).astype(np.uint16), np.concatenate(learned)


def config(options: Any, vocab_size: int, eos: int, pad: int) -> dict[str, Any]:
    """config.json of a Qwen2 model; both spellings of the rotary base, for every reader."""
    return {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "vocab_size": vocab_size,
        "hidden_size": options.hidden_size,
        "intermediate_size": options.intermediate_size,
        "num_hidden_layers": options.num_hidden_layers,
        "num_attention_heads": options.num_attention_heads,
        "num_key_value_heads": options.num_key_value_heads,
        "max_position_embeddings": options.max_position_embeddings,
        "max_window_layers": options.num_hidden_layers,
        "rope_theta": options.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": options.rope_theta},
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": True,
        "use_sliding_window": False,
        "use_cache": True,
        "attention_dropout": 0.0,
        "eos_token_id": eos,
        "pad_token_id": pad,
        "bos_token_id": None,
        "torch_dtype": "float32",
    }


def train(
    ids: np.ndarray, learned: np.ndarray, shape: dict[str, Any], options: Any, out: Path
) -> None:
    """Pre-train from random weights on one stream of tokens and write the model.

    `ids` (uint16) and `learned` (bool, the tokens that count in the loss) have the same length.
    Each step takes `batch_size` pieces of `sequence_length` tokens; AdamW with a cosine schedule.
    Deterministic for a seed on one machine.
    """
    try:
        import torch
        from safetensors.torch import save_file
        from transformers import Qwen2Config, Qwen2ForCausalLM
    except ModuleNotFoundError as missing:
        raise MissingPackage(missing.name or "torch", "torch") from missing
    torch.manual_seed(options.seed)
    files.write_json(out / "config.json", shape)
    model = Qwen2ForCausalLM(Qwen2Config.from_pretrained(out)).train()
    look_back(model)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=options.learning_rate, betas=(0.9, 0.98), weight_decay=0.01
    )
    rows = len(ids) // options.sequence_length
    used = rows * options.sequence_length
    inputs = torch.from_numpy(ids[:used].astype(np.int64)).view(rows, -1)
    labels = inputs.masked_fill(~torch.from_numpy(learned[:used]).view(rows, -1), -100)
    order = torch.randperm(rows)
    progress = Progress("pre-training", options.steps)
    for step in range(options.steps):
        first = step * options.batch_size
        picks = order[torch.arange(first, first + options.batch_size) % rows]
        optimizer.param_groups[0]["lr"] = options.learning_rate * _schedule(step, options.steps)
        progress.step(note=f"loss {_step(model, optimizer, inputs[picks], labels[picks]):.3f}")
    progress.close()
    weights = {n: w.contiguous() for n, w in model.state_dict().items() if n != "lm_head.weight"}
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})


def _step(model: Any, optimizer: Any, inputs: Any, labels: Any) -> float:
    """One optimizer step; returns its loss."""
    import torch

    loss = model(input_ids=inputs, labels=labels, use_cache=False).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return float(loss.detach())


def look_back(model: Any) -> None:
    """Start with the two heads that copying needs, which minutes are too short to find from noise.

    The first head of layer 0 looks at the token before and notes it; the first head of layer 1
    looks for the place whose note is the present token, and brings the token there: an induction
    head (Olsson et al. 2022). Embeddings start larger than usual, so that the optimizer's first
    steps do not scramble what the heads read. Training is free to change all of it.
    """
    import torch

    before, match = model.model.layers[0].self_attn, model.model.layers[1].self_attn
    size, half = before.head_dim, before.head_dim // 2
    angles = model.config.rope_parameters["rope_theta"] ** (-torch.arange(half) / half)
    # Rotary pairs that hardly turn within a prompt: only these can compare far places.
    slow = [i for i in range(half) if angles[i] < 1 / 150]
    slow = torch.tensor([*slow, *(i + half for i in slow)])
    note = model.config.hidden_size - size  # where layer 0 notes the token before
    own = torch.arange(size)
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(EMBEDDING)
        for layer in model.model.layers:  # at first no block writes anything but the two heads
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        # Biases e^(-iw) against ones score sum cos(w (distance - 1)): greatest one token back.
        before.k_proj.bias[:size] = LOOK * torch.cat([torch.ones(half), torch.zeros(half)])
        before.q_proj.bias[:size] = LOOK * torch.cat([angles.cos(), -angles.sin()])
        before.v_proj.weight[own, own] = 1.0
        before.o_proj.weight[note + own, own] = NOTE
        match.q_proj.weight[slow, torch.arange(len(slow))] = MATCH
        match.k_proj.weight[slow, note + torch.arange(len(slow))] = MATCH
        match.v_proj.weight[own, own] = 1.0
        match.o_proj.weight[own, own] = NOTE


def _schedule(step: int, steps: int) -> float:
    """Linear warm-up, then cosine to a tenth."""
    if step < WARMUP_STEPS:
        return (step + 1) / WARMUP_STEPS
    done = (step - WARMUP_STEPS) / max(1, steps - WARMUP_STEPS)
    return 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * done))
