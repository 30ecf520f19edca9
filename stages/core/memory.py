"""A model's shape and its training settings in; bytes of training's peak and of the disk out.

Sources: parameters and adapter sizes are counted from the shapes of the weights, as transformers
and PEFT lay them out. Gradients, AdamW's two moments and Adafactor's factored one are 4 bytes a
value, as torch and transformers keep them. Activations follow the counting of Korthikanti et al.,
"Reducing Activation Recomputation in Large Transformer Models" (2022), section 4, redone for a
block with RMSNorm, rotary positions, grouped heads, a gated MLP and fused attention (which keeps
no row of length x length), as `transformers` computes it. Bits of a quant are those that
llama.cpp's quantize README states for Llama 3.1 8B.

What it is not: the caching allocator's unused blocks and an attention that is not fused are not
in it. `benchmarks/memory.py` holds it against measured peaks.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from stages.core.errors import TunesmithError
from stages.core.settings import Model

NEEDED = (
    *("model_type", "hidden_size", "intermediate_size", "num_hidden_layers"),
    *("num_attention_heads", "vocab_size"),
)

BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
BITS = {
    **{"f32": 32.0, "f16": 16.0, "bf16": 16.0, "q8_0": 8.5, "q6_k": 6.5625},
    **{"q5_k_m": 5.70, "q5_k_s": 5.57, "q4_k_m": 4.89, "q4_k_s": 4.67},
    **{"q3_k_l": 4.30, "q3_k_m": 4.00, "q3_k_s": 3.64, "q2_k": 3.16},
}
PIECE = 1 << 26  # logits that the torch backend holds at once (backends/torch/train/loss.py)
RUNTIME = 1 << 30  # interpreter, libraries and a CUDA context, before the first weight


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


@dataclass(frozen=True, slots=True)
class Run:
    """How a model is trained, as far as memory goes; `adapted` counts the adapter's values."""

    method: str
    adapted: int
    inputs: int  # widths of the inputs of one block's adapted layers, added up
    dropout: bool
    rows: int
    length: int
    bytes: int  # of a computed value
    optimizer: str
    checkpointing: bool

    @property
    def full(self) -> bool:
        return self.method == "full"


@dataclass(frozen=True, slots=True)
class Training:
    """Bytes at the peak of one training step, by what holds them.

    `activations` wait for the backward pass; `passing` is the most that comes and goes.
    """

    weights: int
    adapter: int
    gradients: int
    optimizer: int
    activations: int
    passing: int

    @property
    def tensors(self) -> int:
        return sum(getattr(self, field.name) for field in fields(self))

    @property
    def total(self) -> int:
        """With the process that holds them."""
        return self.tensors + RUNTIME


@dataclass(frozen=True, slots=True)
class Disk:
    """Bytes that one model takes under models/, and of the largest checkpoint on the way."""

    base: int
    adapter: int
    fused: int
    gguf: int
    checkpoint: int

    @property
    def total(self) -> int:
        return sum(getattr(self, field.name) for field in fields(self))


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


def adapter_values(of: Shape, model: Model) -> int:
    """Values of a LoRA adapter: r (in + out) a layer, DoRA's magnitudes on top."""
    if model.method == "full":
        return 0
    chosen = _adapted(of, model)
    values = sum(model.lora.r * (out + width) for out, width in chosen)
    values += sum(out for out, _ in chosen) if model.method == "dora" else 0
    return values * min(model.lora.layers or of.layers, of.layers)


def _adapted(of: Shape, model: Model) -> list[tuple[int, int]]:
    every = "all-linear" in model.lora.targets
    return [size for name, size in of.linears.items() if every or name in model.lora.targets]


def run(of: Shape, model: Model, bf16: bool = True) -> Run:
    """What a model's settings mean; `bf16` says whether precision auto computes in it."""
    train = model.train
    precision = ("bf16" if bf16 else "fp32") if train.precision == "auto" else train.precision
    pairs = 2 if model.method == "dpo" else 1  # the wanted and the unwanted answer, in one batch
    chosen = [] if model.method == "full" else _adapted(of, model)
    return Run(
        method=model.method,
        adapted=adapter_values(of, model),
        inputs=sum(width for _, width in chosen),
        dropout=model.lora.dropout > 0,
        rows=train.batch_size * pairs,
        length=model.tokens.max_length,
        bytes=BYTES[precision],
        optimizer=train.optimizer,
        checkpointing=train.checkpointing,
    )


