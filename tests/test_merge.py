"""Fuse: the streaming merge equals PEFT's to the bit, and refuses what it cannot merge."""

import json
import shutil
from pathlib import Path

import pytest

from stages.core import adapter, files, merge, shards
from stages.core.errors import TunesmithError

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
safetensors = pytest.importorskip("safetensors.torch")
transformers = pytest.importorskip("transformers")


def make_base(folder: Path, dtype=None, tied=True, shard="5GB") -> Path:
    """A random Qwen2 whose rows are no multiple of the merge's block, with stand-in side files."""
    torch.manual_seed(1)
    config = transformers.Qwen2Config(
        hidden_size=80, intermediate_size=331, num_hidden_layers=2, num_attention_heads=5,
        num_key_value_heads=1, vocab_size=300, tie_word_embeddings=tied,
    )  # fmt: skip
    model = transformers.Qwen2ForCausalLM(config).to(dtype or torch.bfloat16)
    model.save_pretrained(folder, max_shard_size=shard)
    (folder / "tokenizer.json").write_text('{"made": "here"}\n')
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    return folder


def make_adapter(base: Path, folder: Path, seed=2, **lora) -> Path:
    """A PEFT adapter of `base` with random weights far from zero, and its manifest."""
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype="auto")
    options = {"r": 6, "lora_alpha": 9, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
    model = peft.get_peft_model(model, peft.LoraConfig(**options | lora))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_magnitude" in name:
                weight.mul_(1 + 0.1 * torch.rand_like(weight))
            elif "lora_" in name:
                weight.normal_(0, 0.2)
    model.save_pretrained(folder)
    trained_on(base, folder)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A base and an adapter of its up_proj layers, to be copied."""
    folder = tmp_path_factory.mktemp("made")
    base = make_base(folder / "base")
    make_adapter(base, folder / "adapter", target_modules=["up_proj"])
    return folder


@pytest.fixture
def pair(made, tmp_path) -> tuple[Path, Path]:
    """(base, adapter), free to be spoilt."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path / "base", tmp_path / "adapter"


def trained_on(base: Path, folder: Path) -> None:
    hashed = {"id": "tiny", "revision": "", "hash": files.tree_hash(base)}
    files.write_json(folder / "manifest.json", {"base": hashed})


def merged_by_peft(base: Path, folder: Path) -> dict:
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype="auto")
    model = peft.PeftModel.from_pretrained(model, folder).merge_and_unload()
    return dict(model.state_dict())


def tensors_of(folder: Path) -> dict:
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        found |= safetensors.load_file(path)
    return found


def fuse(base: Path, trained: Path, out: Path) -> dict:
    out.mkdir()
    return merge.merge(base, trained, out)


LORA = {
    "lora": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "patterns": {
        "rank_pattern": {"q_proj": 3, "layers.1.mlp.up_proj": 17},
        "alpha_pattern": {"down_proj": 31, "model.layers.0.self_attn.k_proj": 2},
    },
    "high_rank": {"r": 80, "target_modules": ["up_proj", "down_proj"]},
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("kind", LORA)
def test_the_merge_is_bit_equal_to_peft(tmp_path, kind, dtype):
    base = make_base(tmp_path / "base", getattr(torch, dtype))
    trained = make_adapter(base, tmp_path / "adapter", **LORA[kind])

    manifest = fuse(base, trained, tmp_path / "fused")

    ours, theirs = tensors_of(tmp_path / "fused"), merged_by_peft(base, trained)
    before = tensors_of(base)
    assert set(ours) == set(before)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert all(ours[name].dtype == getattr(torch, dtype) for name in ours)
    changed = sum(not torch.equal(ours[name], before[name]) for name in ours)
    assert changed == manifest["merged"] == (4 if kind == "high_rank" else 14)


def test_several_shards_keep_their_names_and_headers(tmp_path):
    base = make_base(tmp_path / "base", shard="100KB")
    trained = make_adapter(base, tmp_path / "adapter")

    fuse(base, trained, tmp_path / "fused")

    ours, theirs = shards.weights(tmp_path / "fused"), shards.weights(base)
    assert len(ours) > 2
    assert [(s.name, s.header) for s in ours] == [(s.name, s.header) for s in theirs]
    reloaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "fused", dtype="auto")
    merged = merged_by_peft(base, trained)
    assert all(torch.equal(merged[k], v) for k, v in reloaded.state_dict().items())


def test_config_tokenizer_and_template_are_the_bases_own_bytes(tmp_path, pair):
    base, trained = pair
    fuse(base, trained, tmp_path / "fused")

    for name in ("config.json", "tokenizer.json", "chat_template.jinja", "generation_config.json"):
        assert (tmp_path / "fused" / name).read_bytes() == (base / name).read_bytes()
    assert not list((tmp_path / "fused").glob("adapter*"))


def test_the_same_merge_in_two_places_gives_the_same_bytes(tmp_path, pair):
    base, trained = pair
    fuse(base, trained, tmp_path / "one")
    (tmp_path / "elsewhere").mkdir()
    moved = shutil.copytree(base, tmp_path / "elsewhere" / "b")
    fuse(moved, shutil.copytree(trained, tmp_path / "elsewhere" / "a"), tmp_path / "two")

    assert files.tree_hashes(tmp_path / "one") == files.tree_hashes(tmp_path / "two")


