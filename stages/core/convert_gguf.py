"""Convert: one fused model -> several GGUF files, every weight read once.

llama.cpp's own conversion classes decide names, order, shapes, types and metadata; the bytes are
written here, a block of rows at a time, and equal those of its convert_hf_to_gguf.py.
"""

import importlib
import logging
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from stages.core import files, gguf_data, gguf_file, llamacpp, pretokenizer, shards
from stages.core.errors import TunesmithError, require
from stages.core.gguf_data import Output

ARCHITECTURES = [
    "Qwen2ForCausalLM",
    "Qwen3ForCausalLM",
    "LlamaForCausalLM",
    "MistralForCausalLM",
    "Phi3ForCausalLM",
    "Gemma2ForCausalLM",
    "Gemma3ForCausalLM",
    "SmolLM3ForCausalLM",
]
# quants that need no compiler -> llama.cpp's LlamaFileType
FILE_TYPES = {"f32": "ALL_F32", "f16": "MOSTLY_F16", "bf16": "MOSTLY_BF16", "q8_0": "MOSTLY_Q8_0"}


def write(fused: Path, outputs: dict[str, Path], name: str) -> dict[str, dict[str, Any]]:
    """Write one GGUF file a quant, in one pass; returns each file's description.

    Args:
        fused: a Hugging Face folder with safetensors weights.
        outputs: quant (f32, f16, bf16, q8_0) -> the file to write, whole or not at all.
        name: what the file calls the model (`general.name`).

    Raises:
        TunesmithError: an architecture, tokenizer or value that GGUF cannot hold, a disk too
            small, or a written file that fails its check.
    """
    check_convertible(fused)
    total = sum(shard.size for shard in shards.weights(fused))
    largest = sum(total * {"f32": 2}.get(quant, 1) for quant in outputs)
    first = next(iter(outputs.values()))
    files.require_space(first, largest, f"The GGUF files ({', '.join(outputs)}) of {name}")
    with ExitStack() as stack:
        work = {quant: stack.enter_context(files.file(path)) for quant, path in outputs.items()}
        _convert(fused, work, name)
        return {quant: gguf_file.check(path, fused, quant) for quant, path in work.items()}


def check_convertible(fused: Path) -> None:
    """Refuse by name what llama.cpp would convert wrongly or not at all."""
    config = files.read_json(fused / "config.json")
    named = (config.get("architectures") or ["none"])[0]
    if named not in ARCHITECTURES:
        raise TunesmithError(
            f"The architecture {named} is not one of those that are converted.",
            where=str(fused / "config.json"),
            why="Only for these is the GGUF known to answer like the model.",
            do=f"Use a base of one of: {', '.join(ARCHITECTURES)}.",
        )
    scalar, size = config.get("query_pre_attn_scalar"), config.get("head_dim")
    heads, layers = config.get("num_attention_heads", 1), config.get("num_hidden_layers")
    if layers in (46, 62):  # llama.cpp scales Gemma 2 and 3 of 27B by the hidden size
        size = config.get("hidden_size", 0) // heads
    if scalar is not None and scalar != size:
        raise TunesmithError(
            f"query_pre_attn_scalar is {scalar} and the head has {size} values.",
            where=str(fused / "config.json"),
            why="GGUF does not store this number; llama.cpp would scale attention otherwise.",
            do="Use a Gemma base where the two are equal.",
        )


def _convert(fused: Path, work: dict[str, Path], name: str) -> None:
    base = load_converter(llamacpp.fetch())
    import torch

    with torch.inference_mode():
        model = _model(base, fused, name, work)
        found = {t.name: t for shard in shards.weights(fused) for t in shard.tensors}
        origin, outputs = _plan(base, model, fused, work)
        shapes = {new: tuple(info.shape) for new, info in outputs[0].table.items()}
        same = {
            new: found[old]
            for new, old in origin.items()
            if isinstance(old, str) and old in found and found[old].shape == shapes[new]
        }
        gguf_data.write(outputs, same, lambda new: _computed(base, model, origin.pop(new)))


