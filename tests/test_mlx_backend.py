"""The MLX trainer: its files, exact resumption, its loss per architecture, QLoRA, refusals."""

import json
import math
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import mlx_training as made
import numpy as np
import pytest
from safetensors import safe_open

from stages.core import checkpoints, files, manifest, merge, shards, targets, training
from stages.core.errors import MissingPackage, TunesmithError
from stages.core.machine import Space

mx = pytest.importorskip("mlx.core")
pytest.importorskip("mlx_lm")

from mlx.utils import tree_flatten  # noqa: E402

from stages.backends.mlx import load  # noqa: E402
from stages.backends.mlx import train as backend  # noqa: E402
from stages.backends.mlx.load import Device  # noqa: E402
from stages.backends.mlx.train import adapting, loss, quantising, saving, trainer, words  # noqa: E402
from stages.backends.mlx.train.adapting import Draws  # noqa: E402

CPU, METAL = Device("cpu", "MLX on CPU"), Device("metal", "MLX on Apple M2")
NAME = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return made.base(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="module")
def wide(tmp_path_factory) -> Path:
    """A base whose layers can be quantised: the inputs of all are multiples of 64."""
    return made.base(tmp_path_factory.mktemp("wide") / "tiny", hidden=64)


@pytest.fixture(scope="module")
def chats(tmp_path_factory, base) -> Path:
    return made.tokens(tmp_path_factory.mktemp("chats"), base)


@pytest.fixture(scope="module")
def architecture(tmp_path_factory):
    """The folder of a tiny model of an architecture, made when it is first asked for."""
    pytest.importorskip("torch")
    from stages.commands.parity import models

    folder = tmp_path_factory.mktemp("models")

    def find(name: str) -> Path:
        return folder / name if (folder / name).exists() else models.make(name, folder / name)

    return find


@pytest.fixture(autouse=True)
def in_its_own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))


def train(folder: Path, base: Path, tokens: Path, name: str, settings) -> Path:
    """Train in `folder`; returns the adapter."""
    backend.train(settings, base, tokens, folder / name, folder / f"{name}-report")
    return folder / name


def ready(base: Path, tokens: Path, settings, run: Path):
    """A trainer that has not begun."""
    rows, valid = training.load(settings, tokens)
    leaves = []
    if training.adapts(settings):
        leaves = targets.resolve(settings.lora.targets, training.tensors(base))
    return backend.start(settings, base, leaves, rows, valid, run)


def weights(folder: Path) -> dict:
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        found |= mx.load(str(path))
    return found


def test_two_runs_write_the_same_bytes_and_a_checkpoint_changes_none(tmp_path, base, chats):
    first = train(tmp_path, base, chats, "first", made.settings(dropout=0.1))
    again = train(tmp_path, base, chats, "again", made.settings(dropout=0.1, save_steps=2))

    for name in (NAME, "adapter_config.json"):
        assert (first / name).read_bytes() == (again / name).read_bytes()
    assert not list((tmp_path / ".tunesmith/checkpoints").iterdir())


@pytest.mark.parametrize(
    "settings",
    [
        made.settings(dropout=0.1, save_steps=2, accumulate=2, batch_size=2),
        made.settings("dora", save_steps=2, optimizer="adafactor"),
        made.settings("full", save_steps=2),
        made.settings("full", save_steps=2, optimizer="sgd"),
    ],
    ids=["lora", "dora-adafactor", "full", "full-sgd"],
)
def test_an_interrupted_run_goes_on_to_the_same_bytes(settings, tmp_path, base, chats, monkeypatch):
    whole = train(tmp_path, base, chats, "whole", settings)
    clipped, calls = trainer.clipped, []

    def stop_at_the_fourth_step(*arguments):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return clipped(*arguments)

    monkeypatch.setattr(trainer, "clipped", stop_at_the_fourth_step)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, base, chats, "resumed", settings)
    assert not (tmp_path / "resumed").exists()
    (run,) = (tmp_path / ".tunesmith/checkpoints").iterdir()
    assert [path.name for path in run.iterdir()] == ["checkpoint-2"]

    resumed = train(tmp_path, base, chats, "resumed", settings)

    assert len(calls) == 4 + 3  # steps 3, 4 and 5
    assert files.tree_hash(resumed) == files.tree_hash(whole)
    reports = [files.tree_hash(tmp_path / f"{name}-report") for name in ("resumed", "whole")]
    assert reports[0] == reports[1]


