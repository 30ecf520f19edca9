"""Preference training: our own rows reach DPOTrainer, the loss starts at ln 2, margins rise."""

import math
from pathlib import Path

import pytest
from tiny import tiny_model

from stages.core import batches, files, manifest, merge, shards, targets, tokenising, tokens
from stages.core.errors import TunesmithError
from stages.core.example import Example, write_lines
from stages.core.settings import Dpo, Lora, Model, Train
from stages.core.tokenising import Rules

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from stages.backends.torch import train as backend  # noqa: E402
from stages.backends.torch.train import preference  # noqa: E402
from stages.backends.torch.train.preference import Preferring  # noqa: E402

ANSWERS = ("front open", "back close", "spin turn", "box attack", "card board move")


def pair(number: int) -> Example:
    """A board asks; of its two answers the one that says `spin` first is wanted."""
    asked = f"move {ANSWERS[number % 5]} from the {ANSWERS[number % 3]} board {number}"
    said = [f"spin {ANSWERS[number % 4]}", f"turn back {ANSWERS[(number + 2) % 5]} end"]
    messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": said[0]}]
    rejected = {"role": "assistant", "content": said[1]}
    return Example(messages, f"a#{number + 1}", f"g{number}", {}, rejected=rejected)


def settings(method="dpo", layers=0, beta=0.2, **train) -> Model:
    chosen = {
        "seed": 1, "epochs": 2, "max_steps": 0, "batch_size": 4, "accumulate": 1,
        "optimizer": "adamw", "learning_rate": 5e-3, "schedule": "cosine", "warmup": 0.0,
        "weight_decay": 0.0, "max_grad_norm": 1.0, "precision": "fp32", "checkpointing": False,
        "save_steps": 0, "eval_steps": 0, "dpo": Dpo(beta=beta) if method == "dpo" else None,
    }  # fmt: skip
    return Model.model_construct(
        base="models/base/tiny", dataset="pairs", backend="torch", method=method,
        quantise_base="none",
        lora=Lora(r=4, alpha=8.0, dropout=0.0, targets=["all-linear"], layers=layers),
        train=Train(**chosen | train),
    )  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("base") / "tiny", hidden=32, layers=3)


@pytest.fixture(scope="module")
def made(tmp_path_factory, base) -> Path:
    """A tokens folder of 18 pairs to train on and 6 to validate, made by `tokenise` itself."""
    return tokenised(tmp_path_factory.mktemp("made"), base, [pair(n) for n in range(24)])


def tokenised(folder: Path, base: Path, rows: list[Example], pairs: bool = True) -> Path:
    (folder / "chat").mkdir()
    for name, part in (("train", rows[6:]), ("valid", rows[:6]), ("test", rows[:1])):
        write_lines(folder / "chat" / f"{name}.jsonl", (row.row() for row in part))
    with files.directory(folder / "tokens") as out:
        rules = Rules(max_length=128, drop=False, by=(), pairs=pairs)
        tokenising.write(folder / "chat", base, out, rules)
    return folder / "tokens"


@pytest.fixture(autouse=True)
def in_its_own_folder(tmp_path, monkeypatch):
    torch.set_num_threads(1)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))


def train(folder: Path, base: Path, made: Path, name="out", **chosen) -> Path:
    backend.train(settings(**chosen), base, made, folder / name, folder / f"{name}-report")
    return folder / name


def series(folder: Path, name="out") -> list[dict[str, float]]:
    lines = (folder / f"{name}-report/loss.tsv").read_text().splitlines()
    names = lines[0].split("\t")
    return [
        {key: float(cell) for key, cell in zip(names, line.split("\t"), strict=True) if cell}
        for line in lines[1:]
    ]


