"""One point of a sweep in, built in a workspace of its own; how it ended and its experiment out."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from stages.commands.experiments import measures
from stages.commands.run import points
from stages.commands.sweep import workspace
from stages.commands.sweep.seats import HERE, Seat
from stages.commands.sweep.store import DONE, FAILED, GATE, LOST, Outcome, Point, Sweep
from stages.core import graph, local

CODE = Path(__file__).resolve().parents[3]
# The code is that of this process; the stages that DVC starts are those of the workspace.
BUILD = "import sys; sys.path.insert(0, sys.argv.pop(1)); from stages.commands.sweep import build; "
BUILD += "import json; sys.exit(getattr(build, sys.argv[2])(json.loads(sys.argv[1])))"
STAGE = re.compile(r"[Ss]tage '([^']+)'")
FAILURE = "ERROR: failed to reproduce"
OUT_OF_MEMORY = re.compile(r"exited with (-9|137)\b")


@dataclass(frozen=True, slots=True)
class Build:
    """How a point is built.

    Attributes:
        seat: the machine.
        env: variables for the stages of this machine, besides those of this process.
        ahead: stages that are built before the others there, since other points wait for them.
        push_to: the git remote that experiments are sent to; empty: none.
        remote: of DVC, in which the machines meet; empty: the default one.
        alone: whether the sweep has this machine alone.
    """

    seat: Seat
    env: Mapping[str, str] = field(default_factory=dict)
    ahead: Sequence[str] = ()
    push_to: str = ""
    remote: str = ""
    alone: bool = True


def run(
    sweep: Sweep,
    point: Point,
    how: Build,
    said: Callable[[str], None],
    started: Callable[[subprocess.Popen[str]], None],
) -> Outcome:
    """Build a point; its workspace is removed when it has ended, however it did.

    Args:
        said: called with each line that DVC or a stage prints; a log keeps them all.
        started: called with the process that builds, which leads a process group of its own.
    """
    begin = time.monotonic()
    main = local.root().absolute()
    top = sweep.folder / "work" / point.name
    log = sweep.folder / "points" / f"{point.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    given = {
        **os.environ, **how.env, "DVC_ROOT": str(main),
        "DVC_SITE_CACHE_DIR": str(top.with_name(f"{point.name}.site")),
    }  # fmt: skip
    try:
        workspace.make(main, top, sweep.baseline, sweep.snapshot)
        here = top / sweep.prefix
        (here / graph.PARAMS).write_text(point.params, encoding="utf-8")
        code = _build(_words(main, sweep, point, how), here, given, log, said, started)
        found = _ended(sweep, point, here, code, log, how)
        return replace(found, seconds=round(time.monotonic() - begin, 1))
    finally:
        workspace.remove(main, top)
        if (site := Path(given["DVC_SITE_CACHE_DIR"])).exists():
            shutil.rmtree(site)


def _words(main: Path, sweep: Sweep, point: Point, how: Build) -> list[str]:
    """The program that builds a point, and what it is told."""
    if how.seat.name == HERE:
        act, told = "main", [str(main), *sweep.targets]
        if not how.alone:
            act, told = "beside", [how.remote, *told]
    else:
        note = sweep.note(point)
        note.parent.mkdir(parents=True, exist_ok=True)
        reports = [path for model in sweep.models for path in measures.paths(model).values()]
        asked = points.Asked(
            point.name, how.seat.name, sweep.targets, str(note), str(note.parent / "turn"),
            how.remote, list(how.ahead), reports, points.PATIENCE,
        )  # fmt: skip
        act, told = "elsewhere", [str(main), json.dumps(asdict(asked))]
    return [sys.executable, "-c", BUILD, str(CODE), json.dumps(told), act]


def _build(
    words: Sequence[str],
    here: Path,
    env: Mapping[str, str],
    log: Path,
    said: Callable[[str], None],
    started: Callable[[subprocess.Popen[str]], None],
) -> int:
    with (
        log.open("w", encoding="utf-8") as kept,
        subprocess.Popen(
            words, cwd=here, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True,
        ) as child,
    ):  # fmt: skip
        started(child)
        assert child.stdout is not None
        for line in child.stdout:
            kept.write(line)
            kept.flush()
            said(line.rstrip("\n"))
    return child.returncode


def _ended(sweep: Sweep, point: Point, here: Path, code: int, log: Path, how: Build) -> Outcome:
    text = log.read_text(encoding="utf-8")
    place = "" if how.alone else how.seat.name
    if code == points.LOST and place:
        reasons = [line for line in text.splitlines() if line.startswith(points.LOST_LINE)]
        return Outcome(LOST, reasons[-1].removeprefix(points.LOST_LINE), place=place)
    stage, reason = ("", "") if code == 0 else why(text)
    gate = stage.startswith("release@") and "did not pass" in reason
    state = DONE if code == 0 else GATE if gate else FAILED
    if state == FAILED:
        return Outcome(FAILED, reason or f"DVC ended with {code}", stage, place=place)
    values = ", ".join(f"{key}={value}" for key, value in point.values.items())
    message = f"tunesmith sweep {sweep.name}: {values}"
    made = workspace.experiment(here, sweep.baseline, point.name, message)
    if how.push_to:
        workspace.push(here, how.push_to, [workspace.reference(sweep.baseline, point.name)])
    metrics = measures.all_of(sweep.models, measures.reports(here, sweep.models), graph.lock(here))
    return Outcome(state, reason, stage, 0.0, made, metrics, place)


def why(text: str) -> tuple[str, str]:
    """The stage at which a build failed, and the reason in one line, of what it has printed."""
    lines = text.splitlines()
    running = [n for n, line in enumerate(lines) if line.startswith("Running stage '")]
    start = running[-1] if running else 0
    found = STAGE.search(lines[start]) if running else None
    stage = found[1] if found else ""
    tail = [line.strip() for line in lines[start:] if line.strip()]
    ours = [n for n, line in enumerate(tail) if line.startswith("error: ")]
    if ours:
        reason = tail[ours[-1]].removeprefix("error: ")
        more = [line for line in tail[ours[-1] :] if "would not be kept: " in line]
        return stage, f"{reason} {more[0].partition('kept: ')[2]}" if more else reason
    if OUT_OF_MEMORY.search("\n".join(tail)):
        return stage, "it was killed, most likely because the memory was full"
    # What a job says after DVC's own last word is about sending what there is.
    last = next((n for n, line in enumerate(tail) if line.startswith(FAILURE)), len(tail))
    own = [line for line in tail[len(running[-1:]) : last] if not line.startswith("> ")]
    return stage, own[-1] if own else "".join(tail[last : last + 1]).removeprefix("ERROR: ")
