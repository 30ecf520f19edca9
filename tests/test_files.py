"""Writing whole: whatever happens half-way, nothing half-written is ever used."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from project import ROOT

from stages.core import files
from stages.core.errors import TunesmithError


def made(folder: Path, **texts: str) -> Path:
    """A complete folder of these files."""
    with files.directory(folder) as out:
        for name, text in texts.items():
            (out / name).write_text(text, encoding="utf-8")
    return folder


def half_way(path: Path, problem: BaseException) -> None:
    """Write something, then fail."""
    path.write_text("new", encoding="utf-8")
    raise problem


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_completed_folder_is_whole_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    done = made(tmp_path / "deep" / "out", a="one", b="two")
    assert files.require_complete(done, "train@x") == done
    assert names(tmp_path / "deep") == ["out"]
    assert files.read_json(done / files.MARKER) == {"files": {"a": 3, "b": 3}}


def test_a_block_that_raises_leaves_the_older_folder_and_no_other(tmp_path: Path) -> None:
    made(tmp_path / "out", a="old")
    with pytest.raises(KeyError, match="half-way"), files.directory(tmp_path / "out") as out:
        half_way(out / "a", KeyError("half-way"))
    assert names(tmp_path) == ["out"]
    assert (tmp_path / "out" / "a").read_text(encoding="utf-8") == "old"
    assert files.incomplete(tmp_path / "out") == ""


def test_an_interrupt_cleans_up_like_any_other_end(tmp_path: Path) -> None:
    with (
        pytest.raises(KeyboardInterrupt, match="stop"),
        files.directory(tmp_path / "out") as out,
    ):
        half_way(out / "a", KeyboardInterrupt("stop"))
    assert names(tmp_path) == []


def test_a_new_folder_replaces_the_old_one_with_all_its_files(tmp_path: Path) -> None:
    made(tmp_path / "out", a="old", gone="old")
    made(tmp_path / "out", a="new")
    assert names(tmp_path / "out") == [files.MARKER, "a"]


def test_a_folder_takes_the_place_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file", encoding="utf-8")
    made(tmp_path / "out", a="new")
    assert files.incomplete(tmp_path / "out") == ""


def test_a_file_whose_writing_raises_leaves_the_older_one(tmp_path: Path) -> None:
    final = tmp_path / "deep" / "x.gguf"
    with files.file(final) as work:
        work.write_text("old", encoding="utf-8")
    with pytest.raises(KeyError, match="half-way"), files.file(final) as work:
        half_way(work, KeyError("half-way"))
    assert final.read_text(encoding="utf-8") == "old"
    assert names(final.parent) == ["x.gguf"]


KILLED = """
import os, signal
from pathlib import Path
from stages.core import files
with files.{how}(Path("out")) as out:
    ({target}).write_text("half of it", encoding="utf-8")
    os.kill(os.getpid(), signal.{signal})
