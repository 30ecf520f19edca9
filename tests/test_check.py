"""`tunesmith check`, the refusal of what cannot fit, and memory that runs out in training."""

import errno
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import hiding
import numpy as np
import pytest
import yaml
from project import PARAMS, ROOT, door, make, params
from tiny import tiny_model

from stages.commands import check
from stages.commands.check import places, screen
from stages.core import (
    devices,
    engine,
    files,
    launch,
    local,
    machine,
    memory,
    room,
    runner,
    settings,
    smaller,
)
from stages.core.devices import Device
from stages.core.engine import Engine, Image
from stages.core.errors import TunesmithError
from stages.core.machine import Gpu, Space

GB = 10**9
HEAVY = ("torch", "mlx", "mlx_lm", "transformers", "peft", "trl", "bitsandbytes", "datasets")


def shape(preset):
    text = (ROOT / "presets" / f"{preset}.yaml").read_text(encoding="utf-8")
    return memory.shape(yaml.safe_load(text)["shape"])


def model(method="lora", held="none", dpo=False, **train):
    chosen = settings.load(ROOT / "params.yaml").models["wzrdbrain"]
    given = chosen.train.model_copy(update={"precision": "auto", **train})
    update = {"method": method, "quantise_base": held, "train": given}
    return chosen.model_copy(update=update)


def cpu(total=16 * GB, free=8 * GB, **more):
    return Device("torch", "2.13.0+cpu", "cpu", "cpu", True, "", "", Space(total, free), **more)


# What fits, by what may be changed


def ways(of, room, *, length=1024, use="bf16", **given):
    return [way.text() for way in smaller.smaller(model(**given), shape(of), room, use, length)]


@pytest.mark.parametrize("of", ["saige", "sibyl", "synthia_tools", "metahuman"])
@pytest.mark.parametrize("room_gb", [4, 8, 16, 24, 80])
@pytest.mark.parametrize("method", ["lora", "full", "dpo"])
def test_each_suggestion_fits_by_the_estimate_and_nothing_of_it_can_be_left_out(
    of, room_gb, method
):
    before, at = model(method=method), shape(of)
    found = smaller.smaller(before, at, room_gb * GB, "bf16", 1024)
    for way in found:
        assert size(before, at, way.changes) == way.needed <= room_gb * GB
        for part in separate(way.changes):
            left = {k: v for k, v in way.changes.items() if k not in part}
            assert size(before, at, left) > room_gb * GB
    if size(before, at, {}) > room_gb * GB >= least(before, at):
        assert found


def size(before, at, changes):
    after = smaller.changed(before, changes)
    length = changes.get("tokens.max_length", 1024)
    return smaller.needed(after, at, "bf16", length).total


def least(before, at):
    """With everything changed as far as it goes."""
    changes = {"train.checkpointing": True, "train.batch_size": 1, "quantise_base": "4bit"}
    changes |= {"method": "lora"} if before.method == "full" else {}
    return size(before, at, changes | {"tokens.max_length": 256})


def separate(changes):
    """The keys of each kind of change."""
    pairs = [("train.batch_size", "train.accumulate"), ("tokens.max_length", "tokens.over_length")]
    kinds = [*pairs, *((key,) for key in ("train.checkpointing", "quantise_base", "method"))]
    return [kind for kind in kinds if kind[0] in changes]


def test_a_batch_is_cut_only_as_far_as_needed_and_a_step_keeps_its_rows():
    before, at = model(batch_size=12, accumulate=2), shape("saige")
    for room_gb in (4, 6, 8, 12):
        for way in smaller.smaller(before, at, room_gb * GB, "bf16", 1024):
            train = smaller.changed(before, way.changes).train
            assert train.batch_size * train.accumulate == 24
    halved = ways("saige", size(before, at, {"train.batch_size": 6}), batch_size=12, accumulate=2)
    assert "train.batch_size: 6, train.accumulate: 4" in halved


def test_what_leaves_the_result_as_it_is_comes_first():
    at = shape("sibyl")
    found = ways("sibyl", size(model(), at, {}) - 1)
    assert [text.split(":")[0] for text in found] == [
        "train.checkpointing", "train.batch_size", "tokens.max_length", "quantise_base",
    ]  # fmt: skip
    assert found[0] == "train.checkpointing: true"
    # In 8 bits the inputs of the layers are kept once more, and these are many here.
    assert found[3] == "quantise_base: 4bit"


def test_the_milder_of_two_changes_goes_as_far_as_it_can_before_the_other_begins():
    at, given = shape("saige"), {"checkpointing": True, "held": "4bit"}
    alone = size(model(**given), at, {"train.batch_size": 1})
    found = ways("saige", alone - 1, **given)
    assert found == [
        "train.batch_size: 1, train.accumulate: 8, tokens.max_length: 992, "
        "tokens.over_length: drop",
    ]


def test_full_weights_are_never_put_into_few_bits_but_an_adapter_on_them_is():
    found = ways("metahuman", 20 * GB, method="full")
    assert found
    assert all("method: lora" in text for text in found)
    assert any("quantise_base: " in text for text in found)


def test_there_is_no_suggestion_where_none_is_enough_and_none_twice():
    assert ways("metahuman", 2 * GB) == []
    done = ways("saige", 3 * GB, checkpointing=True, batch_size=1, held="4bit")
    assert not any("checkpointing" in text or "batch_size" in text for text in done)


@pytest.mark.parametrize(
    ("needed", "said"), [(7, "fits"), (8, "fits"), (9, "tight"), (16, "tight"), (17, "too big")]
)
def test_tight_is_over_what_is_free_and_too_big_over_what_there_is(needed, said):
    assert room.verdict(needed, Space(total=16, free=8)) == said


# This machine


