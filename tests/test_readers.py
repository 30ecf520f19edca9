"""One config.json, three readers: transformers, mlx-lm and llama.cpp compute the same model."""

import dataclasses
import importlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from tiny import tiny_model, tiny_tokenizer

from stages import base
from stages.commands.parity import models
from stages.core import basedir, config_keys, convert_gguf, files, llamacpp, llamaruntime, parity
from stages.core.errors import TunesmithError

needs_source = pytest.mark.skipif(
    not llamacpp.source().is_dir(), reason="the llama.cpp source is not fetched: run make first"
)
IDS = np.random.default_rng(1).integers(3, 512, (2, 64))
# the largest difference of a logit; they span about -4 to 4
SAME, OTHER = 1e-4, 1.0
# llama.cpp keeps keys and values in fp16
LLAMA_CPP, DIVERGENCE = 0.02, 1e-6
OLDER = (
    "rope_theta", "rope_scaling", "rope_local_base_freq", "partial_rotary_factor",
    "original_max_position_embeddings", "torch_dtype",
)  # fmt: skip
LINEAR = {"rope_type": "linear", "factor": 4.0}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a small model, made once for each name."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("models")

    def find(name: str) -> Path:
        if not (folder / name).is_dir():
            models.make(name, folder / name)
        return folder / name

    return find


def edited(source: Path, folder: Path, drop: tuple[str, ...] = (), **changes: Any) -> Path:
    """The same weights under a changed config.json."""
    folder.mkdir()
    (folder / "model.safetensors").symlink_to(source / "model.safetensors")
    config = read(source) | changes
    write(folder, {key: value for key, value in config.items() if key not in drop})
    return folder


def read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text())


def write(folder: Path, config: dict[str, Any]) -> None:
    (folder / "config.json").write_text(json.dumps(config))


def by_transformers(folder: Path, ids: np.ndarray = IDS) -> np.ndarray:
    import torch

    from stages.backends.torch import load

    with torch.inference_mode():
        return load.model(folder, "fp32").eval()(torch.from_numpy(ids)).logits.numpy()


def by_mlx(folder: Path, ids: np.ndarray = IDS) -> np.ndarray:
    """As the backend loads it."""
    mx = pytest.importorskip("mlx.core")
    from stages.backends.mlx import load

    return np.array(load.model(folder, "fp32")(mx.array(ids)))


def by_mlx_lm(folder: Path, ids: np.ndarray = IDS) -> np.ndarray:
    """As mlx-lm loads it for anybody."""
    mx = pytest.importorskip("mlx.core")
    from mlx_lm.utils import load_model

    return np.array(load_model(folder)[0](mx.array(ids)))


def apart(one: np.ndarray, two: np.ndarray) -> float:
    return float(np.abs(one - two).max())


def changed(name: str, folder: Path, **changes: Any) -> Path:
    """A small model of another shape."""
    kind, differs = models.KINDS[name]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.KINDS, name, (kind, differs | changes))
        return models.make(name, folder)


@pytest.mark.parametrize("name", models.ARCHITECTURES)
def test_transformers_and_mlx_compute_the_same_logits(made, name):
    model, mlx = by_transformers(made(name)), by_mlx(made(name))

    assert apart(model, mlx) < SAME
    assert (model.argmax(-1) == mlx.argmax(-1)).all()
    assert 3 < np.abs(model).max() < 7


@pytest.mark.parametrize("name", models.ARCHITECTURES)
def test_the_older_spelling_alone_is_read_by_both(made, tmp_path, name):
    old = edited(made(name), tmp_path / "old", drop=("rope_parameters", "dtype"))
    model = by_transformers(made(name))

    assert apart(model, by_transformers(old)) == 0
    assert apart(model, by_mlx(old)) < SAME
    assert config_keys.complete(read(old)) == read(old)


@pytest.mark.parametrize("name", models.ARCHITECTURES)
def test_completing_what_transformers_writes_changes_nothing_for_transformers(made, tmp_path, name):
    bare = edited(made(name), tmp_path / "bare", drop=OLDER)

    assert apart(by_transformers(made(name)), by_transformers(bare)) == 0
    assert config_keys.complete(read(bare)) == read(made(name))


