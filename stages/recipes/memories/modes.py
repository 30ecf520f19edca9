"""A memory's type and metadata in; its cognitive mode, its tags and tags of other modes out."""

from collections.abc import Mapping
from typing import Any

# mode -> (tag of what is put to the model, tag of its answer)
TAGS = {
    "dual": ("thought", "world"),
    "emulation": ("user", "assistant"),
    "agent": ("instruction", "action"),
}
ALL_TAGS = tuple(tag for pair in TAGS.values() for tag in pair)


def of(kind: str, metadata: Mapping[str, Any], modes: Mapping[str, str]) -> tuple[str, str]:
    """The mode and where it comes from: `metadata` or `type`.

    A `cognitiveMode` that is a mode counts first, then `modes[kind]`, then the first key of
    `modes` that the lower-case type contains, then emulation. The last three all count as `type`.
    """
    stated = metadata.get("cognitiveMode")
    if isinstance(stated, str) and stated in TAGS:
        return stated, "metadata"
    if kind in modes:
        return modes[kind], "type"
    folded = kind.lower()
    return next((mode for key, mode in modes.items() if key in folded), "emulation"), "type"


def tagged(mode: str, asked: str, answered: str) -> tuple[str, str]:
    """Both texts with the tags of the mode before them: `<thought>: …` and `<world>: …`."""
    own = TAGS[mode]
    return f"<{own[0]}>: {asked}", f"<{own[1]}>: {answered}"


def body(mode: str, answer: str) -> str | None:
    """The answer without its mode's tag; None where it does not begin with it."""
    tag = f"<{TAGS[mode][1]}>:"
    return answer.removeprefix(tag).strip() if answer.startswith(tag) else None


def foreign(mode: str, *texts: str) -> list[str]:
    """The tags of other modes that stand anywhere in the texts, to the letter, as `<tag>`."""
    others = (tag for tag in ALL_TAGS if tag not in TAGS[mode])
    return [tag for tag in others if any(f"<{tag}>" in text for text in texts)]