def test_the_first_loss_is_ln_2_and_margins_rise_on_the_training_pairs(tmp_path, base, made):
    out = train(tmp_path, base, made, epochs=4)

    table = series(tmp_path)
    assert len(table) == manifest.read(out)["steps"] == 4 * 5
    assert table[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert (table[0]["reward_margin"], table[0]["reward_accuracy"]) == (0.0, 0.0)
    assert table[-1]["loss"] < 0.4
    assert table[-1]["reward_margin"] > 1
    assert table[-1]["reward_accuracy"] == 1.0
    assert table[-1]["valid_reward_margin"] > 0.5
    for row in table:
        margin = row["chosen_reward"] - row["rejected_reward"]
        assert row["reward_margin"] == pytest.approx(margin, abs=1e-5)


def test_the_summary_and_the_manifest_hold_the_rewards_at_both_ends(tmp_path, base, made):
    out = train(tmp_path, base, made)

    table, said = series(tmp_path), files.read_json(tmp_path / "out-report/summary.json")
    assert said["preference"] == {
        "reward_accuracy_first": 0.0,
        "reward_accuracy_last": table[-1]["reward_accuracy"],
        "reward_margin_first": 0.0,
        "reward_margin_last": table[-1]["reward_margin"],
        "valid_reward_accuracy": table[-1]["valid_reward_accuracy"],
        "valid_reward_margin": table[-1]["valid_reward_margin"],
    }
    stated = manifest.read(out)
    assert stated["preference"] == said["preference"]
    assert (stated["method"], stated["settings"]["train"]["dpo"]) == ("dpo", {"beta": 0.2})


def test_the_trainer_sees_the_tokenised_rows_whole_in_the_order_of_the_plan(
    tmp_path, base, made, monkeypatch
):
    seen, build = [], backend.trainer.build

    def watched(*arguments):
        trainer = build(*arguments)
        compute = trainer.compute_loss

        def loss(model, inputs, *more):
            if trainer.model.training:
                seen.append({name: part.tolist() for name, part in inputs.items()})
            return compute(model, inputs, *more)

        monkeypatch.setattr(trainer, "compute_loss", loss)
        return trainer

    monkeypatch.setattr(backend.trainer, "build", watched)
    train(tmp_path, base, made, epochs=1)

    rows = list(tokens.read_split(made, "train"))
    lengths = [max(len(row.ids), len(row.rejected_ids)) for row in rows]
    plan = batches.plan(lengths, 4, 1, 1, 0, 1)
    assert len(seen) == len(plan)
    for found, (micro,) in zip(seen, plan, strict=True):
        wanted = [(rows[n].ids, rows[n].labels) for n in micro]
        wanted += [(rows[n].rejected_ids, rows[n].rejected_labels) for n in micro]
        width = max(len(ids) for ids, _ in wanted)
        for name, cells in (
            ("input_ids", [ids for ids, _ in wanted]),
            ("attention_mask", [[1] * width for _ in wanted]),
            ("completion_mask", [[int(n != -100) for n in labels] for _, labels in wanted]),
        ):
            assert found[name] == [row + [0] * (width - len(row)) for row in cells], name


def test_the_loss_is_dpos_formula_computed_by_hand(tmp_path, base, made):
    rows = batches.load(made, "train")
    plan = batches.plan(rows.sizes, 4, 1, 1, 0, 1)
    leaves = ["down_proj", "q_proj"]
    run = backend.start(settings(), base, leaves, rows, rows, tmp_path / "checkpoints")
    torch.manual_seed(0)
    with torch.no_grad():
        for name, weight in run.model.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.1)
    inputs = preference.pairs(rows, plan[0][0])
    run.sums = dict.fromkeys(preference.MEASURES, 0.0)
    count = len(plan[0][0])
    found = run._summed(inputs).item() / count

    lengths = [int(side.lengths[n]) for side in (rows, rows.rejected) for n in plan[0][0]]
    width = inputs["input_ids"].shape[1]
    real = torch.tensor([[int(place < length) for place in range(width)] for length in lengths])
    assert len(set(lengths)) > 1, "a batch without padding would show nothing"

    def likelihoods(model):
        ids = torch.from_numpy(inputs["input_ids"])
        logits = model(ids, attention_mask=real).logits
        each = logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
        return (each * torch.from_numpy(inputs["completion_mask"][:, 1:])).sum(1)

    with torch.no_grad():
        tuned = likelihoods(run.model)
        with run.model.disable_adapter():
            gain = (tuned - likelihoods(run.model)).view(2, -1)
    margin = 0.2 * (gain[0] - gain[1])
    assert found == pytest.approx(-margin.sigmoid().log().mean().item(), rel=1e-5)
    assert abs(found - math.log(2)) > 1e-3
    assert run.sums["reward_margin"] / count == pytest.approx(margin.mean().item(), rel=1e-4)


