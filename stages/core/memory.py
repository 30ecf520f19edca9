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

from collections.abc import Iterable
from dataclasses import dataclass, fields

from stages.core.settings import Model
from stages.core.shapes import Shape as Shape
from stages.core.shapes import shape as shape

BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
BITS = {
    **{"f32": 32.0, "f16": 16.0, "bf16": 16.0, "q8_0": 8.5, "q6_k": 6.5625},
    **{"q5_k_m": 5.70, "q5_k_s": 5.57, "q4_k_m": 4.89, "q4_k_s": 4.67},
    **{"q3_k_l": 4.30, "q3_k_m": 4.00, "q3_k_s": 3.64, "q2_k": 3.16},
}
PIECE = 1 << 26  # logits that the torch backend holds at once (backends/torch/train/loss.py)
RUNTIME = 1 << 30  # interpreter, libraries and a CUDA context, before the first weight


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
    held: str = "none"  # how a frozen base is quantised

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
        held=model.quantise_base,
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
        weights=(4 * values if how.full else frozen(of, how)) + copy,
        adapter=4 * how.adapted,
        gradients=4 * trained + moment,
        optimizer=_optimizer(of, how, trained),
        activations=activations(of, how),
        passing=max(logits(of, how), _backward(of, how)),
    )


def shared(needed: Training, of: Shape, how: Run, processes: int) -> Training:
    """What one of several processes needs that share weights, gradients and optimizer state.

    Whole are, at a time, the tables of words and two blocks: that at hand and the next. In bf16
    full training keeps its half-size copies until the backward pass, unless it checkpoints.
    """
    tables = of.vocab * of.hidden * (1 if of.tied else 2)
    block = (of.parameters - tables) // of.layers
    copy = 2 * of.parameters if how.full and how.bytes == 2 else 0
    kept = 2 * block if how.checkpointing and copy else copy
    size = 4 if how.full else how.bytes
    trained = block + tables if how.full else how.adapted // of.layers
    return Training(
        weights=(needed.weights - copy) // processes + kept + size * (tables + 2 * block),
        adapter=needed.adapter // processes + 2 * needed.adapter // of.layers,
        gradients=needed.gradients // processes + 4 * trained,
        optimizer=needed.optimizer // processes,
        activations=needed.activations,
        passing=needed.passing,
    )


def frozen(of: Shape, how: Run) -> int:
    """Bytes of a frozen base, of which all linear layers but the output may be quantised.

    nf4 has a byte for 64 values and 4 for 256 of these bytes, LLM.int8 4 for a row, on top.
    """
    if how.held == "none":
        return of.parameters * how.bytes
    sizes = of.linears.values()
    values, rows = (
        of.layers * sum(one) for one in ((o * w for o, w in sizes), (o for o, _ in sizes))
    )
    held = values // 2 + values // 64 + values // 4096 if how.held == "4bit" else values + 4 * rows
    return held + how.bytes * (of.parameters - values)


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
    # Under autocast an adapter's gradients are fp32, beside those of what it copied.
    copies = 4 if how.bytes == 2 and not how.full else 1
    gradients = copies * (of.inner + of.hidden) * how.bytes
    # A quantised layer is whole while it is at hand.
    whole = 0 if how.held == "none" else max(out * width for out, width in of.linears.values())
    return how.rows * how.length * (again + gradients) + how.bytes * whole


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
        if how.held == "8bit" and (how.dropout or size == 2):  # else it is the adapter's input
            copies += size * inputs
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