@pytest.mark.parametrize("name", ["qwen2", "llama3", "mistral", "smollm3"])
def test_without_the_added_keys_mlx_computes_another_model_in_silence(made, tmp_path, name):
    bare = edited(made(name), tmp_path / "bare", drop=OLDER)

    assert apart(by_transformers(bare), by_mlx_lm(bare)) > OTHER
    config_keys.write(bare / "config.json")
    assert apart(by_transformers(bare), by_mlx_lm(bare)) < SAME


@pytest.mark.parametrize("name", ["qwen2", "llama", "mistral"])
def test_without_the_key_that_ties_mlx_takes_the_embedding_for_the_output(made, tmp_path, name):
    bare = edited(made(name), tmp_path / "bare", drop=("tie_word_embeddings",))

    assert apart(by_transformers(bare), by_mlx_lm(bare)) > OTHER
    assert config_keys.write(bare / "config.json") == ["tie_word_embeddings"]
    assert apart(by_transformers(bare), by_mlx_lm(bare)) < SAME


@pytest.mark.parametrize("name", ["llama", "mistral", "qwen2", "qwen3", "smollm3"])
@pytest.mark.parametrize("kind", ["linear", "dynamic", "yarn", "llama3"])
def test_every_way_to_stretch_the_embedding_is_read_alike_or_refused(tmp_path, name, kind):
    pytest.importorskip("transformers")
    fields = {"original_max_position_embeddings": 128} if kind in ("yarn", "llama3") else {}
    if kind == "llama3":
        fields |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
    rope = {"rope_type": kind, "rope_theta": 10000.0, "factor": 4.0, **fields}

    if kind not in config_keys.rotary_keys.KNOWN[name]:
        with pytest.raises(TunesmithError, match="rope_type is 'llama3'; of"):
            changed(name, tmp_path / "m", rope_parameters=rope)
        return
    folder = changed(name, tmp_path / "m", rope_parameters=rope, max_position_embeddings=512)
    model = by_transformers(folder)
    assert apart(model, by_mlx(folder)) < SAME
    write(folder, read(folder) | {"rope_parameters": None, "rope_scaling": None})
    if kind != "dynamic":  # that one begins beyond the context
        assert apart(model, by_mlx(folder)) > 0.1


def test_gemma_3_may_stretch_its_full_layers_and_phi3_rotate_a_part(tmp_path):
    pytest.importorskip("transformers")
    full = {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0}
    local = {"rope_type": "default", "rope_theta": 1e4}
    gemma = changed(
        "gemma3", tmp_path / "g",
        rope_parameters={"full_attention": full, "sliding_attention": local},
    )  # fmt: skip
    part = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.75}
    phi3 = changed("phi3", tmp_path / "p", rope_parameters=part, hidden_size=128)

    assert read(gemma)["rope_scaling"] == {"rope_type": "linear", "factor": 8.0}
    assert read(phi3)["partial_rotary_factor"] == 0.75
    for folder in (gemma, phi3):
        assert apart(by_transformers(folder), by_mlx(folder)) < SAME


@pytest.mark.parametrize(
    ("name", "window", "limit"),
    [
        ("gemma2", {"sliding_window": 16}, 16),
        ("gemma3", {"sliding_window": 16}, None),
        ("mistral", {"sliding_window": 16}, 16),
        ("phi3", {"sliding_window": 16}, 16),
        ("qwen2", {"sliding_window": 16, "use_sliding_window": True, "max_window_layers": 1}, 16),
        ("qwen2", {"sliding_window": 16}, None),
    ],
)
def test_rows_up_to_the_stated_length_are_read_alike_and_longer_ones_not(
    tmp_path, name, window, limit
):
    pytest.importorskip("transformers")
    folder = changed(name, tmp_path / "m", **window)

    assert config_keys.agree_to(read(folder)) == limit
    model, mlx = by_transformers(folder), by_mlx_lm(folder)
    assert apart(model[:, : limit or 64], mlx[:, : limit or 64]) < SAME
    if limit:
        assert apart(model, mlx) > OTHER


@needs_source
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", models.ARCHITECTURES)
def test_llama_cpp_computes_the_same_logits_from_our_own_file(tmp_path, name):
    pytest.importorskip("torch")
    pytest.importorskip("xllamacpp")
    folder = models.make(name, tmp_path / name)
    add_tokenizer(folder, name)
    convert_gguf.write(folder, {"f32": tmp_path / "f32.gguf"}, "here")

    model = by_transformers(folder)[0]
    with llamaruntime.open_file(tmp_path / "f32.gguf") as runtime:
        found = runtime.logits(IDS[0].tolist())

    divergence, agree = parity.divergence(model, found)
    assert apart(model, found) < LLAMA_CPP
    assert divergence.mean() < DIVERGENCE
    assert agree.all()


