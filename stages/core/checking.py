"""Examples in, the ones fit for training and a reject for each other one out."""

from collections.abc import Callable, Sequence
from pathlib import Path

from stages.core import dialogue, duplicates, splits
from stages.core.errors import TunesmithError
from stages.core.example import Example, Reject, dumps

Check = Callable[[Example], str | None]


def checked(rows: Sequence[Example], check: Check) -> tuple[list[Example], list[Reject]]:
    """Part the examples that break a rule of chats, or of their recipe's own `check`."""
    kept, rejects = [], []
    for row in rows:
        found = dialogue.problem(row)
        if found is None and (reason := check(row)):
            found = ("check", reason)
        if found is None:
            kept.append(row)
        else:
            rejects.append(Reject(row.source, *found))
    return kept, rejects


def without_copies(rows: Sequence[Example], threshold: float) -> tuple[list[Example], list[Reject]]:
    """Keep the first of rows that say the same, exactly or with at least this similarity.

    Probes are put first, so that none gives way to a row which may be trained on.
    """
    rows = sorted(rows, key=lambda row: not splits.is_probe(row))  # stable
    rows, exact = _part(rows, duplicates.exact([_everything(row) for row in rows]), "duplicate")
    rows, near = _part(rows, duplicates.near([_said(row) for row in rows], threshold), "near_copy")
    return rows, exact + near


def require_some(
    kept: Sequence[Example], rejects: Sequence[Reject], key: str, source: Path
) -> None:
    """Refuse a dataset of which nothing is left.

    Raises:
        TunesmithError: with the first reject and its reason.
    """
    if kept:
        return
    first = f"The first: {rejects[0].source}: {rejects[0].reason}" if rejects else ""
    raise TunesmithError(
        f"None of the {len(rejects)} examples of {key!r} passes the checks.",
        where=str(source / "examples.jsonl"),
        why=first or "convert made none.",
        do=f"Mend the data or the recipe, then: dvc repro validate@{key}",
    )


def _part(
    rows: Sequence[Example], copies: Sequence[int | None], code: str
) -> tuple[list[Example], list[Reject]]:
    kept, rejects = [], []
    for row, original in zip(rows, copies, strict=True):
        if original is None:
            kept.append(row)
        else:
            rejects.append(Reject(row.source, code, f"It repeats {rows[original].source}."))
    return kept, rejects


def _everything(row: Example) -> str:
    return dumps([row.messages, row.tools, row.rejected]).decode()


def _said(row: Example) -> str:
    """All text but the system message, which most rows of a dataset share."""
    said = [message for message in row.messages if message.get("role") != "system"]
    said += [row.rejected] if row.rejected else []
    return "\n".join(f"{m.get('content') or ''} {_calls(m)}" for m in said)


def _calls(message: dict[str, object]) -> str:
    calls = message.get("tool_calls")
    return dumps(calls).decode() if calls else ""
