"""Rows like WzrdBrain's in; `tokenise` beside `datasets.map` with `apply_chat_template` out.

    python -m benchmarks.tokenise [--rows 100000] [--memory 1000000]

Each way runs in a process of its own with one tokenizer thread. Ours also masks, checks every
row and writes the arrays; the others only render and encode. The ids must be equal. `--memory`
runs ours once more on that many rows, for the peak memory alone.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

REPOSITORY = Path(__file__).parents[1]
SYSTEM = (
    "You are a coach for wizard skating, the art of turning on wheels. You know all the moves, "
    "how each one enters and leaves, and which stance it asks for. You build combos whose moves "
    "link, you explain a move in plain words, and you suggest what to learn next, step by step."
)
MOVES = (
    *("predator", "soul", "parallel", "lion", "gazelle", "toe press", "heel roll", "stunami"),
    *("wheel walk", "grape vine", "tree", "mega turn", "star", "fish", "swivel", "open book"),
    *("eagle royale", "snake", "sprint", "carve", "hockey stop", "three turn", "jump", "spin"),
)
SIDES = ("front open", "front closed", "back open", "back closed", "fakie", "forward")


def rows(count: int) -> Iterator[dict[str, Any]]:
    """Chats of one system, one user and one assistant message, nearly all of them distinct."""
    pick = random.Random(0)
    for number in range(1, count + 1):
        length = pick.randint(3, 6)
        start, stance = pick.choice(MOVES), pick.choice(SIDES)
        ask = f"Give me a combo of {length} that starts {stance} with {start}, please."
        moves = [f"{n}. {pick.choice(SIDES)} {pick.choice(MOVES)}" for n in range(1, length + 1)]
        said = ((SYSTEM, ask), "Here you go:\n\n" + "\n".join(moves))
        yield {
            "messages": [
                {"role": "system", "content": said[0][0]},
                {"role": "user", "content": said[0][1]},
                {"role": "assistant", "content": said[1]},
            ],
            "source": f"rows.jsonl#{number}",
            "group": str(number),
            "meta": {"tricks": length},
        }


def make(folder: Path, count: int) -> tuple[Path, Path]:
    """A chat folder of `count` training rows, and a base with a tokenizer trained on some."""
    from stages.bases.tiny import TEMPLATE, tokenizer

    chat, base = folder / f"chat-{count}", folder / "base"
    chat.mkdir()
    for split, size in (("train", count), ("valid", 1), ("test", 1)):
        with (chat / f"{split}.jsonl").open("wb") as out:
            out.writelines(orjson.dumps(row) + b"\n" for row in rows(size))
    if not base.exists():
        base.mkdir()
        said = [message["content"] for row in rows(5_000) for message in row["messages"]]
        made = tokenizer.build(said, 2_048)
        tokenizer.save(made, TEMPLATE.read_text(encoding="utf-8"), 4_096, base)
    return chat, base


def ours(chat: Path, base: Path, out: Path) -> list[float]:
    """Wall and CPU seconds of the stage's work: reading, tokens, masks, checks and writing."""
    from stages.core import tokenising

    start = clocks()
    out.mkdir()
    tokenising.write(chat, base, out, tokenising.Rules(1_024, drop=False, by=("tricks",)))
    return since(start)


def clocks() -> list[float]:
    """Wall and CPU time of this process, seconds."""
    return [time.perf_counter(), time.process_time()]


def since(start: list[float]) -> list[float]:
    """Wall and CPU seconds since `start`."""
    return [now - then for now, then in zip(clocks(), start, strict=True)]


