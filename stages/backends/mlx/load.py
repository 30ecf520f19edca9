"""A folder in, its model on this machine's device out: shared by training and generation."""

import ctypes
import importlib
import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.core import files
from stages.core.errors import MissingPackage, TunesmithError

BLAS = "TUNESMITH_BLAS"
GLIBC, MACOS = (2, 35), (14, 0)
# keys of config.json that only a mixture of experts has
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
QUANTISED = ("quantization", "quantization_config")


def require() -> Any:
    """The module mlx.core, with mlx_lm installed beside it; on a CPU nothing is compiled.

    Raises:
        TunesmithError: MLX does not exist for this platform.
        MissingPackage: mlx or mlx_lm is not installed.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # mlx_lm.utils imports the hub's client
    _load_blas()
    try:
        import mlx.core as mx

        importlib.import_module("mlx_lm")
    except ImportError as missing:
        require_this_platform()
        name = (missing.name or "mlx").split(".")[0]
        raise MissingPackage(name, "mlx") from missing
    if mx.default_device() == mx.cpu:
        # Fused kernels are built there by g++, for seconds each, and only where there is a g++.
        mx.disable_compile()
    return mx


def _load_blas() -> None:
    """Put the BLAS that TUNESMITH_BLAS names before the slow one of MLX's wheels for Linux.

    Loaded for everybody and before MLX, its functions are the ones that MLX finds first.
    """
    path = os.environ.get(BLAS)
    if not path:
        return
    try:
        ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
    except OSError as problem:
        raise TunesmithError(
            f"{path} could not be loaded: {problem}.",
            where=BLAS,
            why="MLX would compute with its own BLAS, which is several times slower.",
            do=f"Name another library, such as OpenBLAS's libblas.so.3, or unset {BLAS}.",
        ) from problem


def require_this_platform() -> None:
    """As `require_platform`, of the machine this runs on."""
    require_platform(
        platform.system(), platform.machine(), platform.mac_ver()[0], platform.libc_ver()
    )


def require_platform(system: str, machine: str, macos: str, libc: tuple[str, str]) -> None:
    """Refuse a platform that MLX is not built for.

    Args:
        system, machine: as `platform` names them, such as Darwin and arm64.
        macos: the version of macOS, such as 14.5; empty elsewhere.
        libc: name and version of the C library, such as ("glibc", "2.36"); empty elsewhere.
    """
    apple = system == "Darwin" and machine == "arm64" and _version(macos) >= MACOS
    linux = system == "Linux" and libc[0] == "glibc" and _version(libc[1]) >= GLIBC
    if apple or linux:
        return
    found = " ".join(part for part in (system, macos, machine, *libc) if part)
    raise TunesmithError(
        f"MLX does not exist for this platform ({found}).",
        where="models.<model>.backend, models.<model>.evaluate.engine",
        why="It is built for macOS 14 or later on Apple silicon, and Linux with glibc 2.35.",
        do="Set backend: torch (and evaluate.engine: torch). On Apple silicon: an arm64 Python.",
    )


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2] if part.isdecimal())


@dataclass(frozen=True, slots=True)
class Device:
    """Where MLX runs: `cpu`, `metal` or `cuda`, and its name, such as `MLX on CPU`."""

    kind: str
    name: str


def device() -> Device:
    """MLX's default device."""
    mx = require()
    if mx.default_device() == mx.cpu:
        blas = Path(os.environ.get(BLAS, "")).name
        return Device("cpu", f"MLX on CPU with {blas}" if blas else "MLX on CPU")
    kind = "metal" if mx.metal.is_available() else "cuda"
    return Device(kind, f"MLX on {mx.device_info().get('device_name', kind)}")


def model(folder: Path, use: str, prepare: Callable[[Any], None] | None = None) -> Any:
    """The model of a folder, a class of mlx_lm.models, not training and with nothing frozen.

    Args:
        folder: a Hugging Face model folder; no tokenizer is needed and no hub is asked.
        use: type of its weights: fp32, bf16, fp16, or `auto`: their own.
        prepare: changes the model before its weights are read; they are then read one by one, so
            that what it rounds is never there as a whole.

    Raises:
        TunesmithError: a config that MLX would misread, a mixture of experts, quantised weights,
            or an architecture that mlx_lm does not have.
        MissingPackage: mlx or mlx_lm is not installed.
    """
    mx = require()
    from mlx.utils import tree_flatten
    from mlx_lm.utils import load_model

    check_config(files.read_json(folder / "config.json"), folder)
    loaded, _ = load_model(folder, lazy=True, get_model_classes=_classes)
    dtypes = {"fp32": mx.float32, "bf16": mx.bfloat16, "fp16": mx.float16}
    if use != "auto":
        loaded.set_dtype(dtypes[use])
    if prepare:
        prepare(loaded)
    for _, weight in tree_flatten(loaded.parameters()):
        mx.eval(weight)
    _mend_scale(loaded)
    return loaded


