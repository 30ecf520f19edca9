"""Bases from a hub: the real huggingface_hub client against a small hub on 127.0.0.1."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from hub_server import CHUNK, SECRET, Hub, point_client, serving, sha256
from pydantic import ValidationError
from safetensors.numpy import load, save
from tiny import tiny_model

from stages.bases import hub as base
from stages.core import files, shards
from stages.core.errors import TunesmithError

REPO = "acme/small-instruct"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
OTHER = "f" * 40
README = b"---\nlicense: apache-2.0\nlanguage: [en]\n---\n# Small\n"
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tiny_model(tmp_path_factory.mktemp("model"))
    return {path.name: path.read_bytes() for path in folder.iterdir()} | {"README.md": README}


@pytest.fixture
def hub(model: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that serves `model`, and the client's constants as its environment would set them."""
    with serving(Hub()) as server:
        server.repos[REPO, COMMIT] = dict(model)
        point_client(server, tmp_path / "hf", monkeypatch)
        huggingface_hub.close_session()
        yield server
        huggingface_hub.close_session()


def make(out: Path, repo: str = REPO, revision: str = COMMIT) -> Path:
    with files.directory(out) as work:
        base.make(base.Options(repo=repo, revision=revision), work)
    return out


def two_shards(model: dict[str, bytes]) -> dict[str, bytes]:
    """The same model in two weight files and an index."""
    tensors = load(model["model.safetensors"])
    names = sorted(tensors)
    parts = {FIRST: names[:5], SECOND: names[5:]}
    found = {f: save({n: tensors[n] for n in part}) for f, part in parts.items()}
    places = {name: file for file, part in parts.items() for name in part}
    index = json.dumps({"metadata": {}, "weight_map": places}).encode()
    rest = {name: content for name, content in model.items() if name != "model.safetensors"}
    return rest | found | {shards.INDEX: index}


def edited(content: bytes, **changes: object) -> bytes:
    return json.dumps(json.loads(content) | changes).encode()


def test_the_files_of_the_pinned_commit_arrive_as_plain_files(
    hub: Hub, model: dict[str, bytes], tmp_path: Path
) -> None:
    hub.repos[REPO, COMMIT] |= {"pytorch_model.bin": b"pickle", "train.py": b"run()", "a.png": b""}

    out = make(tmp_path / "base")

    names = {path.name for path in out.iterdir()}
    assert names == {*model, "base.json", files.MARKER}
    assert not any(path.is_symlink() for path in out.iterdir())
    assert {name: (out / name).read_bytes() for name in model} == model
    assert not {"pytorch_model.bin", "train.py", "a.png"} & set(hub.fetched())


def test_base_json_says_what_was_downloaded(
    hub: Hub, model: dict[str, bytes], tmp_path: Path
) -> None:
    facts = files.read_json(make(tmp_path / "base") / "base.json")

    tensors = load(model["model.safetensors"])
    assert facts == {
        "id": f"{REPO}@{COMMIT[:12]}",
        "kind": "hub",
        "repo": REPO,
        "revision": COMMIT,
        "licence": "apache-2.0",
        "files": {name: sha256(content) for name, content in model.items()},
        "architecture": "Qwen2ForCausalLM",
        "parameters": sum(tensor.size for tensor in tensors.values()),
        "dtypes": ["F32"],
        "context": 2048,
        "vocabulary": 512,
        "eos": [0, 2],
        "bos": -1,
        "tied": True,
    }


def test_two_downloads_of_one_commit_are_the_same_bytes(hub: Hub, tmp_path: Path) -> None:
    one, two = make(tmp_path / "one"), make(tmp_path / "two")

    assert files.tree_hashes(one) == files.tree_hashes(two)


@pytest.mark.parametrize("revision", ["main", "v1.0", COMMIT[:12], COMMIT.upper(), ""])
def test_a_revision_that_is_no_whole_commit_is_refused(revision: str) -> None:
    with pytest.raises(ValidationError, match=r"40 digits .* git ls-remote"):
        base.Options(repo=REPO, revision=revision)


@pytest.mark.parametrize("repo", ["a/b/c", "../x", "https://hub/a/b", "a--b/c", ""])
def test_what_is_no_repository_name_is_refused(repo: str) -> None:
    with pytest.raises(ValidationError, match="owner/name"):
        base.Options(repo=repo, revision=COMMIT)


