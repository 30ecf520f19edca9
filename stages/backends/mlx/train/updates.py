"""The parts of an adapter's updates in, grouped by module; or a refusal by name.

mlx-lm and PEFT can hold the same update of a linear layer. Everything else one of them can hold
changes something different in the other, or has no place there.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stages.core.errors import TunesmithError

Array = np.ndarray[Any, Any]
# What PEFT's config can say that mlx-lm's layers cannot do; core/adapter.py names each.
ONLY_PEFT = (
    *("modules_to_save", "trainable_token_indices", "target_parameters", "lora_bias"),
    *("alora_invocation_tokens", "layer_replication", "use_qalora", "use_bdlora"),
    *("fan_in_fan_out", "arrow_config", "kasa_config", "velora_config", "monteclora_config"),
    "megatron_config",
)
WHY = "What it changes in one form it would not change in the other."


def grouped(
    weights: Mapping[str, Array], endings: Mapping[str, str], prefix: str
) -> dict[str, dict[str, Array]]:
    """module -> its parts a, b and magnitude; the modules sorted."""
    parts: dict[str, dict[str, Array]] = {}
    for name in sorted(weights):
        ending = next((end for end in endings if name.endswith(end)), "")
        module = name.removeprefix(prefix).removesuffix(ending)
        if not ending or not name.startswith(prefix) or unfit(module):
            raise refuse(
                f"The adapter holds {name}: {unfit(name) or 'an unknown tensor'}.", name, WHY,
                "Train low-rank updates of linear layers alone, without biases.",
            )  # fmt: skip
        require_finite(name, weights[name])
        parts.setdefault(module, {})[endings[ending]] = weights[name]
    if not parts:
        raise refuse("The adapter holds no tensor.", "", "It changes nothing.", "Train it.")
    return parts


def unfit(name: str) -> str:
    """Why a tensor or module of this name has no place in both forms; empty when it may have."""
    words = set(re.split(r"[./]", name))
    if words & {"experts", "switch_mlp", "router", "shared_expert", "shared_expert_gate"}:
        return "an update of MoE experts, which the two forms cut up differently"
    if words & {"embed_tokens", "lora_embedding_A", "lora_embedding_B", "wte"}:
        return "an update of an embedding, whose weight the output layer may share"
    if "bias" in words:
        return "a trained bias"
    if "weight" in words and not any(word.startswith("lora_") for word in words):
        return "a whole layer trained beside the adapter (modules_to_save)"
    return ""


def require_update(module: str, found: Mapping[str, Array], rank: int, dora: bool) -> None:
    """A [r, in], B [out, r] and, with DoRA, the magnitude [out]: all there, and of one rank."""
    wanted = {"a", "b", "magnitude"} if dora else {"a", "b"}
    if set(found) != wanted:
        raise refuse(
            f"{module} has the parts {sorted(found)} where {sorted(wanted)} are needed.", module,
            "Half of an update is another update.", "Save the adapter again.",
        )  # fmt: skip
    shapes = {name: part.shape for name, part in found.items()}
    a, b, out = shapes["a"], shapes["b"], shapes.get("magnitude", shapes["b"][:1])
    if len(a) != 2 or len(b) != 2 or a[0] != b[1] or out != b[:1]:
        listed = ", ".join(f"{name} {list(shape)}" for name, shape in sorted(shapes.items()))
        raise refuse(
            f"{module}: {listed} are no update of a linear layer.", module,
            "a is [r, in], b [out, r] and a magnitude [out].", "Save the adapter again.",
        )  # fmt: skip
    if a[0] != rank:
        raise refuse(
            f"{module} has rank {a[0]} where the adapter's config says {rank}.", module,
            "The factor of the update depends on the rank.",
            "Use the adapter_config.json that was saved with these weights.",
        )  # fmt: skip


def require_finite(name: str, values: Array) -> None:
    if not np.isfinite(values).all():
        raise refuse(
            f"{name} holds a value that is not finite.", name,
            "A model with NaN or infinity in it answers nothing.",
            "Train again with a lower learning rate.",
        )  # fmt: skip


def require_plain(config: Mapping[str, Any], where: Path) -> None:
    """Refuse PEFT settings under which W + scale * B @ A is not what PEFT computes."""
    start = config.get("init_lora_weights", True)
    changes = isinstance(start, str) and start.lower().startswith(
        ("pissa", "olora", "corda", "loftq", "lora_ga")
    )
    found = [name for name in ONLY_PEFT if config.get(name)]
    found += ["bias"] if config.get("bias", "none") != "none" else []
    found += ["peft_type"] if config.get("peft_type") != "LORA" else []
    found += ["init_lora_weights"] if changes else []
    if found:
        raise refuse(
            f"mlx-lm has no form for this adapter: {found[0]} is {config.get(found[0])!r}.",
            f"{where}: {found[0]}", WHY, f"Train without {found[0]}.",
        )  # fmt: skip


def refuse(what: str, where: str, why: str, do: str) -> TunesmithError:
    """The error for an adapter that one of the two forms cannot hold."""
    return TunesmithError(what, where=where, why=why, do=do)
