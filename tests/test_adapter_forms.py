"""Adapters that move: mlx-lm's form and PEFT's are the same model, and what is not is refused."""

import functools
import math
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from project import PARAMS, ROOT

from stages.commands import adapter as command
from stages.core import adapter, files, merge, shards
from stages.core.errors import TunesmithError

safetensors = pytest.importorskip("safetensors.numpy")

from stages.backends.mlx.train import peft_form  # noqa: E402

ALL = ("qwen2", "qwen3", "llama", "llama3", "mistral", "phi3", "gemma2", "gemma3", "smollm3")
IDS = np.random.default_rng(5).integers(3, 512, (2, 24))
NEAR, FELT = 5e-5, 0.5  # how equal logits are to be, and how far the adapter has to move them


# --- the same model in both libraries -------------------------------------------------------


HOME: list[Path] = []  # where the tiny models of this run lie


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory):
    HOME.append(tmp_path_factory.mktemp("models"))
    yield
    HOME.clear()
    loaded.cache_clear()


@functools.cache
def loaded(name: str):
    """(folder, transformers' model) of a tiny random model, made once."""
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("mlx_lm")
    from stages.commands.parity import models

    folder = models.make(name, HOME[0] / name)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype="auto", attn_implementation="eager"
    )
    return folder, model.eval()


def mlx_model(folder: Path, adapter_path: Path | None = None):
    from mlx_lm.tuner.utils import load_adapters
    from mlx_lm.utils import load_model

    model, _ = load_model(folder)
    if adapter_path:
        load_adapters(model, str(adapter_path))
    model.eval()
    return model


def mlx_logits(model) -> np.ndarray:
    import mlx.core as mx

    return np.array(model(mx.array(IDS)).astype(mx.float32))


def torch_logits(model) -> np.ndarray:
    import torch

    with torch.no_grad():
        return model(torch.tensor(IDS)).logits.float().numpy()


def apart(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one - other).max())