"""


def killed(folder: Path, how: str, target: str, by: signal.Signals) -> None:
    """Run a child that is killed in the middle of writing `out`."""
    code = KILLED.format(how=how, target=target, signal=by.name)
    child = subprocess.run([sys.executable, "-c", code], cwd=folder, env={"PYTHONPATH": str(ROOT)})
    assert child.returncode == -by


def test_a_killed_process_leaves_nothing_that_is_accepted(tmp_path: Path) -> None:
    killed(tmp_path, "directory", "out / 'a'", signal.SIGKILL)
    with pytest.raises(TunesmithError, match=r"(?s)out does not exist\..*dvc repro train@x"):
        files.require_complete(tmp_path / "out", "train@x")


def test_a_killed_process_leaves_the_older_folder_as_it_was(tmp_path: Path) -> None:
    made(tmp_path / "out", a="old")
    killed(tmp_path, "directory", "out / 'a'", signal.SIGKILL)
    assert files.incomplete(tmp_path / "out") == ""
    assert (tmp_path / "out" / "a").read_text(encoding="utf-8") == "old"


def test_the_next_run_clears_what_a_killed_one_left(tmp_path: Path) -> None:
    killed(tmp_path, "directory", "out / 'stray'", signal.SIGKILL)
    assert names(tmp_path) == [".out.tmp"]
    made(tmp_path / "out", a="new")
    assert names(tmp_path) == ["out"]
    assert names(tmp_path / "out") == [files.MARKER, "a"]


def test_a_killed_process_leaves_no_file_of_the_final_name(tmp_path: Path) -> None:
    killed(tmp_path, "file", "out", signal.SIGKILL)
    assert not (tmp_path / "out").exists()


SPOILT: dict[str, tuple[Callable[[Path], object], str]] = {
    "gone": (shutil.rmtree, "does not exist"),
    "no marker": (lambda out: (out / files.MARKER).unlink(), "writing it was interrupted"),
    "no file": (lambda out: (out / "a").unlink(), "has lost its file a"),
    "cut": (lambda out: (out / "a").write_bytes(b"on"), "a file a of 2 bytes where 3 were written"),
    "broken marker": (
        lambda out: (out / files.MARKER).write_bytes(b'{"files": {"a"'),
        "has a broken completion marker",
    ),
    "other marker": (
        lambda out: (out / files.MARKER).write_bytes(b"{}"),
        "has a broken completion marker",
    ),
}


@pytest.mark.parametrize("how", SPOILT)
def test_a_spoilt_folder_is_refused_and_says_what_to_run(tmp_path: Path, how: str) -> None:
    out = made(tmp_path / "out", a="one")
    spoil, said = SPOILT[how]
    spoil(out)
    with pytest.raises(TunesmithError, match=rf"(?s){said}\..*do    dvc repro convert@x"):
        files.require_complete(out, "convert@x")


def test_files_in_folders_below_are_watched_too(tmp_path: Path) -> None:
    with files.directory(tmp_path / "out") as out:
        (out / "sub").mkdir()
        (out / "sub" / "a").write_text("one", encoding="utf-8")
    (tmp_path / "out" / "sub" / "a").unlink()
    assert files.incomplete(tmp_path / "out") == "has lost its file sub/a"


def test_a_disk_too_small_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def usage(folder: Path) -> SimpleNamespace:
        asked.append(folder)
        return SimpleNamespace(free=5_000_000)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    target = tmp_path / "not" / "yet" / "there"
    with pytest.raises(TunesmithError, match=r"Fused needs 6 MB and the disk has 5 MB free\."):
        files.require_space(target, 6_000_000, "Fused")
    files.require_space(target, 5_000_000, "Fused")
    assert asked == [tmp_path, tmp_path]
    assert names(tmp_path) == []


def test_a_tree_hash_is_the_same_for_the_same_names_and_bytes(tmp_path: Path) -> None:
    one, two = made(tmp_path / "one", a="x", b="y"), tmp_path / "two"
    two.mkdir()
    for name, text in (("b", "y"), ("a", "x")):
        (two / name).write_text(text, encoding="utf-8")
    assert files.tree_hash(one) == files.tree_hash(two)
    # sha256 of "<sha256 of x>  a\n<sha256 of y>  b\n", as `sha256sum a b | sha256sum` says
    assert files.tree_hash(one) == (
        "8d73e01349b30f78751f37931b0d2ae54f8dbd56a8fc69e01f2861cc466fadaa"
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda out: (out / "a").write_text("X", encoding="utf-8"),
        lambda out: (out / "a").rename(out / "c"),
        lambda out: (out / "b").unlink(),
        lambda out: (out / "sub" / "c").write_text("", encoding="utf-8"),
    ],
)
def test_a_tree_hash_sees_every_change(tmp_path: Path, change: Callable[[Path], object]) -> None:
    out = made(tmp_path / "out", a="x", b="y")
    (out / "sub").mkdir()
    before = files.tree_hash(out)
    change(out)
    assert files.tree_hash(out) != before


def test_json_is_written_with_sorted_keys_and_a_last_newline(tmp_path: Path) -> None:
    files.write_json(tmp_path / "x.json", {"b": 1, "a": "é"})
    assert (tmp_path / "x.json").read_text(encoding="utf-8") == '{\n  "a": "é",\n  "b": 1\n}\n'
