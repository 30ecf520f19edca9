"""A base's folder in; the facts later stages need out, or a refusal by name."""

from math import prod
from pathlib import Path
from typing import Any

import orjson

from stages.core import config_keys, files, plugins, shards, template
from stages.core.errors import TunesmithError
from stages.core.shards import Tensor

# The dense architectures for which merge, GGUF and both backends are proven.
ARCHITECTURES = (
    "Gemma2ForCausalLM",
    "Gemma3ForCausalLM",
    "LlamaForCausalLM",
    "MistralForCausalLM",
    "Phi3ForCausalLM",
    "Qwen2ForCausalLM",
    "Qwen3ForCausalLM",
    "SmolLM3ForCausalLM",
)
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_intermediate_size")
PLAIN = ("F32", "F16", "BF16")
EMBEDDING, OUTPUT = "model.embed_tokens.weight", "lm_head.weight"
BLOCK = 1 << 24  # bytes compared at a time
# Text-only Gemma 3 keeps this id for pictures one past its embedding; no text may hold it.
PICTURE = "<image_soft_token>"
DENSE = "Use a dense base: Qwen2/3, Llama, Mistral, Phi3, Gemma 2/3 (text) or SmolLM3."
SAME_BASE = "Take all files of the base from one and the same revision."


def check(folder: Path) -> None:
    """Refuse a base that a later stage could not use, whatever made it.

    Raises:
        TunesmithError: as `check_texts`; pickled, missing, broken or quantised weights; token ids
            that the embedding has no row for; an output layer that config.json says otherwise.
    """
    describe(folder)


def describe(folder: Path) -> dict[str, Any]:
    """What a base is: `architecture`, `parameters` (a count), `dtypes`, `context` (tokens),
    `vocabulary` (rows of the embedding), `eos` (ids), `bos` (id, -1 for none), `tied`.

    Raises:
        TunesmithError: as `check`.
    """
    config = check_texts(folder)
    tensors = {t.name: t for shard in shards.weights(folder) for t in shard.tensors}
    rows = _check_weights(tensors, config, folder)
    return {
        "architecture": config["architectures"][0],
        "parameters": sum(prod(tensor.shape) for tensor in tensors.values()),
        "dtypes": sorted({tensor.dtype for tensor in tensors.values()}),
        "context": config["max_position_embeddings"],
        "vocabulary": rows,
        "eos": _ends(config, folder),
        "bos": -1 if config.get("bos_token_id") is None else config["bos_token_id"],
        "tied": OUTPUT not in tensors,
    }


def check_texts(folder: Path) -> dict[str, Any]:
    """Check everything but the weights, which may not be there yet.

    Returns config.json with the keys that `config_keys.complete` adds.

    Raises:
        TunesmithError: own code (auto_map), quantised, mixture of experts, an architecture that
            is not supported, no context length, a config that its readers would read
            differently, no stop token, no tokenizer.json, a chat template that is missing or
            blank.
    """
    config = _read(folder / "config.json")
    _check_code(config, folder / "config.json")
    _check_kind(config, folder / "config.json")
    config = config_keys.complete(config, folder / "config.json")
    _check_code(template.read_config(folder), folder / "tokenizer_config.json")
    template.load(folder)
    _ids(folder)
    _ends(config, folder)
    return config


def _refuse(what: str, where: Path, why: str, do: str) -> TunesmithError:
    return TunesmithError(what, where=str(where), why=why, do=do)


def _read(path: Path) -> dict[str, Any]:
    """The JSON object in a file of the base."""
    why = "Nothing can be known about a base without it."
    if not path.is_file():
        do = "Use a base in the Hugging Face form, not GGUF, ONNX or another one."
        raise _refuse(f"This base has no {path.name}.", path, why, do)
    try:
        value = files.read_json(path)
    except orjson.JSONDecodeError as problem:
        raise _refuse(f"{path.name} is not JSON: {problem}.", path, why, SAME_BASE) from problem
    if not isinstance(value, dict):
        raise _refuse(f"{path.name} holds no JSON object.", path, why, SAME_BASE)
    return value


def _check_code(config: dict[str, Any], where: Path) -> None:
    if config.get("auto_map"):
        raise _refuse(
            "This base brings Python code of its own (auto_map), which is never run.",
            where,
            "Loading it would need trust_remote_code: anybody's code, run with your rights.",
            "Use a base that transformers knows by itself, without auto_map in its config.",
        )