def save_mlx(tensors: dict, config: dict, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    safetensors.save_file(tensors, folder / "adapters.safetensors")
    files.write_json(folder / "adapter_config.json", config)
    return folder


def save_peft(tensors: dict, config: dict, folder: Path, **manifest) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    safetensors.save_file(tensors, folder / peft_form.WEIGHTS, metadata={"format": "pt"})
    files.write_json(folder / "adapter_config.json", config)
    if manifest:
        files.write_json(folder / "manifest.json", manifest)
    return folder


# --- PEFT -> mlx-lm -------------------------------------------------------------------------

# What each asks of PEFT. The last block is 1 in most of the models: [0] is not mlx-lm's last N.
FROM_PEFT = {
    "lora": {},
    "rslora": {"use_rslora": True, "r": 6},
    "dora": {"use_dora": True},
    "first_block": {"layers_to_transform": [0], "target_modules": ["o_proj", "down_proj"]},
    "gap": {"target_modules": ["0.self_attn.o_proj", "1.mlp.down_proj"]},
    "gap_dora": {"target_modules": ["0.self_attn.o_proj", "1.mlp.down_proj"], "use_dora": True},
    "patterns": {
        "rank_pattern": {"o_proj": 3, "layers.1.mlp.down_proj": 12},
        "alpha_pattern": {"down_proj": 21, "model.layers.0.self_attn.o_proj": 2},
    },
    "patterns_rs_dora": {
        "use_rslora": True, "use_dora": True, "rank_pattern": {"o_proj": 3},
        "alpha_pattern": {"down_proj": 5.5},
    },
}  # fmt: skip


def made_by_peft(name: str, folder: Path, **lora) -> np.ndarray:
    """Write a random adapter as PEFT itself does; returns the logits of the model with it."""
    import peft
    import torch

    torch.manual_seed(3)
    options = {"r": 4, "lora_alpha": 7, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
    model = peft.get_peft_model(loaded(name)[1], peft.LoraConfig(**options | lora))
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if "lora_magnitude" in key:
                weight.mul_(1 + 0.2 * torch.rand_like(weight))
            elif "lora_" in key:
                weight.normal_(0, 0.08)
    found = torch_logits(model.eval())
    # PEFT would store the whole output layer and embedding too when one of them is a target
    model.save_pretrained(folder, save_embedding_layers=False)
    model.unload()
    return found


def check_peft_to_mlx(name: str, variant: str, tmp_path: Path) -> float:
    base, plain = loaded(name)
    wanted = made_by_peft(name, tmp_path / "peft", **FROM_PEFT[variant])
    blocks = files.read_json(base / "config.json")["num_hidden_layers"]

    tensors, config = peft_form.to_mlx(tmp_path / "peft", blocks)
    found = mlx_logits(mlx_model(base, save_mlx(tensors, config, tmp_path / "mlx")))

    assert apart(wanted, torch_logits(plain)) > FELT
    assert apart(found, wanted) < NEAR
    return apart(found, wanted)


FULLY = ("llama", "gemma2")  # an untied one; a tied one with norms and a cap of its own


def grid(variants: dict) -> list:
    """Every architecture with every variant; those left to CI are marked slow."""
    return [
        pytest.param(name, variant, marks=() if name in FULLY else pytest.mark.slow)
        for name in ALL
        for variant in variants
    ]


@pytest.mark.parametrize(("name", "variant"), grid(FROM_PEFT))
def test_an_adapter_of_pefts_gives_the_same_logits_in_mlx(name, variant, tmp_path):
    check_peft_to_mlx(name, variant, tmp_path)


# --- mlx-lm -> PEFT -> mlx-lm ---------------------------------------------------------------

ODD = 1.7982  # no alpha / 6 is this number in floating point
FROM_MLX = {
    "lora": {},
    "odd_scale": {"rank": 6, "scale": ODD},
    "rslora": {"rank": 6, "scale": 5 / math.sqrt(6), "rslora": True},
    "dora": {"dora": True},
    "last_block": {"last": 1},
    "last_block_dora": {"last": 1, "dora": True},
    "one_key": {"keys": ["mlp.down_proj"]},
}


def made_by_mlx(name: str, rank=4, scale=2.0, dora=False, last=None, keys=None, **_):
    """A random adapter in mlx-lm's own layers; returns (tensors, its config, logits)."""
    import mlx.core as mx
    from mlx.utils import tree_flatten, tree_unflatten
    from mlx_lm.tuner.utils import linear_to_lora_layers

    mx.random.seed(4)
    model = mlx_model(loaded(name)[0])
    blocks = len(model.layers)
    keys = keys or sorted(
        module for module, _ in model.layers[0].named_modules() if module.endswith("_proj")
    )
    words = {"rank": rank, "scale": scale, "dropout": 0.0, "keys": keys}
    linear_to_lora_layers(model, last or blocks, words, use_dora=dora)
    changed = {
        key: weight * (1 + 0.2 * mx.random.uniform(shape=weight.shape))
        if key.endswith(".m")
        else 0.08 * mx.random.normal(weight.shape)
        for key, weight in tree_flatten(model.parameters())
        if key.rsplit(".", 1)[-1] in ("lora_a", "lora_b", "m")
    }
    model.update(tree_unflatten(list(changed.items())))
    model.eval()
    config = {
        "fine_tune_type": "dora" if dora else "lora", "num_layers": last or blocks,
        "lora_parameters": words,
    }  # fmt: skip
    return {key: np.array(weight) for key, weight in changed.items()}, config, mlx_logits(model)


def check_mlx_to_peft(name: str, variant: str, tmp_path: Path) -> tuple[float, float]:
    import peft
    import transformers

    base, plain = loaded(name)
    choice = FROM_MLX[variant]
    weights, config, wanted = made_by_mlx(name, **choice)
    words = config["lora_parameters"]
    blocks = files.read_json(base / "config.json")["num_hidden_layers"]

    tensors, said = peft_form.to_peft(
        weights, rank=words["rank"], scale=words["scale"], dora=choice.get("dora", False),
        rslora=choice.get("rslora", False), base="tiny", blocks=blocks,
    )  # fmt: skip
    facts = {"base": {"id": "tiny", "hash": files.tree_hash(base)}, "scale": words["scale"]}
    folder = save_peft(tensors, said, tmp_path / "peft", **facts)
    adapted = peft.PeftModel.from_pretrained(plain, folder)
    found = torch_logits(adapted.eval())
    adapted.unload()
    (tmp_path / "fused").mkdir()
    merge.merge(base, folder, tmp_path / "fused")
    fused = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "fused", dtype="auto")

    assert apart(wanted, torch_logits(plain)) > FELT
    assert apart(found, wanted) < NEAR
    assert apart(torch_logits(fused.eval()), wanted) < NEAR
    back, again = peft_form.to_mlx(folder, blocks)
    assert again == config
    assert back.keys() == weights.keys()
    assert all(back[key].tobytes() == weights[key].tobytes() for key in weights)
    assert all(back[key].shape == weights[key].shape for key in weights)
    return apart(found, wanted), apart(torch_logits(fused), wanted)


@pytest.mark.parametrize(("name", "variant"), grid(FROM_MLX))
def test_an_adapter_of_mlx_gives_the_same_logits_in_peft_and_fused_and_comes_back_to_the_bit(
    name, variant, tmp_path
):
    check_mlx_to_peft(name, variant, tmp_path)


@pytest.mark.parametrize("dora", [False, True])
def test_an_output_layer_that_is_not_tied_moves_too(dora, tmp_path):
    base, plain = loaded("llama")
    targets = ["lm_head", "q_proj", "down_proj"]
    wanted = made_by_peft("llama", tmp_path / "peft", target_modules=targets, use_dora=dora)

    tensors, config = peft_form.to_mlx(tmp_path / "peft", 2)
    adapted = mlx_model(base, save_mlx(tensors, config, tmp_path / "mlx"))

    assert config["lora_parameters"]["keys"] == ["lm_head", "mlp.down_proj", "self_attn.q_proj"]
    assert apart(wanted, torch_logits(plain)) > FELT
    assert apart(mlx_logits(adapted), wanted) < NEAR
    words = config["lora_parameters"]
    back, said = peft_form.to_peft(
        tensors, rank=4, scale=words["scale"], dora=dora, rslora=False, base="tiny", blocks=2
    )
    theirs = safetensors.load_file(tmp_path / "peft" / peft_form.WEIGHTS)
    assert {name: part.tobytes() for name, part in back.items()} == {
        name: part.tobytes() for name, part in theirs.items()
    }
    assert said["target_modules"] == sorted({name.rpartition(".")[0] for name in tensors})


def test_blocks_without_tensors_of_their_own_start_at_zero(tmp_path):
    base, _ = loaded("llama")
    made_by_peft("llama", tmp_path / "peft", **FROM_PEFT["gap"])
    tensors, config = peft_form.to_mlx(tmp_path / "peft", 2)
    model = mlx_model(base, save_mlx(tensors, config, tmp_path / "mlx"))

    first, second = model.layers
    assert config["num_layers"] == 2
    assert not np.array(first.mlp.down_proj.lora_b).any()
    assert not np.array(second.self_attn.o_proj.lora_b).any()
    assert np.array(second.mlp.down_proj.lora_b).any()


# --- names, numbers and files ---------------------------------------------------------------

PLACES = ("self_attn.q_proj", "mlp.down_proj")
SIZES = {"self_attn.q_proj": (64, 64), "mlp.down_proj": (64, 192)}  # out, in of tests/tiny.py


def update(module: str, rank=4, dora=False, seed=0) -> dict[str, np.ndarray]:
    """The tensors of one update in mlx-lm's form."""
    draw = np.random.default_rng([seed, *module.encode()])
    out, into = SIZES[module.split(".", 3)[-1]]
    found = {
        "lora_a": draw.normal(0, 0.2, (into, rank)),
        "lora_b": draw.normal(0, 0.2, (rank, out)),
    }
    if dora:
        found["m"] = draw.uniform(0.5, 1.5, out)
    return {f"{module}.{name}": value.astype(np.float32) for name, value in found.items()}


def updates_of(blocks=(0, 1), places=PLACES, **options) -> dict[str, np.ndarray]:
    names = [f"model.layers.{block}.{place}" for block in blocks for place in places]
    return {key: value for name in names for key, value in update(name, **options).items()}


def words(keys=PLACES, rank=4, scale=2.0, layers=2, kind="lora") -> dict:
    """mlx-lm's adapter_config.json, as short as it can be."""
    lora = {"rank": rank, "scale": scale, "dropout": 0.0, "keys": sorted(keys)}
    return {"fine_tune_type": kind, "num_layers": layers, "lora_parameters": lora}


def peft_words(**changes) -> dict:
    return {
        "peft_type": "LORA", "r": 4, "lora_alpha": 8.0, "target_modules": ["q_proj"],
        "base_model_name_or_path": "/somebody/elses/disk", "bias": "none",
    } | changes  # fmt: skip


def peft_tensors(rank=4, dora=False) -> dict[str, np.ndarray]:
    return peft_form.to_peft(
        updates_of(rank=rank, dora=dora), rank=rank, scale=2.0, dora=dora, rslora=False, base="b"
    )[0]


@pytest.mark.parametrize("rslora", [False, True])
def test_the_alpha_of_a_setting_comes_back_and_every_scale_is_the_nearest_there_is(rslora):
    draw, missed = random.Random(7), 0
    for _ in range(20_000):
        rank = draw.randint(1, 256)
        root = math.sqrt(rank) if rslora else rank
        alpha = round(draw.uniform(0.1, 300), draw.randint(0, 3)) or 1.0
        assert peft_form.alpha(alpha / root, rank, rslora) == alpha
        scale = draw.uniform(0.01, 40)
        found = peft_form.alpha(scale, rank, rslora) / root
        missed += found != scale
        assert math.isclose(found, scale, rel_tol=1e-15)
    assert 0 < missed < 3000  # so the manifest has to hold the scale


@pytest.mark.parametrize("dora", [False, True])
def test_any_scale_and_rank_come_back_to_the_bit_through_a_folder(dora, tmp_path):
    draw = random.Random(11)
    for number in range(60):
        rank, scale = draw.randint(1, 33), draw.choice([draw.uniform(0.01, 40), 20, 0.0])
        weights = updates_of(rank=rank, dora=dora, seed=number)
        config = words(rank=rank, scale=scale, kind="dora" if dora else "lora")
        tensors, said = peft_form.to_peft(
            weights, rank=rank, scale=scale, dora=dora, rslora=bool(number % 2), base="b", blocks=2
        )
        folder = save_peft(tensors, said, tmp_path / str(number), scale=scale)

        back, again = peft_form.to_mlx(folder, 2)

        assert again == config
        assert back.keys() == weights.keys()
        assert all(back[name].tobytes() == weights[name].tobytes() for name in weights)


def test_a_scale_of_another_adapter_in_the_manifest_is_not_believed(tmp_path):
    folder = save_peft(peft_tensors(), peft_words(), tmp_path, scale=2.0001)
    assert peft_form.to_mlx(folder)[1]["lora_parameters"]["scale"] == 2.0


def test_a_rank_that_is_not_the_configs_is_refused_both_ways(tmp_path):
    with pytest.raises(TunesmithError, match="has rank 4 where the adapter's config says 8"):
        peft_form.to_peft(updates_of(), rank=8, scale=1.0, dora=False, rslora=False, base="b")
    folder = save_peft(peft_tensors(), peft_words(r=8), tmp_path)
    with pytest.raises(TunesmithError, match="has rank 4 where the adapter's config says 8"):
        peft_form.to_mlx(folder)


def test_a_magnitude_of_another_length_is_refused(project):
    tensors = peft_tensors(dora=True)
    name = f"base_model.model.{Q}.lora_magnitude_vector"
    save_peft(tensors | {name: tensors[name][:63]}, peft_words(use_dora=True), Path("theirs"))
    with pytest.raises(TunesmithError, match=r"magnitude \[63\]"):
        command.run_import("theirs", "first")
    with pytest.raises(TunesmithError, match=r"magnitude \[63\] are no update"):
        peft_form.to_mlx(Path("theirs"))


def test_targets_are_last_names_where_every_used_block_has_the_same_and_whole_names_elsewhere():
    def said(weights: dict, **options) -> tuple:
        config = peft_form.to_peft(
            weights, rank=4, scale=1.0, dora=False, rslora=False, base="b", **options
        )[1]
        return config["target_modules"], config["layers_to_transform"]

    leaves = ["down_proj", "q_proj"]
    assert said(updates_of()) == (leaves, [0, 1])
    assert said(updates_of(), blocks=2) == (leaves, None)
    assert said(updates_of(blocks=[10, 9]), blocks=11) == (leaves, [9, 10])
    mixed = update("model.layers.0.self_attn.q_proj") | update("model.layers.1.mlp.down_proj")
    whole = ["model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"]
    assert said(mixed, blocks=2) == (whole, None)


def test_without_the_number_of_blocks_mlx_is_told_to_look_through_all(tmp_path):
    folder = save_peft(peft_tensors(), peft_words(), tmp_path)
    assert peft_form.to_mlx(folder)[1]["num_layers"] == -1
    assert peft_form.to_mlx(folder, 7)[1]["num_layers"] == 7


@pytest.mark.parametrize("change", [*adapter.UNMERGEABLE, "bias", "peft_type", "init_lora_weights"])
def test_what_fuse_refuses_is_not_turned_into_mlx_either(change, tmp_path):
    value = {"bias": "all", "peft_type": "LOHA", "init_lora_weights": "pissa"}.get(change, ["x"])
    folder = save_peft(peft_tensors(), peft_words(**{change: value}), tmp_path)
    with pytest.raises(TunesmithError, match=change):
        peft_form.to_mlx(folder)


# --- import and export ----------------------------------------------------------------------


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A project whose model `first` has a base of two blocks, and the working directory."""
    from tiny import tiny_model

    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(PARAMS, encoding="utf-8")
    with files.directory(Path("models/base/small")) as out:
        tiny_model(out)
    return tmp_path


BASE, PLACED = Path("models/base/small"), Path("models/adapter/first")


def brought(weights=None, config=None) -> str:
    """The folder of somebody's mlx-lm adapter."""
    extra = {"model": "/somebody/elses/disk", "iters": 600, "seed": 0}
    said = words() if config is None else config
    return str(save_mlx(updates_of() if weights is None else weights, said | extra, Path("theirs")))


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_an_imported_mlx_adapter_exports_as_the_same_bytes_and_settings(project, kind, capsys):
    weights = updates_of(rank=6, dora=kind == "dora", blocks=[1])
    config = words(rank=6, scale=ODD, layers=1, kind=kind)

    command.run_import(brought(weights, config), "first")
    command.run_export("first")

    back = safetensors.load_file("exports/first-mlx/adapters.safetensors")
    assert back.keys() == weights.keys()
    assert all(back[name].tobytes() == weights[name].tobytes() for name in weights)
    said = files.read_json(Path("exports/first-mlx/adapter_config.json"))
    assert said == config | {"model": "models/base/small"}
    shown = capsys.readouterr().out
    assert f"first: 2 updates, {kind}, rank 6, from mlx-lm; all fit models/base/small" in shown
    assert "dvc commit --force train@first" in shown
    assert "It belongs to models/base/small" in shown


def test_what_is_imported_is_what_fuse_accepts(project):
    torch = pytest.importorskip("torch")
    command.run_import(brought(), "first")

    files.require_complete(PLACED, "train@first")
    Path("fused").mkdir()
    made = merge.merge(BASE, PLACED, Path("fused"))

    assert (made["method"], made["merged"]) == ("lora", 4)
    ours = safetensors.load_file("fused/model.safetensors")
    base, given = safetensors.load_file(BASE / "model.safetensors"), updates_of()
    for place in PLACES:
        name = f"model.layers.1.{place}"
        delta = 2.0 * (given[f"{name}.lora_a"] @ given[f"{name}.lora_b"]).T
        wanted = base[f"{name}.weight"] + delta
        assert np.abs(delta).max() > 0.1
        assert torch.allclose(torch.tensor(ours[f"{name}.weight"]), torch.tensor(wanted), atol=1e-6)
    manifest = files.read_json(PLACED / "manifest.json")
    assert manifest["backend"] == "imported"
    assert manifest["base"]["hash"] == files.tree_hash(BASE)
    assert manifest["source"]["form"] == "mlx-lm"
    assert manifest["source"]["sha256"]["adapters.safetensors"] == files.sha256(
        Path("theirs/adapters.safetensors")
    )
    assert Path("reports/first/train/loss.tsv").read_text().count("\n") == 1
    assert "elses" not in (PLACED / "adapter_config.json").read_text() + str(manifest)


@pytest.mark.parametrize("ending", [".lora_magnitude_vector", ".lora_magnitude_vector.weight"])
@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_a_peft_adapter_made_elsewhere_is_imported_as_fp32_without_a_changed_value(
    project, dtype, ending
):
    given = {
        name.replace(".lora_magnitude_vector", ending): value
        for name, value in peft_tensors(dora=True).items()
    }
    folder, wanted = store(given, dtype, Path("theirs"))
    files.write_json(folder / "adapter_config.json", peft_words(use_dora=True))

    command.run_import("theirs", "first", "exports/mine")

    ours = safetensors.load_file("exports/mine/adapter_model.safetensors")
    assert all(value.dtype == np.float32 for value in ours.values())
    assert set(ours) == set(peft_tensors(dora=True))
    for name, value in wanted.items():
        assert np.array_equal(ours[name.replace(ending, ".lora_magnitude_vector")], value)
    config = files.read_json(Path("exports/mine/adapter_config.json"))
    assert config["base_model_name_or_path"] == "models/base/small"
    assert files.read_json(Path("exports/mine/manifest.json"))["method"] == "dora"
    assert not Path("reports").exists()


def store(tensors: dict, dtype: str, folder: Path) -> tuple[Path, dict]:
    """Write a safetensors file of this type by hand; returns what its values are as fp32."""
    raw, said = {}, {}
    for name, value in tensors.items():
        if dtype == "BF16":
            raw[name] = (value.view(np.uint32) >> 16).astype(np.uint16)
            said[name] = (raw[name].astype(np.uint32) << 16).view(np.float32)
        else:
            raw[name] = value.astype({"F16": np.float16, "F32": np.float32}[dtype])
            said[name] = raw[name].astype(np.float32)
    folder.mkdir()
    path, end, tensors = folder / peft_form.WEIGHTS, 0, []
    for name, value in raw.items():
        tensors.append(shards.Tensor(name, dtype, value.shape, path, end, value.nbytes))
        end += value.nbytes
    body = b"".join(np.ascontiguousarray(value).tobytes() for value in raw.values())
    path.write_bytes(shards.header(tensors) + body)
    return folder, said


def test_neither_torch_nor_mlx_is_needed(project):
    brought()
    code = (
        "import sys\n"
        "for name in ('torch', 'mlx', 'mlx.core', 'mlx_lm', 'transformers', 'peft'):\n"
        "    sys.modules[name] = None\n"
        "from stages.commands import adapter\n"
        "adapter.run_import('theirs', 'first')\n"
        "adapter.run_export('first')\n"
    )
    path = {"PYTHONPATH": str(ROOT), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], env=path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert Path("exports/first-mlx/adapters.safetensors").is_file()
    config = files.read_json(PLACED / "adapter_config.json")
    assert config["target_modules"] == ["down_proj", "q_proj"]
    assert config["layers_to_transform"] is None  # the base has no other blocks


def test_mlx_lm_loads_what_is_exported_and_it_changes_the_answers(project):
    mlx_lm = pytest.importorskip("mlx_lm")
    mx = pytest.importorskip("mlx.core")
    command.run_import(brought(), "first")
    command.run_export("first", "out")

    model, _ = mlx_lm.load(str(BASE), adapter_path="out")
    plain, _ = mlx_lm.load(str(BASE))

    here, there = (np.array(m(mx.array([[5, 6, 7]])).astype(mx.float32)) for m in (model, plain))
    assert apart(here, there) > 0.1
    assert np.array_equal(
        np.array(model.layers[1].mlp.down_proj.lora_b),
        updates_of()["model.layers.1.mlp.down_proj.lora_b"],
    )


Q = "model.layers.0.self_attn.q_proj"
WRONG_MLX = {
    "embedding": (lambda w: w | rename(w, Q, "model.embed_tokens"), "an embedding"),
    "tied_head": (
        lambda w: w | {f"lm_head.{n}": np.ones(s, np.float32) for n, s in
                       (("lora_a", (64, 4)), ("lora_b", (4, 512)))},
        "lm_head.weight, which this base ties",
    ),
    "experts": (lambda w: w | rename(w, "mlp.down_proj", "mlp.switch_mlp.up_proj"), "MoE experts"),
    "bias": (lambda w: w | {f"{Q}.linear.bias": np.ones(64, np.float32)}, "a trained bias"),
    "saved": (lambda w: w | {"lm_head.weight": np.ones((2, 2), np.float32)}, "modules_to_save"),
    "unknown": (lambda w: w | {f"{Q}.lora_c": np.ones(3, np.float32)}, "an unknown tensor"),
    "half": (lambda w: without(w, f"{Q}.lora_b"), r"has the parts \['a'\]"),
    "magnitude": (lambda w: w | {f"{Q}.m": np.ones(64, np.float32)}, r"\['a', 'b', 'magnitude'\]"),
    "rank": (lambda w: w | update(Q, rank=3), "has rank 3 where the adapter's config says 4"),
    "pair": (lambda w: w | {f"{Q}.lora_b": np.ones((5, 64), np.float32)}, "no update of a linear"),
    "vector": (lambda w: w | {f"{Q}.lora_a": np.ones(4, np.float32)}, "no update of a linear"),
    "shape": (
        lambda w: w | {f"{Q}.lora_b": np.ones((4, 65), np.float32)},
        r"q_proj.weight by a \[4, 64\], b \[65, 4\], which in .* has shape \[64, 64\]",
    ),
    "block": (lambda w: w | update("model.layers.2.mlp.down_proj"), "is not there"),
    "nan": (lambda w: w | {f"{Q}.lora_b": np.full((4, 64), np.nan, np.float32)}, "not finite"),
    "infinite": (lambda w: w | {f"{Q}.lora_a": np.full((64, 4), np.inf, np.float32)}, "not finite"),
    "double": (lambda w: {k: v.astype(np.float64) for k, v in w.items()}, "is stored as F64"),
    "empty": (lambda w: {}, "holds no tensor"),
}  # fmt: skip


def rename(weights: dict, old: str, new: str) -> dict:
    return {key.replace(old, new): value for key, value in weights.items() if old in key}


def without(weights: dict, *names: str) -> dict:
    return {key: value for key, value in weights.items() if key not in names}


def keys_of(weights: dict) -> list[str]:
    modules = {name.rpartition(".")[0] for name in weights}
    return sorted(
        {module.split(".", 3)[-1] if "layers" in module else module for module in modules}
    )


@pytest.mark.parametrize("wrong", WRONG_MLX)
def test_mlx_weights_that_are_no_update_of_this_base_are_refused_by_name(project, wrong):
    change, said = WRONG_MLX[wrong]
    weights = change(updates_of())
    with pytest.raises(TunesmithError, match=said):
        command.run_import(brought(weights, words(keys=keys_of(weights))), "first")
    assert not PLACED.exists()


WRONG_WORDS = {
    "no_lora": ({"lora_parameters": None}, "no lora_parameters"),
    "type": ({"fine_tune_type": "vera"}, "fine_tune_type: Input should be 'lora'"),
    "layers": ({"num_layers": "all"}, "num_layers: Input should be a valid integer"),
    "outside": ({"num_layers": 1}, "num_layers: 1 and .* leave out model.layers.0.mlp.down_proj"),
    "no_scale": ({"scale": ...}, "lora_parameters.scale: is missing"),
    "scale": ({"scale": "2"}, "lora_parameters.scale: Input should be a valid number"),
    "rank": ({"rank": 0}, "lora_parameters.rank: Input should be greater"),
    "rank_type": ({"rank": 4.5}, "lora_parameters.rank: Input should be a valid integer"),
    "dropout": ({"dropout": 1.0}, "lora_parameters.dropout: Input should be less"),
    "keys_type": ({"keys": "q_proj"}, "lora_parameters.keys: Input should be a valid list"),
    "keys": ({"keys": [*PLACES, "mlp.gate"]}, "keys names mlp.gate, to which no tensor belongs"),
    "keys_short": ({"keys": ["mlp.down_proj"]}, "keys leave out model.layers.0.self_attn.q_proj"),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG_WORDS)
def test_a_config_that_is_not_that_of_the_weights_is_refused_by_file_and_key(project, wrong):
    change, said = WRONG_WORDS[wrong]
    config = words()
    place = config if set(change) <= {*config} else config["lora_parameters"]
    place |= change
    for key in [key for key, value in place.items() if value is ...]:
        del place[key]
    with pytest.raises(TunesmithError, match=f"adapter_config.json.*{said}"):
        command.run_import(brought(None, config), "first")


WRONG_PEFT = {
    "modules_to_save": ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
    "bias": ({"bias": "all"}, "trained biases"),
    "type": ({"peft_type": "IA3", "r": ...}, "of type 'IA3'"),
    "experts": ({"target_parameters": ["mlp.experts.gate_up_proj"]}, "fused MoE experts"),
    "no_rank": ({"r": ...}, "adapter_config.json: r: is missing"),
    "rank": ({"r": "4"}, "adapter_config.json: r: Input should be a valid integer"),
    "alpha": ({"lora_alpha": None}, "adapter_config.json: lora_alpha: Input should be a valid"),
    "pattern": ({"rank_pattern": {"q_proj(": 2}}, "is no pattern"),
    "pattern_type": ({"alpha_pattern": {"q_proj": "2"}}, "alpha_pattern.q_proj"),
    "other_rank": ({"rank_pattern": {"q_proj": 2}}, "has rank 4 where the adapter's config says 2"),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG_PEFT)
def test_a_peft_config_that_cannot_be_merged_is_refused_by_name(project, wrong):
    change, said = WRONG_PEFT[wrong]
    config = {key: value for key, value in peft_words(**change).items() if value is not ...}
    save_peft(peft_tensors(), config, Path("theirs"))
    with pytest.raises(TunesmithError, match=said):
        command.run_import("theirs", "first")


WRONG_PEFT_TENSORS = {
    "embedding": ("base_model.model.model.embed_tokens.lora_embedding_A", "an embedding"),
    "experts": (f"base_model.model.{Q}.experts.0.lora_A.weight", "MoE experts"),
    "bias": (f"base_model.model.{Q}.bias", "a trained bias"),
    "saved": ("base_model.model.lm_head.weight", "cannot be merged|modules_to_save"),
    "unknown": (f"base_model.model.{Q}.lora_C.weight", "cannot be merged|unknown tensor"),
    "half": (f"base_model.model.{Q.replace('q_', 'k_')}.lora_A.weight", r"parts \['a'\]"),
    "prefix": (f"{Q}.lora_A.weight", "cannot be merged|unknown"),
}  # fmt: skip


@pytest.mark.parametrize("way", ["import", "to_mlx"])
@pytest.mark.parametrize("wrong", WRONG_PEFT_TENSORS)
def test_peft_tensors_that_are_no_update_of_a_linear_layer_are_refused(project, wrong, way):
    name, said = WRONG_PEFT_TENSORS[wrong]
    tensors = peft_tensors() | {name: np.ones((4, 64), np.float32)}
    folder = save_peft(tensors, peft_words(), Path("theirs"))
    with pytest.raises(TunesmithError, match=said):
        command.run_import("theirs", "first") if way == "import" else peft_form.to_mlx(folder)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "theirs has no adapter_config.json"),
        (b"{", "adapter_config.json is not JSON"),
        (b"[]", "holds no JSON object"),
        (b'{"num_layers": NaN}', "is not JSON"),
        (b"{}", "adapter_config.json: num_layers: is missing"),
    ],
)
def test_a_config_that_is_absent_or_broken_is_named(project, content, said):
    brought()
    path = Path("theirs/adapter_config.json")
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(TunesmithError, match=said) as refused:
        command.run_import("theirs", "first")
    assert "theirs/adapter_config.json" in str(refused.value)


