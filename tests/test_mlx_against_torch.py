"""MLX against torch: from the same adapter and rows, the same loss at every optimizer step."""

import math
from pathlib import Path

import mlx_training as made
import numpy as np
import pytest
from tiny import tiny_tokenizer

from stages.core import files, targets, training

mx = pytest.importorskip("mlx.core")
pytest.importorskip("mlx_lm")
torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from stages.backends.mlx import train as ours  # noqa: E402
from stages.backends.mlx.train import words  # noqa: E402
from stages.backends.mlx.train.optimizer import Optimizer, clipped  # noqa: E402
from stages.backends.torch import train as theirs  # noqa: E402

CLOSE = 1e-4


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return made.base(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="module")
def chats(tmp_path_factory, base) -> Path:
    return made.tokens(tmp_path_factory.mktemp("chats"), base)


@pytest.fixture(autouse=True)
def in_its_own_folder(tmp_path, monkeypatch):
    torch.set_num_threads(1)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))


def both(folder: Path, base: Path, tokens: Path, settings) -> list[list[dict]]:
    """The series of both backends, started from the adapter that torch drew."""
    rows, valid = training.load(settings, tokens)
    leaves = []
    if training.adapts(settings):
        leaves = targets.resolve(settings.lora.targets, training.tensors(base))
    other = theirs.start(settings, base, leaves, rows, valid, folder / "torch")
    first = folder / "first" if leaves else None
    if first:
        first.mkdir()
        theirs.write_adapter(other.model, "tiny", leaves, first)
    mine = ours.start(settings, base, leaves, rows, valid, folder / "mlx", first)
    other.run_from(None)
    mine.run_from(None)
    return [mine.series, other.state.log_history]


@pytest.mark.parametrize(
    "method", ["lora", pytest.param("rslora", marks=pytest.mark.slow), "dora", "full"]
)
def test_the_loss_is_that_of_torch_at_every_step(method, tmp_path, base, chats):
    rate = 5e-3 if method == "full" else 2e-2
    settings = made.settings(
        method, epochs=4, accumulate=2, batch_size=2, warmup=0.2, max_grad_norm=0.5,
        weight_decay=0.1, learning_rate=rate, eval_steps=8,
    )  # fmt: skip

    mine, other = both(tmp_path, base, chats, settings)

    assert len(mine) == len(other) == 20
    assert mine[0]["loss"] > mine[-1]["loss"] + 0.2
    assert max(row["grad_norm"] for row in mine) > 0.5  # so that clipping had something to do
    for row, wanted in zip(mine, other, strict=True):
        assert row["learning_rate"] == pytest.approx(wanted["learning_rate"], abs=0, rel=1e-12)
        assert row["loss"] == pytest.approx(wanted["loss"], abs=CLOSE, rel=0)
        assert row["grad_norm"] == pytest.approx(wanted["grad_norm"], abs=CLOSE, rel=0)
        assert (row["valid_loss"] is None) == (wanted["valid_loss"] is None)
        if row["valid_loss"] is not None:
            assert row["valid_loss"] == pytest.approx(wanted["valid_loss"], abs=CLOSE, rel=0)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dora", "full"])
@pytest.mark.parametrize("name", made.ARCHITECTURES)
def test_every_architecture_trains_as_in_torch(name, method, tmp_path, chats):
    from stages.commands.parity import models

    base = models.make(name, tmp_path / name)
    tiny_tokenizer(base)
    settings = made.settings(method, max_steps=4, batch_size=3, learning_rate=2e-3)

    mine, other = both(tmp_path, base, chats, settings)

    for row, wanted in zip(mine, other, strict=True):
        assert row["loss"] == pytest.approx(wanted["loss"], abs=CLOSE, rel=0)
        assert row["grad_norm"] == pytest.approx(wanted["grad_norm"], abs=CLOSE, rel=CLOSE)


WINDOW = {"sliding_window": 8}
SLIDING = {
    "gemma2": WINDOW,
    "gemma3": WINDOW,
    "mistral": WINDOW,
    "phi3": WINDOW,
    "qwen2": WINDOW | {"use_sliding_window": True, "max_window_layers": 0, "layer_types": None},
}


@pytest.mark.parametrize(
    "name", ["mistral", *(pytest.param(n, marks=pytest.mark.slow) for n in sorted(SLIDING))]
)
def test_rows_past_a_sliding_window_train_as_in_torch(name, tmp_path, chats):
    from stages.commands.parity import models

    base = models.make(name, tmp_path / name)
    config = files.read_json(base / "config.json") | SLIDING[name]
    files.write_json(base / "config.json", {k: v for k, v in config.items() if v is not None})
    tiny_tokenizer(base)
    settings = made.settings("lora", max_steps=2, batch_size=3)

    mine, other = both(tmp_path, base, chats, settings)

    for row, wanted in zip(mine, other, strict=True):
        assert row["loss"] == pytest.approx(wanted["loss"], abs=CLOSE, rel=0)
        assert row["grad_norm"] == pytest.approx(wanted["grad_norm"], abs=CLOSE, rel=CLOSE)


