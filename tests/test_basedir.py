"""What a base's folder must hold, and the refusals by name."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny import tiny_model

from stages.core import basedir, config_keys
from stages.core.errors import TunesmithError


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tiny_model(tmp_path / "base", hidden=32, layers=1)


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_plain_base_is_described_and_passes(base: Path) -> None:
    tensors = load_file(base / "model.safetensors")

    basedir.check(base)

    assert basedir.describe(base) == {
        "architecture": "Qwen2ForCausalLM",
        "parameters": sum(tensor.size for tensor in tensors.values()),
        "dtypes": ["F32"],
        "context": 2048,
        "vocabulary": 512,
        "eos": [0, 2],
        "bos": -1,
        "tied": True,
    }


def test_an_output_layer_of_its_own_and_a_bos_are_seen(base: Path) -> None:
    tensors = load_file(base / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    save_file(tensors, base / "model.safetensors")
    edit(base / "config.json", bos_token_id=1)

    facts = basedir.describe(base)

    assert (facts["tied"], facts["bos"]) == (False, 1)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"auto_map": {"AutoModel": "m.M"}}, r"brings Python code of its own \(auto_map\)"),
        ({"quantization_config": {"quant_method": "gptq"}}, "is quantised: its config"),
        ({"quantization": {"bits": 4, "group_size": 64}}, "is quantised: its config"),
        ({"num_experts": 64}, r"mixture of experts \(num_experts: 64\)"),
        ({"num_local_experts": 8}, r"mixture of experts \(num_local_experts: 8\)"),
        ({"n_routed_experts": 8}, r"mixture of experts \(n_routed_experts: 8\)"),
        ({"architectures": ["Qwen3MoeForCausalLM"]}, r"mixture of experts \(Qwen3MoeForC"),
        ({"architectures": ["Gemma3ForConditionalGeneration"]}, "'Gemma3ForConditionalGen.*not su"),
        ({"architectures": None}, "The architecture 'none' is not supported"),
        ({"max_position_embeddings": 0}, "max_position_embeddings: 0, which is no length"),
        ({"max_position_embeddings": None}, "max_position_embeddings: None, which is no length"),
        ({"vocab_size": 500}, "vocab_size: 500 and the embedding 512 rows"),
        ({"eos_token_id": 512}, "has the id 512 and the embedding only 512 rows"),
        ({"bos_token_id": 600}, "has the id 600 and the embedding only 512 rows"),
    ],
)
def test_a_config_that_cannot_be_built_on_is_refused(
    base: Path, changes: dict[str, Any], problem: str
) -> None:
    edit(base / "config.json", **changes)

    with pytest.raises(TunesmithError, match=problem) as refused:
        basedir.check(base)
    assert refused.value.where
    assert refused.value.why
    assert refused.value.do


def test_an_unknown_architecture_names_the_nearest_known_one(base: Path) -> None:
    edit(base / "config.json", architectures=["Qwen2ForCausalML"])

    with pytest.raises(TunesmithError, match="Did you mean 'Qwen2ForCausalLM'"):
        basedir.check(base)


@pytest.mark.parametrize("name", basedir.ARCHITECTURES)
def test_each_supported_architecture_passes(base: Path, name: str) -> None:
    family = config_keys.FAMILIES[name]
    rope = {"rope_parameters": None} if family == "gemma3_text" else {}  # there it has sections
    edit(base / "config.json", architectures=[name], model_type=family, **rope)

    basedir.check(base)


@pytest.mark.parametrize(
    ("break_it", "problem"),
    [
        (lambda f: (f / "config.json").unlink(), r"has no config\.json"),
        (lambda f: (f / "config.json").write_text("{"), r"config\.json is not JSON"),
        (lambda f: (f / "config.json").write_text("[]"), "holds no JSON object"),
        (lambda f: (f / "tokenizer.json").unlink(), r"has no tokenizer\.json"),
        (lambda f: (f / "tokenizer_config.json").unlink(), r"tokenizer_config\.json"),
        (lambda f: edit(f / "tokenizer_config.json", auto_map={"A": "b"}), "auto_map"),
        (lambda f: (f / "chat_template.jinja").unlink(), "template of this base is missing"),
        (lambda f: (f / "chat_template.jinja").write_text(" \n"), "template of this base is blank"),
        (lambda f: (f / "model.safetensors").unlink(), "has no weights"),
        (
            lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"),
            "only pickled weights",
        ),
    ],
)
def test_a_folder_that_lacks_something_is_refused(
    base: Path, break_it: Callable[[Path], object], problem: str
) -> None:
    break_it(base)

    with pytest.raises(TunesmithError, match=problem):
        basedir.check(base)


def test_a_base_that_names_no_end_is_refused(base: Path) -> None:
    (base / "generation_config.json").unlink()
    edit(base / "config.json", eos_token_id=None)

    with pytest.raises(TunesmithError, match=r"Neither config.json nor generation_config.json"):
        basedir.check(base)


def test_weights_stored_in_a_quantised_type_are_refused(base: Path) -> None:
    tensors = load_file(base / "model.safetensors")
    tensors["model.norm.weight"] = np.ones(32, np.int8)
    save_file(tensors, base / "model.safetensors")

    with pytest.raises(TunesmithError, match=r"model\.norm\.weight is stored as I8"):
        basedir.check(base)


def test_weights_without_an_embedding_are_refused(base: Path) -> None:
    tensors = load_file(base / "model.safetensors")
    del tensors["model.embed_tokens.weight"]
    save_file(tensors, base / "model.safetensors")

    with pytest.raises(TunesmithError, match=r"hold no model\.embed_tokens\.weight"):
        basedir.check(base)


def add_token(base: Path, content: str, number: int) -> None:
    path = base / "tokenizer.json"
    spec = json.loads(path.read_text())
    spec["added_tokens"].append({**spec["added_tokens"][0], "id": number, "content": content})
    path.write_text(json.dumps(spec))


def test_a_token_that_the_embedding_has_no_row_for_is_refused(base: Path) -> None:
    add_token(base, "<|tool|>", 512)

    with pytest.raises(TunesmithError, match="has the id 512 and the embedding only 512 rows"):
        basedir.check(base)


def test_gemma_3s_token_for_pictures_may_lie_past_the_embedding(base: Path) -> None:
    add_token(base, "<image_soft_token>", 512)

    basedir.check(base)


def test_a_unigram_vocabulary_is_counted_by_its_places(base: Path) -> None:
    path = base / "tokenizer.json"
    spec = json.loads(path.read_text())
    spec["model"] = {"type": "Unigram", "vocab": [[f"t{n}", -1.0] for n in range(513)]}
    path.write_text(json.dumps(spec))

    with pytest.raises(TunesmithError, match="has the id 512"):
        basedir.check(base)


def test_the_checks_of_texts_need_no_weights(base: Path) -> None:
    (base / "model.safetensors").unlink()

    assert basedir.check_texts(base)["model_type"] == "qwen2"
