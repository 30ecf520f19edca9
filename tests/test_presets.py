"""Presets: each passes the linter on a model of its system, says what it needs, and changes no more
of params.yaml than its own settings."""

import shutil
from pathlib import Path

import project
import pytest
from ruamel.yaml import YAML

from stages.core import memory, plugins, presets, settings
from stages.core.errors import TunesmithError

ROOT = Path(__file__).parents[1]
NAMES = sorted(path.stem for path in (ROOT / "presets").glob("*.yaml"))

# A dataset's options where a preset says only some of them.
MODES = {"reflection": "dual", "chat": "emulation", "action": "agent"}
OPTIONS = {
    "rules": {
        "seed": 1, "simple": 9, "constrained": 9, "explanation": 1, "rules": 1, "progression": 1,
    },
    "games": {
        "sides": "all", "min_version": "0.5.0", "failed_actions": "drop", "pairs": "none",
    },
    "rated_sqlite": {
        "max_harm": 0.1, "min_score": 1.0, "min_alignment": "any", "limit": 1,
        "self_dialogue": "drop", "person_state": "", "system": "Be kind.",
    },
    "memories": {
        "user": "", "mode": "all", "modes": MODES, "max": 1, "max_choice": "first",
        "days_recent": 1, "old_samples": 1, "seed": 1, "system": "", "max_words": 9,
        "long_words": 99, "long_share": 0.5, "contaminated": "drop",
    },
    "chats": {"pattern": "*.jsonl", "system": "", "group_by": ""},
}  # fmt: skip
# The memory that a seed's own pages ask for, in GB, where they train as the preset does here.
SEED_SAYS = {"saige": 8}


def load(name):
    return YAML(typ="safe").load((ROOT / "presets" / f"{name}.yaml").read_text(encoding="utf-8"))


