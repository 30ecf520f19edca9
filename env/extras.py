"""Print the extras of pyproject.toml that exist for this machine; run by `make setup`."""

import sys

from stages.backends.mlx import load
from stages.core.errors import TunesmithError


def main() -> None:
    """`torch,dev,mlx`, or without mlx where it is not built for."""
    extras = ["torch", "dev"]
    try:
        load.require_this_platform()
        extras.append("mlx")
    except TunesmithError as missing:
        print(f"{missing.what} It is left out.", file=sys.stderr)
    print(",".join(extras))


if __name__ == "__main__":
    main()