def add_tokenizer(folder: Path, name: str) -> None:
    """A tokenizer in the form that the converter wants for this architecture."""
    kept = (folder / "generation_config.json").read_bytes()
    tiny_tokenizer(folder)
    (folder / "generation_config.json").write_bytes(kept)
    if name == "phi3":
        said = orjson.loads((folder / "tokenizer_config.json").read_bytes())
        files.write_json(
            folder / "tokenizer_config.json", said | {"tokenizer_class": "GPT2Tokenizer"}
        )
    if name == "gemma2":
        trainer = pytest.importorskip("sentencepiece").SentencePieceTrainer
        words, model = iter(["front open back close turn around"] * 9), io.BytesIO()
        trainer.train(
            sentence_iterator=words, model_writer=model, vocab_size=40, minloglevel=2,
            hard_vocab_limit=False, byte_fallback=False,
        )  # fmt: skip
        (folder / "tokenizer.model").write_bytes(model.getvalue())


# keys that one class of mlx-lm reads, and why their defaults need no word in config.json
ALIKE = {
    "model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
    "num_attention_heads", "max_position_embeddings",  # no config.json is without
    "rope_traditional", "sliding_window_pattern", "no_rope_layer_interval",  # refused otherwise
    "rope_scaling", "rope_parameters", "partial_rotary_factor", "layer_types", "no_rope_layers",
    "rope_theta", "rope_local_base_freq", "original_max_position_embeddings",  # always written
}  # fmt: skip


@pytest.mark.parametrize("name", models.ARCHITECTURES)
def test_no_default_of_mlx_lm_that_differs_from_transformers_is_left_to_it(name):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("mlx.core")
    theirs = getattr(transformers, models.KINDS[name][0])()
    family = theirs.model_type
    module = {"mistral": "llama"}.get(family, family)
    args = importlib.import_module(f"mlx_lm.models.{module}").ModelArgs
    added = config_keys.ABSENT[family]

    for field in dataclasses.fields(args):
        if field.name in ALIKE:
            continue
        # an absent size of a head, or count of them, is the same quotient or count to both
        unset = field.default is None and field.name in ("head_dim", "num_key_value_heads")
        same = field.default == getattr(theirs, field.name, field.default)
        assert unset or same or field.name in added, field.name
    for key, value in added.items():
        assert getattr(theirs, key) == value, key


def llama(**more: Any) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64,
        "num_attention_heads": 4, "num_hidden_layers": 2, "max_position_embeddings": 512,
        "vocab_size": 512, "tie_word_embeddings": False, "rms_norm_eps": 1e-6, **more,
    }  # fmt: skip


def gemma(version: int, **more: Any) -> dict[str, Any]:
    family = {2: "gemma2", 3: "gemma3_text"}[version]
    named = {"architectures": [f"Gemma{version}ForCausalLM"], "model_type": family}
    return llama(num_key_value_heads=2) | {"tie_word_embeddings": True} | named | more


def smollm3(**more: Any) -> dict[str, Any]:
    return llama(num_key_value_heads=2) | {
        "architectures": ["SmolLM3ForCausalLM"], "model_type": "smollm3", **more,
    }  # fmt: skip


def phi3(**more: Any) -> dict[str, Any]:
    return llama() | {"architectures": ["Phi3ForCausalLM"], "model_type": "phi3"} | more


