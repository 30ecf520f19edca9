"""Sample: a maker's settings -> a folder of raw data, made here from a seed."""

from stages.core import files, plugins, settings


def run(key: str) -> None:
    """Write `data/raw/<key>/`."""
    sample = settings.load().samples[key]
    maker = plugins.load("makers", sample.maker)
    with files.directory(files.raw_dir(key)) as out:
        maker.make(maker.Options.model_validate(sample.options), out)
    print(f"{key}: {len(files.tree_hashes(files.raw_dir(key)))} files of sample data")
