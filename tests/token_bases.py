"""Small bases (tokenizer, its config, a template) for the tests of tokenising."""

import json
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from stages.core.encoding import SPLITS
from stages.core.example import Example, write_lines

TINY = (Path(__file__).parents[1] / "stages/bases/tiny/chat_template.jinja").read_text("utf-8")
CHATML = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
LLAMA = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
MISTRAL = ["<s>", "</s>", "[INST]", "[/INST]"]
LLAMA_FORM = """{{- bos_token }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
    {{- message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}"""
MISTRAL_FORM = """{{ bos_token }}{% for message in messages %}
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{ raise_exception('roles must alternate user and assistant') }}
{% elif message['role'] == 'user' %}
{{ '[INST] ' + message['content'] + '[/INST]' }}
{%- else %}
{{ ' ' + message['content'] + eos_token }}
{%- endif %}
{%- endfor %}"""
GENERATION_FORM = """{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' }}
    {%- if message.role == 'assistant' %}
        {%- generation %}{{- message.content + '<|im_end|>' }}{% endgeneration %}
    {%- else %}
        {{- message.content + '<|im_end|>' }}
    {%- endif %}
    {{- '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""
# Closes the user's turns, never the assistant's.
ENDLESS_FORM = """{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content }}
    {%- if message.role != 'assistant' %}{{- '<|im_end|>' }}{% endif %}
    {{- '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""
READING = [
    # Runs of white space become tokens of their own, so that a cut inside one would show.
    "if a:\n    b = [\n        1,   2,  3\n    ]\n\n  c \n  d \t\t e\r\n\r\n   f \n\n\n g",
    "one\n\ntwo\n\nthree\n\nfour\n\nfive\n\nsix",
    "You are a helpful clerk. Hello there, good day to you! What's 12 and 30? It's 42.",
    "front open gazelle\n1. back closed stunami\n2. grüße, 你好, 😀 and the rest of the day",
    '{"name": "look_up", "arguments": {"place": "a.txt", "lines": [1, 2]}}',
]


def byte_level(special: list[str], split: str = SPLITS[0]) -> Tokenizer:
    """A byte-level BPE in the form of Qwen2 (or Llama 3), trained on `READING`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(split), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    return trained(tokenizer, special, alphabet)


def sentencepiece(special: list[str]) -> Tokenizer:
    """A SentencePiece-like BPE: `▁` for a space and one put before, bytes for unknown letters."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return trained(tokenizer, ["<unk>", *special, *(f"<0x{n:02X}>" for n in range(256))], [])


def trained(tokenizer: Tokenizer, special: list[str], alphabet: list[str]) -> Tokenizer:
    """The tokenizer after training; byte tokens become ordinary ones again."""
    trainer = trainers.BpeTrainer(
        vocab_size=900, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(READING * 3, trainer)
    spec = json.loads(tokenizer.to_str())
    plain = [token for token in spec["added_tokens"] if not token["content"].startswith("<0x")]
    return Tokenizer.from_str(json.dumps(spec | {"added_tokens": plain}))


def base(
    folder: Path, tokenizer: Tokenizer, form: str | None, eos: str, **config: str | None
) -> Path:
    """Write a base folder; `form` is its template, None for a base without one."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    named = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": eos} | config
    (folder / "tokenizer_config.json").write_text(json.dumps(named))
    if form is not None:
        (folder / "chat_template.jinja").write_text(form, encoding="utf-8")
    return folder


def chatml(folder: Path, form: str | None = TINY) -> Path:
    """The base of most tests: ChatML tokens, the tiny base's template."""
    return base(folder, byte_level(CHATML), form, "<|im_end|>", pad_token="<|endoftext|>")


def chat(*said: str, source: str = "a.jsonl#1", system: str = "") -> Example:
    """User and assistant by turns."""
    roles = ("user", "assistant")
    messages = [{"role": roles[n % 2], "content": text} for n, text in enumerate(said)]
    first = [{"role": "system", "content": system}] if system else []
    return Example([*first, *messages], source, source)


def write_chat(folder: Path, train: list[Example], test: list[Example] = ()) -> Path:
    """A chat folder; valid holds the same rows as test."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("train", train), ("valid", test), ("test", test)):
        write_lines(folder / f"{name}.jsonl", (row.row() for row in rows))
    return folder