def test_full_weights_take_the_bases_config_and_tokenizer(tmp_path):
    base, other = make_base(tmp_path / "base"), tmp_path / "full"
    other.mkdir()
    changed = {name: value + 1 for name, value in tensors_of(base).items()}
    safetensors.save_file(changed, other / "model.safetensors", metadata={"format": "pt"})
    trained_on(base, other)

    manifest = fuse(base, other, tmp_path / "fused")

    ours = tensors_of(tmp_path / "fused")
    assert all(torch.equal(ours[name], value) for name, value in changed.items())
    assert (manifest["method"], manifest["merged"]) == ("full", 0)
    assert (tmp_path / "fused" / "tokenizer.json").is_file()


def test_full_weights_of_another_shape_are_refused(tmp_path):
    base, other = make_base(tmp_path / "base"), tmp_path / "full"
    other.mkdir()
    changed = tensors_of(base)
    changed["model.norm.weight"] = torch.zeros(7)
    safetensors.save_file(changed, other / "model.safetensors", metadata={"format": "pt"})
    trained_on(base, other)

    with pytest.raises(TunesmithError, match="1 weights differ from the base's in name or shape"):
        fuse(base, other, tmp_path / "fused")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"peft_type": "LOHA"}, "of type 'LOHA'"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices"),
        ({"target_parameters": ["mlp.experts.gate_up_proj"]}, "fused MoE experts"),
        ({"bias": "all"}, "trained biases"),
        ({"lora_bias": True}, "lora_bias"),
        ({"fan_in_fan_out": True}, "transposed"),
        ({"init_lora_weights": "pissa_niter_4"}, "which changes the base"),
        ({"r": 7}, "has rank 6 where the adapter's config says 7"),
        ({"use_dora": True}, r"has the adapter parts \['a', 'b'\]"),
    ],
)
def test_what_cannot_be_merged_exactly_is_refused_by_name(tmp_path, pair, change, said):
    base, trained = pair
    path = trained / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))

    with pytest.raises(TunesmithError, match=said):
        fuse(base, trained, tmp_path / "fused")


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("model.embed_tokens.lora_embedding_A", "a LoRA of an embedding"),
        ("model.layers.0.mlp.experts.3.up_proj.lora_A.weight", "MoE experts"),
        ("model.layers.0.mlp.down_proj.lora_B.bias", "a trained bias"),
        ("model.embed_tokens.token_adapter.trainable_tokens_delta", "single token rows"),
        ("model.layers.0.mlp.down_proj.weight", "cannot be merged"),
        ("model.layers.0.mlp.down_proj.lora_A.weight", "has the adapter parts"),
    ],
)
def test_every_adapter_key_is_consumed_or_named(tmp_path, pair, key, said):
    base, trained = pair
    path = trained / adapter.WEIGHTS
    held = safetensors.load_file(path) | {f"base_model.model.{key}": torch.zeros(2, 2)}
    safetensors.save_file(held, path)

    with pytest.raises(TunesmithError, match=said):
        fuse(base, trained, tmp_path / "fused")


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("lm_head", "lm_head.weight, which this base ties"),
        ("model.layers.9.mlp.up_proj", "which in the base is not there"),
        ("model.layers.0.mlp.down_proj", r"\[5, 5\], which in the base has shape \[80, 331\]"),
    ],
)
def test_an_update_without_its_weight_is_refused(tmp_path, pair, module, said):
    base, trained = pair
    path = trained / adapter.WEIGHTS
    parts = {"A": torch.zeros(6, 5), "B": torch.zeros(5, 6)}
    more = {f"base_model.model.{module}.lora_{x}.weight": value for x, value in parts.items()}
    safetensors.save_file(safetensors.load_file(path) | more, path)

    with pytest.raises(TunesmithError, match=said):
        fuse(base, trained, tmp_path / "fused")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"quantization_config": {"load_in_4bit": True}}, "The base is quantised"),
        ({"num_experts": 60}, "mixture of experts"),
    ],
)
def test_a_quantised_or_moe_base_is_refused(tmp_path, pair, change, said):
    base, trained = pair
    path = base / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))

    with pytest.raises(TunesmithError, match=said):
        fuse(base, trained, tmp_path / "fused")


def test_an_adapter_of_another_base_is_refused(tmp_path, pair):
    base, trained = pair
    (base / "tokenizer.json").write_text("{}")

    with pytest.raises(TunesmithError, match="was trained on tiny"):
        fuse(base, trained, tmp_path / "fused")
    (trained / "manifest.json").unlink()
    with pytest.raises(TunesmithError, match="was trained on an unknown base"):
        fuse(base, trained, tmp_path / "again")


def test_pickled_weights_are_refused_on_both_sides(tmp_path, pair):
    base, trained = pair
    (trained / adapter.WEIGHTS).rename(trained / "adapter_model.bin")
    with pytest.raises(TunesmithError, match="only pickled adapter weights"):
        fuse(base, trained, tmp_path / "fused")

    (base / "model.safetensors").rename(base / "pytorch_model.bin")
    with pytest.raises(TunesmithError, match=r"only pickled weights \(pytorch_model.bin\)"):
        shards.weights(base)


def test_a_merge_that_leaves_the_numbers_is_refused(tmp_path):
    base = make_base(tmp_path / "base", torch.float16)
    trained = make_adapter(base, tmp_path / "adapter", lora_alpha=10_000_000)

    with pytest.raises(TunesmithError, match="not finite in F16"):
        fuse(base, trained, tmp_path / "fused")
