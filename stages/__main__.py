"""The one door: `tunesmith <command>`, which is `python -m stages <command>`."""

import sys
from typing import Annotated

import typer

from stages.core import local
from stages.core.errors import TunesmithError
from stages.doors import building, elsewhere, outside, sharing, using

STAGES = {
    "sample": ("samples", "Make a folder of sample data with a seeded maker."),
    "base": ("bases", "Make or download a base model."),
    "convert": ("datasets", "Turn raw data into examples and rejects, by the dataset's recipe."),
    "validate": ("datasets", "Check examples, drop copies, and split them without leaks."),
    "tokenise": ("models", "Turn chats into token rows with labels, every row checked."),
    "train": ("models", "Train an adapter (or full weights) on the token rows."),
    "fuse": ("models", "Merge the adapter into its base: plain safetensors."),
    "gguf": ("gguf", "Write one GGUF file of a fused model."),
    "evaluate": ("models", "Score base and tuned model side by side on the test split."),
    "verify": ("gguf", "Run a GGUF in llama.cpp and prove that it is the trained model."),
    "release": ("models", "Gather files, hashes, lineage and gates; fails when a gate failed."),
}


app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Build fine-tuned small language models like programs: raw data in, verified GGUF out. "
    "`dvc repro` runs the stages below; each can be run alone, too.",
)


def _add_stage(name: str, section: str, text: str) -> None:
    def command(key: Annotated[str, typer.Argument(help=f"An entry of `{section}`.")]) -> None:
        from stages.core import runner

        runner.run(name, section, key)

    app.command(name, help=text, rich_help_panel=None)(command)


for _name, (_section, _text) in STAGES.items():
    _add_stage(_name, _section, _text)


Json = Annotated[bool, typer.Option("--json", help="One JSON object.")]


@app.command()
def lint(as_json: Json = False) -> None:
    """Check params.yaml: every key, type, range and reference."""
    from stages.core import settings

    if as_json:
        import orjson

        _, problems = settings.lint()
        found = {"file": settings.PARAMS.as_posix(), "problems": problems}
        print(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())
        sys.exit(2 if problems else 0)
    params = settings.load()
    print(f"params.yaml: {len(params.models)} models, {len(params.gguf)} gguf files, no problem")


@app.command()
def preset(
    model: Annotated[str, typer.Argument(help="An entry of `models`.")],
    name: Annotated[str, typer.Argument(help="A file in presets/, without .yaml.")],
) -> None:
    """Write a preset's settings for one model into params.yaml, comments kept."""
    from stages.core import presets

    presets.apply(model, name)


@app.command()
def summary(as_json: Json = False) -> None:
    """Say what was built, where it is, how good it is and what to type next."""
    from stages.core import overview

    overview.show(as_json)


@app.command()
def stats(
    dataset: Annotated[str, typer.Argument(help="An entry of `datasets`.")], as_json: Json = False
) -> None:
    """Say how long a dataset's texts are, how they are spread, and what was left out and why."""
    from stages.core import dataset_stats

    dataset_stats.show(dataset, as_json)


@app.command()
def check(
    model: Annotated[str, typer.Argument(help="An entry of `models`. [default: all]")] = "",
    as_json: Json = False,
) -> None:
    """Show this machine, where each stage would run and why, and whether each training fits."""
    from stages.commands import check as command

    command.run(model, as_json)


for _part in (building.app, elsewhere.app, using.app, sharing.app, outside.app):
    app.add_typer(_part)


def main() -> None:
    """Run a command; a user's mistake ends with one screen and exit code 2."""
    try:
        local.load()
        app()
    except TunesmithError as mistake:
        print(f"\nerror: {mistake}", file=sys.stderr)
        sys.exit(2)
    except PermissionError as refused:
        said = TunesmithError(
            f"{refused.strerror}.",
            where=str(refused.filename),
            why="This command reads or writes it.",
            do="See whose it is: ls -l",
        )
        print(f"\nerror: {said}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