def mend_masks(model: Any, folder: Path, longest: int) -> None:
    """Make each layer see what transformers' layer sees, in rows of at most `longest` tokens.

    Most classes of mlx_lm make one mask for all layers and forget the sliding window; Gemma 2's
    has no place for the rows of a batch among its five axes.
    """
    config = files.read_json(folder / "config.json")
    for layer, width in zip(model.layers, windows(config, len(model.layers)), strict=True):
        _mend_mask(layer.self_attn, width if width is not None and width < longest else None)


def windows(config: dict[str, Any], layers: int) -> list[int | None]:
    """How many tokens each layer sees, its own included; None for a layer that sees all.

    Read as transformers reads it: from `layer_types`, or in older files from what the
    architecture did before that key was there.
    """
    kind, width = config.get("model_type"), config.get("sliding_window")
    asked = config.get("use_sliding_window", kind not in ("qwen2", "qwen3", "smollm3"))
    if not width or not asked:
        return [None] * layers
    if config.get("layer_types"):
        return [width if kind == "sliding_attention" else None for kind in config["layer_types"]]
    first = int(config.get("max_window_layers", 0))
    pattern = int(config.get("sliding_window_pattern", 6))

    def slides(layer: int) -> bool:
        if kind == "gemma2":
            return layer % 2 == 0
        return (layer + 1) % pattern != 0 if kind == "gemma3_text" else layer >= first

    return [width if slides(layer) else None for layer in range(layers)]


def _mend_mask(attention: Any, width: int | None) -> None:
    """Give one layer its own mask; a subclass keeps the weights' names."""
    from mlx_lm.models.base import create_causal_mask

    kind = type(attention)
    grouped = hasattr(attention, "attn_logit_softcapping") and attention.repeats > 1
    if width is None and not grouped:
        return

    def masked(self: Any, x: Any, mask: Any = None, cache: Any = None) -> Any:
        if cache is not None:
            mask = cache.make_mask(x.shape[1], window_size=width)
            return kind.__call__(self, x, mask[:, :, None] if grouped else mask, cache)
        if width is not None and x.shape[1] > width:
            mask = create_causal_mask(x.shape[1], window_size=width)
        return kind.__call__(self, x, mask, None)

    attention.__class__ = type(kind.__name__, (kind,), {"__call__": masked})


def _mend_scale(model: Any) -> None:
    """Undo mlx_lm's rounding of Gemma 3's factor, the root of hidden_size, to bf16.

    transformers rounds it to the weights' own type. The output layer, which may be the same
    matrix, takes no factor.
    """
    import mlx.core as mx

    if model.model_type != "gemma3_text" or model.model.embed_tokens.weight.dtype == mx.bfloat16:
        return
    exact = model.args.hidden_size**0.5
    ratio = exact / mx.array(exact, mx.bfloat16).item()
    embedding = model.model.embed_tokens
    kind = type(embedding)

    def scaled(self: Any, ids: Any) -> Any:
        return kind.__call__(self, ids) * ratio

    embedding.__class__ = type(kind.__name__, (kind,), {"__call__": scaled})


def check_config(config: Mapping[str, Any], folder: Path) -> None:
    """Refuse a config.json whose model MLX would read wrongly or cannot adapt exactly."""
    where = f"{folder}/config.json"
    if "rope_parameters" in config and "rope_theta" not in config:
        raise TunesmithError(
            "config.json has rope_parameters and no rope_theta.",
            where=where,
            why="MLX reads the older key; without it many models get wrong positions, silently.",
            do=f"dvc repro base@{folder.name}",
        )
    rope = config.get("rope_scaling") or {}
    if config.get("model_type") == "phi3" and rope.get("short_factor") != rope.get("long_factor"):
        raise TunesmithError(
            "config.json has longrope with a short_factor and another long_factor.",
            where=where,
            why="mlx_lm takes the long ones for short rows too, so it would be another model.",
            do="Set backend: torch and evaluate.engine: torch for this base.",
        )
    experts = next((key for key in EXPERTS if (config.get(key) or 0) > 1), None)
    if experts:
        raise TunesmithError(
            f"The base is a mixture of experts ({experts}: {config[experts]}).",
            where=where,
            why="Its experts have other names and shapes in MLX, which cannot be moved exactly.",
            do="Use a dense base: Qwen2/3, Llama, Mistral, Phi3, Gemma 2/3 or SmolLM3.",
        )
    quantised = next((key for key in QUANTISED if config.get(key)), None)
    if quantised:
        raise TunesmithError(
            f"The base's weights are quantised ({quantised}).",
            where=where,
            why="An adapter is merged into whole weights, which such a base has lost.",
            do="Use the full-precision base, and quantise_base: 4bit or 8bit to save memory.",
        )


def _classes(config: dict[str, Any]) -> tuple[Any, Any]:
    """The classes of mlx_lm for a config.

    Raises:
        TunesmithError: it has none.
    """
    from mlx_lm.utils import _get_classes

    try:
        found: tuple[Any, Any] = _get_classes(config)
    except ValueError as unknown:
        raise TunesmithError(
            f"mlx_lm has no architecture {config.get('model_type')!r}.",
            where="models.<model>.base",
            why="The MLX backend runs the models that mlx_lm has.",
            do="Set backend: torch, or use another base.",
        ) from unknown
    return found
