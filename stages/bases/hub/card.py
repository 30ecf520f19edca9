"""A downloaded base's texts in; its licence, and the files later stages count on, out."""

from pathlib import Path

import yaml

from stages.core import files, template

UNKNOWN = "unknown"


def licence(folder: Path) -> str:
    """The licence that README.md names in its front matter, or `unknown`.

    Form: YAML between two lines `---` at the top, key `license`; where that is `other`,
    `license_name` says which (Hugging Face, "Model cards").
    """
    path = folder / "README.md"
    if not path.is_file():
        return UNKNOWN
    lines = [line.rstrip() for line in path.read_text("utf-8", "replace").splitlines()]
    if lines[:1] != ["---"] or "---" not in lines[1:]:
        return UNKNOWN
    try:
        facts = yaml.safe_load("\n".join(lines[1 : lines.index("---", 1)]))
    except yaml.YAMLError:
        return UNKNOWN
    if not isinstance(facts, dict):
        return UNKNOWN
    named = facts.get("license")
    if named == "other":
        named = facts.get("license_name", named)
    return ", ".join(map(str, named)) if isinstance(named, list) else str(named or UNKNOWN)


def write_template(folder: Path) -> None:
    """Write chat_template.jinja where the template stands only in tokenizer_config.json.

    Later stages depend on that one file. A list there may name a second template, for chats
    with tools; it goes where transformers looks for it.
    """
    path = folder / "chat_template.jinja"
    named = template.read_config(folder).get("chat_template")
    if path.is_file() or named is None:
        return
    if isinstance(named, str):
        named = [{"name": "default", "template": named}]
    for entry in named:
        place = path
        if entry["name"] != "default":
            place = folder / "additional_chat_templates" / f"{Path(entry['name']).name}.jinja"
            place.parent.mkdir(exist_ok=True)
        place.write_text(entry["template"], encoding="utf-8")


def write_stops(folder: Path) -> None:
    """Write generation_config.json with config.json's stop tokens where the base has none."""
    path = folder / "generation_config.json"
    if not path.is_file():
        stops = files.read_json(folder / "config.json").get("eos_token_id")
        files.write_json(path, {} if stops is None else {"eos_token_id": stops})