def leaves(value, prefix=""):
    """`a.b` -> value for each leaf."""
    found = {}
    for key, item in value.items():
        if isinstance(item, dict):
            found |= leaves(item, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = item
    return found


def leaf(value, key):
    for part in key.split("."):
        value = value[part]
    return value


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A folder with the presets, and a way to write params.yaml with a dataset of some recipe."""
    shutil.copytree(ROOT / "presets", tmp_path / "presets")
    monkeypatch.chdir(tmp_path)

    def write(recipe):
        yaml = YAML()
        document = yaml.load(project.params())
        document["datasets"]["mine"] |= {"recipe": recipe, "options": OPTIONS[recipe]}
        first = document["models"]["first"]
        first["judge"], first["gates"] = recipe, {"at_least": {}, "above_base": []}
        document["gguf"]["first-f16"]["judge"] = recipe
        with (tmp_path / "params.yaml").open("w", encoding="utf-8") as file:
            yaml.dump(document, file)
        assert settings.lint()[1] == []
        return tmp_path

    return write


@pytest.fixture
def whole(tmp_path, monkeypatch):
    """The project's own params.yaml and presets."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copytree(ROOT / "presets", tmp_path / "presets")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_system_has_its_preset():
    phases = {f"synthia_{name}" for name in ("tools", "agentic", "full", "qlora")}
    modes = {"metahuman", "metahuman_dual", "metahuman_agent"}
    assert set(NAMES) == {"sibyl", "wzrdbrain", "saige"} | phases | modes


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_passes_the_linter_and_all_its_settings_arrive(name, small, capsys):
    preset = load(name)
    small(preset.get("dataset", {"recipe": "chats"})["recipe"])
    presets.apply("first", name)
    params, problems = settings.lint()
    assert problems == []
    model = params.models["first"].model_dump()
    assert {key: leaf(model, key) for key in leaves(preset["model"])} == leaves(preset["model"])
    if "dataset" in preset:
        dataset = params.datasets["mine"].model_dump()
        wanted = leaves(preset["dataset"])
        assert {key: leaf(dataset, key) for key in wanted} == wanted
    made = {gguf.quant for gguf in params.gguf.values() if gguf.model == "first"}
    assert made == {"f16", *preset["gguf"]}
    assert made <= set(params.models["first"].verify.kl), "a quant without a limit is not gated"
    assert "left out" not in capsys.readouterr().out


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_says_all_that_shapes_a_training(name):
    assert set(load(name)["model"]["train"]) == set(settings.Train.model_fields) - {"seed", "dpo"}
    assert load(name)["model"]["method"] in ("lora", "full")


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_s_base_is_pinned_and_the_curriculum_s_later_phases_keep_theirs(name):
    preset = load(name)
    pinned = [f"models/base/{base}" for base in preset["bases"]]
    base = preset["model"].get("base")
    assert ([base] if base else []) == pinned
    assert bool(base) == (name not in ("synthia_agentic", "synthia_full"))
    for value in preset["bases"].values():
        plugins.load("bases", "hub").Options(repo=value["repo"], revision=value["revision"])


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_is_stated_with_what_it_needs(name, small, capsys):
    small(load(name).get("dataset", {"recipe": "chats"})["recipe"])
    presets.apply("first", name)
    said = capsys.readouterr().out
    shape, model = memory.shape(load(name)["shape"]), settings.load().models["first"]
    needed = memory.training(shape, memory.run(shape, model)).total / 1e9
    disk = memory.disk(shape, memory.run(shape, model), ["f16", *load(name)["gguf"]]).total / 1e9
    assert f"about {-(-needed // 1):.0f} GB of memory to train" in said
    assert f"{-(-disk // 1):.0f} GB of disk" in said
    least = {"none": 2, "8bit": 1, "4bit": 0.5}[model.quantise_base]
    assert least * shape.parameters / 1e9 < needed < 12 * shape.parameters / 1e9 + 5
    if name in SEED_SAYS:
        assert 0.7 < needed / SEED_SAYS[name] < 1.2


def test_full_training_of_metahuman_takes_about_twice_the_70_gb_that_the_seed_needs_in_bf16():
    shape, model = memory.shape(load("metahuman")["shape"]), load("metahuman")["model"]
    halves = 2 * 2 * shape.parameters  # weights and gradients in bf16, as the seed keeps them
    assert 0.8 < halves / 70e9 < 1.0
    assert model["train"]["optimizer"] == "adafactor"


def test_the_curriculum_and_the_modes_have_their_own_numbers():
    phases = [load(f"synthia_{name}")["model"]["train"] for name in ("tools", "agentic", "full")]
    assert [one["max_steps"] for one in phases] == [800, 1000, 1500]
    assert [one["learning_rate"] for one in phases] == [2.0e-5, 1.5e-5, 1.0e-5]
    modes = {name: load(f"metahuman{name}") for name in ("", "_dual", "_agent")}
    keys = ("learning_rate", "warmup", "weight_decay", "max_grad_norm")
    found = {
        one["dataset"]["options"]["mode"]: [one["model"]["train"][key] for key in keys]
        for one in modes.values()
    }
    assert found == {
        "all": [5.0e-6, 100, 0.01, 1.0],
        "dual": [6.0e-6, 150, 0.01, 1.0],
        "agent": [4.0e-6, 120, 0.015, 0.8],
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_changes_its_own_settings_and_no_other_line(whole, name):
    before = (whole / "params.yaml").read_text(encoding="utf-8")
    presets.apply("wzrdbrain", name)
    after = (whole / "params.yaml").read_text(encoding="utf-8")
    preset = load(name)
    changed = {key.split(".")[-1] for key in leaves(preset)} | set(preset["bases"])
    changed |= {"lora", "tokens", "evaluate", "verify", "options", "checks", "split"}
    kept = [old for old in before.splitlines() if old.split(":")[0].strip() not in changed]
    rest = iter(after.splitlines())
    assert all(old in rest for old in kept), "a line was lost, changed or moved"


def test_a_preset_for_another_recipe_leaves_the_dataset_as_it_is_and_says_so(small, capsys):
    small("chats")
    before = settings.load().datasets
    presets.apply("first", "sibyl")
    assert settings.load().datasets == before
    said = "datasets.mine is of the recipe chats: the preset's settings of games were left out"
    assert said in capsys.readouterr().out


def test_a_dataset_that_two_models_share_is_named_when_it_changes(small, capsys):
    text = (small("games") / "params.yaml").read_text(encoding="utf-8")
    second = text[text.index("  first:") : text.index("gguf:")].replace("first:", "second:")
    more = "  second-f16: {model: second, judge: games, quant: f16}\n"
    text = text.replace("gguf:", f"{second}gguf:") + more
    Path("params.yaml").write_text(text, encoding="utf-8")
    presets.apply("second", "sibyl")
    assert "datasets.mine has changed for first, second" in capsys.readouterr().out


def test_a_quant_that_is_made_already_is_not_made_twice(small):
    small("rules")
    text = Path("params.yaml").read_text(encoding="utf-8")
    mine = "  own-name: {model: first, judge: rules, quant: q8_0}\n"
    Path("params.yaml").write_text(text + mine, encoding="utf-8")
    presets.apply("first", "wzrdbrain")
    assert sorted(settings.load().gguf) == ["first-f16", "first-q4_k_m", "own-name"]


def test_comments_stay_before_what_they_speak_of(whole):
    presets.apply("wzrdbrain", "wzrdbrain")
    lines = (whole / "params.yaml").read_text(encoding="utf-8").splitlines()
    comments = [n for n, text in enumerate(lines) if text.startswith("# Raw data plus how")]
    assert lines[comments[0] + 1] == "datasets:"
    heads = [n for n, text in enumerate(lines) if text.startswith("# One entry is one file")]
    assert lines[heads[0] + 1] == "gguf:"


@pytest.mark.parametrize("name", ["wzrdbrain", "synthia_full"])
def test_applying_a_preset_twice_changes_nothing_more(whole, name):
    presets.apply("wzrdbrain", name)
    once = (whole / "params.yaml").read_bytes()
    presets.apply("wzrdbrain", name)
    assert (whole / "params.yaml").read_bytes() == once


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "model: {base: models/base/absent, lora: {rank: 4}}\n",
            r"With the preset 'bad' .*\n  models\.wzrdbrain\.lora",
        ),
        ("model: {}\ngguf: [q4_k_x]\n", r"(?s)With the preset 'bad'.*no quant 'q4_k_x'"),
        ("bases: {}\n", r"(?s)This is no preset: model.*\n.*presets/bad.yaml"),
        ("model: {}\nmodels: {}\n", r"(?s)This is no preset: models: .*did you mean 'model'"),
        ("- model\n", "This is no preset"),
        ("", "This is no preset"),
        ("model: {\n", r"bad.yaml is not YAML"),
        ("model: 1\n", r"This is no preset: model"),
        ("model: {}\nshape: {model_type: qwen2}\n", r"(?s)shape.*num_attention_heads"),
    ],
)
def test_a_preset_that_is_not_right_leaves_the_file_as_it_was(whole, text, message):
    (whole / "presets" / "bad.yaml").write_text(text, encoding="utf-8")
    before = (whole / "params.yaml").read_bytes()
    with pytest.raises(TunesmithError, match=f"(?i){message}"):
        presets.apply("wzrdbrain", "bad")
    assert (whole / "params.yaml").read_bytes() == before
    assert sorted(path.name for path in whole.iterdir()) == ["params.yaml", "presets"]


