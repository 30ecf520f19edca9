"""Paths, hashes, and writing whole: nothing half-written ever has its final name."""

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from stages.core.errors import TunesmithError

MARKER = ".complete.json"


def raw_dir(sample: str) -> Path:
    return Path("data/raw") / sample


def base_dir(base: str) -> Path:
    return Path("models/base") / base


def examples_dir(dataset: str) -> Path:
    return Path("data/examples") / dataset


def lineage_path(dataset: str) -> Path:
    return Path("data/lineage") / f"{dataset}.json"


def chat_dir(dataset: str) -> Path:
    return Path("data/chat") / dataset


def tokens_dir(model: str) -> Path:
    return Path("data/tokens") / model


def adapter_dir(model: str) -> Path:
    return Path("models/adapter") / model


def fused_dir(model: str) -> Path:
    return Path("models/fused") / model


def gguf_path(model: str, gguf: str) -> Path:
    return Path("models/gguf") / model / f"{gguf}.gguf"


def report_dir(model: str) -> Path:
    return Path("reports") / model


def release_dir(model: str) -> Path:
    return Path("models/release") / model


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tree_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below `folder` by its POSIX relative path, the marker left out."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MARKER)
    return {path.relative_to(folder).as_posix(): sha256(path) for path in files}


def tree_hash(folder: Path) -> str:
    """One SHA-256 over the names and bytes of all files below `folder`."""
    lines = "".join(f"{digest}  {name}\n" for name, digest in tree_hashes(folder).items())
    return hashlib.sha256(lines.encode()).hexdigest()


def read_json(path: Path) -> Any:
    return orjson.loads(path.read_bytes())


def write_json(path: Path, value: Any) -> None:
    """Indented JSON with sorted keys: the same value is always the same bytes."""
    option = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE
    path.write_bytes(orjson.dumps(value, option=option))


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def directory(final: Path) -> Iterator[Path]:
    """A new folder under a temporary name, renamed to `final` when the block completes.

    The completion marker holds the size in bytes of every file. When the block raises, what
    it wrote is removed and an older `final` is left as it was.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    work = final.with_name(f".{final.name}.tmp")
    _remove(work)
    work.mkdir()
    try:
        yield work
        sizes = {
            path.relative_to(work).as_posix(): path.stat().st_size
            for path in sorted(work.rglob("*"))
            if path.is_file()
        }
        for path in work.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        write_json(work / MARKER, {"files": sizes})
        _remove(final)
        work.rename(final)
    except BaseException:
        _remove(work)
        raise


@contextmanager
def file(final: Path) -> Iterator[Path]:
    """A temporary name beside `final`, renamed to it when the block completes."""
    final.parent.mkdir(parents=True, exist_ok=True)
    work = final.with_name(f".{final.name}.tmp")
    _remove(work)
    try:
        yield work
        work.replace(final)
    except BaseException:
        _remove(work)
        raise


def require_complete(folder: Path, made_by: str) -> Path:
    """`folder`, if its completion marker stands and every file has the size it names.

    Raises:
        TunesmithError: missing, interrupted or changed; `made_by` is the stage to run again.
    """
    problem = incomplete(folder)
    if problem:
        raise TunesmithError(
            f"{folder} {problem}.",
            where=str(folder),
            why="Half-written or altered files are never used.",
            do=f"dvc repro {made_by}",
        )
    return folder


def incomplete(folder: Path) -> str:
    """Why `folder` cannot be used, as the end of a sentence; empty when it can."""
    if not folder.is_dir():
        return "does not exist"
    marker = folder / MARKER
    if not marker.is_file():
        return "has no completion marker: writing it was interrupted"
    try:
        sizes = read_json(marker)["files"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return "has a broken completion marker"
    for name, size in sizes.items():
        path = folder / name
        if not path.is_file():
            return f"has lost its file {name}"
        if path.stat().st_size != size:
            return f"has a file {name} of {path.stat().st_size} bytes where {size} were written"
    return ""


def require_space(target: Path, needed: int, what: str) -> None:
    """Refuse to start writing `needed` bytes where they do not fit.

    Raises:
        TunesmithError: naming the folder, what is needed and what is free.
    """
    folder = target if target.is_dir() else next(p for p in target.absolute().parents if p.is_dir())
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise TunesmithError(
            f"{what} needs {needed / 1e6:,.0f} MB and the disk has {free / 1e6:,.0f} MB free.",
            where=str(folder),
            why="A disk that fills up while writing loses the work of this stage.",
            do="Free some space (dvc gc --workspace removes old cache), then run it again.",
        )