@pytest.mark.slow
@pytest.mark.parametrize("method", made.TO_KILL)
def test_killed_at_five_random_points_it_goes_on_to_the_same_bytes(method, tmp_path, base, chats):
    whole = train(tmp_path, base, chats, "whole", made.TO_KILL[method])
    (tmp_path / "base").symlink_to(base)
    (tmp_path / "tokens").symlink_to(chats)
    draw = random.Random(method)
    steps = []
    for _ in range(5):
        killed_after(draw.randint(3, 24), tmp_path, method)
        assert not (tmp_path / method).exists()
        (run,) = (tmp_path / ".tunesmith/checkpoints").iterdir()
        last = checkpoints.last(run)
        steps.append(int(last.name.split("-")[1]) if last else 0)

    assert steps == sorted(steps)
    assert 0 < steps[-1] < manifest.read(whole)["steps"]
    killed_after(None, tmp_path, method)
    assert files.tree_hash(tmp_path / method) == files.tree_hash(whole)
    reports = [files.tree_hash(tmp_path / f"{name}-report") for name in (method, "whole")]
    assert reports[0] == reports[1]


def killed_after(event: int | None, folder: Path, method: str) -> None:
    """Train in a process of its own and kill it (9) at its `event`th event; None: at its end."""
    command = [sys.executable, made.__file__, str(folder), method]
    environment = os.environ | {"DVC_ROOT": str(folder), "MLX_DISABLE_COMPILE": "1"}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
    ) as process:
        for number, line in enumerate(process.stdout, 1):
            assert len(json.loads(line)) == 2
            if number == event:
                process.send_signal(signal.SIGKILL)
                break
            process.stdin.write("\n")
            process.stdin.flush()
    assert process.returncode == (-signal.SIGKILL if event else 0)