@pytest.mark.parametrize("name", ["adapter_model.bin", "adapters.npz", "adapter.pt"])
def test_pickled_weights_are_refused_and_not_opened(project, name):
    Path("theirs").mkdir()
    config = peft_words() if name.endswith(".bin") else words()
    files.write_json(Path("theirs/adapter_config.json"), config)
    Path("theirs", name).write_bytes(b"cos\nsystem\n(S'touch opened'\ntR.")
    with pytest.raises(TunesmithError, match=f"only {name}, not adapter"):
        command.run_import("theirs", "first")
    assert not Path("opened").exists()


def test_a_truncated_weight_file_is_refused(project):
    path = Path(brought(), "adapters.safetensors")
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(TunesmithError, match="not a whole safetensors file"):
        command.run_import("theirs", "first")


def test_nothing_that_exists_is_overwritten_and_no_stage_owns_the_place(project):
    brought()
    command.run_import("theirs", "first")
    before = files.tree_hashes(PLACED)
    with pytest.raises(TunesmithError, match="models/adapter/first exists already"):
        command.run_import("theirs", "first")
    command.run_export("first")
    with pytest.raises(TunesmithError, match="exports/first-mlx exists already"):
        command.run_export("first")
    for place in ("models/adapter/other", "models/base/small/x", "data", "stages/x", "reports/a"):
        with pytest.raises(TunesmithError, match="among what stages write"):
            command.run_import("theirs", "first", place)
        with pytest.raises(TunesmithError, match="among what stages write"):
            command.run_export("first", place)
    assert files.tree_hashes(PLACED) == before


