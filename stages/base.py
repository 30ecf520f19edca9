"""Base: an entry of `bases` -> models/base/<base>/, made here or downloaded, and checked."""

from pathlib import Path

from stages.core import basedir, config_keys, files, plugins, settings


def run(key: str) -> None:
    """Write `models/base/<key>/`."""
    item = settings.load().bases[key]
    plugin = plugins.load("bases", item.kind)
    options = plugin.Options.model_validate(item.options)
    with files.directory(files.base_dir(key)) as out:
        plugin.make(options, out)
        facts = basedir.describe(out)
        complete(out)
    print(
        f"{key}: {facts['architecture']}, {facts['parameters'] / 1e6:,.1f} million parameters, "
        f"{facts['vocabulary']:,} tokens, context {facts['context']:,}"
    )


def complete(out: Path) -> None:
    """Complete config.json, and say in base.json what was added and how far its readers agree.

    The digests in base.json stay those of the files as they were published.
    """
    added = config_keys.write(out / "config.json")
    notes: dict[str, list[str] | int] = {"config_added": added} if added else {}
    agreed = config_keys.agree_to(files.read_json(out / "config.json"))
    if agreed is not None:
        notes["readers_agree_to"] = agreed
    if notes:
        path = out / "base.json"
        files.write_json(path, files.read_json(path) | notes)
