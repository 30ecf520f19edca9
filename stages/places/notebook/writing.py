"""A job and its program in; a notebook of format 4.5, as a value of JSON, out.

The format is nbformat's own schema, `colab` and `kaggle` are what notebooks that were saved there
have; both as of November 2026.
"""

from pathlib import Path
from typing import Any

from stages.core.jobs import Job

HERE = Path(__file__).parent
METADATA: dict[str, dict[str, Any]] = {
    "colab": {"accelerator": "GPU", "colab": {"gpuType": "T4", "provenance": []}},
    "kaggle": {
        "kaggle": {
            "accelerator": "nvidiaTeslaT4",
            "dataSources": [],
            "isGpuEnabled": True,
            "isInternetEnabled": True,
            "language": "python",
            "sourceType": "notebook",
        }
    },
    "jupyter": {},
}
STEPS = {
    "colab": "Runtime > Change runtime type: a GPU; Secrets (the key at the left): see below; "
    "Runtime > Run all",
    "kaggle": "Settings: a GPU, Internet on; Add-ons > Secrets: see below; Run all, or Save "
    "Version (Save & Run All), which needs no open page",
    "jupyter": "Run all",
}


def notebook(job: Job, service: str, script: str, end_runtime: bool) -> dict[str, Any]:
    """Cells that check the machine, fetch the secrets, write the job's program and run it."""
    program = f"tunesmith-{job.id}.py"
    cells = [
        _text("what", _what(job, service)),
        *_code("machine", "## 1. The machine\nWhat it has. It needs git, a GPU and room.",
               f"{_source('machine')}\n\nlook({job.folder!r})"),
        *_code("secrets", _secrets(job), f"{_source('signing')}\n\nfetch({job.secrets!r})"),
        *_code("program", "## 3. The job's program\nTunesmith's own: it fetches the commit, makes "
               "an environment and gives the job to it. This cell only writes it into a file.",
               f"%%writefile {program}\n{script}"),
        *_code("run", "## 4. The job\nIts output appears here. Interrupting this cell ends it, "
               "with its last checkpoint sent. Needs the cells above.",
               f"{_source('running')}\n\nrun({program!r}, {job.secrets!r}, {job.id!r})"),
        _text("home", "## 5. At home\nThe results are in the DVC remote. Take them with\n\n"
              f"    tunesmith run --attach {job.id}\n"),
    ]  # fmt: skip
    if end_runtime:
        cells += _code("end", "## 6. The end\nGives the runtime back, which otherwise goes on to "
                       "cost. It is not run where a cell above has failed.",
                       "from google.colab import runtime\n\nruntime.unassign()")  # fmt: skip
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = METADATA[service] | {"kernelspec": kernel, "language_info": {"name": "python"}}
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def _what(job: Job, service: str) -> str:
    limit = f" It ends itself after {job.hours:g} hours." if job.hours else ""
    return (
        f"# {', '.join(job.targets)}\n"
        "A job of Tunesmith: it builds these stages from a commit and sends what they make to a "
        f"DVC remote.{limit}\n\n"
        f"- Commit: `{job.snapshot[:12]}` from `{job.git}`\n"
        f"- Remote: `{job.remote.get('url', '')}`\n"
        f"- Job: `{job.id}`, attempt {job.attempt}\n\n"
        f"**To do:** {STEPS[service]}. Run all again goes on where it ended.\n"
    )


def _secrets(job: Job) -> str:
    names = ", ".join(f"`{name}`" for name in job.secrets) or "none"
    return (
        "## 2. Secrets\nTaken from this service's own store or the environment, else asked for; "
        f"none is in this notebook. It needs: {names}."
    )


def _source(name: str) -> str:
    return (HERE / f"{name}.py").read_text(encoding="utf-8").rstrip()


def _text(name: str, source: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "id": name, "metadata": {}, "source": _lines(source)}


def _code(name: str, heading: str, source: str) -> list[dict[str, Any]]:
    """A cell of code below one that says what it does and needs."""
    code = {"cell_type": "code", "id": name, "metadata": {}, "source": _lines(source)}
    return [_text(f"{name}-head", heading), code | {"execution_count": None, "outputs": []}]


def _lines(source: str) -> list[str]:
    return source.splitlines(keepends=True)
