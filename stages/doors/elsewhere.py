"""Commands that run stages on other machines: run."""

from enum import StrEnum
from typing import Annotated

import typer

app = typer.Typer()


class Bring(StrEnum):
    """What is fetched of a job's outputs."""

    TARGETS, ALL, NOTHING = "targets", "all", "nothing"


@app.command()
def run(
    names: Annotated[
        list[str] | None, typer.Argument(help="Stages such as train@saige; or jobs.")
    ] = None,
    on: Annotated[str, typer.Option("--on", help="An entry of places.yaml.")] = "",
    bring: Annotated[
        Bring, typer.Option(help="Outputs that are fetched afterwards; dvc.lock names all.")
    ] = Bring.TARGETS,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan and the cost; send nothing.")
    ] = False,
    detach: Annotated[
        bool, typer.Option("--detach", help="Begin it, and do not wait for its end.")
    ] = False,
    attach: Annotated[
        bool, typer.Option("--attach", help="Follow a job that is under way, and take its result.")
    ] = False,
    stop: Annotated[bool, typer.Option("--stop", help="End a job and its machine.")] = False,
    forget: Annotated[
        bool, typer.Option("--forget", help="End a job, and take nothing of it.")
    ] = False,
    list_jobs: Annotated[
        bool, typer.Option("--list", help="What runs where, since when, and what it costs.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="With --list or --dry-run: JSON.")
    ] = False,
) -> None:
    """Run stages on another machine: the same commit, the inputs pulled, the outputs pushed."""
    from stages.commands import run as command

    asked = {"attach": attach, "stop": stop, "forget": forget, "list": list_jobs}
    request = command.Request(names or [], on, bring.value, yes, dry_run, detach, as_json)
    command.run(request, [word for word, typed in asked.items() if typed])