def test_an_unknown_model_and_a_base_that_is_not_there_are_named(project):
    with pytest.raises(TunesmithError, match="no 'frist' in models") as refused:
        command.run_import("theirs", "frist")
    assert "Did you mean 'first'?" in str(refused.value)
    with pytest.raises(TunesmithError, match="models/adapter/first does not exist"):
        command.run_export("first")
    shutil.rmtree(BASE)
    with pytest.raises(TunesmithError, match="models/base/small does not exist"):
        command.run_import(brought(), "first")


# --- full weights ---------------------------------------------------------------------------


def full_weights() -> dict[str, np.ndarray]:
    """What mlx-lm writes of a full fine-tune of the last block: that block, and nothing else."""
    base = safetensors.load_file(BASE / "model.safetensors")
    return {name: value + 0.5 for name, value in base.items() if ".layers.1." in name}


def test_full_weights_of_mlx_become_a_whole_model_that_fuse_takes(project):
    changed = full_weights()
    config = {"fine_tune_type": "full", "num_layers": 1, "lora_parameters": None}
    command.run_import(brought(changed, config), "first")

    ours = safetensors.load_file(PLACED / "model.safetensors")
    base = safetensors.load_file(BASE / "model.safetensors")
    assert ours.keys() == base.keys()
    assert all(np.array_equal(ours[name], changed.get(name, base[name])) for name in base)
    with pytest.raises(TunesmithError, match="was trained with method full") as refused:
        command.run_export("first")
    assert 'mlx_lm.load("models/fused/first")' in str(refused.value)


