"""GGUF: bytes equal to llama.cpp's converter, sibling quants from one read, checks, refusals."""

import json
import os
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny import tiny_model, tiny_tokenizer

from stages.core import (
    convert_gguf,
    gguf_build,
    gguf_file,
    gguf_types,
    llamacpp,
    pretokenizer,
    quantise,
)
from stages.core.errors import TunesmithError

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
needs_source = pytest.mark.skipif(
    not llamacpp.source().is_dir(), reason="the llama.cpp source is not fetched: run make first"
)
PLAIN = ("f32", "f16", "bf16", "q8_0")


def other_model(folder: Path, kind: str) -> Path:
    """A random bf16 model of another architecture, with the tokenizer of the tiny one."""
    folder.mkdir()
    tiny_tokenizer(folder)
    config = getattr(transformers, "Gemma3TextConfig" if kind == "Gemma3" else f"{kind}Config")
    model = getattr(transformers, f"{kind}ForCausalLM")
    torch.manual_seed(3)
    shape = config(
        hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=512, head_dim=16, max_position_embeddings=128,
        bos_token_id=None, eos_token_id=2, pad_token_id=0,
        **({"query_pre_attn_scalar": 16} if kind == "Gemma3" else {}),
    )  # fmt: skip
    model(shape).to(torch.bfloat16).save_pretrained(folder)
    return folder


def by_llama_cpp(fused: Path, quant: str, target: Path) -> bytes:
    """The file that llama.cpp's own ModelBase.write makes, its pre-tokenizer named."""
    base = convert_gguf.load_converter(llamacpp.fetch())
    architecture = json.loads((fused / "config.json").read_text())["architectures"][0]
    kind = __import__("conversion").get_model_class(architecture)
    file_type = base.gguf.LlamaFileType[convert_gguf.FILE_TYPES[quant]]
    with torch.inference_mode():
        model = kind(fused, file_type, target, model_name="here")
        model.get_vocab_base_pre = lambda _: "qwen2"
        model.write()
    return target.read_bytes()


@needs_source
@pytest.mark.parametrize("kind", ["Qwen2", "Qwen3", "Llama", "Mistral", "SmolLM3", "Gemma3"])
@pytest.mark.filterwarnings("ignore")
def test_all_quants_of_one_pass_are_llama_cpps_own_bytes(tmp_path, kind):
    fused = tmp_path / "fused"
    fused = tiny_model(fused, hidden=80) if kind == "Qwen2" else other_model(fused, kind)
    outputs = {quant: tmp_path / f"{quant}.gguf" for quant in PLAIN}

    made = convert_gguf.write(fused, outputs, "here")

    for quant, path in outputs.items():
        assert path.read_bytes() == by_llama_cpp(fused, quant, tmp_path / "theirs.gguf"), quant
        assert made[quant]["quant"] == quant
    assert sorted(path.name for path in tmp_path.glob(".*")) == []


@needs_source
def test_rows_that_fit_no_block_are_counted_as_fallbacks(tmp_path):
    fused = tiny_model(tmp_path / "fused", hidden=80)
    made = convert_gguf.write(fused, {"q8_0": tmp_path / "a.gguf"}, "here")["q8_0"]

    # rows of 80 values are no multiple of 32 and those of 240 are none either
    assert made["fallbacks"] == 15
    assert made["types"] == {"f16": 15, "f32": 11}
    assert made["fallback_tensors"][0] == "token_embd.weight f16"


@needs_source
def test_the_bytes_do_not_depend_on_folder_names(tmp_path):
    one = tiny_model(tmp_path / "Some-Model-7B-v0.3")
    two = Path(shutil.copytree(one, tmp_path / "deep" / "b"))
    first, second = tmp_path / "first.gguf", tmp_path / "deep" / "x.gguf"

    convert_gguf.write(one, {"q8_0": first}, "here")
    convert_gguf.write(two, {"q8_0": second}, "here")

    assert first.read_bytes() == second.read_bytes()
    named = {k: v for k, v in gguf_file.read(first).metadata.items() if k.startswith("general.")}
    assert named["general.name"] == "here"
    assert not named.keys() & {"general.basename", "general.version", "general.finetune"}


