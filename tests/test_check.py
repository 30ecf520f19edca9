"""`tunesmith check`, the refusal of what cannot fit, and memory that runs out in training."""

import errno
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from project import PARAMS, ROOT, door, make, params
from tiny import tiny_model

from stages.commands import check
from stages.commands.check import screen
from stages.core import devices, files, machine, memory, room, settings, smaller
from stages.core.devices import Device
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
    assert set(found["machine"]["engines"]) == {"docker", "podman"}
    if found["backends"]["torch"]["kind"] == "cpu":
        first = found["models"]["first"]
        assert (first["length"], first["length_from"]) == (16, "stats.json")
        assert first["memory"]["needed"] > memory.RUNTIME
        assert first["disk"]["base"] == 0


def test_check_of_a_model_that_is_not_there_names_the_nearest(tmp_path):
    done = door(project(tmp_path), "check", "frist")
    assert done.returncode == 2
    assert "Did you mean 'first'?" in done.stderr


def shown(monkeypatch, folder, device, one=False):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(devices, "of", lambda name: replace(device, backend=name))
    found = check.facts(settings.load(), ["first"])
    return "\n".join(screen.lines(found, one))


def test_the_screen_says_what_is_too_big_and_what_would_fit(tmp_path, monkeypatch):
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


def test_one_model_is_told_in_full(tmp_path, monkeypatch):
    text = shown(monkeypatch, project(tmp_path), replace(cpu(), why="no GPU is here"), one=True)
    assert "first: lora on models/base/small" in text
    assert "4 rows of 16 tokens (the longest row) in fp32" in text
    assert "train     torch cpu: models.first.backend; no GPU is here" in text
    assert "evaluate  torch cpu: models.first.evaluate.engine; no GPU is here" in text
    assert "checkpoint " in text


def test_the_screen_says_what_is_not_there_yet(tmp_path, monkeypatch):
    folder = make(tmp_path, [])
    text = shown(monkeypatch, folder, cpu())
    assert (
        "models/base/small is not there yet, so its memory is not known. dvc repro base@s" in text
    )
    gone = Device("torch", why="trl not installed", do="make setup")
    text = shown(monkeypatch, folder, gone)
    assert "does not run here: trl not installed\n            make setup" in text
    assert "torch nowhere" in text


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
