"""A causal model and one padded micro-batch in, the losses of its trained tokens out."""

from typing import Any

import numpy as np

from stages.core.batches import Array

PIECE = 1 << 26  # logits held at once; 151,936 words leave 441 positions a piece


class Trained:
    """Where a micro-batch is trained: its ids, and each trained token's place and row.

    Attributes:
        ids: [rows, length] token ids, padded on the right.
        places: [trained] position of the token before each trained one, all rows end to end.
        wanted: [trained] ids of the trained tokens, row after row.
        rows: [trained] the row of each.
        count: number of rows.
    """

    def __init__(self, ids: Array, labels: Array) -> None:
        import mlx.core as mx

        rows, columns = np.nonzero(labels[:, 1:] != -100)
        self.count = len(ids)
        self.ids = mx.array(ids.astype(np.int32))
        self.places = mx.array((rows * ids.shape[1] + columns).astype(np.int32))
        self.wanted = mx.array(labels[rows, columns + 1].astype(np.int32))
        self.rows = mx.array(rows.astype(np.int32))


def losses(model: Any, batch: Trained) -> Any:
    """[trained] cross entropies in fp32, in the order of `batch.wanted`.

    Logits are made only where a trained token follows, which equals the model's own and spares
    most of the head's work. No mask is needed: rows are padded on the right, and a causal model's
    real tokens never see what stands behind them.
    """
    import mlx.core as mx

    hidden = model.model(batch.ids)
    picked = hidden.reshape(-1, hidden.shape[-1])[batch.places]
    rows = max(1, PIECE // model.model.embed_tokens.weight.shape[0])
    total = batch.wanted.shape[0]
    if total <= rows:
        return _piece(model, picked, batch.wanted)
    pieces = [slice(first, first + rows) for first in range(0, total, rows)]
    again = _recomputed(model)
    return mx.concatenate([again(picked[part], batch.wanted[part]) for part in pieces])


def _recomputed(model: Any) -> Any:
    """`_piece`, keeping no logits for the backward pass: it makes them a second time."""
    import mlx.core as mx
    from mlx.utils import tree_flatten, tree_unflatten

    named = tree_flatten(model.trainable_parameters())
    outside = {name: weight for name, weight in named if ".layers." not in name}

    def piece(hidden: Any, wanted: Any) -> Any:
        def run(weights: dict[str, Any], hidden: Any) -> Any:
            model.update(tree_unflatten(list(weights.items())))
            return _piece(model, hidden, wanted)

        return mx.checkpoint(run)(outside, hidden)

    return piece


def _piece(model: Any, hidden: Any, wanted: Any) -> Any:
    import mlx.core as mx
    import mlx.nn as nn

    logits = logits_of(model, hidden[None])[0].astype(mx.float32)
    return nn.losses.cross_entropy(logits, wanted)


def logits_of(model: Any, hidden: Any) -> Any:
    """The logits [rows, length, words] of last hidden states, by the model's own code.

    Every class of mlx_lm makes them in its own way: tied or not, capped, scaled. So its __call__
    runs, with the body answering what is given instead of running the blocks.
    """
    return type(model).__call__(_Headed(model), hidden)


class _Answering:
    """A body whose answer is its input; it has the real one's other attributes."""

    def __init__(self, body: Any) -> None:
        self._body = body

    def __getattr__(self, name: str) -> Any:
        return getattr(self._body, name)

    def __call__(self, hidden: Any, *_: Any, **__: Any) -> Any:
        return hidden


class _Headed:
    """A model with such a body, for as long as one call takes; nothing of the model changes."""

    def __init__(self, whole: Any) -> None:
        self._whole, self.model = whole, _Answering(whole.model)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._whole, name)