@needs_source
def test_the_file_carries_template_and_tokenizer(tmp_path):
    fused, path = tiny_model(tmp_path / "fused"), tmp_path / "a.gguf"
    convert_gguf.write(fused, {"f16": path}, "here")

    metadata = gguf_file.read(path).metadata
    template = (fused / "chat_template.jinja").read_text(encoding="utf-8")
    assert metadata["tokenizer.chat_template"] == template
    assert len(metadata["tokenizer.ggml.tokens"]) == 512
    assert metadata["tokenizer.ggml.pre"] == "qwen2"
    assert metadata["general.architecture"] == "qwen2"


@needs_source
@pytest.mark.parametrize(
    ("value", "quant", "said"),
    [
        (1e5, "f16", "reaches 1e.05, more than fp16 holds"),
        (np.nan, "q8_0", "holds values that are not finite"),
        (-np.inf, "f16", "holds values that are not finite"),
    ],
)
def test_values_that_the_type_cannot_hold_are_refused(tmp_path, value, quant, said):
    fused = tiny_model(tmp_path / "fused")
    weights = load_file(fused / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][5, 7] = value
    save_file(weights, fused / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(TunesmithError, match=said):
        convert_gguf.write(fused, {quant: tmp_path / "a.gguf"}, "here")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fused"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"architectures": ["MixtralForCausalLM"]}, "architecture MixtralForCausalLM is not one"),
        ({"query_pre_attn_scalar": 256, "head_dim": 16}, "query_pre_attn_scalar is 256"),
    ],
)
def test_models_that_llama_cpp_gets_wrong_are_refused(tmp_path, change, said):
    fused = tiny_model(tmp_path / "fused")
    path = fused / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))

    with pytest.raises(TunesmithError, match=said):
        convert_gguf.check_convertible(fused)


@needs_source
def test_encoded_rows_equal_those_of_gguf_py():
    base = convert_gguf.load_converter(llamacpp.source())
    draw = np.random.default_rng(5)
    values = np.concatenate([
        draw.normal(0, 0.05, 3200), np.zeros(32), np.full(32, -3.5),
        np.arange(-127, 127.5, 0.5)[:480], [0.49999997, 127.0] * 16, [1e-30] * 32,
    ]).astype(np.float32).reshape(-1, 32)  # fmt: skip

    for kind in PLAIN:
        theirs = base.gguf.quants.quantize(values, base.gguf.GGMLQuantizationType[kind.upper()])
        ours = gguf_types.bytes_of(gguf_types.rows(torch.from_numpy(values), kind))
        assert bytes(ours) == theirs.tobytes(), kind


def rules(**split) -> dict:
    level = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
    made = {"type": "Split", "behavior": "Isolated", "invert": False} | split
    return {"type": "Sequence", "pretokenizers": [made, level]}


LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
DIGITS = {"type": "Digits", "individual_digits": True}
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@pytest.mark.parametrize(
    ("pre_tokenizer", "expected"),
    [
        (rules(pattern={"Regex": LLAMA3}), "llama-bpe"),
        (rules(pattern={"Regex": LLAMA3.replace("{1,3}", "")}), "qwen2"),
        (LEVEL, "gpt-2"),
        ({"type": "Sequence", "pretokenizers": [DIGITS, LEVEL]}, "smollm"),
    ],
)
def test_the_split_rules_name_the_pre_tokenizer(tmp_path, pre_tokenizer, expected):
    (tmp_path / "tokenizer.json").write_text(json.dumps({"pre_tokenizer": pre_tokenizer}))
    assert pretokenizer.name(tmp_path) == expected


@pytest.mark.parametrize(
    "pre_tokenizer",
    [
        None,
        {"type": "Whitespace"},
        rules(pattern={"Regex": r"\p{N}+|\s+"}),
        rules(pattern={"Regex": LLAMA3}, behavior="Removed"),
        LEVEL | {"add_prefix_space": True},
    ],
)
def test_unknown_split_rules_are_refused(tmp_path, pre_tokenizer):
    (tmp_path / "tokenizer.json").write_text(json.dumps({"pre_tokenizer": pre_tokenizer}))
    with pytest.raises(TunesmithError, match="no known pre-tokenizer with these rules"):
        pretokenizer.name(tmp_path)


