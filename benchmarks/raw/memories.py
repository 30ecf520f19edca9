"""Memories for the recipe `memories` in any number, and the plain way to convert them.

`make` writes conversations of 50 answers each: a million rows are 20,000 files, 100 a day, since
a million small files would measure the file system. `naive` is what one would write first, as the
curator that the recipe replaces: all memories in memory, then all samples.
"""

import json
import re
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from random import Random
from typing import Any

PER_FILE, PER_DAY = 50, 100
MODES = {
    "inner_dialogue": "dual",
    "reflection": "dual",
    "dream": "dual",
    "conversation": "emulation",
    "chat": "emulation",
    "observation": "emulation",
    "journal": "emulation",
    "action": "agent",
    "task": "agent",
    "tool_use": "agent",
}
OPTIONS: dict[str, Any] = {
    "user": "alder",
    "mode": "all",
    "modes": MODES,
    "max": 0,
    "max_choice": "first",
    "days_recent": 0,
    "old_samples": 0,
    "seed": 42,
    "system": "",
    "max_words": 40,
    "long_words": 300,
    "long_share": 0.075,
    "contaminated": "drop",
}
SENTENCES = (
    "The kite is where it was, and nobody is angry.",
    "Start with the simplest part, then wait for a dry day.",
    "Found the files, copied all of them, and none was lost.",
    "It rains, then it stops, and the street is quiet again.",
    "Leave it for a night; it will not run away.",
)
FILLERS = ("", "", "", "", "", "", "", "", "", "Certainly! ", "Okay, ", "Here's what I would say: ")
TAGS = {
    "dual": ("thought", "world"),
    "emulation": ("user", "assistant"),
    "agent": ("instruction", "action"),
}
STARTS = re.compile(r"^(?:certainly!|okay,|here's what[^:.]*:)\s*", re.IGNORECASE)


def make(rows: int, out: Path) -> dict[str, Any]:
    """Write so many answers below `out/profiles/alder`; returns the recipe's options."""
    root, random = out / "profiles/alder/memory/episodic", Random(1)
    for number, first in enumerate(range(0, rows, PER_FILE)):
        day = date(2024, 1, 1) + timedelta(days=number // PER_DAY)
        folder = root / f"{day:%Y/%m/%d}"
        folder.mkdir(parents=True, exist_ok=True)
        said = [_turn(random, n) for n in range(first, min(first + PER_FILE, rows))]
        memory = {
            "id": f"evt-{day:%Y%m%d}{number:07}",
            "timestamp": f"{day}T{number % 24:02}:00:00.000Z",
            "type": list(MODES)[number % len(MODES)],
            "metadata": {"cognitiveMode": "dual"} if number % 3 == 0 else {},
            "messages": [message for turn in said for message in turn],
        }
        path = folder / f"{memory['id']}-talk.json"
        path.write_text(json.dumps(memory, indent=2), encoding="utf-8")
    return OPTIONS


def _turn(random: Random, number: int) -> tuple[dict[str, str], dict[str, str]]:
    answer = " ".join(random.choices(SENTENCES, k=random.randint(1, 8)))
    asked = f"What about number {number}, and the day before it?"
    return (
        {"role": "user", "content": asked},
        {"role": "assistant", "content": random.choice(FILLERS) + answer},
    )


def naive(source: Path) -> list[dict[str, Any]]:
    """The samples of all memories, cleaned by one pattern and cut, in lists."""
    paths = sorted((source / "profiles/alder/memory/episodic").rglob("*.json"))
    memories = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    return [row for memory in memories for row in _rows(memory)]


def _rows(memory: dict[str, Any]) -> Iterator[dict[str, Any]]:
    mode = memory["metadata"].get("cognitiveMode") or MODES[memory["type"]]
    asked, answered = TAGS[mode]
    question = ""
    for message in memory["messages"]:
        if message["role"] == "user":
            question = message["content"]
            continue
        text = " ".join(STARTS.sub("", message["content"]).split())
        words = text.split()
        text = f"{' '.join(words[:40])}..." if len(words) > 40 else text
        said = {"user": f"<{asked}>: {question}", "assistant": f"<{answered}>: {text}"}
        messages = [{"role": role, "content": text} for role, text in said.items()]
        meta = {"mode": mode, "original_id": memory["id"], "timestamp": memory["timestamp"]}
        yield {"messages": messages, "meta": meta}
