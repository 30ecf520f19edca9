"""Rows for the recipe chats in any number and all shapes, and a plain way to convert them.

One row in fifty is spoilt: cut short, without an answer, or with an unknown role.
"""

import json
from pathlib import Path
from typing import Any

OPTIONS = {"pattern": "*.jsonl", "system": "You answer for the shop.", "group_by": ""}
SPOILT = (
    '{"prompt": "Is it op',
    '{"messages": [{"role": "user", "content": "Is it open?"}]}',
    '{"conversations": [{"from": "nobody", "value": "Is it open?"}]}',
)


def make(rows: int, out: Path) -> dict[str, Any]:
    """Write `chats.jsonl` of so many lines into `out`; returns the recipe's options."""
    with (out / "chats.jsonl").open("w", encoding="utf-8") as file:
        for number in range(rows):
            spoilt = number % 50 == 7
            text = SPOILT[number % 3] if spoilt else json.dumps(_row(number), ensure_ascii=False)
            file.write(text + "\n")
    return OPTIONS


def _row(number: int) -> dict[str, Any]:
    question = f"Is shop number {number} in the Müller street open on day {number % 31} this month?"
    answer = f"Yes, until {number % 12 + 8} o'clock; ring twice at door {number % 97}. " * 3
    other = "I do not know."
    user, said = {"role": "user", "content": question}, {"role": "assistant", "content": answer}
    return (
        {"messages": [user, said, {"role": "user", "content": "And then?"}, said]},
        {"prompt": question, "completion": answer},
        {"instruction": question, "input": "", "output": answer, "meta": {"day": number % 31}},
        {"conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]},
        {"prompt": question, "chosen": answer, "rejected": other},
    )[number % 5]


def naive(source: Path) -> list[dict[str, Any]]:
    """Every row that can be told, all in memory."""
    text = (source / "chats.jsonl").read_text(encoding="utf-8")
    return [row for line in text.splitlines() if (row := _chat(line))]


def _chat(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        return None
    if "conversations" in row:
        roles = {"human": "user", "gpt": "assistant"}
        turns = row["conversations"]
        row["messages"] = [{"role": roles.get(t["from"]), "content": t["value"]} for t in turns]
    if "messages" in row:
        return row if row["messages"][-1]["role"] == "assistant" else None
    question = row.get("prompt") or row["instruction"]
    answer = row.get("completion") or row.get("output") or row["chosen"]
    said = {"user": question, "assistant": answer}
    return {"messages": [{"role": role, "content": text} for role, text in said.items()]}