def theirs(chat: Path, base: Path, out: Path, batched: bool) -> list[float]:
    """Wall and CPU seconds of `map` alone, its dataset loaded before and its ids written after."""
    import datasets
    import numpy as np
    from transformers import AutoTokenizer

    datasets.disable_progress_bars()
    tokenizer = AutoTokenizer.from_pretrained(base)
    path, cache = str(chat / "train.jsonl"), str(out) + ".cache"
    data = datasets.load_dataset("json", data_files=path, split="train", cache_dir=cache)

    def encode(row: dict[str, Any]) -> dict[str, Any]:
        ids = tokenizer.apply_chat_template(row["messages"], tokenize=True, return_dict=False)
        return {"input_ids": ids}

    start = clocks()
    made = data.map(encode, batched=batched, remove_columns=data.column_names)
    seconds = since(start)
    out.mkdir()
    np.save(out / "ids.npy", np.concatenate(made.with_format("numpy")["input_ids"]))
    return seconds


def child(way: str, chat: Path, base: Path, out: Path) -> None:
    """Run one way and print its seconds and its peak memory as JSON."""
    seconds, cpu = (
        ours(chat, base, out) if way == "ours" else theirs(chat, base, out, way == "batched")
    )
    print(json.dumps({"seconds": seconds, "peak": peak(), "cpu": cpu}))


def peak() -> float:
    """Peak resident MB of this process; Linux's getrusage would count the parent's as well."""
    status = Path("/proc/self/status")
    if status.is_file():
        lines = status.read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def measure(way: str, chat: Path, base: Path, out: Path, threads: int = 1) -> dict[str, float]:
    """Run one way in a process of its own."""
    more = {"RAYON_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "HF_HOME": str(out) + ".hf"}
    command = [
        sys.executable,
        "-m",
        "benchmarks.tokenise",
        "--child",
        way,
        str(chat),
        str(base),
        str(out),
    ]
    start = time.perf_counter()
    done = subprocess.run(
        command, env=os.environ | more, check=True, capture_output=True, text=True, cwd=REPOSITORY
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found | {"wall": time.perf_counter() - start}


def same_ids(first: Path, second: Path) -> bool:
    """Whether two ways gave the same ids."""
    import numpy as np

    return bool(np.array_equal(np.load(first), np.load(second)))


def show(name: str, count: int, found: dict[str, float], ours_: dict[str, float]) -> None:
    """One line of the table."""
    ratio, cpu = found["seconds"] / ours_["seconds"], found["cpu"] / ours_["cpu"]
    print(
        f"{name:34} {found['seconds']:8.1f} {count / found['seconds']:9,.0f}"
        f" {found['wall']:8.1f} {found['cpu']:8.1f} {found['peak']:8.0f}"
        f"   {ratio:5.2f} {cpu:6.2f}",
        flush=True,
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--memory", type=int, default=0, help="rows of the memory run; 0: none")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child[0], *map(Path, options.child[1:]))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder, count = Path(scratch), options.rows
        chat, base = make(folder, count)
        print(f"{count:,} rows, {(chat / 'train.jsonl').stat().st_size / count:.0f} bytes each")
        print(
            f"{'':34} {'work s':>8} {'rows/s':>9} {'wall s':>8}"
            f" {'cpu s':>8} {'peak MB':>8}   ratio    cpu"
        )
        first = measure("ours", chat, base, folder / "ours")
        show("ours, masks and checks included", count, first, first)
        two = measure("ours", chat, base, folder / "ours-2", threads=2)
        show("ours, 2 tokenizer threads", count, two, first)
        for way in ("map", "batched"):
            found = measure(way, chat, base, folder / way)
            show(f"datasets.map, {'a batch' if way == 'batched' else 'a row'} at a time",
                 count, found, first)  # fmt: skip
            same = same_ids(folder / "ours" / "train.ids.npy", folder / way / "ids.npy")
            print(f"{'':34} ids {'equal' if same else 'DIFFER'}")
        if options.memory:
            chat, base = make(folder, options.memory)
            found = measure("ours", chat, base, folder / "ours-many")
            show(f"ours, {options.memory:,} rows", options.memory, found, first)


if __name__ == "__main__":
    main()
