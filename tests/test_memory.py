"""The memory estimate: counts against published ones, what moves it, and a real training."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
from ruamel.yaml import YAML

from stages.core import memory, settings
from stages.core.memory import Run

ROOT = Path(__file__).parents[1]
SEVEN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def shape(preset):
    text = (ROOT / "presets" / f"{preset}.yaml").read_text(encoding="utf-8")
    return memory.shape(YAML(typ="safe").load(text)["shape"])


def model(method="lora", r=16, targets=("all-linear",), layers=0, **train):
    chosen = settings.load(ROOT / "params.yaml").models["wzrdbrain"]
    lora = chosen.lora.model_copy(update={"r": r, "targets": [*targets], "layers": layers})
    given = chosen.train.model_copy(update=train)
    return chosen.model_copy(update={"method": method, "lora": lora, "train": given})


def how(**given):
    plain = {
        "method": "full", "adapted": 0, "inputs": 0, "dropout": False, "rows": 4, "length": 512,
        "bytes": 2, "optimizer": "adamw", "checkpointing": False,
    }  # fmt: skip
    return Run(**(plain | given))


@pytest.mark.parametrize(
    ("preset", "published"),
    [
        ("sibyl", 1_543_714_304),
        ("wzrdbrain", 1_543_714_304),
        ("saige", 1_100_048_384),
        ("synthia_tools", 7_615_616_512),
        ("metahuman", 14_768_307_200),
    ],
)
def test_the_shape_of_a_preset_s_base_has_the_published_number_of_parameters(preset, published):
    assert shape(preset).parameters == published


@pytest.mark.parametrize("hidden", [32, 64, 96])
@pytest.mark.parametrize("layers", [1, 3])
def test_parameters_are_those_of_the_weights_that_a_config_has(hidden, layers):
    config = tiny.config(hidden, layers, 300)
    weights = tiny.weights(config, seed=1)
    assert memory.shape(config).parameters == sum(weight.size for weight in weights.values())


def test_phi3_s_joined_layers_hold_as_many_values_as_the_separate_ones():
    config = tiny.config(64, 2, 300) | {"model_type": "llama"}
    joined = memory.shape(config | {"model_type": "phi3"})
    assert sorted(joined.linears) == ["down_proj", "gate_up_proj", "o_proj", "qkv_proj"]
    assert joined.parameters == memory.shape(config).parameters


@pytest.mark.parametrize(
    ("preset", "published"),
    [("wzrdbrain", 18_464_768), ("saige", 12_615_680), ("synthia_tools", 40_370_176)],
)
def test_an_adapter_of_rank_16_on_all_linear_layers_has_the_published_size(preset, published):
    assert memory.adapter_values(shape(preset), model()) == published
    assert memory.adapter_values(shape(preset), model(targets=SEVEN)) == published


def test_fewer_blocks_or_layers_make_a_smaller_adapter_and_dora_adds_its_magnitudes():
    of = shape("sibyl")
    every = memory.adapter_values(of, model())
    assert memory.adapter_values(of, model(layers=7)) * 4 == every
    assert memory.adapter_values(of, model(layers=99)) == every
    assert memory.adapter_values(of, model(targets=["q_proj"], r=1)) == 28 * (1536 + 1536)
    outputs = sum(out for out, _ in of.linears.values())
    assert memory.adapter_values(of, model("dora")) == every + of.layers * outputs
    assert memory.adapter_values(of, model("full")) == 0


@pytest.mark.parametrize(
    ("quant", "published"),
    # Files of Qwen3-14B as llama.cpp writes them.
    [("q4_k_m", 9_001_753_984), ("q5_k_m", 10_514_570_624)],
)
def test_a_gguf_of_a_large_model_has_its_published_size_within_two_percent(quant, published):
    found = memory.disk(shape("metahuman"), how(), [quant]).gguf
    assert abs(found / published - 1) < 0.02


def test_there_are_bits_for_every_quant_that_can_be_written():
    assert set(memory.BITS) == set(settings.QUANTS)


def test_full_training_with_adamw_holds_16_bytes_a_parameter_in_fp32_and_2_more_in_bf16():
    of = shape("saige")
    plain, half = (memory.training(of, how(bytes=size)) for size in (4, 2))
    moment = 4 * of.vocab * of.hidden  # two gradients of the largest matrix for a moment
    assert plain.weights + plain.gradients + plain.optimizer == 16 * of.parameters + moment
    assert half.weights - plain.weights == 2 * of.parameters


def test_adafactor_needs_a_small_part_of_what_adamw_needs():
    of = shape("metahuman")
    adam, factored = (
        memory.training(of, how(optimizer=name)).optimizer for name in ("adamw", "adafactor")
    )
    assert factored * 10 < adam
    assert memory.training(of, how(optimizer="sgd")).optimizer == 0


def test_an_adapter_trains_on_a_frozen_base_of_its_precision():
    of = shape("saige")
    found = memory.training(of, how(method="lora", adapted=1000))
    assert found.weights == 2 * of.parameters
    assert (found.adapter, found.gradients, found.optimizer) == (4000, 4000, 8000)


def test_activations_grow_with_rows_and_length_alike_and_checkpointing_keeps_few():
    of = shape("sibyl")
    assert memory.activations(of, how(rows=8)) == 2 * memory.activations(of, how(rows=4))
    assert memory.activations(of, how(rows=8)) == memory.activations(of, how(length=1024))
    few, many = (memory.training(of, how(checkpointing=on)) for on in (True, False))
    assert few.activations * 20 < many.activations
    assert few.passing + few.activations < many.passing + many.activations


def test_logits_are_held_one_piece_at_a_time():
    of = shape("sibyl")
    few, many = (memory.logits(of, how(rows=1, length=length)) for length in (100, 100_000))
    assert few == 100 * of.vocab * 14
    assert many <= memory.PIECE * 14


def test_the_piece_of_logits_is_the_backend_s():
    from stages.backends.torch.train import loss

    assert memory.PIECE == loss.PIECE


def test_settings_are_read_as_the_backend_reads_them():
    of = shape("saige")
    found = memory.run(of, model(batch_size=4, accumulate=9, precision="auto"))
    assert (found.rows, found.bytes, found.length) == (4, 2, 512)
    assert memory.run(of, model(precision="auto"), bf16=False).bytes == 4
    assert memory.run(of, model(precision="fp16")).bytes == 2
    assert found.inputs == sum(width for _, width in of.linears.values())
    pairs = memory.run(of, model("dpo", batch_size=4))
    assert (pairs.rows, pairs.adapted) == (8, found.adapted)


def test_the_sums_are_of_all_parts():
    of, run = shape("saige"), how(method="lora", adapted=10)
    disk = memory.disk(of, run, ["f16", "q8_0"])
    assert disk.total == disk.base + disk.adapter + disk.fused + disk.gguf + disk.checkpoint
    assert (disk.base, disk.adapter) == (2 * of.parameters, 40)
    trained = memory.training(of, run)
    held = (trained.weights, trained.adapter, trained.gradients, trained.optimizer)
    assert trained.tensors == sum(held) + trained.activations + trained.passing
    assert trained.total == trained.tensors + memory.RUNTIME
    assert memory.disk(of, how(), []).adapter == 2 * of.parameters


@pytest.mark.parametrize("kind", ["gemma3_text", "gemma2"])
def test_gemma_is_tied_where_its_config_does_not_say(kind):
    config = tiny.config(64, 2, 300) | {"model_type": kind, "head_dim": 32}
    config.pop("tie_word_embeddings")
    found = memory.shape(config)
    assert (found.tied, found.head) == (True, 32)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["full", "lora, checkpointing"])
def test_a_real_training_takes_what_was_estimated_within_a_third(case):
    words = [sys.executable, "-m", "benchmarks.memory", "--case", case, "--steps", "2"]
    done = subprocess.run(
        [*words, "--size", "large"], cwd=ROOT, check=True, capture_output=True, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536"},
    )  # fmt: skip
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert 0.75 < np.divide(found["estimated"], found["measured"]) < 1.33, found