THETA = {"rope_type": "default", "rope_theta": 1e4}
LOCAL = {"sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        (llama(rope_theta=5e5, rope_parameters=THETA), r"_parameters.rope_theta is 10000.0 and r"),
        (llama(rope_theta=None), "rope_theta is None"),
        (llama(rope_theta="1e6"), "rope_theta is '1e6'"),
        (llama(rope_parameters=[1]), "rope_parameters is .1., which is no section"),
        (llama(rope_scaling=None, rope_parameters=LINEAR), "stretch the rotary embedding diff"),
        (llama(rope_scaling=LINEAR | {"factor": 2.0}, rope_parameters=LINEAR), "differently"),
        (llama(rope_scaling=LINEAR | {"type": "yarn"}), "type is 'linear' and type is 'yarn'"),
        (llama(rope_scaling={"type": "longrope"}), "rope_type is 'longrope'; of llama all"),
        (llama(rope_scaling={"type": "linear"}), "of type linear names no factor"),
        (llama(rope_scaling={"type": "yarn", "factor": 4.0}), "yarn names no original_max"),
        (llama(rope_scaling=LINEAR | {"beta_fast": 16}), "linear has beta_fast, which not all"),
        (llama(rope_parameters=LOCAL), "rope_parameters has a section for each kind"),
        (llama(partial_rotary_factor=0.5), "partial_rotary_factor is 0.5; only Phi3"),
        (llama(hidden_act="gelu"), "hidden_act is 'gelu'; all readers know only 'silu'"),
        (llama(rope_traditional=True), "rope_traditional is True"),
        (llama(layer_types=["sliding_attention"] * 2), "layer_types names sliding_attention"),
        (llama(model_type="qwen2"), "model_type is 'qwen2' where LlamaForCausalLM has 'llama'"),
        (llama(dtype="bfloat16", torch_dtype="float16"), "dtype is 'bfloat16' and torch_dtype"),
        (phi3(head_dim=32), "head_dim is 32; mlx-lm takes 16 for phi3"),
        (phi3(rope_scaling=LINEAR), "rope_type is 'linear'; of phi3 all"),
        (
            phi3(
                rope_parameters={
                    "rope_type": "longrope", "short_factor": [1.0], "long_factor": [2.0],
                    "original_max_position_embeddings": 8192,
                }
            ),
            "embeddings is 8192 and original_max_position_embeddings is 4096",
        ),
        (gemma(2, tie_word_embeddings=False), "tie_word_embeddings is False"),
        (gemma(2, final_logit_softcapping=None), "final_logit_softcapping is None; the other"),
        (gemma(2, attention_bias=True), "attention_bias is True"),
        (gemma(2, layer_types=["full_attention"] * 2), "layer_types is not full attention in ev"),
        (gemma(2, hidden_activation="gelu"), "hidden_activation is 'gelu'"),
        (gemma(2, rope_scaling=LINEAR), "rope_type is 'linear'; of gemma2 all readers know def"),
        (gemma(3, final_logit_softcapping=30.0), "final_logit_softcapping is 30.0"),
        (gemma(3, sliding_window_pattern=2), "sliding_window_pattern is 2"),
        (gemma(3, rope_parameters=THETA), "rope_parameters has no section for each kind"),
        (gemma(3, rope_local_base_freq=5e3, rope_parameters=LOCAL), "_freq is 5000.0 and slid"),
        (
            gemma(3, rope_parameters={"sliding_attention": LINEAR}),
            "stretches the sliding layers, which mlx-lm does not",
        ),
        (smollm3(no_rope_layers=[0, 1]), "no_rope_layers is not every fourth"),
    ],
)  # fmt: skip
def test_what_cannot_be_said_to_every_reader_is_refused_by_name(config, problem):
    with pytest.raises(TunesmithError, match=problem) as refused:
        config_keys.complete(config, Path("models/base/b/config.json"))

    assert refused.value.where == "models/base/b/config.json"
    assert refused.value.why
    assert refused.value.do


rope = st.fixed_dictionaries(
    {},
    optional={
        "rope_type": st.sampled_from(["default", "linear", "dynamic"]),
        "type": st.sampled_from(["default", "linear"]),
        "rope_theta": st.sampled_from([10000, 1e4, 1e6]),
        "factor": st.sampled_from([2.0, 4.0]),
    },
)
configs = st.builds(
    lambda make, keys: make(**dict(keys)),
    st.sampled_from([llama, phi3, smollm3, lambda **more: gemma(2, **more)]),
    st.permutations(
        [
            ("rope_theta", 1e4), ("rope_theta", 1e6), ("rope_scaling", None), ("dtype", "float32"),
            ("torch_dtype", "float32"), ("sliding_window", None), ("partial_rotary_factor", 1.0),
        ]
    ).flatmap(
        lambda keys: st.tuples(
            st.integers(0, len(keys)).map(lambda count: keys[:count]),
            st.dictionaries(st.sampled_from(["rope_scaling", "rope_parameters"]), rope),
        ).map(lambda parts: [*parts[0], *parts[1].items()])
    ),
)  # fmt: skip


