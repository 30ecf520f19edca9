"""A config.json in; its rotary embedding in the older keys, or a refusal by name, out.

transformers 5 writes `rope_parameters: {rope_type, rope_theta, ...}`, Gemma 3 one such section
for each kind of layer; before, the same stood in `rope_theta`, `rope_scaling` and, for Gemma 3's
sliding layers, `rope_local_base_freq`.
"""

from collections.abc import Mapping
from typing import Any, NoReturn

from stages.core.errors import TunesmithError

Config = Mapping[str, Any]
ORIGINAL, LOCAL = "original_max_position_embeddings", "rope_local_base_freq"
# what transformers takes where no key says it
THETAS = {"gemma3_text": 1e6, "smollm3": 2e6}
THETA, LOCAL_THETA, PHI3_LENGTH = 1e4, 1e4, 4096
# family -> the ways to stretch the embedding that all readers know; way -> the fields they heed
_THREE = ("dynamic", "linear", "yarn")
KNOWN: dict[str, tuple[str, ...]] = {
    "gemma2": (), "gemma3_text": ("linear",), "phi3": ("longrope",), "llama": (*_THREE, "llama3"),
    "mistral": (*_THREE, "llama3"), "qwen2": _THREE, "qwen3": _THREE, "smollm3": _THREE,
}  # fmt: skip
FIELDS = {
    "linear": {"factor"},
    "dynamic": {"factor"},
    "llama3": {"factor", "low_freq_factor", "high_freq_factor", ORIGINAL},
    "yarn": {"factor", ORIGINAL},
    "longrope": {"short_factor", "long_factor"},
}
ELSEWHERE = ("rope_type", "type", "rope_theta", "partial_rotary_factor")


def refuse(what: str, where: str) -> NoReturn:
    """End with the error for a config that its readers would read differently."""
    raise TunesmithError(
        what,
        where=where,
        why="transformers, mlx-lm and llama.cpp would compute different models from this file.",
        do="Use another base, or the config.json that was published with these weights.",
    )


def older(config: Config, family: str, where: str) -> dict[str, Any]:
    """`rope_theta` and, where they say something, the other older keys, from either spelling.

    Args:
        config: the content of config.json.
        family: its model_type.
        where: the file, for messages.

    Raises:
        TunesmithError: spellings that disagree, or a stretching that some reader does not know.
    """
    full, local = _newer(config, family, where)
    old = _section(config, "rope_scaling", where)
    places = {"rope_parameters.": full, "rope_scaling.": old, "": config}

    def said(key: str, otherwise: float) -> Any:
        return _agreed({p + key: s[key] for p, s in places.items() if key in s}, otherwise, where)

    theta = THETAS.get(family, THETA)
    words = {"rope_theta": said("rope_theta", theta)}
    part = said("partial_rotary_factor", 1.0)
    if part != 1.0:
        if family != "phi3":
            refuse(f"partial_rotary_factor is {part}; only Phi3 has one.", where)
        words["partial_rotary_factor"] = part
    if family == "phi3":
        # transformers takes its own length, not the section's, where the key beside it is absent
        places[""] = {ORIGINAL: PHI3_LENGTH} | dict(config)
        words[ORIGINAL] = said(ORIGINAL, PHI3_LENGTH)
    if family == "gemma3_text":
        found = {LOCAL: config[LOCAL]} if LOCAL in config else {}
        found |= {f"sliding_attention.{k}": v for k, v in local.items() if k == "rope_theta"}
        words[LOCAL] = _agreed(found, LOCAL_THETA, where)
    elif old and full and not ("rope_theta" in old or "rope_theta" in config):
        # there transformers leaves the newer section unread
        _agreed({"rope_parameters.rope_theta": words["rope_theta"], "rope_theta": theta}, 0, where)
    return words | _stretched(config, full, old, family, where)


def _section(config: Config, key: str, where: str) -> Config:
    """What stands in a section of the config; empty where it is absent or null."""
    found = config.get(key) or {}
    if not isinstance(found, Mapping):
        refuse(f"{key} is {found!r}, which is no section.", where)
    return found


def _agreed(found: Mapping[str, Any], otherwise: float, where: str) -> Any:
    """The one number in these places, or the other where there is none."""
    values = list(found.values())
    if any(not isinstance(value, int | float) or value != values[0] for value in values):
        refuse(" and ".join(f"{key} is {value!r}" for key, value in found.items()) + ".", where)
    return values[0] if values else otherwise


def _newer(config: Config, family: str, where: str) -> tuple[Config, Config]:
    """The sections of `rope_parameters` for full and for sliding attention; empty when absent."""
    rope = _section(config, "rope_parameters", where)
    nested = "full_attention" in rope or "sliding_attention" in rope
    if rope and nested != (family == "gemma3_text"):
        wrong = "a section" if nested else "no section"
        refuse(f"rope_parameters has {wrong} for each kind of layer.", where)
    if not nested:
        return rope, {}
    full, local = (_section(rope, f"{kind}_attention", where) for kind in ("full", "sliding"))
    if _scaling(local, family, where):
        refuse("rope_parameters stretches the sliding layers, which mlx-lm does not.", where)
    return full, local


def _scaling(rope: Config, family: str, where: str) -> dict[str, Any]:
    """How a section stretches the embedding, checked, in the newer words; empty for not at all."""
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if rope.get("type", kind) != kind:
        refuse(f"rope_type is {kind!r} and type is {rope['type']!r}.", where)
    if kind == "default":
        return {}
    # older names of Phi3's
    kind = "longrope" if family == "phi3" and kind in ("su", "yarn") else kind
    if kind not in KNOWN[family]:
        names = ", ".join(("default", *KNOWN[family]))
        refuse(f"rope_type is {kind!r}; of {family} all readers know {names}.", where)
    beside = (*ELSEWHERE, ORIGINAL) if family == "phi3" else ELSEWHERE
    fields = {k: v for k, v in rope.items() if k not in beside and v is not None}
    for key in sorted(FIELDS[kind] - set(fields)):
        refuse(f"The rotary embedding of type {kind} names no {key}.", where)
    for key in sorted(set(fields) - FIELDS[kind]):
        refuse(f"The rotary embedding of type {kind} has {key}, which not all readers heed.", where)
    return {"rope_type": kind} | fields


def _stretched(
    config: Config, full: Config, old: Config, family: str, where: str
) -> dict[str, Any]:
    """`rope_scaling`, where the embedding is stretched; both spellings must say the same."""
    new, before = _scaling(full, family, where), _scaling(old, family, where)
    if full and "rope_scaling" in config and new != before:
        refuse("rope_scaling and rope_parameters stretch the rotary embedding differently.", where)
    if not new:
        return {}
    # mlx-lm's Phi3 asks for the still older word
    return {"rope_scaling": new | ({"type": new["rope_type"]} if family == "phi3" else {})}
