"""Words for `sky` in; what it answered, out: SkyPilot's program, in an environment of its own."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.core import secrecy
from stages.core.errors import TunesmithError

COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")
# sky.exceptions.CloudError: …, ValueError: …, and click's Error: …
FAILURE = re.compile(r"^(?:sky\.exceptions\.\w+|\w*Error): ", re.MULTILINE)
KEPT = 2000  # lines of what it says


@dataclass(frozen=True, slots=True)
class Answer:
    """How it ended, and what it said: both streams as one, without colours and secrets."""

    code: int
    text: str

    def last(self) -> str:
        """Its last words, on one line: from the last failure that it names on."""
        begun = [found.end() for found in FAILURE.finditer(self.text)]
        said = [line.strip() for line in self.text[begun[-1] if begun else 0 :].splitlines()]
        said = [line for line in said if line]
        shown = said[:8] if begun else said[-4:]
        return " ".join(shown) or f"it ended with {self.code} and said nothing"

    def json(self) -> Any:
        """The JSON at the end of it, after the notes that SkyPilot 0.14.1 prints before it.

        Raises:
            ValueError: there is none.
        """
        for begin in re.finditer(r"^[\[{]", self.text, re.MULTILINE):
            try:
                found, end = json.JSONDecoder().raw_decode(self.text, begin.start())
            except json.JSONDecodeError:
                continue
            if not self.text[end:].strip():
                return found
        raise ValueError(f"no JSON: {self.last()}")


def path(program: str) -> Path:
    """Where the program is.

    Raises:
        TunesmithError: it is not there.
    """
    found = shutil.which(Path(program).expanduser())
    if found is None:
        raise TunesmithError(
            f"There is no program {program!r} here.",
            where="places.yaml: program",
            why="SkyPilot rents the machine and gives it back. It needs an environment of its own.",
            do="uv tool install 'skypilot[runpod]'    (or [aws], [lambda], [kubernetes], …); then "
            "sky check",
        )
    return Path(found)


def python(program: str) -> Path:
    """The Python that runs it: the one beside it, or the one that its first line names.

    Raises:
        TunesmithError: there is none.
    """
    file = path(program).resolve()
    if (beside := file.with_name("python3")).exists():
        return beside
    with file.open("rb") as opened:
        first = opened.readline(1000).decode(errors="replace")
    named = Path(first.removeprefix("#!").strip())
    if first.startswith("#!") and named.name.startswith("python") and named.exists():
        return named
    raise TunesmithError(
        f"{file} does not say which Python runs it.",
        where="places.yaml: program",
        why="The task is checked by the SkyPilot that it belongs to.",
        do="Name the `sky` inside of the environment of SkyPilot.",
    )


def sky(program: str, *words: str, shown: bool = False) -> Answer:
    """Run `sky` with these words; `shown`: what it says is seen as it comes.

    Values of secrets are read by SkyPilot from the environment, which is passed on.
    """
    return _run([str(path(program)), *words], "", shown)


def ask(program: str, act: str, task: dict[str, Any]) -> Answer:
    """Ask the SkyPilot of this program about a task: `inside.py` says what."""
    file = Path(__file__).with_name("inside.py")
    return _run([str(python(program)), str(file), act], json.dumps(task), shown=False)


def _run(words: list[str], given: str, shown: bool) -> Answer:
    # It counts its users by default; whoever wants that sets the variable to 0.
    env = {"SKYPILOT_DISABLE_USAGE_COLLECTION": "1", **os.environ}
    lines: deque[str] = deque(maxlen=KEPT)
    with subprocess.Popen(
        words, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        encoding="utf-8", errors="replace",
    ) as process:  # fmt: skip
        assert process.stdin
        assert process.stdout
        process.stdin.write(given)
        process.stdin.close()
        for line in process.stdout:
            plain = secrecy.redact(COLOURS.sub("", line))
            lines.append(plain)
            if shown:
                print(f"  {plain.rstrip()}", file=sys.stderr, flush=True)
    return Answer(process.returncode, "".join(lines))
