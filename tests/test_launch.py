"""Where a stage runs: a table over every combination, and the command line of a container."""

import itertools
import json
from pathlib import Path

import pytest

from stages.core import launch, local, mounts, runs, settings
from stages.core.errors import TunesmithError
from stages.core.launch import Machine, Need

GOOD = {"cpu": "", "cuda": ""}
BARE = {"cpu": "there is no image tunesmith-cpu", "cuda": "there is no image tunesmith-cuda"}
NEEDS = {
    "light": Need("convert", "k"),
    "cpu": Need("fuse", "k", "torch", ("torch",)),
    "gpu": Need("train", "k", "torch", ("torch", "peft")),
    "mlx": Need("train", "k", "mlx", ("mlx", "mlx-lm")),
}
# Of a stage that needs something, where torch's packages are there (+) or not (-): the place for
# (need, way, packages, GPU, engine, images), in that order of loops; x is a refusal.
N, CPU, CUDA, X = "native", "cpu", "cuda", "refused"


def expected(kind: str, way: str, packages: bool, gpu: bool, engine: bool, images: bool) -> str:
    """The rules of docs/containers.md, written down once more and otherwise."""
    able = engine and images
    if kind == "mlx":
        return N if packages else X
    if way == "native":
        return N
    container = CUDA if kind == "gpu" and gpu else CPU
    if way == "container":
        return container if able else X
    first = [container] if container == CUDA else []
    last = [] if container == CUDA else [container]
    order = [*first, N, *last]
    runs = {N: packages or kind == "light", CPU: able, CUDA: able}
    return next((where for where in order if runs[where]), X)


TABLE = list(
    itertools.product(NEEDS, launch.WAYS, *[(True, False)] * 4)
)  # need, way, packages, GPU, engine, images: 192 cases


@pytest.mark.parametrize(("kind", "way", "packages", "gpu", "engine", "images"), TABLE)
def test_a_stage_runs_where_the_rules_say(kind, way, packages, gpu, engine, images):
    need = NEEDS[kind]
    here = Machine(
        gpu=gpu,
        engine="docker" if engine else "",
        images=GOOD if images else BARE,
        missing=() if packages else need.packages,
    )
    wanted = expected(kind, way, packages, gpu, engine, images)
    if wanted == X:
        with pytest.raises(TunesmithError) as refused:
            launch.place(need, way, here)
        assert refused.value.do
        return
    found = launch.place(need, way, here)
    assert found.where == wanted
    assert found.why


@pytest.mark.parametrize(
    ("need", "way", "here", "where"),
    [
        # A Mac: MLX natively, the rest natively, as make setup installs it.
        ("mlx", "auto", Machine(), N),
        ("gpu", "auto", Machine(), N),
        # A box with an NVIDIA GPU and docker: training in the image, converting beside it.
        ("gpu", "auto", Machine(gpu=True, engine="docker", images=GOOD), CUDA),
        ("cpu", "auto", Machine(gpu=True, engine="docker", images=GOOD), N),
        ("light", "auto", Machine(gpu=True, engine="docker", images=GOOD), N),
        # The same with nothing but the light install.
        ("cpu", "auto", Machine(engine="docker", images=GOOD, missing=("torch",)), CPU),
        ("light", "container", Machine(engine="podman", images=GOOD), CPU),
        # Only the CPU image is there, and a GPU: the GPU is used natively, not left idle.
        ("gpu", "auto", Machine(gpu=True, engine="docker", images=GOOD | {"cuda": "x"}), N),
    ],
)
def test_the_machines_that_people_have_run_stages_as_the_docs_say(need, way, here, where):
    assert launch.place(NEEDS[need], way, here).where == where


@pytest.mark.parametrize(
    ("here", "said"),
    [
        (Machine(engine_why="docker is not installed"), "install and start docker or podman"),
        (Machine(engine="docker", images=BARE), "make image-cpu"),
        (Machine(engine="docker", images={"cpu": "holds other versions"}), "make image-cpu"),
    ],
)
def test_a_missing_engine_or_image_says_what_to_type(here, said):
    with pytest.raises(TunesmithError) as refused:
        launch.place(NEEDS["cpu"], "container", here)
    assert said in refused.value.do
    assert "TUNESMITH_LAUNCH=auto" in refused.value.do


def test_mlx_that_cannot_run_here_names_the_command_for_where_it_can():
    with pytest.raises(TunesmithError) as refused:
        launch.place(NEEDS["mlx"], "auto", Machine(engine="docker", images=GOOD, missing=("mlx",)))
    assert "dvc repro train@k" in refused.value.do
    assert "dvc exp run -S models.k.backend=torch" in refused.value.do


def test_every_entry_of_the_project_says_what_it_needs():
    params = settings.load(Path(__file__).parents[1] / "params.yaml")
    needs = [
        launch.need(stage, key, params)
        for stage, section in (("base", "bases"), ("convert", "datasets"), ("train", "models"))
        for key in getattr(params, section)
    ]
    assert {need.stage: need.backend for need in needs} == {
        "base": "torch", "convert": "", "train": "torch",
    }  # fmt: skip
    assert not any(need.network or need.secrets for need in needs)