def test_a_branch_that_moved_on_changes_nothing(
    hub: Hub, model: dict[str, bytes], tmp_path: Path
) -> None:
    hub.repos[REPO, "main"] = hub.repos[REPO, OTHER] = model | {"config.json": b"{}"}

    out = make(tmp_path / "base")

    assert (out / "config.json").read_bytes() == model["config.json"]


def test_a_model_in_shards_arrives_by_its_index(
    hub: Hub, model: dict[str, bytes], tmp_path: Path
) -> None:
    stray = {"model-fp8.safetensors": b"another form of the weights"}
    hub.repos[REPO, COMMIT] = two_shards(model) | stray

    out = make(tmp_path / "base")

    assert sorted(path.name for path in out.glob("*.safetensors")) == [FIRST, SECOND]
    assert files.read_json(out / "base.json")["parameters"] > 100_000


def test_an_index_that_names_a_missing_shard_is_refused(
    hub: Hub, model: dict[str, bytes], tmp_path: Path
) -> None:
    hub.repos[REPO, COMMIT] = two_shards(model)
    del hub.repos[REPO, COMMIT][SECOND]

    with pytest.raises(TunesmithError, match=f"{shards.INDEX} names {SECOND}"):
        make(tmp_path / "base")
    assert FIRST not in hub.fetched()


def test_a_connection_cut_half_way_is_taken_up_there(
    hub: Hub, model: dict[str, bytes], tmp_path: Path
) -> None:
    half = len(model["model.safetensors"]) // 2 // CHUNK * CHUNK
    hub.cuts["model.safetensors"] = [half]

    out = make(tmp_path / "base")

    gets = [entry for entry in hub.log if entry[:2] == ("GET", "model.safetensors")]
    assert [span for _, _, span in gets] == ["", f"bytes={half}-"]
    assert (out / "model.safetensors").read_bytes() == model["model.safetensors"]


def test_after_a_broken_download_only_the_unfinished_file_is_fetched_again(
    hub: Hub, model: dict[str, bytes], tmp_path: Path
) -> None:
    whole = hub.repos[REPO, COMMIT] = two_shards(model)
    hub.cuts[SECOND] = [len(whole[SECOND]) // 2, *[0] * 20]

    with pytest.raises(TunesmithError, match="cannot be reached") as broken:
        make(tmp_path / "base")
    assert "half a base is never used" in str(broken.value)
    assert not any("base" in path.name for path in tmp_path.iterdir())

    hub.log.clear()
    hub.cuts.clear()
    out = make(tmp_path / "base")
    assert hub.fetched() == [SECOND]
    assert (out / SECOND).read_bytes() == whole[SECOND]
    assert (out / FIRST).read_bytes() == whole[FIRST]


def test_the_second_time_nothing_is_asked_and_no_hub_is_needed(hub: Hub, tmp_path: Path) -> None:
    first = make(tmp_path / "first")
    asked = len(hub.tokens)
    hub.refuse = (500, "")

    second = make(tmp_path / "second")

    assert len(hub.tokens) == asked
    assert files.tree_hashes(first) == files.tree_hashes(second)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_other_bytes_than_announced_are_refused(
    hub: Hub, model: dict[str, bytes], tmp_path: Path, name: str
) -> None:
    hub.wrong[name] = model[name][:-40] + bytes(40)

    with pytest.raises(TunesmithError, match=f"{name} has the digest") as refused:
        make(tmp_path / "base")
    assert [path.name for path in tmp_path.iterdir()] == ["hf"]

    # What the error says to do mends it.
    command = refused.value.do.split()
    assert command[0] == "rm"
    Path(command[1]).unlink()
    del hub.wrong[name]
    assert (make(tmp_path / "base") / name).read_bytes() == model[name]


def test_a_cached_file_that_changed_is_refused_without_the_hub(hub: Hub, tmp_path: Path) -> None:
    make(tmp_path / "first")
    (cached,) = (tmp_path / "hf").rglob("snapshots/*/model.safetensors")
    content = bytearray(cached.read_bytes())
    content[-1] ^= 1
    cached.resolve().write_bytes(content)

    with pytest.raises(TunesmithError, match=r"model\.safetensors has the digest"):
        make(tmp_path / "second")


def test_pickled_weights_are_refused_before_anything_is_fetched(
    hub: Hub, model: dict[str, bytes], tmp_path: Path
) -> None:
    rest = {name: content for name, content in model.items() if name != "model.safetensors"}
    hub.repos[REPO, COMMIT] = rest | {"pytorch_model.bin": b"pickle"}

    with pytest.raises(TunesmithError, match=r"only pickled weights \(pytorch_model.bin\)"):
        make(tmp_path / "base")
    assert hub.fetched() == []


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("config.json", {"auto_map": {"AutoModel": "modeling_x.X"}}, r"\(auto_map\), which is nev"),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["t.T", None]}}, "auto_map"),
        ("config.json", {"quantization_config": {"bits": 4}}, "is quantised"),
        ("config.json", {"num_local_experts": 8}, "mixture of experts"),
        ("config.json", {"architectures": ["MambaForCausalLM"]}, "'MambaForCausalLM' is not supp"),
        ("chat_template.jinja", None, "chat template of this base is missing"),
        ("tokenizer.json", None, r"no tokenizer\.json"),
        ("config.json", None, r"no config\.json"),
    ],
)
def test_a_base_that_is_refused_costs_no_weights(
    hub: Hub, tmp_path: Path, name: str, content: dict[str, object] | None, problem: str
) -> None:
    repo = hub.repos[REPO, COMMIT]
    if content is None:
        del repo[name]
    else:
        repo[name] = edited(repo[name], **content)

    with pytest.raises(TunesmithError, match=problem) as refused:
        make(tmp_path / "base")
    assert "model.safetensors" not in hub.fetched()
    assert f"{REPO}@{COMMIT[:12]}" in refused.value.where
    assert refused.value.do


