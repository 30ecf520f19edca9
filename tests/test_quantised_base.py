"""A quantised base: few bits while training, an adapter in fp32, and the cost of merging said."""

import json
import logging
import math
import subprocess
import sys
import weakref
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import project
import pytest
import tiny

from stages import train as stage
from stages.core import checkpoints, files, manifest, memory, merge, settings, training
from stages.core.batches import Rows
from stages.core.errors import MissingPackage
from stages.core.machine import Space
from stages.core.settings import Dpo, Lora, Model, Train

torch = pytest.importorskip("torch")
pytest.importorskip("trl")
pytest.importorskip("bitsandbytes")

from stages.backends.torch import load  # noqa: E402
from stages.backends.torch import train as backend  # noqa: E402
from stages.backends.torch.train import gap, loss, quantised, words  # noqa: E402

HELD = ("4bit", "8bit")
NAMES = {"4bit": "bitsandbytes nf4, double quantisation", "8bit": "bitsandbytes LLM.int8"}
SEVEN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Its rows are of 64 and 192 values, as nf4's blocks are of 64."""
    return tiny.tiny_model(tmp_path_factory.mktemp("base") / "tiny", hidden=64, layers=2)


@pytest.fixture(autouse=True)
def in_its_own_folder(tmp_path, monkeypatch):
    torch.set_num_threads(1)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))


def rows(count: int, seed: int = 0) -> Rows:
    """Rows of 8 to 24 tokens: four random ones that are not trained, then token 7 throughout;
    from seed 10 on token 8, for answers that are not wanted."""
    draw = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(draw.integers(8, 24, count))])
    ids, trained = draw.integers(3, 500, offsets[-1]), np.ones(offsets[-1], np.uint8)
    for first, last in pairwise(offsets):
        trained[first : first + 4] = 0
        ids[first + 4 : last] = 8 if seed > 9 else 7
    return Rows(ids.astype(np.int32), trained, offsets)


def written(folder: Path, valid: int = 6, pairs: bool = False) -> Path:
    """A tokens folder of 24 rows to train on."""
    with files.directory(folder) as out:
        for split, number, seed in (("train", 24, 0), ("valid", valid, 1)):
            for side, made in (("", rows(number, seed)), ("rejected_", rows(number, seed + 10))):
                for name in ("ids", "trained", "offsets"):
                    if pairs or not side:
                        np.save(out / f"{split}.{side}{name}.npy", getattr(made, name))
            np.save(out / f"{split}.prompts.npy", np.full(number, 4, np.int32))
        counts = {"checked": True, "rows": {"train": 24, "valid": valid}}
        files.write_json(out / "checks.json", counts | ({"pairs": True} if pairs else {}))
    return folder


def chosen(held="4bit", method="lora", dropout=0.0, **train) -> Model:
    given = {
        "seed": 1, "epochs": 1, "max_steps": 0, "batch_size": 4, "accumulate": 1,
        "optimizer": "adamw", "learning_rate": 1e-2, "schedule": "cosine", "warmup": 0.0,
        "weight_decay": 0.01, "max_grad_norm": 1.0, "precision": "auto", "checkpointing": False,
        "save_steps": 0, "eval_steps": 0, "dpo": Dpo(beta=0.2) if method == "dpo" else None,
    }  # fmt: skip
    return Model.model_construct(
        base="models/base/tiny", dataset="echo", backend="torch", method=method,
        quantise_base=held, train=Train(**given | train),
        lora=Lora(r=4, alpha=8.0, dropout=dropout, targets=["all-linear"], layers=0),
    )  # fmt: skip


def train(folder: Path, base: Path, name: str, model: Model, **made) -> Path:
    if not (folder / "tokens").exists():
        written(folder / "tokens", **made)
    backend.train(model, base, folder / "tokens", folder / name, folder / f"{name}-report")
    return folder / name


def tensors(folder: Path) -> dict:
    from safetensors.torch import load_file

    return load_file(next(folder.glob("*.safetensors")))


def valid_loss(model) -> float:
    some = rows(6, 1)
    ids, labels = map(torch.from_numpy, some.padded(range(6)))
    with torch.no_grad():
        return loss.summed(model.eval(), ids, labels).item() / some.targets.sum()


def started(folder: Path, base: Path, model: Model):
    return backend.start(model, base, SEVEN, rows(24), rows(6, 1), folder / "run")


CASES = [("4bit", "lora"), ("8bit", "lora")]
SLOW = [(held, method) for held in HELD for method in ("rslora", "dora")]


