"""The torch backend: exact accumulation, identical bytes, resumption, refusals, generation."""

import json
import math
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tiny import tiny_model

from stages.core import batches, checkpoints, files, manifest, merge, shards, targets, training
from stages.core.batches import Rows
from stages.core.errors import TunesmithError
from stages.core.settings import Lora, Model, Train

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from stages.backends.torch import generate  # noqa: E402
from stages.backends.torch import train as backend  # noqa: E402
from stages.backends.torch.load import Device  # noqa: E402
from stages.backends.torch.train import loss, words  # noqa: E402

CPU = Device("cpu", "cpu", bf16=True)
GPU = Device("cuda", "an NVIDIA GPU", bf16=True)
OLD_GPU = Device("cuda", "an old GPU", bf16=False)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("base") / "tiny", hidden=32, layers=2)


def rows(count: int, seed: int = 0) -> Rows:
    """Rows of 8 to 24 tokens: four random ones that are not trained, then token 7 throughout."""
    draw = np.random.default_rng(seed)
    lengths = draw.integers(8, 24, count)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids, trained = draw.integers(3, 500, offsets[-1]), np.ones(offsets[-1], np.uint8)
    for first, last in pairwise(offsets):
        trained[first : first + 4] = 0
        ids[first + 4 : last] = 7
    return Rows(ids.astype(np.int32), trained, offsets)


def tokens(folder: Path, count: int = 24) -> Path:
    """A tokens folder of `count` rows to train on and 6 to validate."""
    with files.directory(folder) as out:
        for split, number, seed in (("train", count, 0), ("valid", 6, 1)):
            made = rows(number, seed)
            for name in ("ids", "trained", "offsets"):
                np.save(out / f"{split}.{name}.npy", getattr(made, name))
            np.save(out / f"{split}.prompts.npy", np.full(number, 4, np.int32))
        checks = {"checked": True, "rows": {"train": count, "valid": 6}}
        files.write_json(out / "checks.json", checks)
    return folder


def settings(method="lora", targets=("all-linear",), dropout=0.0, layers=0, **train) -> Model:
    chosen = {
        "seed": 1, "epochs": 1, "max_steps": 0, "batch_size": 4, "accumulate": 1,
        "optimizer": "adamw", "learning_rate": 5e-3, "schedule": "cosine", "warmup": 0.0,
        "weight_decay": 0.01, "max_grad_norm": 1.0, "precision": "auto", "checkpointing": False,
        "save_steps": 0, "eval_steps": 0,
    }  # fmt: skip
    return Model.model_construct(
        base="models/base/tiny", dataset="echo", backend="torch", method=method,
        quantise_base="none",
        lora=Lora(r=4, alpha=8.0, dropout=dropout, targets=list(targets), layers=layers),
        train=Train(**chosen | train),
    )  # fmt: skip


def train(folder: Path, base: Path, name: str, model: Model) -> Path:
    """Train in `folder`, whose tokens are made when first needed; returns the adapter."""
    if not (folder / "tokens").exists():
        tokens(folder / "tokens")
    backend.train(model, base, folder / "tokens", folder / name, folder / f"{name}-report")
    return folder / name


def weights(folder: Path) -> dict:
    from safetensors.torch import load_file

    return load_file(next(folder.glob("*.safetensors")))


@pytest.fixture(autouse=True)
def in_its_own_folder(tmp_path, monkeypatch):
    torch.set_num_threads(1)  # models this small only wait for each other's threads
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))


def test_two_runs_write_the_same_bytes_and_a_checkpoint_changes_none(tmp_path, base):
    first = train(tmp_path, base, "first", settings(dropout=0.1))
    again = train(tmp_path, base, "again", settings(dropout=0.1, save_steps=2))

    name = "adapter_model.safetensors"
    assert (first / name).read_bytes() == (again / name).read_bytes()
    assert (first / "adapter_config.json").read_bytes() == (
        again / "adapter_config.json"
    ).read_bytes()
    assert not list((tmp_path / ".tunesmith/checkpoints").iterdir())


