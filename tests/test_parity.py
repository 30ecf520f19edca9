"""The command for a Mac's owner: what it measures, that it can fail, and what its report tells."""

import getpass
import itertools
import json
import logging
import platform
import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from stages.commands import parity
from stages.commands.parity import (
    adapters,
    alone,
    answers,
    backends,
    logits,
    machine,
    models,
    report,
    rows,
    training,
)
from stages.core import files, tokens
from stages.core.errors import TunesmithError

for package in ("torch", "transformers", "peft", "trl", "mlx.core", "mlx_lm"):
    pytest.importorskip(package)


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """Models and rows; one row to validate on, which every training does when it ends."""
    with pytest.MonkeyPatch.context() as fewer:
        fewer.setattr(rows, "COUNTS", rows.COUNTS | {"valid": 1})
        yield parity.Bench(tmp_path_factory.mktemp("bench"))


@pytest.fixture(autouse=True)
def quick(monkeypatch, request):
    """Steps of one row; the whole command has those of four."""
    if not request.node.get_closest_marker("slow"):
        settings = partial(training.settings, batch_size=1, accumulate=1)
        monkeypatch.setattr(training, "settings", settings)


@pytest.fixture
def few(monkeypatch):
    """The command with one architecture, two variants and no training."""
    monkeypatch.setattr(models, "ARCHITECTURES", ("llama",))
    for name in ("TRAINED", "HALF", "RECOMPUTED"):
        monkeypatch.setattr(parity, name, ())
    monkeypatch.setattr(alone, "KINDS", ())
    for name in ("repeat", "dropout"):
        monkeypatch.setattr(alone, name, lambda place: alone.identical("bytes", [b"", b""]))
    monkeypatch.setattr(parity, "REPEATED", "llama")
    two = {name: adapters.VARIANTS[name] for name in ("lora", "dora")}
    monkeypatch.setattr(adapters, "VARIANTS", two)
    monkeypatch.setattr(answers, "NEW", 4)


def test_the_rows_have_several_turns_and_calls_of_a_tool(bench):
    folder = bench.tokens()
    made = list(tokens.read_split(folder, "train"))
    spans = [
        sum(a == -100 and b != -100 for a, b in itertools.pairwise(row.labels)) for row in made
    ]
    written = [json.dumps(chat.row()) for chat in rows.chats("train")]

    assert len(made) == rows.COUNTS["train"]
    assert {1, 2, 3, 5} <= set(spans)
    assert sum("tool_calls" in text for text in written) == 10
    assert len(rows.prompts(folder)) == 16
    assert list(rows.chats("test")) == list(rows.chats("test"))


def test_a_config_that_mlx_misreads_fails_the_check_of_logits(bench, tmp_path):
    folder = tmp_path / "llama"
    folder.mkdir()
    for path in bench.base("llama").iterdir():
        (folder / path.name).symlink_to(path)
    (folder / "config.json").unlink()
    said = files.read_json(bench.base("llama") / "config.json")

    files.write_json(folder / "config.json", said)
    assert logits.compare("llama", folder, "fp32")["outcome"] == "passed"
    files.write_json(folder / "config.json", said | {"rope_theta": 1e6})
    found = logits.compare("llama", folder, "fp32")

    assert (found["name"], found["outcome"]) == ("logits fp32 llama", "failed")
    assert found["value"] > 1


def test_a_wrong_scale_fails_both_ways_of_conversion(bench, tmp_path, monkeypatch):
    form = backends.part("mlx.train.peft_form")
    to_mlx = form.to_mlx

    def twice(*arguments):
        tensors, config = to_mlx(*arguments)
        config["lora_parameters"]["scale"] *= 2
        return tensors, config

    monkeypatch.setattr(form, "to_mlx", twice)
    (tmp_path / "a").mkdir()
    found = adapters.compare("llama", bench.base("llama"), "lora", tmp_path / "a")

    outcomes = {check["name"]: check["outcome"] for check in found}
    assert outcomes["PEFT -> MLX lora llama"] == "failed"


