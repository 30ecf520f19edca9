"""Pre-tokenizer: the split rules of a tokenizer.json -> llama.cpp's name for the same rules.

llama.cpp recognises a pre-tokenizer by a hash over one tokenised text, so a vocabulary trained
here is always unknown to it. The rules themselves decide here: each pattern below is the one that
llama.cpp's llama-vocab.cpp quotes as the original of the name beside it.
"""

from pathlib import Path
from typing import Any

from stages.core import files
from stages.core.errors import TunesmithError

_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*"
PATTERNS = {
    rf"{_WORDS}|\p{{N}}|{_REST}": "qwen2",
    rf"{_WORDS}|\p{{N}}{{1,3}}|{_REST}": "llama-bpe",
    rf"{_CASED}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+": "tekken",
}


def name(folder: Path) -> str:
    """llama.cpp's name for the pre-tokenizer of `folder/tokenizer.json`.

    Raises:
        TunesmithError: rules that llama.cpp is not known to have.
    """
    rules = _steps(files.read_json(folder / "tokenizer.json").get("pre_tokenizer"))
    found = _named(rules)
    if found is None:
        shown = "; ".join(_shown(rule) for rule in rules) or "none"
        raise TunesmithError(
            f"llama.cpp has no known pre-tokenizer with these rules: {shown}.",
            where=str(folder / "tokenizer.json"),
            why="Under other rules the GGUF would cut text into other tokens than were trained.",
            do="Use a base with the split rules of Qwen2, Llama 3, Mistral (Tekken), GPT-2 or "
            "SmolLM.",
        )
    return found


def _steps(rule: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The rules of a (possibly nested) sequence, flat and in order."""
    if rule is None:
        return []
    if rule["type"] == "Sequence":
        return [step for inner in rule["pretokenizers"] for step in _steps(inner)]
    return [rule]


def _named(rules: list[dict[str, Any]]) -> str | None:
    """GPT-2 and SmolLM split inside ByteLevel; the others by one pattern before it."""
    kinds = [rule["type"] for rule in rules]
    if not rules or kinds[-1] != "ByteLevel" or rules[-1].get("add_prefix_space"):
        return None
    inside = rules[-1].get("use_regex", True)
    if kinds == ["ByteLevel"]:
        return "gpt-2" if inside else None
    if kinds == ["Digits", "ByteLevel"]:
        return "smollm" if inside and rules[0].get("individual_digits") else None
    if kinds == ["Split", "ByteLevel"] and not inside:
        kept = rules[0]["behavior"] == "Isolated" and not rules[0].get("invert")
        return PATTERNS.get(rules[0]["pattern"].get("Regex", "")) if kept else None
    return None


def _shown(rule: dict[str, Any]) -> str:
    pattern = rule.get("pattern", {})
    text = pattern.get("Regex", pattern.get("String", ""))
    return f"{rule['type']} {text}".strip()