def test_a_template_in_the_tokenizers_config_becomes_a_file(hub: Hub, tmp_path: Path) -> None:
    repo = hub.repos[REPO, COMMIT]
    template = repo.pop("chat_template.jinja").decode()
    named = [{"name": "default", "template": template}, {"name": "tool_use", "template": "T"}]
    repo["tokenizer_config.json"] = edited(repo["tokenizer_config.json"], chat_template=named)

    out = make(tmp_path / "base")

    assert (out / "chat_template.jinja").read_text() == template
    assert (out / "additional_chat_templates" / "tool_use.jinja").read_text() == "T"


@pytest.mark.parametrize(
    ("readme", "licence"),
    [
        (b"---\nlicense: [mit, apache-2.0]\n---\n", "mit, apache-2.0"),
        (b"---\nlicense: other\nlicense_name: qwen-research\n---\n", "qwen-research"),
        (b"---\nlicense: other\n---\n", "other"),
        (b"---\ntags: [a]\n---\n", "unknown"),
        (b"---\nlicense: [\n---\n", "unknown"),
        (b"---\nlicense: mit\n", "unknown"),
        (b"# No front matter\n", "unknown"),
        (b"", "unknown"),
        (None, "unknown"),
    ],
)
def test_the_licence_is_read_from_the_readme(
    hub: Hub, tmp_path: Path, readme: bytes | None, licence: str
) -> None:
    del hub.repos[REPO, COMMIT]["README.md"]
    if readme is not None:
        hub.repos[REPO, COMMIT]["README.md"] = readme

    assert files.read_json(make(tmp_path / "base") / "base.json")["licence"] == licence


