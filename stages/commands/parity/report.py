"""Facts of a machine and checks in; the lines of a report that a person reads and sends out."""

from collections.abc import Sequence
from typing import Any

from stages.core.parity import Check

WORDS = {"passed": "ok", "failed": "FAILED", "skipped": "skipped"}
ORDER = ("passed", "failed", "skipped")


def heading(facts: dict[str, Any], steps: int) -> list[str]:
    """What was measured where."""
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    device = ", ".join(f"{key} {value}" for key, value in facts["device"].items()) or "no MLX"
    return [
        f"Parity of MLX and torch on small random models, {steps} training steps",
        f"  system   {facts['system']}, {facts['architecture']}, Python {facts['python']}",
        f"  chip     {facts['cpu'] or 'unnamed'}, {facts['cores']} cores, "
        f"{facts['memory_gib']} GiB memory",
        f"  MLX      {device}",
        f"  versions {versions}",
    ]


def line(check: Check) -> str:
    """One check: its verdict, its name, what was measured, the limit, and a reason."""
    measured = "-" if check["value"] is None else f"{check['value']:.3g}"
    limit = "" if check["limit"] is None else f"(limit {check['limit']:.3g})"
    head = f"  {WORDS[check['outcome']]:<8} {check['name']:<30} {measured:>9} {limit:<15}"
    return f"{head} {check['reason']}".rstrip()


def closing(checks: Sequence[Check]) -> str:
    """How many checks ended how."""
    counts = [sum(check["outcome"] == outcome for check in checks) for outcome in ORDER]
    said = ", ".join(f"{n} {WORDS[o]}" for n, o in zip(counts, ORDER, strict=True) if n)
    return f"{len(checks)} checks: {said}"


def passed(checks: Sequence[Check]) -> bool:
    """Whether none failed and some were made: what was skipped proves nothing."""
    outcomes = {check["outcome"] for check in checks}
    return "failed" not in outcomes and "passed" in outcomes
