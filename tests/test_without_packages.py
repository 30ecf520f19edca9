"""What one backend trained is used without it: the real stages, its packages hidden from them."""

import importlib
from pathlib import Path

import hiding
import numpy as np
import project
import pytest
import yaml
from tiny import WORDS, tiny_tokenizer

from stages.commands.parity import models
from stages.core import files, launch, llamacpp, scoring

pytest.importorskip("mlx.core")
pytest.importorskip("mlx_lm")
pytest.importorskip("trl")
pytest.importorskip("xllamacpp")

# What each stage imports of the optional packages is what the launcher believes; docs/stages.md has
# the same table.
AS = {"train torched": "train torch", "train mlxed": "train mlx",
      "evaluate torched": "evaluate mlx", "evaluate mlxed": "evaluate torch"}  # fmt: skip


def needed(stage: str, key: str) -> set[str]:
    """The modules of the packages of one stage; MLX has parts of its own."""
    words = f"{stage} {key}"
    found = {name.replace("-", "_") for name in launch.PACKAGES.get(AS.get(words, stage), ())}
    return found | set(hiding.MLX) if "mlx" in found else found


OPTIONAL = {name.replace("-", "_") for names in launch.PACKAGES.values() for name in names}
OPTIONAL = OPTIONAL - {"huggingface_hub"} | set(hiding.MLX)  # transformers is never without it
TRAIN = {
    "max_steps": 12, "batch_size": 4, "learning_rate": 3.0e-4, "schedule": "constant",
    "save_steps": 5, "eval_steps": 5,
}  # fmt: skip
needs_source = pytest.mark.skipif(
    not llamacpp.source().is_dir(), reason="the llama.cpp source is not fetched: run make first"
)


class Plain(yaml.SafeDumper):
    """Writes out what occurs twice, since params.yaml may have no aliases."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def params() -> str:
    """Model `torched` is trained by torch and answers by MLX; `mlxed` the other way round."""
    found = yaml.safe_load(project.PARAMS)
    found["datasets"]["mine"]["split"] = {"seed": 1, "valid": 0.1, "test": 0.4}
    first = found["models"].pop("first")
    first["train"] |= TRAIN
    first["lora"]["targets"] = ["all-linear"]
    first["evaluate"] |= {"max_prompts": 0, "max_new_tokens": 8, "batch_size": 8}
    for name, backend, engine in (("torched", "torch", "mlx"), ("mlxed", "mlx", "torch")):
        evaluate = first["evaluate"] | {"engine": engine}
        found["models"][name] = first | {"backend": backend, "evaluate": evaluate}
    entry = found["gguf"].pop("first-f16")
    found["gguf"] = {f"{name}-f16": entry | {"model": name} for name in found["models"]}
    return yaml.dump(found, Dumper=Plain, sort_keys=False)


def alone(folder: Path, stage: str, key: str) -> None:
    """Run a stage where nothing is installed but what it needs; it must end well."""
    hidden = tuple(OPTIONAL - needed(stage, key))
    done = hiding.door(folder, stage, key, hidden=hidden)
    assert done.returncode == 0, f"{stage} {key}\n{done.stdout}\n{done.stderr}"


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """The project, its rows tokenised for both models where no heavy package is installed."""
    folder = tmp_path_factory.mktemp("project")
    questions = [f"{one} {other}" for one in WORDS[:7] for other in WORDS[7:14]]
    rows = [project.chat(text, " ".join(reversed(text.split()))) for text in questions]
    project.make(folder, rows, params())
    with files.directory(folder / "models/base/small") as out:
        models.make("qwen2", out)
        tiny_tokenizer(out)
    for stage, key in (("convert", "mine"), ("validate", "mine")):
        alone(folder, stage, key)
    for model in ("torched", "mlxed"):
        alone(folder, "tokenise", model)
    return folder


@pytest.fixture(scope="module")
def chain(made) -> Path:
    """The project with all that follows MLX's training, each stage run with what it needs."""
    for stage in ("train", "fuse", "evaluate"):
        alone(made, stage, "mlxed")
    for stage in ("gguf", "verify"):
        alone(made, stage, "mlxed-f16")
    return made


def assert_scored(folder: Path, model: str) -> None:
    """Base and fused model have answered 16 prompts or more, greedily and sampled."""
    found = files.read_json(folder / f"reports/{model}/evaluate/intervals.json")["scores"]
    sides = {f"{name}_{mode}" for name in ("base", "tuned") for mode in ("greedy", "sampled")}
    assert found.keys() == sides
    assert all(metrics["stops"]["n"] >= 16 for metrics in found.values())


