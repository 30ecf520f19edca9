"""Data sets from a hub: the real huggingface_hub client against a small hub on 127.0.0.1."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pyarrow
import pyarrow.parquet
import pytest
from hub_server import DATASET, SECRET, Hub, point_client, serving, sha256
from pydantic import ValidationError

from stages.core import files
from stages.core.errors import TunesmithError
from stages.makers import hub as maker
from stages.recipes import chats, table

REPO = "acme/questions"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
OTHER = "f" * 40
LINE = b'{"prompt": "Is it open?", "completion": "Until six."}\n'


@pytest.fixture(scope="module")
def repository() -> dict[str, bytes]:
    sink = pyarrow.BufferOutputStream()
    rows = pyarrow.table({"q": ["Is it open?", "Where?"], "a": ["Until six.", "There."]})
    pyarrow.parquet.write_table(rows, sink)
    return {
        "README.md": b"---\nlicense: mit\n---\n# Questions\n",
        "LICENSE": b"MIT\n",
        "questions.py": b"run()",
        "data/train-00000.parquet": sink.getvalue().to_pybytes(),
        "data/train-00001.jsonl": LINE * 3,
        "data/test.jsonl": LINE,
        "data/cache.pkl": b"pickle",
        "images/a b.csv": b"q,a\nWhen?,Now.\n",
    }


@pytest.fixture
def hub(
    repository: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Hub]:
    """A hub that serves `repository`, and the client's constants as its environment would."""
    with serving(Hub()) as server:
        server.repos[DATASET + REPO, COMMIT] = dict(repository)
        point_client(server, tmp_path / "hf", monkeypatch)
        huggingface_hub.close_session()
        yield server
        huggingface_hub.close_session()


def make(out: Path, *patterns: str, repo: str = REPO, revision: str = COMMIT) -> Path:
    options = maker.Options(repo=repo, revision=revision, files=list(patterns or ["data/*"]))
    with files.directory(out) as work:
        maker.make(options, work)
    return out


def test_the_data_files_of_the_pinned_commit_arrive_as_plain_files(
    hub: Hub, repository: dict[str, bytes], tmp_path: Path
) -> None:
    out = make(tmp_path / "raw", "data/train-*")

    came = {"README.md", "LICENSE", "data/train-00000.parquet", "data/train-00001.jsonl"}
    assert set(files.tree_hashes(out)) == {*came, "hub.yaml"}
    assert {name: (out / name).read_bytes() for name in came} == {n: repository[n] for n in came}
    assert not any(path.is_symlink() for path in out.rglob("*"))
    assert files.read_json(out / "hub.yaml") == {
        "repo": REPO,
        "revision": COMMIT,
        "files": {name: sha256(repository[name]) for name in came},
    }


def test_scripts_and_pickles_are_never_fetched(hub: Hub, tmp_path: Path) -> None:
    make(tmp_path / "raw", "*/*", "*.md")

    fetched = set(hub.fetched())
    assert "data/test.jsonl" in fetched
    assert not {"questions.py", "data/cache.pkl"} & fetched


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("*.py", r"fits only questions\.py, which is no data file"),
        ("data/*.pkl", r"fits only data/cache\.pkl, which is no data file"),
        ("*.jsonl", "fits no file"),
        ("data/valid*", "fits no file"),
        ("../*", "fits no file"),
    ],
)
def test_a_pattern_without_data_is_refused_by_name_before_anything_is_fetched(
    hub: Hub, tmp_path: Path, pattern: str, problem: str
) -> None:
    with pytest.raises(TunesmithError, match=problem) as refused:
        make(tmp_path / "raw", "data/test.jsonl", pattern)
    assert f"The pattern {pattern!r}" in refused.value.what
    assert "data/test.jsonl" in refused.value.do
    assert hub.fetched() == []


def test_a_path_that_leads_out_of_the_folder_is_never_written(hub: Hub, tmp_path: Path) -> None:
    hub.repos[DATASET + REPO, COMMIT] |= {"../up.jsonl": LINE, "a\\b.jsonl": LINE}

    make(tmp_path / "raw", "*/*")

    assert not list(tmp_path.rglob("up.jsonl"))
    assert "../up.jsonl" not in hub.fetched()
    with pytest.raises(TunesmithError, match="fits only"):
        make(tmp_path / "raw", "../*")


def test_a_name_with_a_space_arrives(hub: Hub, tmp_path: Path) -> None:
    out = make(tmp_path / "raw", "images/*.csv")

    assert (out / "images" / "a b.csv").read_bytes().startswith(b"q,a")


def test_what_arrived_is_read_by_the_recipes(hub: Hub, tmp_path: Path) -> None:
    out = make(tmp_path / "raw", "data/*")

    found = chats.examples(out, chats.Options(pattern="data/*.jsonl", system="", group_by=""))
    assert [item.source for item in found] == [
        "data/test.jsonl#1",
        *(f"data/train-00001.jsonl#{n}" for n in (1, 2, 3)),
    ]
    options = table.Options(
        pattern="data/*.parquet", query="", delimiter=",", encoding="utf-8",
        system="", user="{q}", assistant="{a}", group_by="", meta=[],
    )  # fmt: skip
    assert [item.messages[0]["content"] for item in table.examples(out, options)] == [
        "Is it open?",
        "Where?",
    ]


