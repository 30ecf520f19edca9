"""A stage's name and key in: the stage run, its cost noted, the key checked first."""

import importlib
import resource
import sys
import time
from pathlib import Path

from stages.core import example, plugins, settings
from stages.core.errors import TunesmithError

LOG = Path(".tunesmith/runs.jsonl")


def run(stage: str, section: str, key: str) -> None:
    """Run `stages/<stage>.py` for one entry of a section of params.yaml.

    Raises:
        TunesmithError: no such entry, or whatever the stage refuses.
    """
    known = getattr(settings.load(), section)
    if key not in known:
        raise TunesmithError(
            f"There is no {key!r} in {section}.",
            where=f"params.yaml: {section}",
            do=plugins.nearest(key, known),
        )
    start = time.monotonic()
    importlib.import_module(f"stages.{stage}").run(key)
    _note(f"{stage}@{key}", time.monotonic() - start)


def _note(address: str, seconds: float) -> None:
    """Append this run's cost: wall seconds and peak resident memory in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak_mb = peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)
    LOG.parent.mkdir(exist_ok=True)
    row = {"stage": address, "seconds": round(seconds, 2), "peak_mb": round(peak_mb)}
    with LOG.open("ab") as log:
        log.write(example.dumps(row))