def test_a_changed_bit_fails_the_round_trip(bench, tmp_path, monkeypatch):
    form = backends.part("mlx.train.peft_form")
    to_peft = form.to_peft

    def nudged(*arguments, **words):
        tensors, config = to_peft(*arguments, **words)
        first = min(tensors)
        tensors[first] = np.nextafter(tensors[first], np.float32(9))
        return tensors, config

    monkeypatch.setattr(form, "to_peft", nudged)
    (tmp_path / "a").mkdir()
    found = adapters.compare("llama", bench.base("llama"), "dora", tmp_path / "a")

    assert [check["outcome"] for check in found] == ["passed", "passed", "failed"]
    assert found[-1]["reason"] == "first model.layers.0.mlp.down_proj.lora_a"


def test_an_adapter_that_does_nothing_proves_nothing(bench, tmp_path, monkeypatch):
    monkeypatch.setattr(adapters, "FELT", 100.0)
    (tmp_path / "a").mkdir()

    found = adapters.compare("llama", bench.base("llama"), "patterns", tmp_path / "a")

    assert [check["outcome"] for check in found] == ["failed"]
    assert "the adapter moves logits by" in found[0]["reason"]


def test_training_is_compared_step_by_step_and_another_rate_fails(bench, tmp_path, monkeypatch):
    base, folder = bench.base("qwen2"), bench.tokens()
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    same = training.compare("qwen2", base, folder, "lora", "fp32", 3, tmp_path / "a")
    monkeypatch.setattr(training, "settings", other(training.settings))
    found = training.compare("qwen2", base, folder, "lora", "fp32", 3, tmp_path / "b")

    assert same["outcome"] == "passed"
    assert same["reason"].startswith("3 steps, loss ")
    assert found["outcome"] == "failed"
    assert found["reason"].endswith("most apart at step 3")


def other(settings):
    """The same settings, but MLX's learning rate is a tenth higher."""

    def changed(backend, *arguments, **words):
        model = settings(backend, *arguments, **words)
        if backend == "torch":
            return model
        rate = {"learning_rate": 1.1 * model.train.learning_rate}
        return model.model_copy(update={"train": model.train.model_copy(update=rate)})

    return changed


def test_bytes_are_compared_after_a_second_run_and_after_an_interruption(bench, tmp_path):
    twice, resumed = alone.repeat(bench.place("qwen2", 5, tmp_path))

    assert (twice["outcome"], resumed["outcome"]) == ("passed", "passed")
    assert resumed["reason"] == "stopped after 3 of 5 steps, went on from checkpoint-3"


def test_in_bf16_another_scale_fails_the_comparison_with_torch(bench, tmp_path, monkeypatch):
    words = backends.part("mlx.train.words")
    layer = words.layer

    def doubled(*arguments):
        said = layer(*arguments)
        return said | {"scale": 2 * said["scale"]}

    monkeypatch.setattr(words, "layer", doubled)
    found = training.compare(
        "qwen2", bench.base("qwen2"), bench.tokens(), "lora", "bf16", 5, tmp_path
    )

    assert (found["name"], found["outcome"]) == ("training lora bf16 qwen2", "failed")


def test_another_reference_fails_the_comparison_of_preference_pairs(bench, tmp_path, monkeypatch):
    preferring = backends.part("mlx.train.preference").Preferring
    batch = preferring.batch

    def nearer(self, *arguments):
        pairs = batch(self, *arguments)
        half = len(pairs.reference) // 2
        return type(pairs)(pairs.rows, pairs.reference.at[:half].add(0.01))

    monkeypatch.setattr(preferring, "batch", nearer)
    folder = bench.tokens(paired=True)
    found = training.compare("qwen2", bench.base("qwen2"), folder, "dpo", "fp32", 3, tmp_path)

    assert (found["name"], found["outcome"]) == ("training dpo qwen2", "failed")
    assert found["value"] < 0.01


def test_dropout_that_no_seed_decides_fails_and_so_does_none(bench, tmp_path, monkeypatch):
    import mlx.core as mx

    def unseeded(self, values):
        return values if self.draws.place is None else values * mx.random.bernoulli(0.9, [])

    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    with monkeypatch.context() as broken:
        broken.setattr(backends.part("mlx.train.adapting").Dropout, "__call__", unseeded)
        found = alone.dropout(bench.place("qwen2", 3, tmp_path / "a"))
    monkeypatch.setattr(alone, "DROPOUT", 0.0)
    none = alone.dropout(bench.place("qwen2", 3, tmp_path / "b"))

    assert found["outcome"] == "failed"
    assert found["value"] > 0
    assert (none["value"], none["outcome"]) == (0, "failed")
    assert none["reason"] == "dropout moves losses by 0 only"