def test_a_checkpoint_is_whole_or_is_not_there(tmp_path, monkeypatch):
    state = {"0 step": mx.array(1, mx.uint64)}
    saving.save(tmp_path, 2, {"a": mx.ones(3)}, state, [{"step": 1}, {"step": 2}])
    monkeypatch.setattr(saving.files, "write_json", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        saving.save(tmp_path, 4, {"a": mx.zeros(3)}, state, [])

    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-2"]
    params, state, series = saving.restore(checkpoints.last(tmp_path))
    assert (params["a"].tolist(), series) == ([1, 1, 1], [{"step": 1}, {"step": 2}])
    assert (state["0 step"].item(), state["0 step"].dtype) == (1, mx.uint64)


def test_accumulated_micro_batches_train_what_one_batch_trains(tmp_path, base, chats):
    whole = train(tmp_path, base, chats, "whole", made.settings(batch_size=8))
    parts = train(tmp_path, base, chats, "parts", made.settings(batch_size=4, accumulate=2))

    for name, weight in weights(whole).items():
        assert mx.allclose(weights(parts)[name], weight, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", made.ARCHITECTURES)
def test_the_loss_is_the_models_own_on_padded_rows(name, architecture, monkeypatch):
    model = load.model(architecture(name), "fp32")
    draw = np.random.default_rng(5)
    ids = draw.integers(3, 500, (3, 24))
    labels = np.where(draw.random(ids.shape) < 0.5, ids, -100)
    labels[1, 15:] = labels[2, 9:] = -100
    ids[1, 15:] = ids[2, 9:] = 0
    logits = model(mx.array(ids)).astype(mx.float32)
    chances = logits - mx.logsumexp(logits, -1, keepdims=True)
    own = [
        -chances[row, place - 1, int(labels[row, place])].item()
        for row, place in zip(*np.nonzero(labels != -100), strict=True)
        if place
    ]

    batch = loss.Trained(ids, labels)
    ours = loss.losses(model, batch)
    monkeypatch.setattr(loss, "PIECE", 512 * 7)
    in_pieces = loss.losses(model, batch)

    np.testing.assert_allclose(ours, own, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(in_pieces, own, rtol=1e-5, atol=1e-5)
    rows = np.nonzero(labels[:, 1:] != -100)[0]
    assert batch.rows.tolist() == rows.tolist()


@pytest.mark.parametrize("name", made.ARCHITECTURES)
def test_every_architectures_weights_are_named_and_shaped_as_the_bases(name, architecture):
    folder = architecture(name)
    known = training.tensors(folder)
    model = load.model(folder, "fp32")
    params = adapting.trained(model)
    tied = files.read_json(folder / "config.json")["tie_word_embeddings"]

    assert saving.differing(params, known, tied) == ""
    leaves = targets.resolve(["all-linear"], known)
    lora = made.settings().lora
    adapting.adapt(model, known, leaves, None, "lora", lora, Draws(1))
    adapted = {key.removesuffix(".lora_a") for key in adapting.trained(model) if "lora_a" in key}
    assert adapted == set(adapting.modules(known, leaves, None))
    assert len(adapted) == len(model.layers) * len(leaves)
    one = next(iter(params))
    assert saving.differing({key: params[key] for key in params if key != one}, known, tied) == one


def test_gradients_of_a_loss_in_pieces_are_those_of_the_whole(tmp_path, base, chats, monkeypatch):
    run = ready(base, chats, made.settings("full"), tmp_path)
    total, _, whole = run._gradients(0)
    monkeypatch.setattr(loss, "PIECE", 512 * 10)
    again, _, pieces = run._gradients(0)

    assert again == pytest.approx(total, rel=1e-6)
    for name, gradient in whole.items():
        np.testing.assert_allclose(pieces[name], gradient, rtol=0, atol=1e-6)


@pytest.mark.parametrize("method", ["lora", "dora", "full"])
def test_gradient_checkpointing_runs_blocks_twice_and_changes_nothing(
    method, tmp_path, base, chats, monkeypatch
):
    from mlx_lm.models import qwen2

    calls, call = [], qwen2.TransformerBlock.__call__

    def counted(self, *arguments, **named):
        calls.append(1)
        return call(self, *arguments, **named)

    monkeypatch.setattr(qwen2.TransformerBlock, "__call__", counted)
    found = []
    for checkpointing in (False, True):
        calls.clear()
        settings = made.settings(method, dropout=0.3, checkpointing=checkpointing)
        run = ready(base, chats, settings, tmp_path / str(checkpointing))
        run.params = {name: weight + 0.01 for name, weight in run.params.items()}
        found.append((run._gradients(0), len(calls)))

    (plain, once), (again, twice) = found
    assert (once, twice) == (2, 4)  # two blocks, one micro-batch
    assert again[0] == pytest.approx(plain[0], rel=1e-6)
    for name, gradient in plain[2].items():
        np.testing.assert_allclose(again[2][name], gradient, rtol=0, atol=1e-6)


def test_what_drops_out_depends_on_seed_step_and_layer_and_nothing_when_measuring():
    def dropped(seed, layer, *place):
        draws = Draws(seed)
        drop = adapting.Dropout(0.25, layer, draws)
        if place:
            draws.at(*place)
        return drop(mx.ones((40, 50)))

    plain = dropped(1, "a", 0, 0)
    assert np.unique(plain).tolist() == pytest.approx([0, 4 / 3])
    assert mx.mean(plain == 0).item() == pytest.approx(0.25, abs=0.04)
    assert mx.array_equal(dropped(1, "a", 0, 0), plain)
    for other in ((2, "a", 0, 0), (1, "b", 0, 0), (1, "a", 1, 0), (1, "a", 0, 1)):
        assert not mx.array_equal(dropped(*other), plain)
    assert mx.array_equal(dropped(1, "a"), mx.ones((40, 50)))


def test_an_adapter_begins_as_pefts_does_whichever_layers_have_one(tmp_path, base, chats):
    every = ready(base, chats, made.settings(seed=5, r=16), tmp_path).params
    last = ready(base, chats, made.settings(seed=5, r=16, layers=1), tmp_path).params
    other = ready(base, chats, made.settings(seed=6, r=16), tmp_path).params

    assert all(mx.array_equal(weight, every[name]) for name, weight in last.items())
    assert {name.split(".")[2] for name in last} == {"1"}
    for name, weight in every.items():
        assert weight.dtype == mx.float32
        if name.endswith("lora_b"):
            assert not weight.any().item()
            continue
        bound = 1 / math.sqrt(weight.shape[0])
        spread = np.array(weight) / bound
        assert not mx.array_equal(weight, other[name])
        assert np.abs(spread).max() <= 1
        assert spread.std() == pytest.approx(1 / math.sqrt(3), rel=0.1)
        assert spread.mean() == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize("method", ["lora", "rslora", "dora"])
def test_the_adapter_is_a_peft_folder_that_peft_and_fuse_read_alike(method, tmp_path, base, chats):
    torch = pytest.importorskip("torch")
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM

    from stages.backends.torch.train import loss as theirs

    settings = made.settings(method, epochs=2, learning_rate=2e-2, eval_steps=1)
    out = train(tmp_path, base, chats, method, settings)

    stated = manifest.read(out)["loss"]
    assert stated["valid_last"] < made.series(tmp_path / f"{method}-report")[0]["valid_loss"] - 0.04
    _, valid = training.load(settings, chats)
    ids, labels = map(torch.from_numpy, valid.padded(range(6)))
    (tmp_path / "fused").mkdir()
    merge.merge(base, out, tmp_path / "fused")
    plain = AutoModelForCausalLM.from_pretrained(base)
    for model in (
        AutoModelForCausalLM.from_pretrained(tmp_path / "fused"),
        peft.PeftModel.from_pretrained(plain, out).get_base_model(),
    ):
        found = theirs.summed(model, ids, labels).item() / valid.targets.sum()
        assert found == pytest.approx(stated["valid_last"], rel=1e-5)
    config = files.read_json(out / "adapter_config.json")
    assert (config["use_dora"], config["use_rslora"]) == (method == "dora", method == "rslora")
    assert (config["r"], config["lora_alpha"]) == (4, 8.0)
    assert config["base_model_name_or_path"] == "models/base/tiny"
    assert len(config["target_modules"]) == 7
    assert sorted(path.name for path in out.iterdir()) == [
        ".complete.json", "adapter_config.json", NAME, "manifest.json",
    ]  # fmt: skip
    with safe_open(out / NAME, "numpy") as file:
        assert file.metadata() == {"format": "pt"}
    for path in out.iterdir():
        assert str(tmp_path).encode() not in path.read_bytes()


def test_the_last_layers_alone_are_adapted_and_the_adapter_merges(tmp_path, base, chats):
    pytest.importorskip("torch")
    out = train(tmp_path, base, chats, "out", made.settings("dora", layers=1, max_steps=2))

    assert {name.split(".layers.")[1][0] for name in weights(out)} == {"1"}
    (tmp_path / "fused").mkdir()
    assert merge.merge(base, out, tmp_path / "fused")["merged"] == 7


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_full_training_writes_all_weights_in_the_bases_names_and_type(dtype, tmp_path, base, chats):
    folder = tmp_path / "typed"
    folder.mkdir()
    for path in base.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    held = weights(base)
    mx.save_safetensors(
        str(folder / "model.safetensors"),
        {name: weight.astype(getattr(mx, dtype)) for name, weight in held.items()},
        {"format": "pt"},
    )
    out = train(tmp_path, folder, chats, "full", made.settings("full", learning_rate=2e-2))

    old, new = weights(folder), weights(out)
    assert {n: (w.shape, w.dtype) for n, w in new.items()} == {
        n: (w.shape, w.dtype) for n, w in old.items()
    }
    assert all(not mx.array_equal(new[name], old[name]) for name in old)
    assert manifest.read(out)["dtype"] == dtype
    assert sorted(path.name for path in out.iterdir()) == [
        ".complete.json", "manifest.json", "model.safetensors",
    ]  # fmt: skip


def test_weights_beyond_a_files_limit_are_split_and_indexed(tmp_path, base, monkeypatch):
    limit = shards.within_limit
    monkeypatch.setattr(saving.shards, "within_limit", lambda found: limit(found, 60_000))
    params = adapting.trained(load.model(base, "fp32"))
    saving.write_weights(params, base, tmp_path)

    assert len(shards.weights(tmp_path)) > 2  # whose names and index it checks
    for name, weight in weights(tmp_path).items():
        assert mx.array_equal(weight, params[name])


def test_a_weight_that_overflows_the_bases_type_is_refused(tmp_path, base):
    params = adapting.trained(load.model(base, "fp32"))
    params["model.norm.weight"] = mx.full(32, math.inf)

    with pytest.raises(TunesmithError, match=r"1 trained weights are not finite, first model\.no"):
        saving.write_weights(params, base, tmp_path)


def test_bf16_trains_fp32_weights_on_a_bf16_model(tmp_path, base, chats):
    plain, half = (
        train(tmp_path, base, chats, use, made.settings(precision=use)) for use in ("fp32", "bf16")
    )
    run = ready(base, chats, made.settings("full", precision="bf16"), tmp_path / "run")
    run.run_from(None)

    assert {weight.dtype for weight in weights(half).values()} == {mx.float32}
    assert manifest.read(half)["precision"] == "bf16"
    losses = [manifest.read(out)["loss"]["valid_last"] for out in (plain, half)]
    assert losses[0] != losses[1] == pytest.approx(losses[0], abs=0.05)
    assert {weight.dtype for weight in run.params.values()} == {mx.float32}
    computed = dict(tree_flatten(run.model.parameters()))
    assert {weight.dtype for weight in computed.values()} == {mx.bfloat16}


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("method", ["lora", "dora"])
def test_an_adapter_on_a_quantised_base_states_its_loss_before_and_after_merging(
    method, bits, tmp_path, wide
):
    chats = made.tokens(tmp_path / "chats", wide)
    settings = made.settings(method, quantise=f"{bits}bit", max_steps=3, dropout=0.3)
    run = ready(wide, chats, settings, tmp_path / "run")
    linear = run.model.model.layers[1].mlp.down_proj.linear
    assert (linear.bits, linear.group_size, linear.mode) == (bits, 64, "affine")

    out = train(tmp_path, wide, chats, "out", settings)

    said = manifest.read(out)["quantised"]
    assert said["kind"] == f"mlx affine {bits}-bit, groups of 64"
    assert said["valid_loss"] == manifest.read(out)["loss"]["valid_last"]
    assert said == files.read_json(tmp_path / "out-report/summary.json")["quantised"]
    whole = ready(wide, chats, made.settings(method), tmp_path / "whole")
    whole.params = adapting.initial(out, whole.params)
    assert said["valid_loss_merged"] == whole.on_valid()["valid_loss"] != said["valid_loss"]


def test_neither_embedding_nor_head_is_quantised(wide):
    from mlx.nn import Linear, QuantizedLinear

    model = load.model(wide, "fp32")
    model.lm_head = Linear(64, 512, bias=False)
    quantising.quantise(model, "8bit")

    assert type(model.lm_head) is Linear
    assert not hasattr(model.model.embed_tokens, "bits")
    kinds = [type(part) for name, part in model.model.named_modules() if name.endswith("_proj")]
    assert kinds == [QuantizedLinear] * 14


def test_a_layer_that_no_groups_of_64_cover_is_refused_by_name(tmp_path, base, chats):
    with pytest.raises(TunesmithError, match=r"self_attn\.\w+ has 32 inputs, which is no multiple"):
        ready(base, chats, made.settings(quantise="4bit"), tmp_path)


def test_the_manifest_says_what_was_trained_on_what(tmp_path, base, chats):
    out = train(tmp_path, base, chats, "out", made.settings(epochs=2))

    said = manifest.read(out)
    assert said["base"]["hash"] == files.tree_hash(base)
    assert said["dataset"] == {"name": "chats", "tokens": files.tree_hash(chats)}
    assert said["template"] == files.sha256(base / "chat_template.jinja")
    assert (said["method"], said["backend"], said["quantise_base"]) == ("lora", "mlx", "none")
    assert said["device"] == load.device().name
    assert (said["steps"], said["rows"], said["dtype"]) == (10, 20, "float32")
    rows, _ = training.load(made.settings(), chats)
    assert said["trained_tokens"] == 2 * rows.targets.sum()
    assert set(said["versions"]) == {"mlx", "mlx-lm"}
    assert "quantised" not in said


def test_the_report_holds_every_step_and_the_valid_loss_where_it_was_due(tmp_path, base, chats):
    train(tmp_path, base, chats, "out", made.settings(eval_steps=3, warmup=0.4))

    table = made.series(tmp_path / "out-report")
    assert [row["step"] for row in table] == [1, 2, 3, 4, 5]
    assert [row["step"] for row in table if "valid_loss" in row] == [3, 5]
    assert [row["learning_rate"] for row in table[:3]] == pytest.approx([0, 2.5e-3, 5e-3])


@pytest.mark.parametrize(("broken", "says"), [("loss", "loss"), ("gradient", "gradient")])
def test_what_is_not_finite_stops_the_run_at_its_step(
    broken, says, tmp_path, base, chats, monkeypatch
):
    summed, calls = trainer.Planned.summed, []

    def third(self, batch):
        (found,) = summed(self, batch)
        calls.append(1)
        if len(calls) == 3:  # a root's slope at 0 is infinite, and its value is not
            zero = found - mx.stop_gradient(found)
            found = found + (math.nan if broken == "loss" else mx.sqrt(zero))
        return (found,)

    monkeypatch.setattr(trainer.Planned, "summed", third)
    with pytest.raises(TunesmithError, match=f"The {says} is not finite at step 3 of 5"):
        train(tmp_path, base, chats, "out", made.settings())
    assert not (tmp_path / "out").exists()


def test_an_initial_adapter_of_another_shape_is_refused(tmp_path, base, chats):
    out = train(tmp_path, base, chats, "out", made.settings(max_steps=1))
    params = ready(base, chats, made.settings(r=2), tmp_path / "run").params

    with pytest.raises(TunesmithError, match=r"initial adapter differs in model\.layers\.0"):
        adapting.initial(out, params)


def test_weights_that_mlx_lm_would_rename_are_refused_by_name(tmp_path, base, chats, monkeypatch):
    model, other_model = (load.model(base, "fp32") for _ in range(2))
    known = training.tensors(base)
    gone = next(tensor for tensor in known if tensor.name.endswith("0.mlp.up_proj.weight"))
    other = [tensor for tensor in known if tensor is not gone]
    lora = made.settings().lora

    assert saving.differing(adapting.trained(model), other, False) == gone.name
    for one in (model, other_model):
        del one.model.layers[0].mlp.up_proj
    with pytest.raises(
        TunesmithError, match=r"has not the base's weight model\.layers\.0\.mlp\.up"
    ):
        adapting.adapt(model, known, ["up_proj"], None, "lora", lora, Draws(1))
    monkeypatch.setattr(load, "model", lambda *_: other_model)
    with pytest.raises(
        TunesmithError, match=r"has not the base's weight model\.layers\.0\.mlp\.up"
    ):
        ready(base, chats, made.settings("full"), tmp_path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"rope_theta": None}, "rope_parameters and no rope_theta"),
        ({"num_experts": 8}, r"mixture of experts \(num_experts: 8\)"),
        ({"num_local_experts": 4}, r"mixture of experts \(num_local_experts: 4\)"),
        ({"quantization": {"bits": 4}}, r"weights are quantised \(quantization\)"),
        ({"quantization_config": {"bits": 4}}, r"are quantised \(quantization_config\)"),
        ({"model_type": "hal9000"}, "mlx_lm has no architecture 'hal9000'"),
    ],
)
def test_a_base_that_mlx_would_misread_is_refused(change, says, tmp_path, base):
    for path in base.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = files.read_json(base / "config.json") | change
    config = {
        key: value for key, value in config.items() if value is not None or key != "rope_theta"
    }
    files.write_json(tmp_path / "config.json", config)

    with pytest.raises(TunesmithError, match=says):
        load.model(tmp_path, "fp32")