def test_a_repository_that_is_not_there_is_named(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(TunesmithError, match="The hub knows no acme/nothing"):
        make(tmp_path / "base", repo="acme/nothing")


def test_a_commit_that_is_not_there_is_named(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(TunesmithError, match=f"{REPO} has no commit {OTHER}") as refused:
        make(tmp_path / "base", revision=OTHER)
    assert f"Bearer {SECRET}" in hub.tokens
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize("stage", ["refuse", "refuse_files"])
@pytest.mark.parametrize(
    ("status", "code", "problem"),
    [
        (401, "GatedRepo", "is gated"),
        (403, "GatedRepo", "is gated"),
        (403, "", "is gated"),
        (401, "", "The hub knows no acme/small-instruct, or does not show it"),
        (500, "", r"The hub answered 500 \(Internal Server Error\)"),
    ],
)
def test_a_refused_access_says_how_to_get_it(
    hub: Hub, tmp_path: Path, status: int, code: str, problem: str, stage: str
) -> None:
    setattr(hub, stage, (status, code))

    with pytest.raises(TunesmithError, match=problem) as refused:
        make(tmp_path / "base")
    assert ("HF_TOKEN" in refused.value.do) == (status != 500)
    assert SECRET not in str(refused.value)


def test_a_hub_that_is_down_is_said_so(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")

    with pytest.raises(TunesmithError, match=r"cannot be reached \(ConnectError\)"):
        make(tmp_path / "base")


@pytest.mark.parametrize(
    "failure", [OSError("Consistency check failed: …"), RuntimeError("Task error: CAS Client …")]
)
def test_a_transfer_that_breaks_off_is_said_so(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    def breaks(*_: Any, **__: Any) -> None:
        raise failure

    monkeypatch.setattr(huggingface_hub, "snapshot_download", breaks)

    with pytest.raises(TunesmithError, match=rf"broke off \({type(failure).__name__}\)"):
        make(tmp_path / "base")


def test_a_failure_of_this_machines_disk_is_not_disguised(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_: Any, **__: Any) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", breaks)

    with pytest.raises(OSError, match="Input/output error"):
        make(tmp_path / "base")


def test_a_hub_that_answers_for_another_commit_is_refused(hub: Hub, tmp_path: Path) -> None:
    hub.info_as = OTHER

    with pytest.raises(TunesmithError, match=f"was asked for and the hub answered with {OTHER}"):
        make(tmp_path / "base")


def test_files_served_under_another_commit_are_refused(hub: Hub, tmp_path: Path) -> None:
    hub.files_as = OTHER

    with pytest.raises(TunesmithError, match=r"was asked for and .* came under another commit"):
        make(tmp_path / "base")


def test_a_disk_too_small_is_seen_before_the_weights_are_fetched(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 700_000})  # once the weights, not twice: cache and copy
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)

    with pytest.raises(TunesmithError, match=r"The base acme/small.* needs 1 MB"):
        make(tmp_path / "base")
    assert "model.safetensors" not in hub.fetched()


def door(hub: Hub, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """`python -m stages base small` in a project of its own, set up by the environment alone."""
    entry = f"bases: {{small: {{kind: hub, repo: {REPO}, revision: {COMMIT}}}}}\n"
    empty = "samples: {}\ndatasets: {}\nmodels: {}\ngguf: {}\n"
    (folder / "params.yaml").write_text(entry.replace(COMMIT, f'"{COMMIT}"') + empty)
    given = {
        "HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "hf"), "HF_HUB_DISABLE_XET": "1",
        "PYTHONPATH": str(Path(__file__).parents[1]), "NO_PROXY": "*",
        "HF_HUB_OFFLINE": "0", **environment,
    }  # fmt: skip
    return subprocess.run(
        [sys.executable, "-m", "stages", "base", "small"],
        cwd=folder, env={**os.environ, **given}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_door_obeys_the_environment_and_never_prints_the_token(
    hub: Hub, tmp_path: Path
) -> None:
    hub.refuse = (403, "")
    refused = door(hub, tmp_path)
    hub.refuse = None
    hub.tokens.clear()
    made = door(hub, tmp_path)
    offline = door(hub, tmp_path, HF_HUB_OFFLINE="1", HF_ENDPOINT="http://127.0.0.1:9")

    assert refused.returncode == 2
    assert "is gated" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert made.returncode == 0, made.stderr
    assert made.stdout.startswith("small: Qwen2ForCausalLM, 0.1 million parameters, 512 tokens")
    assert offline.returncode == 0, offline.stderr
    assert f"Bearer {SECRET}" in hub.tokens
    assert SECRET not in "".join(run.stdout + run.stderr for run in (refused, made, offline))
    files.require_complete(tmp_path / "models" / "base" / "small", "base@small")


def test_offline_without_the_files_in_the_cache_is_said_so(hub: Hub, tmp_path: Path) -> None:
    done = door(hub, tmp_path, HF_HUB_OFFLINE="1")

    assert done.returncode == 2
    assert "HF_HUB_OFFLINE is set and the cache lacks files" in done.stderr
    assert not (tmp_path / "models" / "base" / "small").exists()
