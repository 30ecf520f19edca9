"""A stage in a container against the same stage natively: wall time of each, and the ratio.

    python -m benchmarks.containers [--repeat 5]

Runs in a built checkout with a container engine and the image tunesmith-cpu. `validate` is a light
stage, so its difference is what a container costs every stage; `evaluate` loads torch and computes.
Both write what is there already. The best of the runs counts, taken in turns.
"""

import argparse
import os
import subprocess
import sys
import time

STAGES = (("validate", "wzrdbrain"), ("evaluate", "wzrdbrain"))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeat", type=int, default=5, help="runs of each way")
    options = parser.parse_args()
    for stage, key in STAGES:
        best = {"native": 9e9, "container": 9e9}
        for _ in range(options.repeat):
            for way in best:
                best[way] = min(best[way], seconds(stage, key, way))
        more, ratio = best["container"] - best["native"], best["container"] / best["native"]
        print(
            f"{stage}@{key}: native {best['native']:.1f} s, container {best['container']:.1f} s "
            f"(+{more:.1f} s, {ratio:.2f} x)"
        )


def seconds(stage: str, key: str, way: str) -> float:
    """Wall time of one stage run as a person would."""
    start = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "stages", stage, key],
        env={**os.environ, "TUNESMITH_LAUNCH": way}, check=True, capture_output=True,
    )  # fmt: skip
    return time.monotonic() - start


if __name__ == "__main__":
    main()