def test_what_falls_out_otherwise_when_made_again_fails_checkpointing(bench, tmp_path, monkeypatch):
    adapting = backends.part("mlx.train.adapting")
    recompute = adapting.recompute

    def otherwise(model):
        recompute(model)
        for name, layer in model.named_modules():
            if hasattr(layer, "lora_a"):
                layer.dropout.layer = f"{name} again"

    monkeypatch.setattr(adapting, "recompute", otherwise)
    found = alone.checkpointing(bench.place("qwen2", 3, tmp_path), "lora")

    assert (found["name"], found["outcome"]) == ("checkpointing lora qwen2", "failed")


def test_a_gradient_that_checkpointing_forgets_fails_it(bench, tmp_path, monkeypatch):
    import mlx.core as mx
    from mlx.utils import tree_map

    kept = mx.checkpoint

    def forgetful(run):
        return lambda weights, *rest: kept(run)(tree_map(mx.stop_gradient, weights), *rest)

    monkeypatch.setattr(mx, "checkpoint", forgetful)
    found = alone.checkpointing(bench.place("qwen2", 3, tmp_path), "full")

    assert found["outcome"] == "failed"


def test_a_base_in_few_bits_is_compared_with_the_same_weights_made_whole(
    bench, tmp_path, monkeypatch
):
    from mlx import nn

    multiply = nn.QuantizedLinear.__call__
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    places = [bench.place("qwen2", 3, tmp_path / name, parity.WIDE) for name in ("a", "b", "c")]
    near, twice = alone.held(places[0], "4bit", "fp32")
    with monkeypatch.context() as broken:
        broken.setattr(nn.QuantizedLinear, "__call__", lambda s, x: 1.001 * multiply(s, x))
        far, _ = alone.held(places[1], "8bit", "fp32")
    quantising = backends.part("mlx.train.quantising")
    monkeypatch.setattr(quantising, "quantise", lambda model, kind: None)
    nothing, _ = alone.held(places[2], "4bit", "fp32")

    assert [check["outcome"] for check in (near, twice, far, nothing)] == [
        "passed", "passed", "failed", "failed",
    ]  # fmt: skip
    assert near["reason"].startswith("14 layers, ")
    assert nothing["reason"].startswith("0 layers, ")


def test_another_answer_is_named_by_prompt_and_token(bench, monkeypatch):
    given = {"torch": [[5, 6, 7], [8]], "mlx": [[5, 6, 9], [8]]}
    monkeypatch.setattr(answers, "answers", lambda backend, *_: given[backend])

    found = answers.compare("llama", bench.base("llama"), [[1], [2]])

    assert (found["value"], found["outcome"]) == (1, "failed")
    assert found["reason"] == "prompt 1 first, at token 3"


def test_the_command_reports_every_check_and_ends_well(few, capsys, tmp_path):
    parity.run(5, as_json=False, output=str(tmp_path / "report.txt"))

    printed = capsys.readouterr().out
    assert printed == (tmp_path / "report.txt").read_text()
    names = [line.split()[0] for line in printed.splitlines()[5:-1]]
    assert names == ["ok"] * 11
    assert printed.endswith("11 checks: 11 ok\n")
    for word in ("logits bf16 llama", "PEFT -> MLX dora llama", "round trip lora", "greedy llama"):
        assert word in printed