@pytest.mark.parametrize(
    ("held", "method"), [*CASES, *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW)]
)
def test_training_lowers_the_loss_and_the_merged_model_keeps_it(held, method, tmp_path, base):
    out = train(tmp_path, base, "out", chosen(held, method, epochs=3))

    (tmp_path / "fused").mkdir()
    assert merge.merge(base, out, tmp_path / "fused")["merged"] == 14
    fused = load.model(tmp_path / "fused", "fp32")
    found = manifest.read(out)["quantised"]
    assert found["kind"] == NAMES[held]
    assert found == json.loads((tmp_path / "out-report/summary.json").read_text())["quantised"]
    assert found["valid_loss"] == manifest.read(out)["loss"]["valid_last"]
    assert valid_loss(load.model(base, "fp32")) - found["valid_loss"] > 2
    assert valid_loss(fused) == pytest.approx(found["valid_loss_merged"], rel=1e-5)
    assert 0 < abs(found["valid_loss_merged"] - found["valid_loss"]) < 0.01
    assert {weight.dtype for weight in tensors(out).values()} == {torch.float32}


@pytest.mark.parametrize("held", HELD)
def test_the_bases_linear_layers_stay_in_few_bits_while_training(held, tmp_path, base):
    made = started(tmp_path, base, chosen(held, max_steps=3, eval_steps=1))
    made.run_from(None)

    model = made.model.get_base_model()
    frozen = [weight for weight in model.parameters() if not weight.requires_grad]
    packed = {"4bit": torch.uint8, "8bit": torch.int8}[held]
    linear = [weight for weight in frozen if weight.dtype == packed]
    assert len(linear) == 14
    assert {weight.dtype for weight in frozen} == {packed, torch.float32}
    assert sum(weight.nbytes for weight in linear) == 2 * 49152 // (2 if held == "4bit" else 1)
    layers = [layer for layer in model.modules() if hasattr(layer, "support_avx512bf16_for_cpu")]
    if held == "4bit":
        states = [layer.weight.quant_state for layer in layers]
        scales = sum(state.absmax.nbytes + state.state2.absmax.nbytes for state in states)
        assert {(state.quant_type, state.blocksize) for state in states} == {("nf4", 64)}
    else:
        layers = [layer for layer in model.modules() if hasattr(layer, "init_8bit_state")]
        scales = sum(layer.state.SCB.nbytes for layer in layers)
    assert len(layers) == 14
    of = memory.shape(tiny.config(64, 2, 512))
    stated = memory.frozen(of, memory.run(of, sized(held), bf16=False))
    assert stated == pytest.approx(sum(weight.nbytes for weight in frozen) + scales, rel=1e-3)


def sized(held: str, **train) -> Model:
    return chosen(held, **train).model_copy(
        update={"tokens": settings.Tokens(max_length=24, over_length="error")}
    )


@pytest.mark.parametrize("held", HELD)
def test_the_adapter_is_fp32_and_starts_as_on_the_whole_base(held, tmp_path, base):
    whole, few = (started(tmp_path, base, chosen(name)).model for name in ("none", held))

    first = {name: weight for name, weight in whole.named_parameters() if weight.requires_grad}
    again = {name: weight for name, weight in few.named_parameters() if weight.requires_grad}
    assert list(first) == list(again)
    for name, weight in again.items():
        assert weight.dtype == torch.float32
        assert torch.equal(weight, first[name])


@pytest.mark.parametrize("held", [HELD[0], pytest.param(HELD[1], marks=pytest.mark.slow)])
def test_two_runs_write_the_same_bytes_whether_or_not_they_stop_to_validate(held, tmp_path, base):
    first = train(tmp_path, base, "first", chosen(held, dropout=0.1))
    again = train(tmp_path, base, "again", chosen(held, dropout=0.1, eval_steps=1, save_steps=2))

    name = "adapter_model.safetensors"
    assert (first / name).read_bytes() == (again / name).read_bytes()
    ends = [manifest.read(folder)["quantised"] for folder in (first, again)]
    assert ends[0] == ends[1]


@pytest.mark.parametrize(
    ("held", "method"),
    [
        ("4bit", "lora"),
        *(pytest.param("8bit", m, marks=pytest.mark.slow) for m in ("lora", "dora")),
    ],
)
def test_an_interrupted_run_goes_on_to_the_same_bytes(held, method, tmp_path, base, monkeypatch):
    model = chosen(held, method, dropout=0.1, save_steps=2, eval_steps=2)
    whole = train(tmp_path, base, "whole", model)
    summed, steps = loss.summed, []

    def stop_in_the_fifth_step(causal, *arguments):
        steps.extend([1] * causal.training)
        if len(steps) == 5:
            raise KeyboardInterrupt
        return summed(causal, *arguments)

    monkeypatch.setattr(loss, "summed", stop_in_the_fifth_step)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, base, "resumed", model)
    monkeypatch.setattr(loss, "summed", summed)
    half = next((tmp_path / ".tunesmith/checkpoints").iterdir())
    assert checkpoints.last(half).name == "checkpoint-4"

    resumed = train(tmp_path, base, "resumed", model)

    assert files.tree_hash(resumed) == files.tree_hash(whole)
    reports = [tmp_path / f"{name}-report" for name in ("resumed", "whole")]
    assert files.tree_hash(reports[0]) == files.tree_hash(reports[1])