def test_an_interrupted_run_goes_on_to_the_same_bytes(tmp_path, base, monkeypatch):
    model = settings(dropout=0.1, save_steps=2)
    whole = train(tmp_path, base, "whole", model)
    summed, calls = loss.summed, []

    def stop_at_the_fifth_step(*arguments):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return summed(*arguments)

    monkeypatch.setattr(loss, "summed", stop_at_the_fifth_step)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, base, "resumed", model)
    assert not (tmp_path / "resumed").exists()
    half = next((tmp_path / ".tunesmith/checkpoints").iterdir())
    assert checkpoints.last(half).name == "checkpoint-4"

    resumed = train(tmp_path, base, "resumed", model)

    assert len(calls) == 5 + 2 + 2  # steps 5 and 6, and two batches of the valid split
    assert files.tree_hash(resumed) == files.tree_hash(whole)
    reports = [tmp_path / f"{name}-report" for name in ("resumed", "whole")]
    assert files.tree_hash(reports[0]) == files.tree_hash(reports[1])


def test_a_half_written_checkpoint_is_passed_over(tmp_path):
    for number, state in ((9, None), (10, b'{"global_'), (8, b"{}"), (2, b"{}")):
        folder = tmp_path / f"checkpoint-{number}"
        folder.mkdir()
        if state is not None:
            (folder / "trainer_state.json").write_bytes(state)

    assert checkpoints.last(tmp_path).name == "checkpoint-8"
    assert checkpoints.last(tmp_path / "nothing") is None


@pytest.mark.parametrize("change", [{"method": "dora"}, {"seed": 2}, {"dropout": 0.2}])
def test_other_settings_never_go_on_from_this_runs_checkpoints(change, tmp_path, base, monkeypatch):
    asked = []
    monkeypatch.setattr(checkpoints, "last", lambda run: asked.append(run))

    train(tmp_path, base, "this", settings(max_steps=1))
    train(tmp_path, base, "again", settings(max_steps=1))
    train(tmp_path, base, "other", settings(**{"max_steps": 1} | change))

    assert asked[0] == asked[1] != asked[2]


def test_accumulated_micro_batches_train_what_one_batch_trains(tmp_path, base):
    whole = train(tmp_path, base, "whole", settings(batch_size=8))
    parts = train(tmp_path, base, "parts", settings(batch_size=4, accumulate=2))

    for name, weight in weights(whole).items():
        torch.testing.assert_close(weights(parts)[name], weight, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["qwen2", "gemma2"])
def test_the_loss_is_the_models_own_on_padded_rows(kind, base, monkeypatch):
    from transformers import Gemma2Config, Gemma2ForCausalLM, Qwen2ForCausalLM

    if kind == "qwen2":
        model = Qwen2ForCausalLM.from_pretrained(base)
    else:
        torch.manual_seed(1)
        shape = {"vocab_size": 512, "hidden_size": 32, "intermediate_size": 64, "head_dim": 8}
        heads = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
        cap = {"final_logit_softcapping": 0.5, "attn_implementation": "eager"}
        model = Gemma2ForCausalLM(Gemma2Config(**shape, **heads, **cap)).eval()
    some = rows(5)
    ids, labels = map(torch.from_numpy, some.padded(range(5)))
    mask = torch.tensor([[n < length for n in range(ids.shape[1])] for length in some.lengths])
    own = model(input_ids=ids, labels=labels, attention_mask=mask.long()).loss

    ours = loss.summed(model, ids, labels) / some.targets.sum()
    monkeypatch.setattr(loss, "PIECE", 512 * 7)
    in_pieces = loss.summed(model, ids, labels) / some.targets.sum()

    torch.testing.assert_close(ours, own, rtol=1e-6, atol=0)
    torch.testing.assert_close(in_pieces, own, rtol=1e-6, atol=0)