@settings(max_examples=400, derandomize=True, deadline=None)
@given(configs)
def test_completing_adds_only_and_no_reader_reads_otherwise_than_transformers(config):
    transformers = pytest.importorskip("transformers")
    transformers.logging.set_verbosity_error()
    before = json.dumps(config)
    try:
        made = config_keys.complete(config)
    except TunesmithError:
        return

    assert json.dumps(config) == before
    assert list(made.items())[: len(config)] == list(config.items())
    assert config_keys.complete(made) == made
    known = transformers.models.auto.CONFIG_MAPPING[config["model_type"]]
    one, two = (known.from_dict(json.loads(json.dumps(c))) for c in (config, made))
    for key in ("rope_parameters", "tie_word_embeddings", "num_key_value_heads", "rms_norm_eps"):
        assert getattr(one, key) == getattr(two, key), key
    assert made["rope_theta"] == two.rope_parameters["rope_theta"]
    factor = (made.get("rope_scaling") or {}).get("factor")
    stretched = two.rope_parameters["rope_type"] != "default"
    assert not stretched or factor == two.rope_parameters["factor"]


def test_a_config_that_says_all_stays_byte_for_byte(tmp_path):
    folder = tiny_model(tmp_path / "base")
    before = files.tree_hashes(folder)

    base.complete(folder)

    assert files.tree_hashes(folder) == before


def test_the_base_stage_writes_the_keys_and_says_so(tmp_path, made):
    folder = edited(made("mistral"), tmp_path / "m", drop=OLDER, sliding_window=256)
    published = read(folder)
    files.write_json(folder / "base.json", {"kind": "hub", "files": {"config.json": "abc"}})

    base.complete(folder)

    assert list(read(folder).items())[: len(published)] == list(published.items())
    assert files.read_json(folder / "base.json") == {
        "kind": "hub",
        "files": {"config.json": "abc"},
        "config_added": ["rope_theta", "torch_dtype"],
        "readers_agree_to": 256,
    }


def test_an_architecture_of_no_family_is_left_alone():
    assert config_keys.complete({"architectures": ["GemmaForCausalLM"]}) == {
        "architectures": ["GemmaForCausalLM"]
    }
    assert config_keys.agree_to({"architectures": ["GemmaForCausalLM"]}) is None
    assert set(config_keys.FAMILIES) == set(basedir.ARCHITECTURES)


def test_an_output_layer_that_readers_would_take_otherwise_is_refused(tmp_path):
    folder = tiny_model(tmp_path / "base")
    weights = load_file(folder / "model.safetensors")
    write(folder, read(folder) | {"tie_word_embeddings": False})
    with pytest.raises(TunesmithError, match=r"false and the weights hold no lm_head\.weight"):
        basedir.check(folder)

    write(folder, read(folder) | {"tie_word_embeddings": True})
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].copy()
    save_file(weights, folder / "model.safetensors")
    basedir.check(folder)

    weights["lm_head.weight"][-1, -1] += 1
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(TunesmithError, match=r"true and the weights another lm_head\.weight"):
        basedir.check(folder)


def test_gemma_3s_factor_is_not_rounded_where_weights_are_not(tmp_path):
    pytest.importorskip("transformers")
    folder = changed("gemma3", tmp_path / "m", hidden_size=80)  # the root of 64 is 8 in any type
    model = by_transformers(folder)

    assert apart(model, by_mlx(folder)) < SAME
    assert apart(model, by_mlx_lm(folder)) > 20 * SAME


def test_longrope_is_refused_where_mlx_reads_the_wrong_factors(tmp_path):
    pytest.importorskip("transformers")
    length = {"original_max_position_embeddings": 128}
    rope = {
        "rope_type": "longrope", "rope_theta": 1e4, **length,
        "short_factor": [1.0] * 8, "long_factor": [4.0] * 8,
    }  # fmt: skip
    folder = changed("phi3", tmp_path / "m", rope_parameters=rope, **length)

    with pytest.raises(TunesmithError, match="longrope with a short_factor and another"):
        by_mlx(folder)
    assert apart(by_transformers(folder), by_mlx_lm(folder)) > OTHER