def training(of: Shape, how: Run) -> Training:
    """The peak of a step in which every row is `length` long and every token trained.

    The torch backend holds a frozen base in the precision it computes in, and whatever is trained
    in fp32 with fp32 gradients; under bf16, full training adds a half-size copy of the matrices.
    """
    values = of.parameters
    trained = values if how.full else how.adapted
    copy = 2 * values if how.full and how.bytes == 2 else 0
    # Where a gradient is added to one that is there, both exist for a moment.
    moment = 4 * of.vocab * of.hidden if how.full else 0
    return Training(
        weights=values * (4 if how.full else how.bytes) + copy,
        adapter=4 * how.adapted,
        gradients=4 * trained + moment,
        optimizer=_optimizer(of, how, trained),
        activations=activations(of, how),
        passing=max(logits(of, how), _backward(of, how)),
    )


def _optimizer(of: Shape, how: Run, trained: int) -> int:
    """AdamW: two moments. Adafactor: a row and a column for each matrix, and three passing
    copies of the matrix at hand. SGD here has no momentum."""
    if how.optimizer == "adamw":
        return 8 * trained
    if how.optimizer == "sgd":
        return 0
    if not how.full:  # an adapter's matrices are thin: a row and a column are most of them
        return 4 * trained
    sides = of.layers * sum(out + width for out, width in of.linears.values())
    sides += (of.vocab + of.hidden) * (1 if of.tied else 2)
    return 4 * (sides + 3 * of.vocab * of.hidden)


def activations(of: Shape, how: Run) -> int:
    """What the backward pass needs of the forward pass."""
    # Under autocast the sum that runs through the blocks stays fp32 where the weights are.
    between = of.hidden * (4 if how.full else how.bytes)
    block = between if how.checkpointing else _block(of, how)
    return how.rows * how.length * (of.layers * block + 3 * 4 * of.hidden)


def _backward(of: Shape, how: Run) -> int:
    """One block's gradients, and with checkpointing all that it computes once more."""
    again = _block(of, how) if how.checkpointing else 0
    return how.rows * how.length * (again + 4 * (of.inner + of.hidden) * how.bytes)


def _block(of: Shape, how: Run) -> int:
    """Bytes for each token that one block keeps for its backward pass."""
    size, hidden, wide = how.bytes, of.hidden, of.heads * of.head
    inputs = 2 * hidden + wide + of.inner  # what its linear layers read, each once
    attention = 4 * wide * size  # queries, keys and values for each head, and the outcome
    gated = 4 * of.inner * size
    if how.full:  # each norm keeps its input, normalised too; autocast copies what a layer reads
        norms = 2 * 2 * 4 * hidden + (2 * 4 * hidden if size == 4 else 0)
        copies = 2 * (inputs + 3 * hidden) if size == 2 else 0
    else:  # a frozen weight needs no normalised input
        norms = 2 * (4 + size) * hidden
        if how.dropout:  # for each adapted layer: what is left of its input, and the mask
            copies = 5 * how.inputs
        else:  # an adapter computes in fp32 under autocast, which copies its input back
            copies = 2 * max(0, how.inputs - inputs) if size == 2 else 0
    norms += 2 * 4 * (wide + of.kv_heads * of.head) if of.head_norms else 0
    return norms + attention + gated + copies


def logits(of: Shape, how: Run) -> int:
    """Those of one piece: as computed, in fp32, their softmax, and the gradients of these."""
    positions = min(how.rows * how.length, max(1, PIECE // of.vocab))
    return positions * of.vocab * (12 if how.bytes == 4 else 14)


def disk(of: Shape, how: Run, quants: Iterable[str], stored: int = 2) -> Disk:
    """Bytes on disk; `stored` is the size of a value in the base's files."""
    values = of.parameters
    trained = values if how.full else how.adapted
    moments = {"adamw": 8, "adafactor": 0, "sgd": 0}[how.optimizer]
    return Disk(
        base=values * stored,
        adapter=values * stored if how.full else 4 * trained,
        fused=values * stored,
        gguf=round(sum(values * BITS[quant] / 8 for quant in quants)),
        checkpoint=trained * (4 + moments),
    )