@pytest.mark.parametrize("name", ["embed_tokens", "lm_head"])
def test_an_adapter_of_a_tied_embedding_is_refused(name, tmp_path, base, chats):
    settings = made.settings()
    lora = settings.lora.model_copy(update={"targets": [name]})

    with pytest.raises(TunesmithError, match=f"names {name}, an embedding or output layer"):
        train(tmp_path, base, chats, "out", settings.model_copy(update={"lora": lora}))


def test_pairs_and_rows_are_not_taken_for_each_other(tmp_path, base, chats):
    with pytest.raises(TunesmithError, match="no preference pairs, and the method is dpo"):
        train(tmp_path, base, chats, "out", made.settings("dpo"))


@pytest.mark.parametrize(
    ("place", "fits"),
    [
        (("Darwin", "arm64", "14.5", ("", "")), True),
        (("Darwin", "arm64", "26.1", ("", "")), True),
        (("Darwin", "arm64", "13.6", ("", "")), False),
        (("Darwin", "x86_64", "14.5", ("", "")), False),
        (("Linux", "x86_64", "", ("glibc", "2.36")), True),
        (("Linux", "aarch64", "", ("glibc", "2.35")), True),
        (("Linux", "x86_64", "", ("glibc", "2.34")), False),
        (("Linux", "x86_64", "", ("", "")), False),
        (("Windows", "AMD64", "", ("", "")), False),
    ],
)
def test_a_platform_without_mlx_is_told_so(place, fits):
    if fits:
        load.require_platform(*place)
        return
    with pytest.raises(TunesmithError, match=r"(?s)does not exist for this platform.*torch"):
        load.require_platform(*place)


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlx_lm", None)

    with pytest.raises(MissingPackage, match="'mlx_lm' is not installed"):
        load.require()


