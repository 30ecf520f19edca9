"""Verify: a GGUF file run in llama.cpp, against its fused model -> every check in one report."""

from stages.core import files, parity, plugins, scoring, settings, verifying
from stages.core.errors import TunesmithError


def run(key: str) -> None:
    """Write `reports/<model>/gguf/<key>.json`; a failed check is written down, not raised.

    Raises:
        TunesmithError: there is no such file, or nothing to compare it with.
    """
    params = settings.load()
    entry = params.gguf[key]
    path = files.gguf_path(entry.model, key)
    if not path.is_file():
        raise TunesmithError(
            f"{path} does not exist.",
            where=str(path),
            why="Only a file can be verified.",
            do=f"dvc repro gguf@{key}",
        )
    fused = files.require_complete(files.fused_dir(entry.model), f"fuse@{entry.model}")
    model = params.models[entry.model]
    rows = scoring.test_rows(files.tokens_dir(entry.model), model.evaluate.max_prompts)
    case = verifying.Case(path, fused, rows, entry.quant, model)
    report = verifying.report(case, plugins.load("recipes", entry.judge).judge)
    with files.file(files.report_dir(entry.model) / "gguf" / f"{key}.json") as out:
        files.write_json(out, report)
    parity.show(key, report)