def test_the_loss_and_rewards_of_preference_pairs_are_those_of_torch(tmp_path, base):
    pairs = made.tokens(tmp_path / "pairs", base, made.pair)
    settings = made.settings("dpo", epochs=4, accumulate=2, batch_size=2, eval_steps=5)

    mine, other = both(tmp_path, base, pairs, settings)

    assert len(mine) == len(other) == 20
    assert mine[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert mine[-1]["reward_margin"] > 0.5
    for row, wanted in zip(mine, other, strict=True):
        for name in ("loss", "grad_norm", *training.REWARDS):
            assert row[name] == pytest.approx(wanted[name], abs=CLOSE, rel=0), name
        assert (row["valid_loss"] is None) == (wanted["valid_loss"] is None)
        if row["valid_loss"] is not None:
            for name in ("valid_loss", *(f"valid_{name}" for name in training.VALID)):
                assert row[name] == pytest.approx(wanted[name], abs=CLOSE, rel=0), name


SHAPES = {
    "model.layers.0.mlp.up_proj.weight": (6, 4), "model.layers.0.self_attn.q_proj.bias": (5,),
    "model.norm.weight": (4,), "model.layers.0.self_attn.q_norm.weight": (3,),
    "model.layers.0.mlp.up_proj.lora_a": (4, 2),
}  # fmt: skip


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
@pytest.mark.parametrize("optimizer", ["adamw", "adafactor", "sgd"])
def test_ten_steps_move_weights_as_transformers_moves_them(optimizer, schedule, tmp_path):
    from transformers import Trainer, TrainingArguments

    class Weights(torch.nn.Module):
        def __init__(self, values):
            super().__init__()
            for name, value in values.items():
                self.register_parameter(name.replace(".", "/"), torch.nn.Parameter(value))

    draw = np.random.default_rng(3)
    start = {name: draw.normal(0, 1, shape).astype(np.float32) for name, shape in SHAPES.items()}
    chosen = made.settings(
        optimizer=optimizer, schedule=schedule, warmup=3, weight_decay=0.3, learning_rate=0.05
    ).train
    model = Weights({name: torch.from_numpy(value.copy()) for name, value in start.items()})
    from stages.backends.torch.load import Device
    from stages.backends.torch.train import words as their_words

    said = their_words.trainer_words(chosen, 10, "fp32", Device("cpu", "cpu", bf16=True))
    known = TrainingArguments.__dataclass_fields__
    said = {word: value for word, value in said.items() if word in known}
    other = Trainer(model, TrainingArguments(**said, output_dir=str(tmp_path)))
    other.get_decay_parameter_names = lambda _: [
        name.replace(".", "/") for name in SHAPES if words.decayed(name)
    ]
    other.create_optimizer_and_scheduler(10)
    params = {name: mx.array(value) for name, value in start.items()}
    mine = Optimizer(chosen, params)

    for rate in words.rates(chosen, 10):
        assert rate == pytest.approx(other.lr_scheduler.get_last_lr()[0], rel=1e-12, abs=0)
        gradients = {name: draw.normal(0, 1, s).astype(np.float32) for name, s in SHAPES.items()}
        for name, gradient in gradients.items():
            model.get_parameter(name.replace(".", "/")).grad = torch.from_numpy(gradient.copy())
        whole = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.7)
        other.optimizer.step()
        other.lr_scheduler.step()
        norm, cut = clipped({n: mx.array(g) for n, g in gradients.items()}, 0.7)
        params = mine.update(params, cut, rate)

        assert norm == pytest.approx(float(whole), rel=1e-6)
        for name in SHAPES:
            wanted = model.get_parameter(name.replace(".", "/")).detach().numpy()
            np.testing.assert_allclose(np.array(params[name]), wanted, rtol=0, atol=2e-6)
    assert max(abs(np.array(params[name]) - start[name]).max() for name in SHAPES) > 0.01


@pytest.mark.parametrize("method", ["dora", "full"])
@pytest.mark.parametrize("name", ["qwen2", "phi3", "gemma3"])
def test_weights_decay_where_transformers_lets_them(name, method, tmp_path):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, Trainer

    from stages.commands.parity import models

    model = AutoModelForCausalLM.from_pretrained(models.make(name, tmp_path / name))
    if method == "dora":
        model = get_peft_model(model, LoraConfig(target_modules="all-linear", use_dora=True))
    theirs = set(Trainer.get_decay_parameter_names(None, model))
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}

    assert {name for name in trained if words.decayed(name)} == theirs & trained != set()
