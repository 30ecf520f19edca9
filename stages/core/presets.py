"""presets/<name>.yaml in; its settings in params.yaml for one model out, comments kept."""

import io
from pathlib import Path
from typing import Any

from stages.core import files, plugins, settings
from stages.core.errors import TunesmithError

PRESETS = Path("presets")


def apply(model: str, name: str, params: Path = settings.PARAMS) -> None:
    """Write a preset's base and model settings into `params`; nothing else in it changes.

    Raises:
        TunesmithError: no such model or preset, or the result would not pass the linter; the
            file is then left as it was.
    """
    from ruamel.yaml import YAML

    known = settings.load(params).models
    if model not in known:
        raise TunesmithError(
            f"There is no model {model!r}.", where=str(params), do=plugins.nearest(model, known)
        )
    names = sorted(path.stem for path in PRESETS.glob("*.yaml"))
    if name not in names:
        raise TunesmithError(
            f"There is no preset {name!r}.", where=f"{PRESETS}/", do=plugins.nearest(name, names)
        )
    yaml = YAML()
    yaml.width, yaml.preserve_quotes = 1000, True
    document = yaml.load(params.read_text(encoding="utf-8"))
    _write_into(document, model, yaml.load((PRESETS / f"{name}.yaml").read_text(encoding="utf-8")))
    text = io.StringIO()
    yaml.dump(document, text)
    with files.file(params) as work:
        work.write_text(text.getvalue(), encoding="utf-8")
        _lint(work, name)
    print(f"{params}: models.{model} now has the settings of {PRESETS / name}.yaml")


def _lint(work: Path, name: str) -> None:
    """Refuse a preset after which the settings would not be right."""
    problems = settings.lint(work)[1]
    if problems:
        shown = "\n".join(f"  {problem.partition(': ')[2]}" for problem in problems)
        raise TunesmithError(
            f"With the preset {name!r} the settings would not be right:\n{shown}",
            where=f"{PRESETS / name}.yaml",
            why="Nothing was written: no stage would run with such settings.",
            do="Mend the preset, or what it does not fit in params.yaml.",
        )


def _write_into(document: Any, model: str, preset: Any) -> None:
    bases = document["bases"]
    for base, value in preset.get("bases", {}).items():
        if base in bases:
            _merge(bases[base], value)
        else:  # in front: behind the last entry stands the next section's comment
            bases.insert(0, base, value)
    _merge(document["models"][model], preset["model"])


def _merge(old: Any, new: Any) -> None:
    """Replace each leaf of `old` that `new` names; other leaves and all comments stay."""
    for key, value in new.items():
        if isinstance(value, dict) and isinstance(old.get(key), dict):
            _merge(old[key], value)
        else:
            old[key] = value