def test_other_settings_of_the_base_never_go_on_from_this_runs_checkpoints(
    tmp_path, base, monkeypatch
):
    asked = []
    monkeypatch.setattr(checkpoints, "last", lambda run: asked.append(run.name))
    monkeypatch.setattr(backend, "start", lambda *_: SimpleNamespace(run_from=stop))

    def stop(_):
        raise KeyboardInterrupt

    for held in ("none", *HELD, "4bit"):
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path, base, "out", chosen(held))

    assert len(set(asked[:3])) == 3
    assert asked[3] == asked[1]


@pytest.mark.parametrize("method", ["lora", pytest.param("dora", marks=pytest.mark.slow)])
def test_the_fused_model_is_what_peft_merges_into_the_whole_base(method, tmp_path, base):
    from peft import PeftModel

    out = train(tmp_path, base, "out", chosen("4bit", method, max_steps=3))
    (tmp_path / "fused").mkdir()
    merge.merge(base, out, tmp_path / "fused")

    whole = PeftModel.from_pretrained(load.model(base, "fp32"), out).merge_and_unload()
    theirs = dict(whole.state_dict())
    for name, weight in tensors(tmp_path / "fused").items():
        assert torch.equal(weight, theirs[name]), name


def test_the_quantised_base_is_freed_before_the_whole_one_is_read(tmp_path, base, monkeypatch):
    layers, alive, read = [], [], load.model

    def reading(*arguments, **more):
        if not more:
            alive.append(sum(layer() is not None for layer in layers))
        made = read(*arguments, **more)
        layers.extend(weakref.ref(part) for part in made.modules() if quantised.holds(part))
        return made

    monkeypatch.setattr(load, "model", reading)
    train(tmp_path, base, "out", chosen(max_steps=2))

    assert len(layers) == 14
    assert alive == [0]


@pytest.mark.parametrize(
    ("device", "gpu", "memory", "where"),
    [
        ("cpu", 0, 131, "cpu"), ("cpu", 0, 130, None), ("cuda", 131, 0, "cuda"),
        ("cuda", 130, 131, "cpu"), ("cuda", 130, 130, None),
    ],
)  # fmt: skip
def test_the_whole_base_is_read_where_there_is_room_for_it(device, gpu, memory, where, monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (gpu, 999))
    monkeypatch.setattr(gap.machine, "memory", lambda: Space(999, memory))

    assert gap.place(100, 30, device) == where


def test_without_room_for_the_whole_base_the_gap_is_left_out(tmp_path, base, monkeypatch):
    monkeypatch.setattr(gap.machine, "memory", lambda: Space(999, 1000))

    out = train(tmp_path, base, "out", chosen(max_steps=1))

    assert set(manifest.read(out)["quantised"]) == {"kind", "valid_loss"}


@pytest.mark.slow
def test_without_rows_to_validate_with_there_is_no_gap(tmp_path, base):
    out = train(tmp_path, base, "out", chosen(max_steps=1), valid=0)

    assert manifest.read(out)["quantised"] == {"kind": NAMES["4bit"]}


@pytest.mark.parametrize(
    ("losses", "says"),
    [
        (
            (1.5, 1.5125),
            "base held as few bits: valid loss 1.5000, on the whole base 1.5125 (gap +0.0125)",
        ),
        ((1.5, None), "valid loss 1.5000, on the whole base not measured: it has no room here"),
        ((None, None), "base held as few bits: no valid rows"),
    ],
)
def test_the_stage_says_what_merging_costs(losses, says):
    assert says in stage.gap(training.quantised("few bits", *losses))
    assert stage.gap({}) == ""


@pytest.mark.parametrize("held", HELD)
@pytest.mark.slow
def test_preferences_are_trained_against_the_quantised_base(held, tmp_path, base):
    out = train(tmp_path, base, "out", chosen(held, "dpo", epochs=3), pairs=True)

    made = manifest.read(out)
    assert made["loss"]["first"] == pytest.approx(math.log(2), abs=1e-6)
    assert made["loss"]["last"] < 0.3
    assert made["preference"]["valid_reward_accuracy"] == 1.0
    assert abs(made["quantised"]["valid_loss_merged"] - made["quantised"]["valid_loss"]) < 0.02
    assert {weight.dtype for weight in tensors(out).values()} == {torch.float32}