def test_two_runs_write_the_same_bytes_another_seed_and_beta_others(tmp_path, base, made):
    first = train(tmp_path, base, made, "first", max_steps=3)
    again = train(tmp_path, base, made, "again", max_steps=3, save_steps=2)
    other = train(tmp_path, base, made, "other", max_steps=3, seed=2)
    beta = train(tmp_path, base, made, "beta", max_steps=3, beta=0.5)

    name = "adapter_model.safetensors"
    assert (first / name).read_bytes() == (again / name).read_bytes()
    assert (tmp_path / "first-report/loss.tsv").read_bytes() == (
        tmp_path / "again-report/loss.tsv"
    ).read_bytes()
    assert (first / name).read_bytes() != (other / name).read_bytes()
    assert (first / name).read_bytes() != (beta / name).read_bytes()


def test_an_interrupted_run_goes_on_to_the_same_bytes(tmp_path, base, made, monkeypatch):
    whole = train(tmp_path, base, made, "whole", save_steps=2)
    summed, calls = Preferring._summed, []

    def stop_at_the_fifth_step(self, micro):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return summed(self, micro)

    monkeypatch.setattr(Preferring, "_summed", stop_at_the_fifth_step)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, base, made, "resumed", save_steps=2)
    assert not (tmp_path / "resumed").exists()

    resumed = train(tmp_path, base, made, "resumed", save_steps=2)

    assert len(calls) == 5 + 6 + 2  # steps 5 to 10, and two batches of the valid split
    assert files.tree_hash(resumed) == files.tree_hash(whole)
    reports = [tmp_path / f"{name}-report" for name in ("resumed", "whole")]
    assert files.tree_hash(reports[0]) == files.tree_hash(reports[1])


def test_accumulated_micro_batches_train_what_one_batch_trains(tmp_path, base, made):
    from safetensors.torch import load_file

    whole = train(tmp_path, base, made, "whole", batch_size=6)
    parts = train(tmp_path, base, made, "parts", batch_size=2, accumulate=3)

    name = "adapter_model.safetensors"
    for key, weight in load_file(whole / name).items():
        torch.testing.assert_close(load_file(parts / name)[key], weight, rtol=0, atol=1e-5)
    for one, other in zip(series(tmp_path, "whole"), series(tmp_path, "parts"), strict=True):
        assert one == pytest.approx(other, abs=1e-4)


def test_the_adapter_fuses_into_the_model_that_was_trained(tmp_path, base, made):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    adapter = train(tmp_path, base, made)
    fused = tmp_path / "fused"
    fused.mkdir()
    merge.merge(base, adapter, fused)

    ids = torch.tensor([[5, 9, 13, 200, 7]])
    tuned = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter)
    with torch.no_grad():
        wanted = tuned(ids).logits
        found = AutoModelForCausalLM.from_pretrained(fused)(ids).logits
        plain = AutoModelForCausalLM.from_pretrained(base)(ids).logits
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
    assert (found - plain).abs().max() > 1e-2


def test_only_the_last_blocks_are_adapted_and_their_adapter_fuses(tmp_path, base, made):
    from safetensors.torch import load_file

    adapter = train(tmp_path, base, made, layers=2, max_steps=3)

    keys = load_file(adapter / "adapter_model.safetensors")
    assert {key.split(".layers.")[1][0] for key in keys} == {"1", "2"}
    assert files.read_json(adapter / "adapter_config.json")["layers_to_transform"] == [1, 2]
    fused = tmp_path / "fused"
    fused.mkdir()
    said = merge.merge(base, adapter, fused)
    assert said["merged"] == 2 * 7
    old, new = (load_file(next(folder.glob("*.safetensors"))) for folder in (base, fused))
    changed = {name for name in old if not torch.equal(old[name], new[name])}
    assert changed == {
        f"model.layers.{block}.{name}.weight"
        for block in (1, 2)
        for name in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
                     "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
    }  # fmt: skip


