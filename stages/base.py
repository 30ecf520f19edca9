"""Base: an entry of `bases` -> models/base/<base>/, made here or downloaded, and checked."""

from stages.core import basedir, files, plugins, settings


def run(key: str) -> None:
    """Write `models/base/<key>/`."""
    item = settings.load().bases[key]
    plugin = plugins.load("bases", item.kind)
    options = plugin.Options.model_validate(item.options)
    with files.directory(files.base_dir(key)) as out:
        plugin.make(options, out)
        facts = basedir.describe(out)
    print(
        f"{key}: {facts['architecture']}, {facts['parameters'] / 1e6:,.1f} million parameters, "
        f"{facts['vocabulary']:,} tokens, context {facts['context']:,}"
    )
