"""Convert 10 k, 100 k and 1 M raw rows by each recipe: rows a second, peak memory, and ratios.

    python -m benchmarks.convert [recipe ...] [--rows 10000 100000 1000000] [--folder DIR]

`benchmarks/raw/<recipe>.py` makes the raw data (`make(rows, out)`, which returns the recipe's
options). Each way then runs in its own process, imports included, one after the other:

- ours: the recipe and the convert stage's writer: examples, rejects and statistics on disk;
- naive: `naive(source)` of the raw module where there is one, the way one would write first:
  everything in memory, then one write. "times" are its wall time and peak memory by ours. It is
  run for at most `--naive` rows (100,000): a million may take more memory than there is.

Peak is the process's highest resident memory (VmHWM; where there is no /proc, ru_maxrss).
"""

import argparse
import importlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

RAW = Path(__file__).parent / "raw"
HEAD = "| recipe | rows | examples | seconds | rows a second | peak MB | naive s / MB | times |"
Found = dict[str, Any]


def main() -> None:
    known = sorted(path.stem for path in RAW.glob("[!_]*.py"))
    parser = argparse.ArgumentParser(description="Time the conversion of raw data.")
    parser.add_argument("recipes", nargs="*", metavar="recipe", help=f"of {', '.join(known)}")
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--naive", type=int, default=100_000, help="most rows for the naive way")
    parser.add_argument("--folder", type=Path, help="where the data goes (default: temporary)")
    parser.add_argument("--repeat", type=int, default=1, help="the fastest of so many runs counts")
    options = parser.parse_args()
    if unknown := set(options.recipes) - set(known):
        parser.error(f"no raw data for {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    print(f"{HEAD}\n|{'---|' * HEAD.count(' | ')}---|", flush=True)
    for recipe in options.recipes or known:
        for rows in options.rows:
            with tempfile.TemporaryDirectory(dir=options.folder) as name:
                print(line(recipe, rows, Path(name), options), flush=True)
    print(f"\nagain: python -m benchmarks.convert {' '.join(sys.argv[1:])}".rstrip())


def line(recipe: str, rows: int, folder: Path, options: argparse.Namespace) -> str:
    """One line of the table."""
    (folder / "raw").mkdir()
    (folder / "out").mkdir()
    child("make", recipe, folder, str(rows))  # apart, so that this process stays small
    ours = min((child("ours", recipe, folder) for _ in range(options.repeat)), key=seconds)
    cells = f"| {recipe} | {ours['inputs']:,} | {ours['examples']:,} | {seconds(ours):.2f}"
    cells += f" | {ours['inputs'] / seconds(ours):,.0f} | {ours['peak']:.0f}"
    if not hasattr(raw(recipe), "naive") or rows > options.naive:
        return f"{cells} | | |"
    naive = min((child("naive", recipe, folder) for _ in range(options.repeat)), key=seconds)
    ratios = seconds(naive) / seconds(ours), naive["peak"] / ours["peak"]
    text = f"{seconds(naive):.2f} / {naive['peak']:.0f} | {ratios[0]:.1f} × / {ratios[1]:.1f} ×"
    return f"{cells} | {text} |"


def raw(recipe: str) -> Any:
    return importlib.import_module(f"benchmarks.raw.{recipe}")


def seconds(found: Found) -> float:
    return float(found["seconds"])


def child(way: str, recipe: str, folder: Path, *words: str) -> Found:
    """What one way tells, with its wall seconds."""
    command = [sys.executable, "-c", "from benchmarks import convert; convert.run()"]
    start = time.perf_counter()
    done = subprocess.run(
        [*command, way, recipe, str(folder), *words], stdout=subprocess.PIPE, check=True
    )
    took = time.perf_counter() - start
    return {"seconds": took, **json.loads(done.stdout)}


def run() -> None:
    """One way, in the process of its own that `child` starts."""
    way, recipe, folder, *words = sys.argv[1:]
    told = {"make": make, "ours": ours, "naive": naive}[way](recipe, Path(folder), *words)
    print(json.dumps({**told, "peak": peak()}))


def make(recipe: str, folder: Path, rows: str) -> Found:
    options = raw(recipe).make(int(rows), folder / "raw")
    (folder / "options.json").write_text(json.dumps(options))
    return {}


def ours(recipe: str, folder: Path) -> Found:
    from stages.core import converting, plugins

    plugin = plugins.load("recipes", recipe)
    options = plugin.Options.model_validate(json.loads((folder / "options.json").read_text()))
    found = plugin.examples(folder / "raw", options)
    stats = converting.write(found, folder / "out", plugin.STATS)
    return {name: stats[name] for name in ("inputs", "examples")}


def naive(recipe: str, folder: Path) -> Found:
    made = raw(recipe).naive(folder / "raw")
    text = "\n".join(json.dumps(one, ensure_ascii=False) for one in made)
    (folder / "out" / "naive.jsonl").write_text(text + "\n", encoding="utf-8")
    return {"examples": len(made)}


def peak() -> float:
    """Highest resident memory of this process in MB.

    Linux counts the parent's memory at the time of the fork into ru_maxrss, but not into VmHWM.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        text = status.read_text().split("VmHWM:")[1]
        return int(text.split()[0]) * 1024 / 1e6
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


if __name__ == "__main__":
    main()
