"""Convert 2,500 match logs: wall time and peak memory of ours and of two plain ways, with ratios.

    python -m benchmarks.convert_games [--source FOLDER] [--games 2500] [--folder DIR] [--repeat 1]

Without --source the logs are made here (50 of the maker's, seed 1, copied under new numbers);
with it, the training-*.json of that folder are copied until there are enough. Each way runs in
its own process, imports included:

- ours: the recipe and the convert stage's writer, examples, rejects and statistics, each board
  replayed event by event; and the same with `failed_actions: drop`.
- whole: all logs in memory, then all rows, then one write; the board as the round began.
- parse: json.load of each file and nothing else, the floor of any way that uses json.

Quoted, not run: the TypeScript converter this replaces took 9.4 s and 2.15 GB for 2,500 logs
(299 MB) on a quiet 2-core machine.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

OURS = """
import sys
from pathlib import Path
from stages.core import converting
from stages.recipes import games
source, out, failed = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
options = games.Options(sides="winners", min_version="0.0.0", failed_actions=failed)
stats = converting.write(games.examples(source, options), out, games.STATS)
print(stats["examples"])
"""
WHOLE = """
import json, sys
from pathlib import Path

def rows(log):
    events = log["events"]
    winner = next((e.get("winner") for e in events if e["type"] == "game_end"), None)
    turn, made = None, []
    for event in events:
        if event["type"] == "turn_start":
            turn = event
        if event["type"] == "agent_decision" and winner in ("player", "opponent"):
            me = next(u for u in turn["units"] if u["id"] == event["unitId"])
            if me["side"] == winner:
                made.append(row(turn, me, event))
    return made

def row(turn, me, event):
    lines = [f"=== ROUND {turn['turn']} ===", f'Your prompt: "{me["prompt"]}"', line(me, me)]
    lines += [line(u, me) for u in turn["units"] if u["hp"] > 0 and u is not me]
    lines.append(" ".join(turn["turnStack"]))
    keys = ("thinking", "firstAction", "secondAction")
    answer = json.dumps({key: event[key] for key in keys}, ensure_ascii=False)
    said = {"system": f"You are {me['name']}.", "user": "\\n".join(lines), "assistant": answer}
    return {"messages": [{"role": role, "content": text} for role, text in said.items()]}

def line(u, me):
    x, y = u["position"]["x"], u["position"]["y"]
    gap = abs(x - me["position"]["x"]) + abs(y - me["position"]["y"])
    status = ",".join(effect["type"] for effect in u["statusEffects"])
    return f"{u['name']} ({u['class']}) at ({x},{y}), HP {u['hp']}/{u['maxHp']}, {gap} [{status}]"

source, out = Path(sys.argv[1]), Path(sys.argv[2])
logs = [json.loads(path.read_text()) for path in sorted(source.glob("training-*.json"))]
made = [one for log in logs for one in rows(log)]
text = "\\n".join(json.dumps(one, ensure_ascii=False) for one in made)
(out / "whole.jsonl").write_text(text + "\\n")
print(len(made))
"""
PARSE = """
import json, sys
from pathlib import Path
count = 0
for path in sorted(Path(sys.argv[1]).glob("training-*.json")):
    with path.open("rb") as file:
        json.load(file)
    count += 1
print(0)
"""
WAYS = {
    "ours, keep": (OURS, "keep"),
    "ours, drop": (OURS, "drop"),
    "whole": (WHOLE, ""),
    "parse": (PARSE, ""),
}


def main() -> None:
    options = arguments()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        logs, out = Path(name) / "logs", Path(name) / "out"
        logs.mkdir()
        out.mkdir()
        fill(logs, options.source, options.games)
        size = sum(path.stat().st_size for path in logs.iterdir())
        print(f"{options.games} logs, {size / 1e6:.0f} MB")
        best: dict[str, tuple[float, float, int, int]] = {}
        for _ in range(options.repeat):
            for way, (script, extra) in WAYS.items():
                best[way] = min(best.get(way, (9e9, 0.0, 0, 0)), measure(script, logs, out, extra))
    report(best)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Time the conversion of match logs.")
    parser.add_argument("--source", type=Path, help="folder of logs to copy instead of made ones")
    parser.add_argument("--games", type=int, default=2500)
    parser.add_argument("--folder", type=Path, help="where the copies go (default: temporary)")
    parser.add_argument("--repeat", type=int, default=1, help="the best of so many runs counts")
    return parser.parse_args()


def fill(logs: Path, source: Path | None, count: int) -> None:
    """`count` logs, copied round robin from `source` or from 50 freshly made ones."""
    with tempfile.TemporaryDirectory() as made:
        if source is None:
            source = Path(made)
            make = (
                "import sys; from pathlib import Path; from stages.makers import games; "
                "games.make(games.Options(seed=1, games=50), Path(sys.argv[1]))"
            )
            subprocess.run([sys.executable, "-c", make, made], check=True)
        originals = sorted(source.glob("training-*.json"))
        if not originals:
            sys.exit(f"{source} holds no training-*.json")
        for number in range(count):
            original = originals[number % len(originals)]
            stem = re.sub(r"-\d+$", "", original.stem)
            shutil.copyfile(original, logs / f"{stem}-{number}.json")


def measure(script: str, logs: Path, out: Path, extra: str) -> tuple[float, float, int, int]:
    """Wall and CPU seconds, peak resident bytes and examples of one way in its own process."""
    start = time.perf_counter()
    command = [sys.executable, "-c", script, str(logs), str(out), extra]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    told = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        sys.exit(f"a way failed with status {status}")
    unit = 1 if sys.platform == "darwin" else 1024
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit, int(told)


def report(best: dict[str, tuple[float, float, int, int]]) -> None:
    ours, _, peak, _ = best["ours, keep"]
    print("way           wall s   CPU s  peak MB     rows  wall and peak by those of ours, keep")
    for way, (wall, cpu, memory, made) in best.items():
        ratio = f"{wall / ours:6.2f} {memory / peak:6.2f}"
        print(f"{way:<11} {wall:8.2f} {cpu:7.2f} {memory / 1e6:8.0f} {made:>8}  {ratio}")
    print("quoted: the converter this replaces, 9.4 s and 2,150 MB for 2,500 logs of 299 MB")
    print(f"again:  python -m benchmarks.convert_games {' '.join(sys.argv[1:])}".rstrip())


if __name__ == "__main__":
    main()