def test_two_downloads_are_the_same_bytes_and_the_second_needs_no_hub(
    hub: Hub, tmp_path: Path
) -> None:
    first = make(tmp_path / "one")
    asked = len(hub.tokens)
    hub.refuse = (500, "")
    second = make(tmp_path / "two")

    assert files.tree_hashes(first) == files.tree_hashes(second)
    assert len(hub.tokens) == asked


@pytest.mark.parametrize("name", ["data/train-00000.parquet", "data/test.jsonl"])
def test_other_bytes_than_announced_are_refused(
    hub: Hub, repository: dict[str, bytes], tmp_path: Path, name: str
) -> None:
    hub.wrong[name] = repository[name][:-4] + b"oops"

    with pytest.raises(TunesmithError, match=f"{name} has the digest"):
        make(tmp_path / "raw")
    assert [path.name for path in tmp_path.iterdir()] == ["hf"]


@pytest.mark.parametrize("revision", ["main", COMMIT[:12], COMMIT.upper(), ""])
def test_a_revision_that_is_no_whole_commit_is_refused(revision: str) -> None:
    with pytest.raises(ValidationError, match=r"40 digits .* git ls-remote"):
        maker.Options(repo=REPO, revision=revision, files=["*"])


@pytest.mark.parametrize("patterns", [[], [""]])
def test_no_pattern_is_refused(patterns: list[str]) -> None:
    with pytest.raises(ValidationError):
        maker.Options(repo=REPO, revision=COMMIT, files=patterns)


@pytest.mark.parametrize(
    ("refusal", "problem"),
    [
        ((401, "GatedRepo"), "is gated"),
        ((403, ""), "is gated"),
        ((401, "RepoNotFound"), "The hub knows no acme/questions"),
        ((503, ""), "The hub answered 503"),
    ],
)
def test_a_refusal_is_told_without_the_token(
    hub: Hub, tmp_path: Path, refusal: tuple[int, str], problem: str
) -> None:
    hub.refuse = refusal

    with pytest.raises(TunesmithError, match=problem) as refused:
        make(tmp_path / "raw")
    assert "half a dataset is never used" in refused.value.why
    assert SECRET not in str(refused.value)


def test_a_missing_repository_or_commit_is_named(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(TunesmithError, match="The hub knows no acme/nothing"):
        make(tmp_path / "raw", repo="acme/nothing")
    with pytest.raises(TunesmithError, match=f"has no commit {OTHER}"):
        make(tmp_path / "raw", revision=OTHER)


def test_a_model_of_the_same_name_is_not_taken_for_the_data(hub: Hub, tmp_path: Path) -> None:
    hub.repos[REPO, COMMIT] = {"data/test.jsonl": b"of a model"}

    assert (make(tmp_path / "raw") / "data" / "test.jsonl").read_bytes() == LINE


def test_a_hub_that_answers_for_another_commit_is_refused(hub: Hub, tmp_path: Path) -> None:
    hub.info_as = OTHER

    with pytest.raises(TunesmithError, match="known to be the dataset that was meant"):
        make(tmp_path / "raw")


def test_a_disk_too_small_is_seen_before_anything_is_fetched(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 100}))

    with pytest.raises(TunesmithError, match=r"acme/questions.* needs"):
        make(tmp_path / "raw")
    assert hub.fetched() == []


def test_the_door_writes_the_raw_folder_and_tells_offline_from_gone(
    hub: Hub, tmp_path: Path
) -> None:
    options = {"repo": REPO, "revision": COMMIT, "files": ["data/*.jsonl"]}
    params = {"samples": {"mine": {"maker": "hub", "options": options}}}
    params |= {name: {} for name in ("bases", "datasets", "models", "gguf")}
    (tmp_path / "params.yaml").write_text(json.dumps(params))

    offline = door(hub, tmp_path, HF_HUB_OFFLINE="1")
    made = door(hub, tmp_path)
    again = door(hub, tmp_path, HF_HUB_OFFLINE="1", HF_ENDPOINT="http://127.0.0.1:9")

    assert offline.returncode == 2
    assert "HF_HUB_OFFLINE is set and the cache lacks files" in offline.stderr
    assert (made.returncode, again.returncode) == (0, 0), made.stderr + again.stderr
    assert "Traceback" not in offline.stderr
    assert (tmp_path / "data" / "raw" / "mine" / "data" / "test.jsonl").read_bytes() == LINE


def door(hub: Hub, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """`python -m stages sample mine` in a project of its own."""
    given = {
        "HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "home"), "HF_HUB_DISABLE_XET": "1",
        "PYTHONPATH": str(Path(__file__).parents[1]), "NO_PROXY": "*",
        "HF_HUB_OFFLINE": "0", **environment,
    }  # fmt: skip
    return subprocess.run(
        [sys.executable, "-m", "stages", "sample", "mine"],
        cwd=folder, env={**os.environ, **given}, capture_output=True, text=True, check=False,
    )  # fmt: skip