def _check_kind(config: dict[str, Any], where: Path) -> None:
    """Refuse by name what cannot be trained, merged and converted exactly."""
    if config.get("quantization_config") or config.get("quantization"):
        raise _quantised("its config has a quantization section", where)
    names = config.get("architectures") or ["none"]
    experts = [key for key in EXPERTS if config.get(key)]
    if experts or "moe" in names[0].lower() or "mixtral" in names[0].lower():
        found = f"{experts[0]}: {config[experts[0]]}" if experts else names[0]
        raise _refuse(
            f"This base is a mixture of experts ({found}).",
            where,
            "Adapters of experts have no form that can be merged and moved exactly.",
            DENSE,
        )
    if names[0] not in ARCHITECTURES:
        raise _refuse(
            f"The architecture {names[0]!r} is not supported.",
            where,
            "Merging and converting are proven for each supported architecture, and only there.",
            plugins.nearest(names[0], ARCHITECTURES),
        )
    context = config.get("max_position_embeddings")
    if not isinstance(context, int) or context < 1:
        raise _refuse(
            f"config.json has max_position_embeddings: {context!r}, which is no length.",
            where,
            "It says how many tokens the model can see.",
            SAME_BASE,
        )


def _quantised(found: str, where: Path) -> TunesmithError:
    return _refuse(
        f"This base is quantised: {found}.",
        where,
        "An adapter merged into rounded weights is rounded away.",
        "Use the repository with the plain weights (bf16, fp16 or fp32).",
    )


def _ids(folder: Path) -> list[int]:
    """All token ids of tokenizer.json that text can have."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise _refuse(
            "This base has no tokenizer.json.",
            path,
            "Its token ids are the only ones its weights know.",
            "Use a base with a tokenizer.json (AutoTokenizer.save_pretrained writes one).",
        )
    spec = _read(path)
    vocabulary = spec.get("model", {}).get("vocab", {})
    # BPE and WordPiece map text to id; Unigram lists [text, score] by id
    known = vocabulary.values() if isinstance(vocabulary, dict) else range(len(vocabulary))
    added = [token for token in spec.get("added_tokens") or [] if token["content"] != PICTURE]
    return [*known, *(token["id"] for token in added)]


def _ends(config: dict[str, Any], folder: Path) -> list[int]:
    """The ids at which generation ends, by generation_config.json and config.json."""
    path = folder / "generation_config.json"
    generation = _read(path) if path.is_file() else {}
    found: set[int] = set()
    for value in (generation.get("eos_token_id"), config.get("eos_token_id")):
        found.update(value if isinstance(value, list) else [] if value is None else [value])
    if not found:
        raise _refuse(
            "Neither config.json nor generation_config.json names an eos_token_id.",
            folder,
            "Without it nothing that runs the model knows when an answer ends.",
            "Use an instruct variant of this base.",
        )
    return sorted(found)


def _check_weights(tensors: dict[str, Tensor], config: dict[str, Any], folder: Path) -> int:
    """Check types and the embedding; returns the embedding's rows."""
    for tensor in tensors.values():
        if tensor.dtype not in PLAIN:
            raise _quantised(f"{tensor.name} is stored as {tensor.dtype}", tensor.path)
    embedding = tensors.get(EMBEDDING)
    if embedding is None or len(embedding.shape) != 2:
        raise _refuse(
            f"The weights hold no {EMBEDDING}.",
            folder,
            "Then they are not the weights of the model that config.json describes.",
            SAME_BASE,
        )
    _check_output(embedding, tensors.get(OUTPUT), config, folder)
    rows = embedding.shape[0]
    if config.get("vocab_size", rows) != rows:
        raise _refuse(
            f"config.json has vocab_size: {config['vocab_size']} and the embedding {rows} rows.",
            folder / "config.json",
            "transformers would refuse to load this model.",
            SAME_BASE,
        )
    ids = [*_ids(folder), *_ends(config, folder), config.get("bos_token_id") or 0]
    if max(ids) >= rows:
        raise _refuse(
            f"The tokenizer has the id {max(ids)} and the embedding only {rows} rows.",
            folder / "tokenizer.json",
            "A token without a row ends training in an index error, or worse, in silence.",
            "Use the tokenizer that came with these weights: it gained tokens since.",
        )
    return rows


def _check_output(
    embedding: Tensor, output: Tensor | None, config: dict[str, Any], folder: Path
) -> None:
    """Refuse an output layer that one reader would take, and another the embedding for."""
    tied = config.get("tie_word_embeddings")
    if tied is False and output is None:
        what = f"config.json has tie_word_embeddings: false and the weights hold no {OUTPUT}."
    elif tied and output is not None and not _same(embedding, output):
        what = f"config.json has tie_word_embeddings: true and the weights another {OUTPUT}."
    else:
        return
    raise _refuse(
        what,
        folder / "config.json",
        "transformers, mlx-lm and llama.cpp would each take another output layer.",
        SAME_BASE,
    )


def _same(one: Tensor, two: Tensor) -> bool:
    """Whether two tensors hold the same bytes."""
    if (one.dtype, one.shape) != (two.dtype, two.shape):
        return False
    with one.path.open("rb") as first, two.path.open("rb") as second:
        first.seek(one.offset)
        second.seek(two.offset)
        left = one.size
        while left:
            size = min(left, BLOCK)
            if first.read(size) != second.read(size):
                return False
            left -= size
    return True