def _computed(base: Any, model: Any, value: Any) -> Any:
    """A tensor that the conversion changed (or renamed only), as an eager torch tensor."""
    lazy = model.model_tensors[value]() if isinstance(value, str) else value
    eager = base.LazyTorchTensor.to_eager(lazy)
    return eager if eager.dtype.itemsize >= 2 else eager.float()


def load_converter(root: Path) -> Any:
    """llama.cpp's `conversion.base`, with the gguf-py of the same source.

    PyPI's gguf of the same version differs and lacks names the converter uses, so a gguf that
    was imported before is set aside.

    Raises:
        MissingPackage: a package that it imports is not installed.
    """
    require("torch", "torch", "transformers", "safetensors", "sentencepiece")  # some of it late
    loaded = sys.modules.get("gguf")
    if loaded is not None and not str(loaded.__file__).startswith(str(root)):
        for module in [name for name in sys.modules if name.split(".")[0] == "gguf"]:
            del sys.modules[module]
    sys.path[:0] = [str(root / "gguf-py"), str(root)]
    try:
        base = importlib.import_module("conversion.base")
    finally:
        del sys.path[:2]
    # its warnings are about hashes and RoPE names; what matters is checked in the written file
    logging.getLogger("hf-to-gguf").setLevel(logging.ERROR)
    # its guesses from folder names would differ between clones
    base.gguf.Metadata.apply_metadata_heuristic = staticmethod(lambda metadata, *_: metadata)
    return base


def _model(base: Any, fused: Path, name: str, work: dict[str, Path]) -> Any:
    """The conversion class's instance for this model, its pre-tokenizer decided by its rules."""
    architecture = files.read_json(fused / "config.json")["architectures"][0]
    kind = importlib.import_module("conversion").get_model_class(architecture)
    first = next(iter(work))
    model = kind(fused, _file_type(base, first), work[first], model_name=name)
    by_hash = model.get_vocab_base_pre

    def by_rules(tokenizer: Any) -> str:
        try:
            return str(by_hash(tokenizer))
        except NotImplementedError:
            return pretokenizer.name(fused)

    model.get_vocab_base_pre = by_rules
    return model


def _file_type(base: Any, quant: str) -> Any:
    return base.gguf.LlamaFileType[FILE_TYPES[quant]]


def _plan(
    base: Any, model: Any, fused: Path, work: dict[str, Path]
) -> tuple[dict[str, Any], list[Output]]:
    """(new name -> the old name where unchanged, else the changed tensor), and the outputs.

    Preparing is lazy: it reads no weight. Metadata and tokenizer are made once, and only the file
    type differs between the outputs.
    """
    origin: dict[str, Any] = {}
    modify = model.modify_tensors

    def watched(data: Any, name: str, layer: int | None) -> Iterator[tuple[str, Any]]:
        for new, changed in modify(data, name, layer):
            unchanged = changed is data and name in model.model_tensors
            origin.setdefault(new, name if unchanged else changed)
            yield new, changed

    model.modify_tensors = watched
    outputs: list[Output] = []
    key = base.gguf.Keys.General.FILE_TYPE
    for quant, path in work.items():
        model.ftype = _file_type(base, quant)
        if outputs:
            model.gguf_writer = base.gguf.GGUFWriter(None, outputs[0].writer.arch)
        model.prepare_tensors()
        if not outputs:
            _metadata(model, fused)
        else:
            values = dict(outputs[0].writer.kv_data[0])
            kind = base.gguf.GGUFValueType.UINT32
            values[key] = type(values[key])(value=model.ftype, type=kind)
            model.gguf_writer.kv_data[0] = values
        for info in model.gguf_writer.tensors[0].values():
            info.tensor = None  # the lazy tensor would keep what is computed from it in memory
        outputs.append(Output(path, model.gguf_writer))
    return origin, outputs


def _metadata(model: Any, fused: Path) -> None:
    try:
        model.prepare_metadata(vocab_only=False)
    except FileNotFoundError as problem:
        raise TunesmithError(
            f"The tokenizer lacks a file that the converter needs: {Path(str(problem)).name}.",
            where=str(fused),
            why="Models of this architecture keep their vocabulary in a SentencePiece file.",
            do="Use a base whose repository has tokenizer.model beside tokenizer.json.",
        ) from problem