@needs_source
def test_a_sibling_made_along_is_moved_into_place(tmp_path, monkeypatch):
    fused = tiny_model(tmp_path / "fused")
    monkeypatch.chdir(tmp_path)
    gguf_build.make(fused, "m", "q8_0", ["f16", "q8_0"], Path("models/m-q8_0.gguf"))
    convert_gguf.write(fused, {"f16": tmp_path / "alone.gguf"}, "m")
    monkeypatch.setattr(
        convert_gguf, "write", lambda *_: pytest.fail("the weights were read again")
    )

    made = gguf_build.make(fused, "m", "f16", ["f16", "q8_0"], Path("models/m-f16.gguf"))

    assert made["quant"] == "f16"
    assert Path("models/m-f16.gguf").read_bytes() == (tmp_path / "alone.gguf").read_bytes()
    assert not list(Path(".tunesmith").rglob("*.gguf"))


@needs_source
def test_a_waiting_sibling_of_an_older_model_is_not_used(tmp_path, monkeypatch):
    fused = tiny_model(tmp_path / "fused", seed=1)
    monkeypatch.chdir(tmp_path)
    gguf_build.make(fused, "m", "q8_0", ["f16", "q8_0"], Path("q8_0.gguf"))
    tiny_model(fused, seed=2)
    os.utime(fused / "model.safetensors", ns=(1, 1))

    gguf_build.make(fused, "m", "f16", ["f16", "q8_0"], Path("f16.gguf"))

    convert_gguf.write(fused, {"f16": tmp_path / "new.gguf"}, "m")
    assert Path("f16.gguf").read_bytes() == (tmp_path / "new.gguf").read_bytes()


@needs_source
def test_a_k_quant_uses_one_f16_that_does_not_stay(tmp_path, monkeypatch):
    fused = tiny_model(tmp_path / "fused")
    monkeypatch.chdir(tmp_path)
    asked = []

    def stand_in(source: Path, target: Path, quant: str, _: Path) -> None:
        assert gguf_file.read(source).quant == "f16"
        asked.append(quant)
        shutil.copyfile(source, target)

    monkeypatch.setattr(quantise, "quantise", stand_in)
    monkeypatch.setattr(gguf_file, "check", lambda path, _fused, _quant: gguf_file.describe(path))

    declared = ["q4_k_m", "q6_k", "q8_0"]
    gguf_build.make(fused, "m", "q4_k_m", declared, Path("m-q4.gguf"))

    assert asked == ["q4_k_m", "q6_k"]
    waiting = sorted(path.name for path in Path(".tunesmith").rglob("*.gguf"))
    assert waiting == ["q6_k.gguf", "q8_0.gguf"]


@needs_source
def test_another_template_or_quant_is_found_by_the_check(tmp_path):
    fused, path = tiny_model(tmp_path / "fused"), tmp_path / "a.gguf"
    convert_gguf.write(fused, {"f16": path}, "here")

    with pytest.raises(TunesmithError, match="it is a f16 where a q8_0 was asked for"):
        gguf_file.check(path, fused, "q8_0")
    (fused / "chat_template.jinja").write_text("{{ other }}")
    with pytest.raises(TunesmithError, match="its chat template is not the fused model's"):
        gguf_file.check(path, fused, "f16")
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(TunesmithError, match="where its table needs"):
        gguf_file.check(path, fused, "f16")


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"GGML" + bytes(60), "no GGUF file of version 3"),
        (struct.pack("<4sIQQ", b"GGUF", 3, 1, 1), "ends inside its header"),
        (b"", "no GGUF file of version 3"),
    ],
)
def test_what_is_no_gguf_is_refused(tmp_path, raw, said):
    (tmp_path / "a.gguf").write_bytes(raw)
    with pytest.raises(TunesmithError, match=said):
        gguf_file.read(tmp_path / "a.gguf")
