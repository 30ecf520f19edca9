"""DVC's own files that it writes in place, and that a kill or a full disk leaves half-written."""

import fcntl
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stages.core import files, graph, running
from stages.core.errors import TunesmithError

MD5 = re.compile(r"[0-9a-f]{32}(\.dir)?")


@contextmanager
def held() -> Iterator[None]:
    """Keep DVC from starting in this workspace; it waits three seconds for that.

    Raises:
        TunesmithError: it has started.
    """
    if not running.DVC_LOCK.parent.is_dir():
        yield
        return
    with running.DVC_LOCK.open("a+b") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TunesmithError("DVC has just started here.", do="Wait for its end.") from None
        yield


def mend() -> list[str]:
    """Make DVC's files readable again, where nobody works here; a line on each that was not."""
    found = []
    if running.writers() is None:
        found.append(f"{running.DVC_WRITERS} was half-written: removed, as nobody works here")
    # Those that it names are dead; a number that was given to another process since would make
    # DVC wait for that one.
    running.DVC_WRITERS.unlink(missing_ok=True)
    found += _completed(Path(graph.LOCK))
    return found


def _completed(lock: Path) -> list[str]:
    """Give dvc.lock back the stages that it has lost; a line that says how many, if it has."""
    stages = graph.load()
    now, broken = _stages(lock, stages)
    before = _stages(running.REMEMBERED, stages)[0] or _of_git(lock, stages)
    lost = {address: before[address] for address in stages if address in before.keys() - now.keys()}
    if not lost and not broken:
        return []
    from dvc.utils.serialize import dump_yaml

    with files.file(lock) as work:
        dump_yaml(str(work), {"schema": "2.0", "stages": now | lost})
    return [f"{lock} was half-written: {len(lost)} stages put back into it"]


def _stages(lock: Path, known: Mapping[str, graph.Stage]) -> tuple[dict[str, Any], bool]:
    """What a lock file says of each stage, as far as it is whole; and whether it is cut off."""
    text = lock.read_text(encoding="utf-8") if lock.is_file() else ""
    try:
        found = (graph.read(lock) or {}) if text else {}
    except TunesmithError:
        found = {"stages": _before_the_cut(text)}
    every = found.get("stages") if isinstance(found, dict) else None
    stages = {a: e for a, e in every.items() if a in known} if isinstance(every, dict) else {}
    if text and not text.endswith("\n") and stages:
        stages.popitem()
    whole = {address: entry for address, entry in stages.items() if _whole(entry, known[address])}
    return whole, bool(text) and (not text.endswith("\n") or len(whole) < len(stages))


def _before_the_cut(text: str) -> dict[str, Any]:
    """The stages of a text that is no YAML to its end, but for the last."""
    from dvc.utils.serialize import YAMLFileCorruptedError, parse_yaml

    try:
        found = parse_yaml(text[: text.rfind("\n", 0, -1) + 1], graph.LOCK)
    except YAMLFileCorruptedError:
        return {}
    return found.get("stages") or {} if isinstance(found, dict) else {}


def _whole(entry: Any, stage: graph.Stage) -> bool:
    """Whether a stage's entry is complete: each output, and every path with digest and size."""
    if not isinstance(entry, dict) or not isinstance(entry.get("cmd"), str):
        return False
    outs, deps = entry.get("outs"), entry.get("deps") or []
    if not isinstance(outs, list) or not outs or not isinstance(deps, list):
        return False
    if not all(_said(row) for row in (*deps, *outs)):
        return False
    return {row["path"] for row in outs} == {out.path for out in stage.outs}


def _said(row: Any) -> bool:
    """Whether an entry's row on a file or folder is complete."""
    if not isinstance(row, dict) or not isinstance(row.get("path"), str):
        return False
    md5 = str(row.get("md5", ""))
    more = ("size", "nfiles") if md5.endswith(".dir") else ("size",)
    return bool(MD5.fullmatch(md5)) and all(isinstance(row.get(name), int) for name in more)


def _of_git(lock: Path, known: Mapping[str, graph.Stage]) -> dict[str, Any]:
    """What the lock file says that git's index holds; nothing where it holds none.

    The index is the commit, or what is newer: the files that a job elsewhere was sent.
    """
    words = ["git", "show", f":./{lock}"]
    done = subprocess.run(words, capture_output=True, check=False)
    if done.returncode:
        return {}
    held = running.REMEMBERED.with_name("dvc.lock.git")
    with files.file(held) as work:
        work.write_bytes(done.stdout)
    return _stages(held, known)[0]