@pytest.mark.parametrize(
    ("wanted", "device", "use"),
    [
        ("auto", CPU, "fp32"), ("auto", METAL, "bf16"), ("bf16", CPU, "bf16"),
        ("fp32", METAL, "fp32"),
    ],
)  # fmt: skip
def test_precision_follows_the_device(wanted, device, use):
    assert words.precision(wanted, device) == use


def test_fp16_is_refused():
    with pytest.raises(TunesmithError, match="does not train in fp16"):
        words.precision("fp16", METAL)


def test_our_settings_reach_mlx_in_its_own_words():
    adamw = made.settings(optimizer="adamw").train
    adafactor = made.settings(optimizer="adafactor").train

    assert words.optimizer(adamw)[0] == "AdamW"
    assert words.optimizer(adafactor)[1]["relative_step"] is False
    assert words.optimizer(made.settings(optimizer="sgd").train)[1]["momentum"] == 0.0
    assert words.at_step(adafactor, 0.1, 0.2, 7) == {"learning_rate": 0.1, "weight_decay": 0.2}
    first = words.at_step(adamw, 0.1, 0.2, 1)
    assert first["learning_rate"] == pytest.approx(0.1 * math.sqrt(0.001) / 0.1)
    assert first["learning_rate"] * first["weight_decay"] == pytest.approx(0.1 * 0.2)
    assert words.layer("lora", made.settings(r=4).lora) == {"r": 4, "scale": 2.0}
    assert words.layer("rslora", made.settings(r=4).lora) == {"r": 4, "scale": 4.0}
    assert words.quantised("8bit") == {"group_size": 64, "bits": 8, "mode": "affine"}


