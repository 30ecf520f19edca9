"""Earlier runs and dvc.lock in; about how long a stage takes, what it writes and where it runs."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from stages.core import runs
from stages.core.graph import Stage
from stages.core.staleness import FOLLOWS, RUNS, Step

WORK = (RUNS, FOLLOWS)
Place = Callable[[Stage], Mapping[str, Any]]


class Costs:
    """What stages cost, by what they have cost."""

    def __init__(self, lock: Mapping[str, Mapping[str, Any]], place: Place | None) -> None:
        self._place = place
        self._lock = lock
        self._runs: dict[str, dict[str, Any]] = {}
        self._like: dict[str, dict[str, Any]] = {}
        if place:
            self._read()

    def _read(self) -> None:
        for row in runs.rows():
            if "place" in row:  # it ran elsewhere, and takes another time here
                continue
            address = str(row["stage"])
            self._runs[address] = self._like[address.partition("@")[0]] = row

    def last(self, address: str) -> dict[str, Any] | None:
        """The last run of a stage, where one is known."""
        if not self._runs:
            self._read()
        return self._runs.get(address)

    def of(self, step: Step) -> dict[str, Any]:
        """The cost of one stage; nothing of one that does not run."""
        if step.outcome not in WORK or self._place is None:
            return {}
        stage = step.stage
        run = self._runs.get(stage.address) or self._like.get(stage.name)
        outs, of = self._outs(stage)
        at = self._place(stage)
        return {
            "where": at["where"],
            "why_there": at["why"],
            "do": at["do"],
            "seconds": run["seconds"] if run else None,
            "seconds_of": run["stage"] if run else "",
            "bytes": outs,
            "bytes_of": of,
        }

    def _outs(self, stage: Stage) -> tuple[int | None, str]:
        """The size of the outputs, and of which stage that is: its own, or one like it."""
        like = (a for a in self._lock if a.partition("@")[0] == stage.name)
        for address in (stage.address, *like):
            if rows := self._lock.get(address, {}).get("outs"):
                return sum(row.get("size", 0) for row in rows), address
        return None, ""

    def download(self, md5s: Iterable[str], store: Any) -> int:
        """Bytes of these objects that are not in the cache, by dvc.lock or by the remote."""
        sizes = {
            row["md5"]: row.get("size", 0)
            for entry in self._lock.values()
            for row in entry.get("outs") or ()
        }
        return sum(store.missing(md5, sizes.get(md5)) for md5 in md5s)


def total(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The sums over stages that run, None where nothing is known; and of how many it is not."""
    at_work = [row for row in rows if "where" in row]
    found: dict[str, Any] = {}
    for name in ("seconds", "bytes"):
        known = [row[name] for row in at_work if row[name] is not None]
        summed = round(sum(known), 2) if known or not at_work else None
        found |= {name: summed, f"{name}_unknown": len(at_work) - len(known)}
    return found