@pytest.mark.parametrize("place", ["missing/report.txt", "."])
def test_a_report_that_cannot_be_written_is_refused_before_any_check(
    place, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(parity, "measure", lambda steps: pytest.fail("it measured"))

    with pytest.raises(TunesmithError) as refused:
        parity.run(5, as_json=False, output=str(tmp_path / place))

    assert refused.value.where == "--output"
    assert str(tmp_path) in refused.value.what
    assert not capsys.readouterr().out


def test_no_library_s_notice_of_older_names_is_shown(monkeypatch, capsys):
    def noisy(steps):
        warnings.warn("An older name.", FutureWarning, stacklevel=1)
        yield from ()

    monkeypatch.setattr(parity, "measure", noisy)
    with warnings.catch_warnings(record=True) as heard, pytest.raises(SystemExit):
        parity.run(5, as_json=True)

    assert heard == []


def test_bitsandbytes_is_silenced_before_anything_imports_it(monkeypatch):
    notices = backends.part("torch.train.quantised").NOTICES
    levels = []
    for name in notices:
        monkeypatch.setattr(logging.getLogger(name), "level", logging.WARNING)
    imported = backends.importlib.import_module

    def noted(name):
        if name == "peft":
            levels.extend(logging.getLogger(notice).level for notice in notices)
        return imported(name)

    monkeypatch.setattr(backends.importlib, "import_module", noted)

    assert backends.wanting() == ""
    assert levels == [logging.ERROR] * len(notices)


def test_a_broken_conversion_makes_the_report_say_failed_and_exit_1(few, capsys, monkeypatch):
    form = backends.part("mlx.train.peft_form")
    monkeypatch.setattr(form, "alpha", lambda scale, rank, rslora: scale)

    with pytest.raises(SystemExit) as ended:
        parity.run(5, as_json=True)

    told = json.loads(capsys.readouterr().out)
    failed = [check["name"] for check in told["checks"] if check["outcome"] == "failed"]
    assert ended.value.code == 1
    assert told["passed"] is False
    assert "MLX -> PEFT lora llama" in failed
    assert "PEFT -> MLX lora llama" not in failed


def test_a_check_that_breaks_is_a_failed_check_without_a_path(few, capsys, monkeypatch):
    def broken(name, folder, use):
        raise RuntimeError(f"[metal::load] {folder} cannot be read\nmore")

    monkeypatch.setattr(logits, "compare", broken)
    with pytest.raises(SystemExit):
        parity.run(5, as_json=False)

    printed = capsys.readouterr().out
    assert "RuntimeError: [metal::load] <work>/llama cannot be read\n" in printed
    assert "FAILED   logits fp32 llama" in printed
    assert "more" not in printed
    assert "round trip lora llama" in printed


def test_what_was_skipped_is_never_passed(few, capsys, monkeypatch):
    def absent():
        raise TunesmithError("MLX does not exist for this platform (Linux riscv64).")

    monkeypatch.setattr(backends.part("mlx.load"), "require", absent)
    with pytest.raises(SystemExit) as ended:
        parity.run(5, as_json=False)

    printed = capsys.readouterr().out
    assert ended.value.code == 1
    assert "skipped  greedy llama" in printed
    assert "MLX does not exist for this platform" in printed
    assert printed.endswith("7 checks: 7 skipped\n")


@pytest.mark.parametrize(
    ("outcomes", "fine"),
    [
        (["passed"], True),
        (["passed", "skipped"], True),
        (["passed", "failed"], False),
        (["skipped"], False),
        ([], False),
    ],
)
def test_a_report_is_good_when_something_passed_and_nothing_failed(outcomes, fine):
    assert report.passed([{"outcome": outcome} for outcome in outcomes]) is fine


def test_the_facts_name_the_machine_and_nobody(monkeypatch):
    found = machine.facts()
    text = json.dumps(found)

    assert found["versions"]["mlx-lm"]
    assert found["device"]["name"]
    assert found["memory_gib"] > 0
    for private in (getpass.getuser(), platform.node(), str(Path.home()), "/tmp"):
        assert f'"{private}"' not in text
        assert len(private) < 6 or private not in text


def test_the_models_are_the_same_every_time_and_differ_by_seed(tmp_path):
    one, two, other = (
        models.make("llama3", tmp_path / name, seed=seed)
        for name, seed in (("one", 0), ("two", 0), ("other", 1))
    )

    assert files.tree_hash(one) == files.tree_hash(two)
    assert files.sha256(one / "model.safetensors") != files.sha256(other / "model.safetensors")


@pytest.mark.slow
def test_the_whole_command_passes_here_and_says_nothing_but_its_progress():
    command = [sys.executable, "-m", "stages", "parity", "--json"]
    made = subprocess.run(command, capture_output=True, text=True, check=True)

    assert [line for line in made.stderr.splitlines() if not line.startswith("  ")] == []
    told = json.loads(made.stdout)
    assert {check["outcome"] for check in told["checks"]} == {"passed"}
    trained = [check["name"] for check in told["checks"] if check["name"].startswith("training")]
    assert {"training lora qwen2", "training dpo qwen2", "training full bf16 qwen2"} <= set(trained)
    assert len(told["checks"]) == 166