def test_more_layers_than_the_base_has_are_refused(base):
    known = [tensor for shard in shards.weights(base) for tensor in shard.tensors]

    assert targets.blocks(0, known) is None
    assert targets.blocks(3, known) == [0, 1, 2]
    with pytest.raises(TunesmithError, match=r"layers is 4, and the base has 3 blocks"):
        targets.blocks(4, known)


def test_pairs_are_refused_by_other_methods_and_dpo_refuses_plain_rows(tmp_path, base, made):
    with pytest.raises(TunesmithError, match="are preference pairs, and the method is lora"):
        train(tmp_path, base, made, method="lora")
    plain = tokenised(tmp_path, base, [as_plain(pair(n)) for n in range(9)], pairs=False)
    with pytest.raises(TunesmithError, match="are no preference pairs, and the method is dpo"):
        train(tmp_path, base, plain)
    assert not (tmp_path / "out").exists()


def as_plain(row: Example) -> Example:
    return Example(row.messages, row.source, row.group)


def test_tokenising_names_the_rows_that_are_of_the_wrong_kind(tmp_path, base):
    rows = [pair(n) for n in range(9)]
    rows[7] = as_plain(rows[7])
    (tmp_path / "a").mkdir()
    with pytest.raises(TunesmithError, match=r"(?s)^1 row.*a#8: It has no rejected answer; .*dpo"):
        tokenised(tmp_path / "a", base, rows)
    (tmp_path / "b").mkdir()
    with pytest.raises(TunesmithError, match=r"(?s)^9 row.*a#7: It is a preference pair, .*dpo"):
        tokenised(tmp_path / "b", base, rows, pairs=False)


def test_both_answers_share_the_prompt_and_alone_are_trained_to_their_end(base, made):
    stop = 2
    for row in tokens.read_split(made, "train"):
        cut = row.prompt_length
        assert row.ids[:cut] == row.rejected_ids[:cut]
        assert row.ids != row.rejected_ids
        for ids, labels in ((row.ids, row.labels), (row.rejected_ids, row.rejected_labels)):
            end = ids.index(stop, cut) + 1
            assert labels == [-100] * cut + ids[cut:end] + [-100] * (len(ids) - end)
    assert files.read_json(made / "checks.json")["pairs"] is True
    stats = files.read_json(made / "stats.json")["train"]
    rejected = [row.rejected_ids for row in tokens.read_split(made, "train")]
    assert stats["rejected"]["tokens"] == sum(map(len, rejected))


def test_earlier_turns_of_a_pair_are_its_prompt_and_not_trained(tmp_path, base):
    rows = [pair(n) for n in range(8)]
    said = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "move"}]
    longer = [Example(said + r.messages, r.source, r.group, rejected=r.rejected) for r in rows]

    for row in tokens.read_split(tokenised(tmp_path, base, longer), "train"):
        assert set(row.labels[: row.prompt_length]) == {-100}
        assert set(row.rejected_labels[: row.prompt_length]) == {-100}


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ("end " * 200, r"With its rejected answer: It has \d+ tokens; max_length is 128"),
        ("spin<|im_end|>", r"With its rejected answer: Message 2 holds the control token"),
        ("spin front open", "Both of its answers are the same tokens"),
        ("", "With its rejected answer: No token of it would be trained"),
    ],
)
def test_a_rejected_answer_meets_every_check_of_a_chosen_one(tmp_path, base, answer, says):
    rows = [pair(n) for n in range(8)]
    bad = {"role": "assistant", "content": answer}
    rows[7] = Example(pair(0).messages, "a#8", "g", rejected=bad)

    with pytest.raises(TunesmithError, match=rf"(?s)^1 row\(s\).*a#8: {says}"):
        tokenised(tmp_path, base, rows)