@pytest.mark.parametrize("held", HELD)
@pytest.mark.slow
def test_checkpointing_trains_the_same_adapter(held, tmp_path, base):
    plain, again = (
        train(tmp_path, base, f"{on}", chosen(held, checkpointing=on, max_steps=4))
        for on in (False, True)
    )

    for name, weight in tensors(again).items():
        torch.testing.assert_close(weight, tensors(plain)[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize("held", HELD)
@pytest.mark.slow
def test_bf16_computes_on_a_quantised_base_and_keeps_the_adapter_in_fp32(held, tmp_path, base):
    out = train(tmp_path, base, "out", chosen(held, precision="bf16", epochs=3))

    made = manifest.read(out)
    assert made["precision"] == "bf16"
    assert made["loss"]["valid_last"] < 4
    assert abs(made["quantised"]["valid_loss_merged"] - made["quantised"]["valid_loss"]) < 0.02
    assert {weight.dtype for weight in tensors(out).values()} == {torch.float32}


@pytest.mark.parametrize(("use", "dtype"), [("bf16", "bfloat16"), ("fp16", "float16")])
def test_four_bits_are_computed_with_in_the_precision_of_the_training(use, dtype):
    config = quantised._config(use, "4bit")

    assert config.bnb_4bit_compute_dtype == getattr(torch, dtype)
    assert (config.bnb_4bit_quant_type, config.bnb_4bit_use_double_quant) == ("nf4", True)


def test_only_eight_bits_need_reentrant_checkpointing():
    said = {held: words.checkpointing_words(held) for held in ("none", *HELD)}

    reentrant = {h: w["gradient_checkpointing_kwargs"]["use_reentrant"] for h, w in said.items()}
    assert reentrant == {"none": False, "4bit": False, "8bit": True}


def test_without_bitsandbytes_the_stage_says_what_to_type(tmp_path, base, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)

    with pytest.raises(MissingPackage, match=r"'bitsandbytes' is not installed(?s:.*)pip install"):
        train(tmp_path, base, "out", chosen())
    assert not (tmp_path / "out").exists()


def test_eight_bits_validate_without_a_notice_for_each_layer(tmp_path, base, caplog):
    made = started(tmp_path, base, chosen("8bit", max_steps=1))
    with caplog.at_level(logging.WARNING):
        made.run_from(None)

    assert made.state.log_history[-1]["valid_loss"] > 1
    assert not [record for record in caplog.records if record.name.startswith("bitsandbytes")]


@pytest.mark.slow
def test_importing_bitsandbytes_says_nothing():
    code = (
        "from stages.backends.torch import load; from stages.backends.torch.train import quantised;"
        "load.quiet(); quantised.prepare('4bit'); import peft"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[1], check=True,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout + done.stderr == ""


def test_full_training_of_a_quantised_base_is_refused_by_the_linter(tmp_path):
    text = project.params().replace("quantise_base: none", "quantise_base: 4bit")
    (tmp_path / "params.yaml").write_text(text, encoding="utf-8")
    assert settings.lint(tmp_path / "params.yaml")[1] == []

    full = text.replace("method: lora", "method: full")
    (tmp_path / "params.yaml").write_text(full, encoding="utf-8")
    problems = settings.lint(tmp_path / "params.yaml")[1]
    assert len(problems) == 1
    assert "models.first.quantise_base" in problems[0]
    assert "write none" in problems[0]


def test_four_bits_need_the_least_memory_and_none_the_most():
    of = memory.shape(tiny.config(512, 6, 4096))
    need = {held: memory.training(of, memory.run(of, sized(held))) for held in ("none", *HELD)}
    assert need["4bit"].weights < need["8bit"].weights < need["none"].weights
    linear = of.layers * sum(out * width for out, width in of.linears.values())
    saved = need["none"].weights - need["4bit"].weights
    assert saved == pytest.approx(linear * (2 - 0.5 - 1 / 64 - 1 / 4096), rel=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("held", HELD)
def test_a_gpu_trains_on_a_quantised_base(held, tmp_path, base):
    out = train(tmp_path, base, "out", chosen(held, epochs=3))

    made = manifest.read(out)
    assert made["device"] != "cpu"
    assert abs(made["quantised"]["valid_loss_merged"] - made["quantised"]["valid_loss"]) < 0.05
