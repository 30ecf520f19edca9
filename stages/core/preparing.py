"""A fresh Linux machine in; an environment there that trains and pushes, out.

For places that rent a machine with nothing of ours on it. What is installed is pinned by the locks
of the commit that runs there:

- `env/cuda.lock`, with hashes: all that `tunesmith-cuda` holds, PyTorch with CUDA among it;
- `env/data.lock`, `env/torch.lock` and `env/dev.lock`: versions of the rest, which is DVC with what
  it needs for remotes over ssh and in S3.

The environment stands beside the checkouts, for all jobs of the project. It takes about 6 GB of
disk; the driver (580 or newer) is the machine's own.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from stages.core.jobs import Common

_FOLDER = "$TUNESMITH_HOME/venv"  # where checkouts are: stages/core/beginning.py
PYTHON = f"{_FOLDER}/bin/python"

# The first that pyproject.toml allows and that can make an environment; SkyPilot's images have an
# older one and bring uv, which fetches it.
_ENVIRONMENT = f"""\
for python in python3.12 python3.11 python3.13 python3.14 python3; do
  test -x "{_FOLDER}/bin/pip" && break
  "$python" -c "import ensurepip, sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))" \
2>/dev/null && "$python" -m venv "{_FOLDER}"
done
test -x "{_FOLDER}/bin/pip" ||
  PATH="$HOME/.local/bin:$PATH" uv venv --clear --seed --python 3.12 "{_FOLDER}" ||
  {{ echo "This needs Python 3.11 to 3.14 with venv, or uv." >&2; exit 1; }}"""
_PIP = f'"{_FOLDER}/bin/pip" install --quiet --disable-pip-version-check'


def setup() -> list[str]:
    """Shell commands that prepare a machine, run in a checkout; `PYTHON` is right after them."""
    return [
        _ENVIRONMENT,
        f"{_PIP} --require-hashes --no-deps --only-binary :all: -r env/cuda.lock",
        f"{_PIP} -c env/data.lock -c env/torch.lock -c env/dev.lock -e '.[torch,ssh,s3]'",
    ]


def _ends(hours: float) -> float:
    if not hours:
        raise ValueError("0 would never end a machine that is paid for; write how many hours")
    return hours


# `hours` of a place that rents: a training that hangs is never idle, and would cost for ever.
RentedHours = Annotated[float, Field(ge=0.0), AfterValidator(_ends)]


class Prepared(Common):
    """An entry of a place whose machines are fresh ones.

    Where it says neither `setup` nor `python`, they are this module's. An entry with one of them
    prepares its machine itself, and the other is as in `Common`.
    """

    @model_validator(mode="before")
    @classmethod
    def _prepared(cls, entry: Any) -> Any:
        if isinstance(entry, Mapping) and not {"setup", "python"} & set(entry):
            return {**entry, "setup": setup(), "python": PYTHON}
        return entry
