"""A tiny base: settings -> a small Qwen2 model with its own tokenizer, made here from a seed."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from stages.core import files
from stages.core.settings import Positive, Settings

TEMPLATE = Path(__file__).with_name("chat_template.jinja")


class Options(Settings):
    """Shape (Qwen2's own names), reading matter and pre-training of the base."""

    seed: int
    vocab_size: Annotated[int, Field(ge=512, le=65535)]
    hidden_size: Positive
    intermediate_size: Positive
    num_hidden_layers: Annotated[int, Field(ge=2)]
    num_attention_heads: Positive
    num_key_value_heads: Positive
    max_position_embeddings: Positive
    rope_theta: float
    documents: Positive
    sequence_length: Positive
    batch_size: Positive
    steps: Positive
    learning_rate: Annotated[float, Field(gt=0.0, lt=1.0)]


def make(options: Options, out: Path) -> None:
    """Write tokenizer, config, weights and base.json of a base pre-trained on its own text."""
    from stages.bases.tiny import pretrain, text, tokenizer

    documents = list(text.documents(options.seed, options.documents))
    made = tokenizer.build([*documents, *text.spellings()], options.vocab_size)
    template = TEMPLATE.read_text(encoding="utf-8")
    tokenizer.save(made, template, options.max_position_embeddings, out)
    stop, pad = (made.get_vocab()[name] for name in (tokenizer.TURN_END, tokenizer.END_OF_TEXT))
    shape = pretrain.config(options, made.get_vocab_size(), stop, pad)
    ids, learned = pretrain.stream(made, documents)
    pretrain.train(ids, learned, shape, options, out)
    files.write_json(out / "base.json", {"id": "tiny", "kind": "tiny", "licence": "Apache-2.0"})