@pytest.mark.parametrize("method", ["lora", "rslora", "dora"])
def test_the_adapter_is_a_peft_folder_that_lowers_the_loss(method, tmp_path, base):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = settings(method, epochs=3, learning_rate=1e-2, checkpointing=method == "rslora")
    out = train(tmp_path, base, method, model)

    plain = AutoModelForCausalLM.from_pretrained(base)
    valid = rows(6, 1)
    ids, labels = map(torch.from_numpy, valid.padded(range(6)))
    before = loss.summed(plain, ids, labels).item() / valid.targets.sum()
    tuned = PeftModel.from_pretrained(plain, out).get_base_model()
    after = loss.summed(tuned, ids, labels).item() / valid.targets.sum()
    stated = manifest.read(out)["loss"]["valid_last"]
    assert after < before - 0.5
    assert math.isclose(after, stated, rel_tol=1e-5)
    assert {weight.dtype for weight in weights(out).values()} == {torch.float32}
    assert any("magnitude" in name for name in weights(out)) == (method == "dora")


def test_full_training_writes_all_weights_in_the_bases_names_and_type(tmp_path, base):
    out = train(tmp_path, base, "full", settings("full"))

    old, new = weights(base), weights(out)
    assert {n: (w.shape, w.dtype) for n, w in new.items()} == {
        n: (w.shape, w.dtype) for n, w in old.items()
    }
    assert all(not torch.equal(new[name], old[name]) for name in old)
    assert sorted(path.name for path in out.iterdir()) == [
        ".complete.json", "manifest.json", "model.safetensors",
    ]  # fmt: skip


def test_the_output_names_no_machine_path_and_anyone_may_read_it(tmp_path, base):
    out = train(tmp_path, base, "out", settings(max_steps=1))

    config = json.loads((out / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "models/base/tiny"
    assert config["target_modules"] == sorted(config["target_modules"])
    assert len(config["target_modules"]) == 7
    for path in out.iterdir():
        assert str(tmp_path).encode() not in path.read_bytes()
        assert path.stat().st_mode & 0o777 == 0o644


def test_the_manifest_says_what_was_trained_on_what(tmp_path, base):
    out = train(tmp_path, base, "out", settings(epochs=2))

    made = manifest.read(out)
    assert made["base"] == {
        "path": "models/base/tiny", "id": "models/base/tiny", "revision": "",
        "hash": files.tree_hash(base),
    }  # fmt: skip
    assert made["dataset"] == {"name": "echo", "tokens": files.tree_hash(tmp_path / "tokens")}
    assert made["template"] == files.sha256(base / "chat_template.jinja")
    assert (made["method"], made["backend"], made["device"]) == ("lora", "torch", "cpu")
    assert (made["steps"], made["rows"]) == (12, 24)
    assert made["trained_tokens"] == 2 * rows(24).targets.sum()
    assert set(made["versions"]) == set(backend.PACKAGES)


def test_the_report_holds_every_step_and_the_valid_loss_where_it_was_due(tmp_path, base):
    train(tmp_path, base, "out", settings(eval_steps=4, warmup=0.5))

    lines = (tmp_path / "out-report/loss.tsv").read_text().splitlines()
    table = [dict(zip(lines[0].split("\t"), line.split("\t"), strict=True)) for line in lines[1:]]
    assert [row["step"] for row in table] == ["1", "2", "3", "4", "5", "6"]
    assert [row["step"] for row in table if row["valid_loss"]] == ["4", "6"]
    assert [float(row["learning_rate"]) for row in table[:4]] == pytest.approx(
        [0, 5e-3 / 3, 1e-2 / 3, 5e-3]
    )


def test_a_loss_that_is_not_finite_stops_the_run_at_its_step(tmp_path, base, monkeypatch):
    summed, calls = loss.summed, []

    def broken_third(*arguments):
        calls.append(1)
        return summed(*arguments) * (math.nan if len(calls) == 3 else 1)

    monkeypatch.setattr(loss, "summed", broken_third)
    with pytest.raises(TunesmithError, match="loss is not finite at step 3 of 6"):
        train(tmp_path, base, "out", settings())
    assert not (tmp_path / "out").exists()


def test_gradients_that_are_not_finite_stop_the_run_too(tmp_path, base, monkeypatch):
    summed = loss.summed
    monkeypatch.setattr(
        loss, "summed", lambda *a: summed(*a) + (s := summed(*a)) * 0 + torch.sqrt(s - s.detach())
    )
    with pytest.raises(TunesmithError, match="gradient is not finite at step 1 of 6"):
        train(tmp_path, base, "out", settings())


def test_tokens_whose_checks_did_not_run_are_refused(tmp_path, base):
    folder = tokens(tmp_path / "tokens")
    text = (folder / "checks.json").read_text()
    (folder / "checks.json").write_text(text.replace("true", "null"))

    with pytest.raises(TunesmithError, match="tokens was written without its checks"):
        backend.train(settings(), base, folder, tmp_path / "out", tmp_path / "report")
    (folder / "checks.json").unlink()
    with pytest.raises(TunesmithError, match="dvc repro tokenise@tokens"):
        batches.load(folder, "train")


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("lm_head", "names lm_head, an embedding or output layer"),
        ("embed_tokens", "names embed_tokens, an embedding or output layer"),
        ("qproj", "no linear layer 'qproj'.*\n.*\n.*\n.*Did you mean 'q_proj'"),
        ("norm", "no linear layer 'norm'"),
    ],
)
def test_a_target_that_cannot_be_adapted_is_refused_by_name(target, says, base):
    known = [tensor for shard in shards.weights(base) for tensor in shard.tensors]

    with pytest.raises(TunesmithError, match=says):
        targets.resolve(["q_proj", target], known)


