"""A config.json in, the sizes of a dense decoder's layers and its number of parameters out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stages.core.errors import TunesmithError

NEEDED = (
    *("model_type", "hidden_size", "intermediate_size", "num_hidden_layers"),
    *("num_attention_heads", "vocab_size"),
)


@dataclass(frozen=True, slots=True)
class Shape:
    """What a dense decoder's config.json says of its size; `head` is the width of one head."""

    hidden: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    head: int
    vocab: int
    tied: bool
    qkv_bias: bool
    head_norms: bool
    fused: bool

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """(out, in) of each linear layer of one block, by the last part of its name."""
        wide, narrow = self.heads * self.head, self.kv_heads * self.head
        hidden, inner = self.hidden, self.inner
        ends = {"o_proj": (hidden, wide), "down_proj": (hidden, inner)}
        if self.fused:  # Phi3 joins three and two of them
            return {
                "qkv_proj": (wide + 2 * narrow, hidden),
                "gate_up_proj": (2 * inner, hidden),
                **ends,
            }
        return {
            "q_proj": (wide, hidden),
            "k_proj": (narrow, hidden),
            "v_proj": (narrow, hidden),
            "gate_proj": (inner, hidden),
            "up_proj": (inner, hidden),
            **ends,
        }

    @property
    def parameters(self) -> int:
        """Values of all weights."""
        block = sum(out * width for out, width in self.linears.values()) + 2 * self.hidden
        block += (self.heads + 2 * self.kv_heads) * self.head if self.qkv_bias else 0
        block += 2 * self.head if self.head_norms else 0
        tables = self.vocab * self.hidden * (1 if self.tied else 2)
        return tables + self.layers * block + self.hidden


def shape(config: Mapping[str, Any]) -> Shape:
    """The shape that a config.json states.

    Raises:
        TunesmithError: a number of a dense decoder is not there.
    """
    missing = [name for name in NEEDED if name not in config]
    if missing:
        raise TunesmithError(
            f"A shape without {', '.join(missing)} is none.",
            why="Memory is counted from the shapes of a dense decoder's weights.",
            do="Take these numbers from the base's config.json.",
        )
    kind, heads = config["model_type"], config["num_attention_heads"]
    return Shape(
        hidden=config["hidden_size"],
        inner=config["intermediate_size"],
        layers=config["num_hidden_layers"],
        heads=heads,
        kv_heads=config.get("num_key_value_heads", heads),
        head=config.get("head_dim") or config["hidden_size"] // heads,
        vocab=config["vocab_size"],
        tied=config.get("tie_word_embeddings", kind.startswith("gemma")),
        qkv_bias=kind == "qwen2" or config.get("attention_bias", False),
        head_norms=kind in ("qwen3", "gemma3", "gemma3_text"),
        fused=kind == "phi3",
    )