def answers(folder: Path, model: str, engine: str, weights: str) -> list[list[int]]:
    """The greedy answers to all test prompts."""
    rows = scoring.test_rows(folder / f"data/tokens/{model}", 0)
    assert len(rows) >= 16
    made = importlib.import_module(f"stages.backends.{engine}.generate").generate(
        folder / weights, [row.ids[: row.prompt_length] for row in rows],
        max_new_tokens=8, temperature=0.0, seed=1, batch_size=8,
    )  # fmt: skip
    return [ids for _, ids, _ in sorted(made)]


def assert_same_answers(folder: Path, model: str) -> None:
    """Both engines make the same tokens of the fused model, and not those of its base."""
    by_torch = answers(folder, model, "torch", f"models/fused/{model}")
    assert answers(folder, model, "mlx", f"models/fused/{model}") == by_torch
    assert len(set(map(tuple, by_torch))) > len(by_torch) / 2, "the answers are all alike"
    untrained = answers(folder, model, "torch", "models/base/small")
    assert sum(map(list.__ne__, by_torch, untrained)) > len(by_torch) / 2


def test_a_hidden_package_is_as_absent_as_one_that_was_never_installed(tmp_path):
    code = """
import importlib.util, subprocess, sys
import numpy
from importlib import metadata
for name in ("torch", "mlx", "mlx.core", "mlx_lm.models"):
    try:
        __import__(name)
    except ModuleNotFoundError as missing:
        assert missing.name.split(".")[0] == name.split(".")[0], missing
    else:
        raise SystemExit(f"{name} was imported")
assert importlib.util.find_spec("torch") is None
for name in ("torch", "mlx", "mlx-lm"):
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        continue
    raise SystemExit(f"{name} has a version")
print(metadata.version("numpy"))
child = [sys.executable, "-c", "import importlib.util as u; print(u.find_spec('mlx'))"]
print(subprocess.run(child, capture_output=True, text=True).stdout)
"""
    done = hiding.python(tmp_path, "-c", code, hidden=(*hiding.TORCH, *hiding.MLX))

    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [np.__version__, "None"]


@pytest.mark.parametrize(
    ("model", "hidden", "said", "do"),
    [
        ("torched", hiding.TORCH, "torch, peft, trl, accelerate not installed", "make setup"),
        ("mlxed", hiding.MLX, "MLX does not run here: mlx, mlx-lm not installed", "backend=torch"),
        ("mlxed", ("transformers",), "MLX does not run here: transformers not", "make setup"),
    ],
)
def test_a_stage_says_which_packages_it_misses(made, model, hidden, said, do):
    """No engine answers either: with an image, the stage would run there."""
    done = hiding.door(made, "train", model, hidden=hidden, DOCKER_HOST="unix:///nowhere.sock")

    assert done.returncode == 2
    assert said in done.stderr
    assert do in done.stderr
    assert "Traceback" not in done.stderr


@needs_source
@pytest.mark.parametrize(
    ("stage", "key", "hidden"),
    [
        ("fuse", "mlxed", "torch"),
        ("gguf", "mlxed-f16", "torch"),
        ("gguf", "mlxed-f16", "sentencepiece"),
        ("verify", "mlxed-f16", "xllamacpp"),
        ("verify", "mlxed-f16", "torch"),
    ],
)
@pytest.mark.slow
def test_a_stage_after_training_says_so_too(chain, stage, key, hidden):
    done = hiding.door(chain, stage, key, hidden=(hidden,), TUNESMITH_LAUNCH="native")

    assert done.returncode == 2
    assert f"The package {hidden!r} is not installed" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "hidden", [("asyncssh", "dvc_ssh", "sshfs"), ("botocore", "dvc_s3", "s3fs")]
)
def test_a_remote_of_one_kind_fails_in_words_without_the_packages_of_the_other(tmp_path, hidden):
    program = """
from stages.commands.remote import failures
with failures.told("folder", "/nas", "Sending", "tunesmith push"):
    raise OSError("unplugged")
"""
    done = hiding.python(tmp_path, "-c", program, hidden=hidden)

    assert "TunesmithError: Sending failed: the connection does not hold (unplugged)" in done.stderr


@pytest.mark.slow
@needs_source
def test_what_mlx_trained_is_used_where_mlx_is_not_installed(chain):
    assert_scored(chain, "mlxed")
    assert_same_answers(chain, "mlxed")
    report = files.read_json(chain / "reports/mlxed/gguf/mlxed-f16.json")
    outcomes = {check["name"]: check["outcome"] for check in report["checks"]}
    exact = ("opens", "template", "rendering", "tokens", "prompts", "end_of_turn", "kl", "greedy")
    assert {name: outcomes[name] for name in exact} == dict.fromkeys(exact, "passed")


@pytest.mark.slow
def test_what_torch_trained_is_used_where_torch_is_not_installed(made):
    for stage in ("train", "fuse", "evaluate"):
        alone(made, stage, "torched")

    assert_scored(made, "torched")
    assert_same_answers(made, "torched")
