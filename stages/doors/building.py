"""Commands around `dvc repro` and `dvc exp run`: plan, explain, resume, sweep, experiments."""

from typing import Annotated

import typer

app = typer.Typer()

Targets = Annotated[list[str] | None, typer.Argument(help="Stages or files. [default: everything]")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object.")]


@app.command()
def plan(
    targets: Targets = None,
    pull: Annotated[
        bool,
        typer.Option(help="As `dvc repro --pull --allow-missing` would do, with the remote asked."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Say what `dvc repro` would run and why, what is cached, and about how long it takes."""
    from stages.commands import plan as command

    command.run(targets or [], as_json, pull)


@app.command()
def explain(
    stage: Annotated[str, typer.Argument(help="Such as train@sibyl.")], as_json: Json = False
) -> None:
    """Say why one stage is stale or fresh: its inputs, its settings, and what comes before it."""
    from stages.commands import plan as command

    command.explain(stage, as_json)


@app.command()
def resume(targets: Targets = None) -> None:
    """Go on after a kill, a crash or a full disk: what was finished stays, the rest is built."""
    from stages.commands import resume as command

    command.run(targets or [])


@app.command()
def sweep(
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", "-S", help="key=a,b,…: the values to try; repeat for a grid."),
    ] = None,
    target: Annotated[
        list[str] | None, typer.Option(help="What to build. [default: what the keys shape]")
    ] = None,
    at_once: Annotated[
        int | None, typer.Option(min=1, help="Points side by side on this machine. [default: 1]")
    ] = None,
    name: Annotated[str, typer.Option(help="[default: made of the grid]")] = "",
    on: Annotated[
        str, typer.Option("--on", help="Places of places.yaml: a,b; `here` is this machine.")
    ] = "",
    yes: Annotated[bool, typer.Option("--yes", help="With --on: do not ask.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="With --on: show plan and cost; send nothing.")
    ] = False,
) -> None:
    """Try every combination of settings, each in a workspace of its own; the same again goes on."""
    from stages.commands import sweep as command

    request = command.Request(name, at_once or 0, on, yes, dry_run)
    command.run(settings or [], target or [], request)


@app.command()
def experiments(
    model: Annotated[str, typer.Argument(help="An entry of `models`. [default: all]")] = "",
    as_json: Json = False,
) -> None:
    """Show DVC's experiments: the settings that differ and the scores that matter."""
    from stages.commands import experiments as command

    command.run(model, as_json)
