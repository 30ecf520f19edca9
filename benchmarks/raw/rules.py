"""The knowledge files of the recipe rules, and counts that make any number of rows.

Combos come without end; of the answers from the knowledge files there are only so many, so their
share falls with the number of rows.
"""

import shutil
from pathlib import Path
from typing import Any

KNOWLEDGE = Path(__file__).parents[2] / "data/raw/wzrdbrain"


def make(rows: int, out: Path) -> dict[str, Any]:
    """Copy the knowledge to `out`; returns the recipe's options for so many rows."""
    shutil.copytree(KNOWLEDGE, out, dirs_exist_ok=True)
    few = {"explanation": 250, "rules": 150, "progression": 100}
    combos = rows - sum(few.values())
    simple = combos * 5 // 8
    return {"seed": 42, "simple": simple, "constrained": combos - simple, **few}