def groups(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def test_limits_of_control_groups_hold_for_all_groups_inside_them(tmp_path):
    mount = groups(tmp_path, {
        "user/memory.max": "4000\n", "user/memory.current": "1500\n",
        "user/memory.stat": "anon 1\ninactive_file 500\n",
        "user/job/memory.max": "max\n", "user/job/memory.current": "7\n",
    })  # fmt: skip
    assert list(machine.limits("0::/user/job\n", mount)) == [Space(4000, 3000)]
    assert list(machine.limits("0::/\n", mount)) == []


def test_the_older_control_groups_and_a_container_s_own_mount_are_read(tmp_path):
    mount = groups(tmp_path, {
        "memory/memory.limit_in_bytes": "9000\n", "memory/memory.usage_in_bytes": "2000\n",
        "memory/memory.stat": "total_inactive_file 1000\n",
    })  # fmt: skip
    own = "5:cpu,cpuacct:/x\n4:memory:/docker/0123\n0::/\n"
    assert list(machine.limits(own, mount)) == [Space(9000, 8000)]


def test_a_container_s_limit_is_the_machine_s_memory(tmp_path, monkeypatch):
    whole = machine.memory()
    mount = groups(tmp_path, {"memory.max": "1000000\n", "memory.current": "2000000\n"})
    (tmp_path / "own").write_text("0::/\n", encoding="utf-8")
    monkeypatch.setattr(machine, "GROUPS", mount)
    monkeypatch.setattr(machine, "OWN_GROUPS", tmp_path / "own")
    assert machine.memory() == Space(1_000_000, 0)
    assert whole.total > 1_000_000


def test_free_memory_is_read_as_linux_and_macos_print_it():
    linux = (
        "MemTotal:       100 kB\nMemFree:   1 kB\nMemAvailable:     50 kB\nHugePages_Total:  0\n"
    )
    assert machine.available(linux) == 50 * 1024
    macos = (
        "Mach Virtual Memory Statistics: (page size of 16384 bytes)\n"
        "Pages free:                    10.\nPages active:    900.\nPages inactive:  20.\n"
        "Pages speculative:              3.\nPages purgeable:   4.\n"
    )
    assert machine.reclaimable(macos) == 37 * 16384
    assert machine.reclaimable("") == 0


def test_gpus_are_read_as_nvidia_smi_lists_them():
    text = "NVIDIA A100-SXM4-80GB, 81920, 80000\nNVIDIA GB10, [N/A], [N/A]\n\n"
    mib = 1 << 20
    assert machine.listed(text) == [
        Gpu("NVIDIA A100-SXM4-80GB", Space(81920 * mib, 80000 * mib)), Gpu("NVIDIA GB10", None),
    ]  # fmt: skip
    assert machine.listed("") == []


# Which device


def installed(monkeypatch, **versions):
    """These versions, and no other package."""
    monkeypatch.setattr(devices, "version", lambda name: versions.get(name.replace("-", "_"), ""))


def whole(monkeypatch, torch):
    names = dict.fromkeys(devices.PACKAGES["torch"], "1.0")
    installed(monkeypatch, **(names | {"torch": torch, "mlx": "0.32.4", "mlx_lm": "0.32.2"}))


def test_a_backend_without_its_packages_says_what_is_missing_and_what_to_type(monkeypatch):
    installed(monkeypatch, torch="2.13.0")
    found = devices.of("torch")
    assert (found.kind, found.version) == ("", "2.13.0")
    assert found.why == "transformers, peft, trl, accelerate, safetensors not installed"
    assert found.do.startswith("make setup")


def test_mlx_where_it_does_not_exist_says_so_and_what_to_set(monkeypatch):
    from stages.backends.mlx import load

    monkeypatch.setattr(load.platform, "system", lambda: "Windows")
    found = devices.of("mlx")
    assert found.kind == ""
    assert found.why.startswith("MLX does not exist for this platform (Windows")
    assert found.do.startswith("Set backend: torch")


@pytest.mark.parametrize(
    ("driver", "torch", "why"),
    [
        (False, "2.13.0", "no NVIDIA GPU is here"),
        (True, "2.13.0+cpu", "this torch is built without CUDA"),
    ],
)
def test_torch_is_not_started_where_it_can_only_use_the_cpu(monkeypatch, driver, torch, why):
    whole(monkeypatch, torch)
    monkeypatch.setattr(machine, "driver", lambda: driver)
    monkeypatch.setattr(devices.subprocess, "run", None)
    found = devices.of("torch")
    assert (found.kind, found.why) == ("cpu", why)
    assert found.memory is not None


@pytest.mark.parametrize(
    ("answer", "code", "kind", "why", "space"),
    [
        ('["cuda", "NVIDIA T4", false, 15, 12]', 0, "cuda", "the first CUDA device", (15, 12)),
        ('["cpu", "cpu", true, 0, 0]', 0, "cpu", "torch finds no CUDA device (CUDA_V", None),
        ("", 1, "", "torch does not start: OSError: no libcudart", None),
    ],
)
def test_where_there_may_be_cuda_torch_is_asked_in_its_own_process(
    monkeypatch, answer, code, kind, why, space
):
    whole(monkeypatch, "2.13.0+cu130")
    monkeypatch.setattr(machine, "driver", lambda: True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    told = SimpleNamespace(
        stdout=f"{answer}\n", stderr="x\nOSError: no libcudart\n", returncode=code
    )
    monkeypatch.setattr(devices.subprocess, "run", lambda *_, **__: told)
    found = devices.of("torch")
    assert (found.kind, found.why[: len(why)]) == (kind, why)
    if space:
        assert found.memory == Space(*space)
        assert devices.precision("auto", found) == "fp16"


def test_mlx_computes_on_metal_where_there_is_a_mac_and_else_on_the_cpu(monkeypatch):
    whole(monkeypatch, "2.13.0")
    assert devices.of("mlx").kind == "cpu"
    assert devices.precision("auto", devices.of("mlx")) == "fp32"
    monkeypatch.setattr(devices.platform, "system", lambda: "Darwin")
    monkeypatch.setattr(devices.platform, "machine", lambda: "arm64")
    monkeypatch.setattr(devices.platform, "mac_ver", lambda: ("15.1", ("", "", ""), "arm64"))
    found = devices.of("mlx")
    assert (found.kind, devices.precision("auto", found)) == ("metal", "bf16")


# One model on it


def base(folder: Path, **config) -> Path:
    """A base's config.json: about 1.1 billion parameters, if nothing else is said."""
    text = (ROOT / "presets" / "saige.yaml").read_text(encoding="utf-8")
    folder.mkdir(parents=True, exist_ok=True)
    files.write_json(folder / "config.json", yaml.safe_load(text)["shape"] | config)
    return folder


def rows(folder: Path, longest: int, **more) -> Path:
    folder.mkdir(exist_ok=True)
    files.write_json(folder / "stats.json", {"train": {"lengths": {"max": longest}} | more})
    return folder


def case(tmp_path, device=None, **given):
    tokens = rows(tmp_path / "tokens", 300)
    at = base(tmp_path / "base")
    return room.case("first", model(**given), at, tokens, device or cpu())


def test_the_longest_row_counts_where_rows_are_there_and_else_max_length(tmp_path):
    found = case(tmp_path)
    assert (found.length, found.measured) == (300, True)
    assert found.rows() == "8 rows of 300 tokens (the longest row) in fp32"
    none = room.case("first", model(), tmp_path / "base", tmp_path / "nothing", cpu())
    assert (none.length, none.measured) == (512, False)
    assert "(tokens.max_length)" in none.rows()
    pairs = rows(tmp_path / "pairs", 300, rejected={"lengths": {"max": 700}})
    assert room.longest_row(pairs) == 700
    assert room.longest_row(rows(tmp_path / "empty", 0)) is None


def test_the_precision_is_the_one_that_the_device_will_use(tmp_path):
    gpu = replace(cpu(), kind="cuda", name="NVIDIA A100")
    assert [case(tmp_path, one).use for one in (cpu(), gpu)] == ["fp32", "bf16"]
    assert case(tmp_path, replace(gpu, bf16=False)).use == "fp16"
    assert case(tmp_path).training.weights == 2 * case(tmp_path, gpu).training.weights
    with pytest.raises(TunesmithError, match="does not train in fp16"):
        case(tmp_path, precision="fp16")


@pytest.mark.parametrize("config", [{"hidden_size": [1, 2]}, {"num_hidden_layers": None}])
def test_a_base_that_is_not_counted_is_not_guessed(tmp_path, config):
    at = base(tmp_path / "base", **config)
    with pytest.raises(TunesmithError, match=r"dense decoder|A shape without num_hidden_layers"):
        room.case("first", model(), at, tmp_path, cpu())


@pytest.fixture
def on(monkeypatch):
    """A machine with so many GB in all, and half of them free."""

    def set_up(gb):
        monkeypatch.setattr(devices, "of", lambda _: cpu(gb * GB, gb * GB // 2))
        monkeypatch.delenv(room.SWITCH, raising=False)

    return set_up


def train(tmp_path, body=lambda: None, **given):
    tokens, at = rows(tmp_path / "tokens", 300), base(tmp_path / "base")
    with room.watched("first", model(**given), at, tokens):
        body()


def test_what_cannot_fit_is_refused_before_it_is_begun_with_what_would_fit(tmp_path, on):
    on(11)
    began = []
    with pytest.raises(TunesmithError) as refusal:
        train(tmp_path, lambda: began.append(1))
    said = refusal.value
    assert began == []
    assert said.what == (
        "Training first needs about 15.0 GB of memory, and this machine has 11.0 GB in all."
    )
    assert said.where == "params.yaml: models.first"
    assert said.why.startswith("activations 9.1 GB, weights 4.5 GB, ")
    assert said.why.endswith("; 8 rows of 300 tokens (the longest row) in fp32.")
    assert said.do.splitlines() == [
        "Set what one of these lines says; then it fits:",
        "          train.checkpointing: true    (7.2 GB)",
        "          train.batch_size: 4, train.accumulate: 2    (10.5 GB)",
        "          tokens.max_length: 160, tokens.over_length: drop    (10.8 GB)",
        "        TUNESMITH_MEMORY=ignore dvc repro train@first tries it all the same.",
    ]


def test_what_no_change_makes_fit_is_refused_with_nothing_to_set(tmp_path, on):
    on(1)
    with pytest.raises(TunesmithError, match="Use a smaller base or another machine"):
        train(tmp_path)


@pytest.mark.parametrize("gb", [16, 64])
def test_tight_or_large_enough_is_trained(tmp_path, on, gb):
    on(gb)
    began = []
    train(tmp_path, lambda: began.append(1))
    assert began == [1]


def test_who_knows_better_is_not_refused_but_a_mistyped_word_is(tmp_path, on, monkeypatch):
    on(1)
    monkeypatch.setenv(room.SWITCH, "ignore")
    train(tmp_path)
    monkeypatch.setenv(room.SWITCH, "ignroe")
    with pytest.raises(TunesmithError, match="TUNESMITH_MEMORY is 'ignroe'"):
        train(tmp_path)


def test_where_nothing_can_be_estimated_nothing_is_refused(tmp_path, on):
    on(1)
    with room.watched("first", model(), tmp_path / "none", tmp_path):
        pass


OUT_OF_MEMORY = [
    MemoryError(), MemoryError("std::bad_alloc"), OSError(errno.ENOMEM, "Cannot allocate memory"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
    type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory. Tried to allocate 2 GiB."),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"),
    RuntimeError("[malloc] Unable to allocate 123 bytes."),
    RuntimeError("[metal::malloc] Attempting to allocate 9 bytes which is greater than the max"),
    RuntimeError("Insufficient Memory (00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)"),
]  # fmt: skip


@pytest.mark.parametrize("failure", OUT_OF_MEMORY, ids=lambda failure: str(failure)[:30])
def test_memory_that_runs_out_is_explained_whoever_says_it(tmp_path, on, failure):
    on(24)

    def body():
        raise failure

    with pytest.raises(TunesmithError) as found:
        train(tmp_path, body, save_steps=50)
    said = found.value
    assert said.__cause__ is failure
    assert said.what.startswith("Memory ran out while first was trained on this machine, which had")
    assert "; then it takes less:\n          train.checkpointing: true" in said.do
    assert "one every 50 steps" in said.do
    assert "It was said: " in said.why


@pytest.mark.parametrize(
    "failure",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"), OSError(errno.ENOSPC, "full"),
        TunesmithError("The loss is not finite."), KeyError("x"), KeyboardInterrupt(),
    ],
)  # fmt: skip
def test_every_other_exception_passes_as_it_is(tmp_path, on, failure):
    on(24)

    def body():
        raise failure

    with pytest.raises(type(failure)) as found:
        train(tmp_path, body)
    assert found.value is failure


def test_memory_that_ran_out_against_the_estimate_asks_for_less_than_the_estimate(tmp_path, on):
    on(64)  # of which 32 are free: by the estimate it fits
    whole = case(tmp_path).training
    with pytest.raises(TunesmithError) as found:
        train(tmp_path, lambda: (_ for _ in ()).throw(MemoryError()), save_steps=0)
    shown = [line for line in found.value.do.splitlines() if "GB)" in line]
    assert shown
    for line in shown:
        assert float(line.split("(")[-1].split()[0]) * GB < whole.total - 0.25 * whole.tensors
    assert "the next run begins anew" in found.value.do  # save_steps: 0


def test_memory_that_runs_out_where_nothing_was_estimated_is_explained_all_the_same(tmp_path):
    with (
        pytest.raises(TunesmithError, match="Memory ran out while first was trained\\."),
        room.watched("first", model(), tmp_path / "none", tmp_path),
    ):
        raise MemoryError


# A real training


def project(folder: Path) -> Path:
    """A small project with a tiny base and 24 rows, ready to be trained by the door's own stage."""
    text = params(
        ("save_steps: 0", "save_steps: 2"), ("learning_rate: 1.0e-4", "learning_rate: 1.0e-3")
    )
    make(folder, [], text)
    with files.directory(folder / "models/base/small") as out:
        tiny_model(out, hidden=32, layers=2)
    draw = np.random.default_rng(0)
    with files.directory(folder / "data/tokens/first") as out:
        for split, count in (("train", 24), ("valid", 4)):
            arrays = {
                "ids": draw.integers(3, 500, 16 * count).astype(np.int32),
                "trained": np.ones(16 * count, np.uint8),
                "offsets": np.arange(count + 1, dtype=np.int64) * 16,
                "prompts": np.full(count, 4, np.int32),
            }
            for name, array in arrays.items():
                np.save(out / f"{split}.{name}.npy", array)
        files.write_json(out / "checks.json", {"checked": True, "rows": {"train": 24, "valid": 4}})
        files.write_json(out / "stats.json", {"train": {"lengths": {"max": 16}}})
    return folder


def test_after_memory_ran_out_training_goes_on_to_the_bytes_of_one_that_had_enough(
    tmp_path, monkeypatch
):
    torch = pytest.importorskip("torch")
    pytest.importorskip("trl")
    from stages import train as stage
    from stages.backends.torch.train import loss

    torch.set_num_threads(1)
    monkeypatch.setenv("DVC_ROOT", str(project(tmp_path)))
    monkeypatch.chdir(tmp_path)
    stage.run("first")
    whole = files.tree_hash(Path("models/adapter/first"))
    (tmp_path / "models/adapter/first").rename(tmp_path / "whole")
    summed, calls = loss.summed, []

    def too_much_at_the_fifth_step(*arguments):
        calls.append(1)
        if len(calls) == 5:
            torch.empty(1 << 52, dtype=torch.uint8)  # 4 PiB, which torch's allocator refuses
        return summed(*arguments)

    monkeypatch.setattr(loss, "summed", too_much_at_the_fifth_step)
    with pytest.raises(TunesmithError, match="Memory ran out while first was trained") as found:
        stage.run("first")
    assert "DefaultCPUAllocator: can't allocate memory" in found.value.why
    assert not Path("models/adapter/first").exists()
    kept = next(Path(".tunesmith/checkpoints").iterdir())
    assert [path.name for path in kept.glob("checkpoint-*")] == ["checkpoint-4"]

    calls.clear()
    monkeypatch.setattr(loss, "summed", lambda *arguments: calls.append(1) or summed(*arguments))
    stage.run("first")
    assert files.tree_hash(Path("models/adapter/first")) == whole
    assert len(calls) == 3  # two steps were left, and the valid rows


def test_the_stage_refuses_before_the_backend_is_started(tmp_path, monkeypatch):
    from stages import train as stage
    from stages.backends.torch import train as backend

    monkeypatch.setattr(devices, "of", lambda _: cpu(1000, 1000))
    monkeypatch.setattr(backend, "train", None)
    monkeypatch.chdir(project(tmp_path))
    with pytest.raises(TunesmithError, match="Training first needs about"):
        stage.run("first")


# The command


def test_check_imports_nothing_heavy_and_answers_in_json(tmp_path):
    code = (
        "import sys\nfrom stages.__main__ import app\n"
        "try:\n    app(['check', '--json'])\nfinally:\n"
        f"    assert not set({HEAVY}) & set(sys.modules), 'heavy'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=project(tmp_path), capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip
    assert "heavy" not in done.stderr
    found = json.loads(done.stdout)
    assert set(found) == {"machine", "backends", "models"}
    assert found["machine"]["memory"]["total"] >= found["machine"]["memory"]["free"]
    assert found["machine"]["cores"] >= 1
    assert found["machine"]["engine"]["name"] or found["machine"]["engine"]["why"]
    assert set(found["machine"]["images"]) == {"cpu", "cuda"}
    if found["backends"]["torch"]["kind"] == "cpu":
        first = found["models"]["first"]
        assert (first["length"], first["length_from"]) == (16, "stats.json")
        assert first["memory"]["needed"] > memory.RUNTIME
        assert first["disk"]["base"] == 0


def test_check_of_a_model_that_is_not_there_names_the_nearest(tmp_path):
    done = door(project(tmp_path), "check", "frist")
    assert done.returncode == 2
    assert "Did you mean 'first'?" in done.stderr


@pytest.mark.parametrize(
    ("name", "word", "hint"),
    [
        ("TUNESMITH_LAUNCH", "nativ", "Did you mean 'native'?"),
        ("TUNESMITH_ENGINE", "dockre", "Known: docker, podman."),
    ],
)
def test_a_word_that_a_setting_does_not_know_is_refused_with_those_it_does(
    tmp_path, name, word, hint
):
    done = door(make(tmp_path, []), "check", **{name: word})
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{name} is '{word}'" in done.stderr
    assert hint in done.stderr


NONE = Engine(why="docker is not installed; podman is not installed")
DOCKER = Engine("docker", "27.1.0")
IMAGES = {kind: f"tunesmith-{kind}" for kind in engine.KINDS}
MISSING = {kind: Image(name, wrong=f"there is no image {name}") for kind, name in IMAGES.items()}
THERE = {kind: Image(name, "sha256:" + "ab" * 32) for kind, name in IMAGES.items()}


@pytest.fixture
def at(monkeypatch):
    """A machine with an engine, images, packages and GPUs, or without."""
    for name in (*local.NAMES, "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)

    def set_up(used=NONE, images=MISSING, packages=True, gpus=()):
        monkeypatch.setattr(runner, "containers", lambda: (used, images))
        monkeypatch.setattr(devices, "version", lambda _: "1.0" if packages else "")
        monkeypatch.setattr(machine, "driver", lambda: bool(gpus))
        monkeypatch.setattr(machine, "gpus", lambda: list(gpus))
        monkeypatch.setattr(devices, "of", lambda name: replace(cpu(), backend=name))

    set_up()
    return set_up


def shown(monkeypatch, folder, device, one=False):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(devices, "of", lambda name: replace(device, backend=name))
    found = check.facts(settings.load(), ["first"])
    return "\n".join(screen.lines(found, one))


def test_the_screen_says_what_is_too_big_and_what_would_fit(tmp_path, monkeypatch, at):
    folder = make(tmp_path, [], PARAMS.replace("batch_size: 4\n", "batch_size: 8\n"))
    base(folder / "models/base/small")
    text = shown(monkeypatch, folder, cpu(8 * GB, 3 * GB))
    assert "8 x ~128 fp32" in text
    assert "too big: more than this machine has in all (8.0 GB); what would fit:" in text
    assert "      train.checkpointing: true    (" in text
    tight = shown(monkeypatch, folder, cpu(64 * GB, 6 * GB))
    assert "tight: more than is free now (6.0 GB); what would fit:" in tight
    fits = shown(monkeypatch, folder, cpu(64 * GB, 32 * GB))
    assert " fits " in fits
    assert "what would fit" not in fits


def test_one_model_is_told_in_full(tmp_path, monkeypatch, at):
    text = shown(monkeypatch, project(tmp_path), replace(cpu(), why="no GPU is here"), one=True)
    assert "first: lora on models/base/small" in text
    assert "4 rows of 16 tokens (the longest row) in fp32" in text
    assert "train     torch cpu: models.first.backend; no GPU is here" in text
    assert "evaluate  torch cpu: models.first.evaluate.engine; no GPU is here" in text
    assert "checkpoint " in text


def test_the_screen_says_what_is_not_there_yet(tmp_path, monkeypatch, at):
    folder = make(tmp_path, [])
    text = shown(monkeypatch, folder, cpu())
    assert (
        "models/base/small is not there yet, so its memory is not known. dvc repro base@s" in text
    )
    gone = Device("torch", why="torch does not start: no libcudart", do="make setup")
    text = shown(monkeypatch, folder, gone)
    assert "does not run: torch does not start: no libcudart\n            make setup" in text
    assert "    torch does not run here: torch does not start: no libcudart\n" in text


def test_a_tuned_base_has_the_shape_of_what_it_was_tuned_from():
    known = settings.load(ROOT / "params.yaml")
    models = {
        key: one.model_copy(update={"base": one.base.replace("base/tiny", "base/nowhere")})
        for key, one in known.models.items()
    }
    missing = known.model_copy(update={"models": {**models}})
    assert not Path("models/fused/none").exists()
    chain = {"a": models["wzrdbrain"], "b": models["wzrdbrain"].model_copy(
        update={"base": "models/fused/a"})}  # fmt: skip
    missing = missing.model_copy(update={"models": chain})
    assert check.shaped(missing, "b") == Path("models/base/nowhere")


def test_help_lists_the_command(tmp_path):
    assert "\n  check " in door(tmp_path, "--help").stdout


# Where each stage runs


def spots(params, key):
    """Each stage of a model's chain and where it runs."""
    found = check.facts(params, [key])["models"][key]["stages"]
    return {f"{spot['stage']}@{spot['key']}": spot for spot in found}


def test_the_chain_of_a_model_goes_from_raw_data_to_its_release():
    known = settings.load(ROOT / "params.yaml")
    assert places.chain(known, "sibyl") == [
        ("sample", "sibyl"), ("base", "tiny"), ("convert", "sibyl"), ("validate", "sibyl"),
        ("tokenise", "sibyl"), ("train", "sibyl"), ("fuse", "sibyl"), ("gguf", "sibyl-f16"),
        ("gguf", "sibyl-q8_0"), ("evaluate", "sibyl"), ("verify", "sibyl-f16"),
        ("verify", "sibyl-q8_0"), ("release", "sibyl"),
    ]  # fmt: skip


def test_the_chain_of_a_model_on_a_tuned_one_begins_with_that_one_s():
    known = settings.load(ROOT / "params.yaml")
    stages = places.chain(known, "synthia_full")
    assert len(stages) == len(set(stages))
    for stage in ("convert", "train", "fuse"):
        keys = [key for name, key in stages if name == stage]
        assert keys == ["synthia_tools", "synthia_agentic", "synthia_full"]
    assert [key for name, key in stages if name in ("evaluate", "release")] == ["synthia_full"] * 2


def test_each_stage_of_the_chain_is_one_that_the_door_knows():
    from stages.__main__ import STAGES

    known = settings.load(ROOT / "params.yaml")
    named = {stage for key in known.models for stage, _ in places.chain(known, key)}
    assert named == set(STAGES)


def test_on_the_light_install_with_an_image_heavy_stages_are_in_it_and_the_others_are_not(at):
    at(DOCKER, THERE, packages=False)
    found = spots(settings.load(ROOT / "params.yaml"), "wzrdbrain")
    where = {name: spot["where"] for name, spot in found.items()}
    light = {"convert@wzrdbrain", "validate@wzrdbrain", "tokenise@wzrdbrain", "release@wzrdbrain"}
    assert {name for name, place in where.items() if place == "native"} == light
    assert {where[name] for name in where.keys() - light} == {"cpu"}
    assert found["fuse@wzrdbrain"]["why"] == "torch not installed"
    assert found["fuse@wzrdbrain"]["image"] == "tunesmith-cpu"


@pytest.mark.parametrize(
    ("way", "used", "images", "said", "do"),
    [
        ("auto", NONE, MISSING, "torch not installed, and no container: docker is not installed",
         ["make setup",
          "or in a container: install and start docker or podman, then: make image-cpu"]),
        ("auto", DOCKER, MISSING, "no container: there is no image tunesmith-cpu",
         ["make setup", "or in a container: make image-cpu"]),
        ("container", DOCKER, MISSING, "is to run in a container, and cannot: there is no image",
         ["make image-cpu", "or here: TUNESMITH_LAUNCH=auto"]),
        ("native", DOCKER, THERE, "TUNESMITH_LAUNCH=native, and torch not installed",
         ["make setup"]),
    ],
)  # fmt: skip
def test_a_stage_that_can_run_nowhere_is_told_with_what_to_type(
    at, monkeypatch, way, used, images, said, do
):
    at(used, images, packages=False)
    monkeypatch.setenv("TUNESMITH_LAUNCH", way)
    spot = spots(settings.load(ROOT / "params.yaml"), "wzrdbrain")["fuse@wzrdbrain"]
    assert spot["where"] == "nowhere"
    assert said in spot["why"]
    assert spot["do"] == do


def launched(stage, key, known):
    """What the launcher does with a stage: the place and why, or its refusal."""
    try:
        place = runner.placed(launch.need(stage, key, known))[0]
    except TunesmithError as refused:
        return "nowhere", refused.what
    return place.where, place.why


@pytest.mark.parametrize("way", ["auto", "container"])
@pytest.mark.parametrize("packages", [True, False])
@pytest.mark.parametrize("gpus", [[], [Gpu("NVIDIA X", None)]])
def test_what_check_says_of_a_place_is_what_the_launcher_does(at, monkeypatch, way, packages, gpus):
    known = settings.load(ROOT / "params.yaml")
    monkeypatch.setenv("TUNESMITH_LAUNCH", way)
    for used, images in ((NONE, MISSING), (DOCKER, MISSING), (DOCKER, THERE)):
        at(used, images, packages, gpus)
        looked = places.look()
        for stage, key in places.chain(known, "saige"):
            told = looked.spot(stage, key, known)
            assert (told["where"], told["why"]) == launched(stage, key, known)


def test_training_in_the_cpu_image_is_on_the_cpu_whatever_is_installed_here(
    tmp_path, monkeypatch, at
):
    at(DOCKER, THERE)
    monkeypatch.setenv("TUNESMITH_LAUNCH", "container")
    here_ = replace(cpu(), kind="cuda", name="NVIDIA A100")
    text = shown(monkeypatch, project(tmp_path), here_, one=True)
    assert "train     torch cpu: models.first.backend; in the image tunesmith-cpu" in text
    assert "(the longest row) in fp32" in text


def test_training_and_evaluating_may_be_in_two_places_and_each_has_its_own_device(
    tmp_path, monkeypatch, at
):
    folder = project(tmp_path)
    chosen = (folder / "params.yaml").read_text(encoding="utf-8")
    mixed = chosen.replace("backend: torch", "backend: mlx")
    (folder / "params.yaml").write_text(mixed, encoding="utf-8")
    at(DOCKER, THERE)
    mac = {*launch.PACKAGES["train mlx"]}
    monkeypatch.setattr(devices, "version", lambda name: "1.0" if name in mac else "")
    metal = replace(cpu(), kind="metal", name="Apple M2's GPU", why="Apple silicon")
    text = shown(monkeypatch, folder, metal, one=True)
    assert "train     mlx metal (Apple M2's GPU): models.first.backend; Apple silicon" in text
    assert "evaluate  torch cpu: models.first.evaluate.engine; in the image tunesmith-cpu" in text
    table = shown(monkeypatch, folder, metal)
    assert "mlx metal, torch cpu native, cpu image" in table


@pytest.mark.parametrize(("capability", "use"), [("8.0", "bf16"), ("7.5", "fp16"), ("", "bf16")])
def test_in_the_cuda_image_the_gpu_is_the_one_that_nvidia_smi_lists(
    tmp_path, monkeypatch, at, capability, use
):
    at(DOCKER, THERE, False, [Gpu("Small", Space(2 * GB, GB)), Gpu("NVIDIA X", Space(9 * GB, GB))])
    told = SimpleNamespace(stdout=f"{capability}\n")
    monkeypatch.setattr(places.subprocess, "run", lambda *_, **__: told)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    folder = project(tmp_path)
    chosen = (folder / "params.yaml").read_text(encoding="utf-8")
    auto = chosen.replace("precision: fp32", "precision: auto")
    (folder / "params.yaml").write_text(auto, encoding="utf-8")
    text = shown(monkeypatch, folder, Device("torch", why="torch not installed"), one=True)
    assert "torch cuda (NVIDIA X): models.first.backend; in the image tunesmith-cuda" in text
    assert f"(the longest row) in {use}" in text
    assert "memory    1.1 GB  tight" in text
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    text = shown(monkeypatch, folder, Device("torch", why="torch not installed"), one=True)
    assert "train     torch cpu: models.first.backend; CUDA_VISIBLE_DEVICES=-1 hides" in text


def test_a_table_says_in_a_word_where_the_stages_of_a_model_run(tmp_path, monkeypatch, at):
    folder = project(tmp_path)
    assert "torch cpu   native" in shown(monkeypatch, folder, cpu())
    at(DOCKER, THERE, packages=False)
    assert "torch cpu   native, cpu image" in shown(monkeypatch, folder, cpu())
    at(DOCKER, THERE, True, [Gpu("NVIDIA X", None)])
    assert "torch cuda  native, cuda image" in shown(monkeypatch, folder, cpu())
    at(packages=False)
    text = shown(monkeypatch, folder, cpu())
    assert "torch       nowhere: train, 5 more" in text
    assert text.endswith(
        "  where a stage runs nowhere, type (tunesmith check <model> says why):\n"
        "    make setup\n"
        "    or in a container: install and start docker or podman, then: make image-cpu"
    )


@pytest.mark.parametrize("one", [True, False])
@pytest.mark.parametrize("packages", [True, False])
@pytest.mark.parametrize("way", ["auto", "native", "container"])
def test_no_line_is_wider_than_a_hundred_columns(tmp_path, monkeypatch, at, one, packages, way):
    at(NONE, MISSING, packages)
    monkeypatch.setenv("TUNESMITH_LAUNCH", way)
    gone = Device("torch", why="torch, transformers, peft, trl, accelerate not installed", do="x")
    text = shown(monkeypatch, project(tmp_path), cpu() if packages else gone, one)
    for line in text.splitlines():
        assert len(line) <= 100, line


# The engine, its images, and this machine's settings


def machine_lines(monkeypatch, folder):
    """What is said of the engine, its images and the settings."""
    lines = shown(monkeypatch, folder, cpu()).splitlines()
    begin = next(n for n, line in enumerate(lines) if line.startswith("  engine"))
    found = lines[begin : lines.index("backends outside containers")]
    return [line for line in found if not line.startswith("  launch")]


def test_the_machine_says_which_engine_there_is_or_why_none(tmp_path, monkeypatch, at):
    folder = project(tmp_path)
    assert machine_lines(monkeypatch, folder) == [
        "  engine    none: docker is not installed; podman is not installed"
    ]
    at(Engine("podman", "5.2", rootless=True))
    assert machine_lines(monkeypatch, folder)[0] == "  engine    podman 5.2, rootless"
    at(DOCKER)
    assert machine_lines(monkeypatch, folder)[0] == "  engine    docker 27.1.0, with root's rights"


def test_an_image_is_current_outdated_or_missing_and_says_what_to_type(tmp_path, monkeypatch, at):
    folder, gpu = project(tmp_path), [Gpu("NVIDIA X", None)]
    at(DOCKER, THERE)
    assert machine_lines(monkeypatch, folder)[1:] == [
        "  image     tunesmith-cpu   current, sha256:abababababab",
        "  image     tunesmith-cuda  current, sha256:abababababab",
    ]
    old = "the image tunesmith-cpu holds other versions than env/cpu.lock"
    at(DOCKER, {**MISSING, "cpu": Image("tunesmith-cpu", "sha256:12", old)})
    assert machine_lines(monkeypatch, folder)[1:] == [
        "  image     tunesmith-cpu   outdated (holds other versions than env/cpu.lock): "
        "make image-cpu",
        "  image     tunesmith-cuda  missing; it is for NVIDIA GPUs, and none is here",
    ]
    monkeypatch.setenv("TUNESMITH_IMAGE_CPU", "mine")
    at(Engine("podman", "5.2", rootless=True), {**MISSING, "cpu": Image("mine", wrong="none")})
    assert machine_lines(monkeypatch, folder)[1:3] == [
        "  image     mine            missing",
        "            make image-cpu ENGINE=podman && podman tag tunesmith-cpu mine",
    ]
    monkeypatch.delenv("TUNESMITH_IMAGE_CPU")
    at(DOCKER, MISSING, gpus=gpu)
    assert machine_lines(monkeypatch, folder)[1:] == [
        "  image     tunesmith-cpu   missing: make image-cpu",
        "  image     tunesmith-cuda  missing: make image-cuda",
    ]


def test_settings_say_where_they_come_from_and_a_secret_says_only_that_it_is_set(
    tmp_path, monkeypatch, at
):
    folder = project(tmp_path)
    lines = "TUNESMITH_SHM=2g\nTUNESMITH_LAUNCH=native\nHF_TOKEN=hf_planted\n"
    (folder / local.FILE).write_text(lines, encoding="utf-8")
    monkeypatch.setenv("DVC_ROOT", str(folder))
    monkeypatch.setenv("TUNESMITH_LAUNCH", "container")
    monkeypatch.setenv("TUNESMITH_LUNCH", "native")
    local.load()
    at(DOCKER, THERE)
    assert machine_lines(monkeypatch, folder)[3:] == [
        "  setting   TUNESMITH_LAUNCH=container    (from the environment, over local.env)",
        "  setting   TUNESMITH_SHM=2g    (from local.env)",
        "  setting   HF_TOKEN is set    (from local.env)",
        "  setting   TUNESMITH_LUNCH is read by nothing. Did you mean 'TUNESMITH_LAUNCH'?",
    ]
    assert "hf_planted" not in json.dumps(check.facts(settings.load(), ["first"]))
    for name in ("TUNESMITH_SHM", "HF_TOKEN"):  # local.load has put them there
        monkeypatch.delenv(name)


def test_a_broken_local_env_is_refused_with_its_line(tmp_path):
    (make(tmp_path, []) / local.FILE).write_text("\nTUNESMITH_SHN=2g\n", encoding="utf-8")
    done = door(tmp_path, "check", DVC_ROOT=str(tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{local.FILE}:2" in done.stderr
    assert "Did you mean 'TUNESMITH_SHM'?" in done.stderr


def test_an_engine_that_never_answers_is_none_and_nothing_else_is_lost(monkeypatch):
    monkeypatch.setattr(engine.shutil, "which", lambda name: name)
    monkeypatch.setattr(
        engine.subprocess, "run",
        lambda words, **_: (_ for _ in ()).throw(subprocess.TimeoutExpired(words, 0)),
    )  # fmt: skip
    monkeypatch.setenv("TUNESMITH_ENGINE", "docker")
    assert engine.find() == Engine(why="docker does not answer within 30 seconds")


# With the light install: programs that answer as docker and nvidia-smi do. The real engine is
# tested in tests/test_containers.py; here it is what `check` makes of answers that no machine
# gives at once, such as a GPU of 2018 beside an outdated image.


def program(folder: Path, name: str, *answers: tuple[str, str]) -> None:
    """A command that answers the first pattern of its arguments; others fail."""
    cases = "".join(f'  {pattern}) echo "{said}";;\n' for pattern, said in answers)
    text = f'#!/bin/sh\ncase "$*" in\n{cases}  *) exit 1;;\nesac\n'
    (folder / name).write_text(text, encoding="utf-8")
    (folder / name).chmod(0o755)


OPTIONAL = (*hiding.TORCH, *hiding.MLX, "transformers", "safetensors", "sentencepiece", "xllamacpp")


@pytest.mark.skipif(sys.platform == "win32", reason="the programs are shell scripts")
def test_the_light_install_with_an_engine_and_images_knows_the_memory_of_training(tmp_path):
    folder, bin_ = project(tmp_path / "project"), tmp_path / "bin"
    bin_.mkdir()
    docker = [
        ("version*", "27.1.0"), ("info*", "[name=seccomp name=rootless]"),
        ("*tunesmith-cpu", f"sha256:{'1' * 64} {engine.pins('cpu', ROOT)}"),
    ]  # fmt: skip
    program(bin_, "docker", *docker)
    env = dict.fromkeys((*local.NAMES, "CUDA_VISIBLE_DEVICES"), "")
    env |= {"PATH": f"{bin_}{os.pathsep}/usr/bin{os.pathsep}/bin", "TUNESMITH_ENGINE": "docker"}

    def asked():
        done = hiding.door(folder, "check", "first", "--json", hidden=OPTIONAL, **env)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        return found["machine"], found["models"]["first"]

    there, first = asked()
    assert there["engine"] == {"name": "docker", "version": "27.1.0", "why": "", "rootless": True}
    assert [there["images"][kind]["state"] for kind in ("cpu", "cuda")] == ["current", "missing"]
    if machine.driver():
        pytest.skip("a GPU is here, so that the rest is another machine")
    assert (first["train"]["device"], first["train"]["where"]) == ("cpu", "cpu")
    assert first["memory"]["needed"] > memory.RUNTIME
    assert first["memory"]["total"] == there["memory"]["total"]
    assert first["disk"]["needed"] > 0

    program(bin_, "nvidia-smi", ("*compute_cap*", "7.5"), ("*name*", "Tesla T4, 15360, 15000"))
    nowhere = asked()[1]
    assert nowhere["train"]["where"] == "nowhere"
    assert "memory" not in nowhere
    program(bin_, "docker", *docker, ("*tunesmith-cuda", f"sha256:2 {engine.pins('cuda', ROOT)}"))
    first = asked()[1]
    assert (first["train"]["device"], first["train"]["name"]) == ("cuda", "Tesla T4")
    assert first["memory"]["total"] == 15360 << 20


def test_an_image_without_any_label_is_outdated_and_not_missing(monkeypatch):
    # `docker import` leaves no map of labels at all, which docker's `index` does not take.
    asked = []

    def said(words):
        asked.append(words[words.index("--format") + 1])
        return subprocess.CompletedProcess(words, 0, "sha256:12 \n", "")

    monkeypatch.setattr(engine, "said", said)
    monkeypatch.delenv("TUNESMITH_IMAGE_CPU", raising=False)
    found = engine.image(DOCKER, "cpu", ROOT)
    assert (found.digest, found.wrong) == (
        "sha256:12", "the image tunesmith-cpu has no label tunesmith.pins",
    )  # fmt: skip
    assert "{{with .Config.Labels}}" in asked[0]