def test_all_linear_means_every_linear_layer_but_the_head(base):
    known = [tensor for shard in shards.weights(base) for tensor in shard.tensors]

    assert targets.resolve(["all-linear"], known) == [
        "down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj",
    ]  # fmt: skip


def test_our_settings_reach_the_trainer_in_its_own_words():
    train = settings(
        seed=7, batch_size=3, accumulate=5, learning_rate=1e-3, schedule="constant", warmup=0.1,
        weight_decay=0.2, max_grad_norm=0.7, optimizer="adafactor", checkpointing=True,
        save_steps=9,
    ).train  # fmt: skip

    said = words.trainer_words(train, 40, "bf16", GPU)

    expected = {
        "max_steps": 40, "seed": 7, "data_seed": 7, "per_device_train_batch_size": 3,
        "gradient_accumulation_steps": 1, "learning_rate": 1e-3, "warmup_steps": 4,
        "lr_scheduler_type": "constant_with_warmup", "weight_decay": 0.2, "max_grad_norm": 0.7,
        "optim": "adafactor", "gradient_checkpointing": True, "save_strategy": "steps",
        "save_steps": 9, "bf16": True, "fp16": False, "use_cpu": False, "max_length": None,
        "report_to": "none",
    }  # fmt: skip
    assert {name: said[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("method", "rslora", "dora"),
    [("lora", False, False), ("rslora", True, False), ("dora", False, True)],
)
def test_our_methods_reach_peft_in_its_own_words(method, rslora, dora):
    lora = Lora(r=8, alpha=12.0, dropout=0.05, targets=["all-linear"], layers=0)

    said = words.lora_words(method, lora, ["q_proj"], None)

    assert (said["use_rslora"], said["use_dora"]) == (rslora, dora)
    assert (said["r"], said["lora_alpha"], said["lora_dropout"]) == (8, 12.0, 0.05)
    assert (said["target_modules"], said["bias"]) == (["q_proj"], "none")
    assert said["layers_to_transform"] is None
    assert words.lora_words(method, lora, ["q_proj"], [3, 4])["layers_to_transform"] == [3, 4]


@pytest.mark.parametrize(
    ("wanted", "device", "use"),
    [
        ("auto", CPU, "fp32"), ("auto", GPU, "bf16"), ("auto", OLD_GPU, "fp16"),
        ("bf16", CPU, "bf16"), ("fp32", GPU, "fp32"), ("fp16", OLD_GPU, "fp16"),
    ],
)  # fmt: skip
def test_precision_follows_the_device(wanted, device, use):
    assert words.precision(wanted, device) == use


@pytest.mark.parametrize(("wanted", "device"), [("fp16", CPU), ("bf16", OLD_GPU)])
def test_a_precision_that_the_device_lacks_is_refused(wanted, device):
    with pytest.raises(TunesmithError, match=f"does not train in {wanted}"):
        words.precision(wanted, device)


def test_bf16_training_keeps_the_adapter_in_fp32(tmp_path, base):
    out = train(tmp_path, base, "out", settings(precision="bf16", max_steps=2))

    assert {weight.dtype for weight in weights(out).values()} == {torch.float32}
    assert manifest.read(out)["precision"] == "bf16"


def rates(folder: Path, name: str = "out") -> list[float]:
    """The learning rate of each step, as the trainer logged it."""
    lines = (folder / f"{name}-report/loss.tsv").read_text().splitlines()
    place = lines[0].split("\t").index("learning_rate")
    return [float(line.split("\t")[place]) for line in lines[1:]]


@pytest.mark.parametrize(
    ("warmup", "steps", "says"),
    [(0, 40, 0), (0.0, 40, 0), (0.1, 40, 4), (0.99, 10, 9), (1, 40, 1), (30, 40, 30)],
)
def test_a_warm_up_is_a_fraction_of_the_steps_or_their_number(warmup, steps, says):
    assert training.warmup_steps(warmup, steps) == says


@pytest.mark.parametrize("warmup", [6, 100])
def test_a_warm_up_that_the_run_would_not_outlast_is_refused(warmup, tmp_path, base):
    with pytest.raises(TunesmithError, match=f"warmup is {warmup} steps, and the run has 6"):
        train(tmp_path, base, "out", settings(warmup=warmup))


def test_a_warm_up_of_four_steps_rises_for_four_steps_to_the_rate_that_is_set(tmp_path, base):
    train(tmp_path, base, "out", settings(warmup=4, schedule="constant", epochs=2))

    assert rates(tmp_path)[:5] == pytest.approx([0, 1.25e-3, 2.5e-3, 3.75e-3, 5e-3])
    assert set(rates(tmp_path)[4:]) == {5e-3}


def test_adafactor_takes_the_learning_rate_as_it_is_set(tmp_path, base):
    some = rows(8)
    chosen = settings("full", optimizer="adafactor", learning_rate=5e-6)
    run = backend.start(chosen, base, [], some, some, tmp_path / "run")
    run.create_optimizer_and_scheduler(num_training_steps=4)

    groups = run.optimizer.param_groups
    assert type(run.optimizer).__name__ == "Adafactor"
    assert {group["initial_lr"] for group in groups} == {5e-6}
    assert {group["lr"] for group in groups} == {5e-6}
    assert {group["relative_step"] for group in groups} == {False}
    assert {group["scale_parameter"] for group in groups} == {False}
    assert {group["warmup_init"] for group in groups} == {False}


@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear"])
def test_full_training_with_accumulation_and_clipping_uses_the_rate_that_is_set(
    schedule, tmp_path, base
):
    chosen = settings(
        "full", optimizer="adafactor", learning_rate=5e-6, schedule=schedule, warmup=2,
        batch_size=2, accumulate=2, max_grad_norm=0.1, weight_decay=0.0,
    )  # fmt: skip
    out = train(tmp_path, base, "out", chosen)

    found = rates(tmp_path)
    assert found[:3] == [0.0, 2.5e-6, 5e-6]
    assert max(found) == 5e-6 == manifest.read(out)["learning_rate"]
    assert manifest.read(out)["settings"]["train"]["learning_rate"] == 5e-6
    summary = files.read_json(tmp_path / "out-report/summary.json")
    assert summary["learning_rate"] == 5e-6


def test_one_step_of_adafactor_moves_weights_by_the_rate_and_not_by_their_size(tmp_path, base):
    chosen = settings(
        "full", optimizer="adafactor", learning_rate=1e-3, schedule="constant", max_steps=1,
        weight_decay=0.0,
    )  # fmt: skip
    out = train(tmp_path, base, "out", chosen)

    old, new = weights(base), weights(out)
    name = "model.layers.0.mlp.down_proj.weight"  # its values are about 0.05
    moved = (new[name] - old[name]).square().mean().sqrt().item()
    assert moved == pytest.approx(1e-3, rel=0.2)


@pytest.mark.parametrize("method", ["lora", "dora"])
def test_the_last_layers_alone_are_adapted_and_the_adapter_merges(method, tmp_path, base):
    out = train(tmp_path, base, method, settings(method, layers=1, max_steps=3))

    assert {name.split(".layers.")[1][0] for name in weights(out)} == {"1"}
    fused = tmp_path / "fused"
    fused.mkdir()
    assert merge.merge(base, out, fused)["merged"] == 7
    old, new = weights(base), weights(fused)
    changed = {name for name in old if not torch.equal(old[name], new[name])}
    assert {name.split(".")[2] for name in changed} == {"1"}
    assert len(changed) == 7


def test_more_layers_than_the_base_has_are_refused_before_training(tmp_path, base):
    with pytest.raises(TunesmithError, match="layers is 3, and the base has 2 blocks"):
        train(tmp_path, base, "out", settings(layers=3))


PROMPTS = [[5, 9, 13], [40] * 17, [7, 8, 9, 10, 11, 12], [300, 20], [33, 34, 35]]


def answers(base, size, **options) -> dict:
    chosen = {"max_new_tokens": 12, "temperature": 0.0, "seed": 3} | options
    made = generate.generate(base, PROMPTS, batch_size=size, **chosen)
    return {index: (ids, stopped) for index, ids, stopped in made}


def test_greedy_answers_are_those_of_transformers_one_by_one(base):
    model = generate.ready(base)

    for index, (ids, stopped) in answers(base, 3).items():
        prompt = torch.tensor([PROMPTS[index]])
        alone = model.generate(
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=12, do_sample=False
        )[0, len(PROMPTS[index]) :].tolist()
        assert ids + alone[len(ids) :] == alone
        assert stopped == (len(ids) < 12)


def test_sampled_answers_depend_on_the_seed_and_not_on_the_batch(base):
    together = answers(base, 5, temperature=1.0)

    assert answers(base, 1, temperature=1.0) == together == answers(base, 2, temperature=1.0)
    assert answers(base, 5, temperature=1.0, seed=4) != together
    assert sorted(together) == [0, 1, 2, 3, 4]


def test_an_answer_ends_before_its_stop_token_and_says_so(base, tmp_path):
    plain = answers(base, 5)
    stop = plain[0][0][4]
    ended = tiny_model(tmp_path / "ended", hidden=32, layers=2)
    files.write_json(ended / "generation_config.json", {"eos_token_id": [stop]})

    ids, stopped = answers(ended, 5)[0]

    assert stopped
    assert ids == plain[0][0][: plain[0][0].index(stop)]


def test_sampling_follows_the_models_chances():
    logits = torch.log(torch.tensor([[0.5, 0.2, 0.3]])).repeat(4, 1)

    class Draw:
        def __init__(self, number):
            self.number = number

        def random(self):
            return self.number

    draws = [Draw(number) for number in (0.0, 0.49, 0.6, 0.999)]
    assert generate._pick(logits, 1.0, draws) == [0, 0, 1, 2]
    assert generate._pick(logits, 0.01, draws) == [0, 0, 0, 0]


def test_a_disk_too_small_for_what_training_writes_is_said_before_the_first_step(
    tmp_path, base, monkeypatch
):
    full = SimpleNamespace(total=100, used=90, free=10)
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: full)

    with pytest.raises(TunesmithError, match="What this training writes needs"):
        train(tmp_path, base, "adapter", settings())

    assert not (tmp_path / "adapter").exists()


@pytest.mark.gpu
def test_a_gpu_trains_an_adapter_and_names_itself_in_the_manifest(tmp_path, base):
    adapter = train(tmp_path, base, "adapter", settings(precision="auto"))

    assert manifest.read(adapter)["device"] == torch.cuda.get_device_name(0)
