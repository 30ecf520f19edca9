"""A folder in; a tokenizer, a chat template and tokenised chats for a small model there out.

Among the chats are some of several turns, and some that call a tool; every answer of a chat is
trained, and nothing else, by the same tokenise that every model's rows come from. As preference
pairs they have the same words, and a second last answer.
"""

import importlib
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from stages.core import example, files, probes, tokenising, tokens
from stages.core.example import Example, Message

WORDS = ("tide", "harbour", "north", "wind", "boat", "high", "low", "metre", "noon", "Brest")
VOCABULARY, LENGTH, SEED = 512, 1024, 7
COUNTS = {"train": 40, "valid": 6, "test": 16}


def add_tokenizer(folder: Path) -> None:
    """Write the files of a tokenizer of 512 tokens, trained here, and its template."""
    tiny = importlib.import_module("stages.bases.tiny")
    tokenizer = importlib.import_module("stages.bases.tiny.tokenizer")
    texts = [str(chat.row()) for split in COUNTS for chat in chats(split)]
    template = tiny.TEMPLATE.read_text(encoding="utf-8")
    tokenizer.save(tokenizer.build(texts, VOCABULARY), template, LENGTH, folder)


def write(base: Path, out: Path, *, paired: bool = False) -> Path:
    """Write the tokens folder of the chats, or pairs, for a base's tokenizer; returns `out`."""
    chat = out.with_name(f"{out.name}-chat")
    chat.mkdir()
    made = pairs if paired else chats
    for split in COUNTS:
        example.write_lines(chat / f"{split}.jsonl", [row.row() for row in made(split)])
    with files.directory(out) as work:
        tokenising.write(chat, base, work, tokenising.Rules(LENGTH, False, (), paired))
    return out


def prompts(folder: Path) -> list[list[int]]:
    """The ids in front of the last answer of each chat of the test split."""
    return [row.ids[: row.prompt_length] for row in tokens.read_split(folder, "test")]


def chats(split: str) -> Iterator[Example]:
    """Chats of one, two and three turns, and with tools, in turn; the same ones every time."""
    draw = random.Random(f"{SEED}/{split}")
    for number in range(COUNTS[split]):
        messages: list[Message] = []
        if number % 3 == 0:
            messages.append({"role": "system", "content": _words(draw, 3)})
        for _ in range(1 + number % 3):
            messages += [
                {"role": "user", "content": _words(draw, 6)},
                {"role": "assistant", "content": _words(draw, 8)},
            ]
        tools = probes.TOOLS if number % 4 == 1 else None
        if tools:
            messages += _call(draw, f"call{number:05}")
        yield Example(messages, f"{split}.jsonl#{number + 1}", f"{split}{number}", {}, tools)


def pairs(split: str) -> Iterator[Example]:
    """The same chats, each with an answer that is not wanted in place of the last one."""
    draw = random.Random(f"{SEED}/{split}/rejected")
    for chat in chats(split):
        yield replace(chat, rejected={"role": "assistant", "content": _words(draw, 8)})


def _call(draw: random.Random, name: str) -> list[Message]:
    """A question, a call of the tool, its result and the answer."""
    given = {"harbour": draw.choice(["Brest", "Ålesund"]), "hours": draw.randrange(24)}
    call = {
        "id": name, "type": "function", "function": {"name": "measure_tide", "arguments": given}
    }  # fmt: skip
    return [
        {"role": "user", "content": _words(draw, 5)},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": name, "name": "measure_tide", "content": '{"metres": 1}'},
        {"role": "assistant", "content": _words(draw, 5)},
    ]


def _words(draw: random.Random, count: int) -> str:
    return " ".join(draw.choice(WORDS) for _ in range(count)) + "."