def test_imported_full_weights_fuse(project):
    pytest.importorskip("torch")
    changed = full_weights()
    command.run_import(brought(changed, {"fine_tune_type": "full", "num_layers": 1}), "first")
    Path("fused").mkdir()

    made = merge.merge(BASE, PLACED, Path("fused"))

    ours = safetensors.load_file("fused/model.safetensors")
    assert made["method"] == "full"
    assert all(np.array_equal(ours[name], value) for name, value in changed.items())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda v: {"model.layers.1.mlp.gone.weight": v}, "is not there"),
        (lambda v: {"model.norm.weight": v[:3]}, r"F32 \[3\], which in .* is F32 \[64\]"),
        (lambda v: {"model.norm.weight": v.astype(np.float16)}, "F16 .* is F32"),
        (lambda v: {"model.norm.weight": v * np.nan}, "not finite"),
    ],
)
def test_full_weights_that_the_base_does_not_have_are_refused(project, change, said):
    weights = full_weights() | change(np.ones(64, np.float32))
    config = {"fine_tune_type": "full", "num_layers": 1}
    with pytest.raises(TunesmithError, match=said):
        command.run_import(brought(weights, config), "first")
    assert not PLACED.exists()


def test_an_adapter_whose_manifest_names_another_base_is_not_imported(project):
    command.run_import(brought(), "first", "elsewhere")
    found = files.read_json(Path("elsewhere/manifest.json"))
    found["base"] |= {"id": "other", "hash": "0" * 64}
    files.write_json(Path("elsewhere/manifest.json"), found)

    with pytest.raises(
        TunesmithError, match=r"trained on other \(000000000000\); models/base/small"
    ):
        command.run_import("elsewhere", "first")
    assert not PLACED.exists()


def test_an_adapter_is_not_exported_for_another_base_than_its_own(project):
    from tiny import tiny_model

    command.run_import(brought(), "first")
    with files.directory(BASE) as out:
        tiny_model(out, seed=2)

    with pytest.raises(TunesmithError, match="trained on models/base/small") as refused:
        command.run_export("first")
    assert "dvc repro train@first" in str(refused.value)
    assert not Path("exports").exists()


def test_the_base_that_an_adapter_names_is_said_where_only_shapes_could_be_compared(
    project, capsys
):
    command.run_import(brought(), "first")
    assert "It says that it was trained on /somebody/elses/disk." in capsys.readouterr().out

    command.run_export("first")
    command.run_import("exports/first-mlx", "first", "again")
    assert "It says" not in capsys.readouterr().out


def test_a_target_below_a_file_and_whole_weights_are_refused_by_name(project):
    Path("afile").write_text("")
    with pytest.raises(TunesmithError, match="afile is a file, so there can be no afile/x"):
        command.run_import(brought(), "first", "afile/x")
    with pytest.raises(TunesmithError, match="models/base/small holds whole weights"):
        command.run_import(str(BASE), "first")