def test_an_unknown_preset_or_model_names_the_nearest(whole):
    with pytest.raises(TunesmithError, match=r"(?s)no preset 'sybil'.*mean 'sibyl'"):
        presets.apply("wzrdbrain", "sybil")
    with pytest.raises(TunesmithError, match="There is no model 'wizard'"):
        presets.apply("wizard", "sibyl")


def test_the_index_of_the_systems_states_what_the_presets_need():
    index = (ROOT / "docs" / "systems" / "README.md").read_text(encoding="utf-8")
    train = settings.load(ROOT / "params.yaml").models["wzrdbrain"]
    for name, row in (
        ("sibyl", "| 6 GB | 8 GB |"),
        ("wzrdbrain", "| 7 GB | 10 GB |"),
        ("saige", "| 7 GB | 6 GB |"),
        ("synthia_tools", "| 21 GB | 41 GB |"),
        ("synthia_qlora", "| 10 GB | 42 GB |"),
        ("metahuman", "| 164 GB | 160 GB |"),
    ):
        assert row in next(line for line in index.splitlines() if line.startswith(f"| `{name}`"))
        given = load(name)
        of, model = memory.shape(given["shape"]), given["model"]
        lora = train.lora.model_copy(update=model.get("lora", {}))
        chosen = train.model_copy(
            update={
                "method": model["method"],
                "quantise_base": model["quantise_base"],
                "lora": lora,
                "tokens": train.tokens.model_copy(update=model["tokens"]),
                "train": train.train.model_copy(update=model["train"]),
            }
        )
        how = memory.run(of, chosen)
        needs = memory.training(of, how).total, memory.disk(of, how, given["gguf"]).total
        assert row == "| {} GB | {} GB |".format(*(-(-need // 10**9) for need in needs)), name
