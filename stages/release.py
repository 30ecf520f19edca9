"""Release: everything made of a model -> its files, hashes, lineage and gates in one folder."""

from stages.core import files, lineage, releasing, settings


def run(key: str) -> None:
    """Write `models/release/<key>/`.

    Raises:
        TunesmithError: a gate failed or could not run; the reports stay as they are.
    """
    params = settings.load()
    names = releasing.names(key, params.gguf)
    gates = releasing.gates(files.report_dir(key), names)
    for gate in gates:
        print(
            f"  {gate['outcome']:<8} {gate['file']:<24} {gate['gate']}  {gate['reason']}".rstrip()
        )
    releasing.require_passed(gates, key)
    sources = [files.gguf_path(key, name) for name in names]
    with files.directory(files.release_dir(key)) as out:
        for source in sources:
            releasing.place(source, out / source.name)
        model = params.models[key]
        manifest = lineage.of(key, model, sources)
        summary = releasing.run_summary(key, model, params.datasets[model.dataset], manifest)
        manifest |= {"gates": gates, "files": releasing.listing(out)}
        files.write_json(out / "manifest.json", manifest)
        files.write_json(out / "run-summary.json", summary)
    print(f"{key}: {len(gates)} gates passed; released in {files.release_dir(key)}")