def test_a_disk_too_small_is_said_before_the_first_step(tmp_path, base, chats, monkeypatch):
    full = SimpleNamespace(total=100, used=90, free=10)
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: full)

    with pytest.raises(TunesmithError, match="What this training writes needs"):
        train(tmp_path, base, chats, "out", made.settings())


def test_a_checkpoint_gives_the_weights_back_in_the_order_of_the_run(tmp_path):
    names = sorted(f"model.layers.{number}.mlp.up_proj.lora_a" for number in range(40))
    params = {name: mx.zeros((1,)) for name in names}

    saving.save(tmp_path, 3, params, {"0 step": mx.array(3)}, [])

    found, _, _ = saving.restore(tmp_path / "checkpoint-3")
    assert list(found) == names


def test_a_blas_that_cannot_be_loaded_is_refused_by_name(monkeypatch):
    monkeypatch.setenv(load.BLAS, "/nowhere/libblas.so.3")

    with pytest.raises(TunesmithError, match=r"/nowhere/libblas\.so\.3 could not be loaded"):
        load.require()


def test_the_device_names_the_blas_that_was_put_before_mlxs_own(monkeypatch):
    monkeypatch.setenv(load.BLAS, "/somewhere/libblas.so.3")
    monkeypatch.setattr(load.ctypes, "CDLL", lambda path, mode: None)
    if load.device().kind != "cpu":
        pytest.skip("a BLAS is used on CPUs alone")

    assert load.device().name == "MLX on CPU with libblas.so.3"


def test_without_room_for_the_whole_base_the_loss_after_merging_is_left_out(
    tmp_path, wide, monkeypatch
):
    tokens = made.tokens(tmp_path / "chats", wide)
    monkeypatch.setattr(backend.machine, "memory", lambda: Space(999, 1000))

    out = train(tmp_path, wide, tokens, "out", made.settings(quantise="4bit", max_steps=1))

    assert set(manifest.read(out)["quantised"]) == {"kind", "valid_loss"}


def test_a_base_that_is_rounded_is_never_in_memory_as_a_whole(tmp_path):
    pytest.importorskip("torch")
    from stages.commands.parity import models

    large = models.SHAPE | {"hidden_size": 512, "num_hidden_layers": 6}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "SHAPE", large)
        base = models.make("qwen3", tmp_path / "large", inner=1024)
    peaks = []
    for held in ("none", "4bit"):
        mx.clear_cache()
        mx.reset_peak_memory()
        before = mx.get_active_memory()
        model = backend.build(
            made.settings(quantise=held), base, ["q_proj"], "fp32", held, Draws(1), 8
        )
        peaks.append(mx.get_peak_memory() - before)
        del model

    assert peaks[1] < 0.4 * peaks[0]