def test_a_plug_in_that_downloads_declares_network_and_token(tmp_path):
    text = (Path(__file__).parents[1] / "params.yaml").read_text(encoding="utf-8")
    hub = f"bases:\n  far: {{kind: hub, repo: a/b, revision: {'a' * 40}}}\n"
    path = tmp_path / "params.yaml"
    path.write_text(text.replace("bases:\n", hub, 1), encoding="utf-8")
    need = launch.need("base", "far", settings.load(path))
    assert need.network
    assert need.secrets == ("HF_TOKEN",)


def test_local_env_gives_what_the_environment_does_not(tmp_path, monkeypatch):
    (tmp_path / "local.env").write_text('# mine\nTUNESMITH_LAUNCH="native"\nTUNESMITH_SHM=2g\n')
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setenv("TUNESMITH_SHM", "8g")
    monkeypatch.setenv("TUNESMITH_LAUNCH", "")
    monkeypatch.delenv("TUNESMITH_LAUNCH")
    local.load()
    assert local.get("TUNESMITH_LAUNCH") == "native"
    assert local.get("TUNESMITH_SHM") == "8g"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("TUNESMITH_LUNCH=native\n", "Did you mean 'TUNESMITH_LAUNCH'?"),
        ("\n# a note\nhf_secret\n", "This is no setting of a machine."),
        ("HF_TOKEN: hf_secret\n", "This is no setting of a machine."),
        ("hf_secret=\n", "This is no setting of a machine."),
    ],
)
def test_a_wrong_line_of_local_env_is_refused_with_its_number(tmp_path, monkeypatch, text, said):
    path = tmp_path / "local.env"
    path.write_text(text, encoding="utf-8")
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    with pytest.raises(TunesmithError, match=said) as refused:
        local.load()
    assert refused.value.where == f"{path}:{len(text.splitlines())}"
    assert "secret" not in str(refused.value)


def test_a_local_env_that_is_no_text_is_refused(tmp_path, monkeypatch):
    (tmp_path / "local.env").write_bytes(b"TUNESMITH_LAUNCH=n\xe4tive\n")
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    with pytest.raises(TunesmithError, match="UnicodeDecodeError"):
        local.load()


def run_of(address: str, made: str, **place: str) -> bytes:
    return json.dumps({"stage": address, "made": made, **place}).encode() + b"\n"


def test_a_release_names_every_place_that_made_these_bytes_and_no_other(tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    runs.path().parent.mkdir()
    image = {"where": "container", "engine": "docker 1", "image": "sha256:1"}
    runs.path().write_bytes(
        run_of("train@a", "x", **image) + run_of("train@a", "y", where="native")
        + run_of("train@b", "x", where="native") + run_of("train@a", "x", **image)
        + run_of("train@a", "x", where="native")
    )  # fmt: skip
    assert runs.of("train@a", "x") == [image, {"where": "native"}]
    assert runs.of("train@a", "z") == []


def test_a_line_that_a_machine_left_half_written_costs_only_itself(tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    (tmp_path / "made").write_bytes(b"weights")
    runs.path().parent.mkdir()
    runs.path().write_bytes(run_of("train@a", "x", where="native") + b'[]\n{"stage":"train@')
    runs.note("fuse@a", 1.0, 2.0, tmp_path / "made")
    assert runs.of("train@a", "x") == [{"where": "native"}]
    assert runs.of("fuse@a", runs.digest(tmp_path / "made")) == [{"where": "native"}]


def test_a_result_is_not_lost_where_the_log_cannot_be_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    runs.path().mkdir(parents=True)
    runs.note("train@a", 1.0, 2.0, None)
    assert "not noted" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("place", "said"), [("/somewhere/a:b", "colon"), ("/opt/tunesmith/mine", "image keeps")]
)
def test_a_path_that_no_container_can_see_is_refused_by_name(place, said):
    with pytest.raises(TunesmithError, match=said):
        mounts.Mounts(Path(place), (), ()).options()


def test_raw_data_is_seen_as_it_is_named_as_it_is_and_where_its_links_lead(tmp_path):
    there, other = tmp_path / "there", tmp_path / "other"
    there.mkdir()
    other.write_bytes(b"rows")
    (there / "rows.jsonl").symlink_to(other)
    (tmp_path / "named").symlink_to(there)
    found = set(mounts.places(tmp_path / "named"))
    assert found == {tmp_path / "named", there.resolve(), other.resolve()}


def test_a_word_that_no_rule_knows_is_refused(monkeypatch):
    monkeypatch.setenv("TUNESMITH_LAUNCH", "docker")
    with pytest.raises(TunesmithError, match="TUNESMITH_LAUNCH is 'docker'"):
        local.one_of("TUNESMITH_LAUNCH", launch.WAYS)
