"""A causal model and one padded micro-batch in, the summed loss of its trained tokens out."""

from typing import Any

PIECE = 1 << 26  # logits held at once; 151,936 words leave 441 positions a piece


def summed(causal: Any, ids: Any, labels: Any) -> Any:
    """Sum of the cross entropies of the trained tokens, in fp32.

    Logits are made only where a label follows, which equals the model's own loss and spares most
    of the head's work. No attention mask is needed: rows are padded on the right, and a causal
    model's real tokens never see what stands behind them.

    Args:
        causal: a `...ForCausalLM` (with or without adapter layers inside).
        ids: [rows, length] token ids, padded on the right with any id.
        labels: [rows, length], -100 where not trained.
    """
    from torch.utils.checkpoint import checkpoint

    hidden = causal.base_model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    wanted = labels[:, 1:]
    trained = wanted != -100
    picked, wanted = hidden[trained], wanted[trained]
    head = causal.get_output_embeddings()
    cap = getattr(causal.config.get_text_config(), "final_logit_softcapping", None)
    rows = max(1, PIECE // head.weight.shape[0])
    if len(picked) <= rows:
        return _piece(head, cap, picked, wanted)
    pieces = zip(picked.split(rows), wanted.split(rows), strict=True)
    return sum(checkpoint(_piece, head, cap, h, w, use_reentrant=False) for h, w in pieces)


def _piece(head: Any, cap: float | None, hidden: Any, wanted: Any) -> Any:
    import torch

    logits = head(hidden).float()
    if cap:
        logits = cap * torch.tanh(logits / cap)
    return torch.nn.functional.cross_entropy(logits, wanted, reduction="sum")
