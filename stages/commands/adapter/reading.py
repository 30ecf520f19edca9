"""A folder with an adapter of mlx-lm's or PEFT's in; its PEFT form, checked against a base, out."""

import importlib
import re
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal, TypeVar

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from stages.core import adapter, files, mistakes, shards
from stages.core.errors import TunesmithError

MLX_WEIGHTS = "adapters.safetensors"
PICKLED = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.npz")


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as problem:
        raise ValueError(f"{text!r} is no pattern: {problem}") from problem
    return text


Rank = Annotated[int, Field(ge=1)]
Pattern = Annotated[str, AfterValidator(_pattern)]


class Foreign(BaseModel):
    """A file of somebody else's: keys beside those we read are theirs."""

    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)


class MlxLora(Foreign):
    """mlx-lm's `lora_parameters`; without `keys` it adapts every layer of a block."""

    rank: Rank
    scale: float
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    keys: list[str] | None = None


class MlxConfig(Foreign):
    """mlx-lm's adapter_config.json; `num_layers` counts from the last, 0 and -1 are all."""

    fine_tune_type: Literal["lora", "dora", "full"] = "lora"
    num_layers: int
    lora_parameters: MlxLora | None = None


class PeftConfig(Foreign):
    """What decides the scale in PEFT's adapter_config.json; core/adapter.py reads the rest."""

    r: Rank
    lora_alpha: float
    rank_pattern: dict[Pattern, Rank] | None = None
    alpha_pattern: dict[Pattern, float] | None = None
    use_rslora: bool | None = None
    use_dora: bool | None = None
    lora_dropout: float | None = None


Config = TypeVar("Config", bound=Foreign)


@dataclass(frozen=True, slots=True)
class Brought:
    """An adapter in PEFT's form; `scale` where mlx-lm stated it, `source` for the manifest."""

    method: str
    tensors: dict[str, Any]
    config: dict[str, Any]
    source: dict[str, Any]
    scale: float | None = None


def peft_form() -> ModuleType:
    """The converter, which belongs to the backend that writes with it."""
    return importlib.import_module("stages.backends.mlx.train.peft_form")


def is_full(folder: Path) -> bool:
    """Whether mlx-lm's `fine_tune_type` is full: whole weights, no updates."""
    raw = read_config(folder)
    return "peft_type" not in raw and raw.get("fine_tune_type") == "full"


def read(folder: Path, name: str, base: Path) -> Brought:
    """The adapter in `folder`, checked against the base in `base`, which is called `name`.

    Raises:
        TunesmithError: no such folder, pickled or missing weights, a malformed config, a part
            that cannot be merged exactly, another base's names or shapes.
    """
    raw = read_config(folder)
    brought = _peft(folder, raw, name) if "peft_type" in raw else _mlx(folder, raw, name, base)
    _require_fits(brought.tensors, base, folder)
    return brought


def read_config(folder: Path) -> dict[str, Any]:
    """The object in the folder's adapter_config.json."""
    path = folder / adapter.CONFIG
    why = "It says how strongly the weights count; without it they mean nothing."
    do = "Name the folder with adapter_config.json and the safetensors file beside it."
    if not path.is_file():
        if sorted(folder.glob("model*.safetensors")):
            do = "To start from it, name it as a model's base; an adapter has adapter_config.json."
            raise TunesmithError(
                f"{folder} holds whole weights and no adapter.", where=str(folder), why=why, do=do
            )
        what = "has no adapter_config.json" if folder.is_dir() else "is no folder"
        raise TunesmithError(f"{folder} {what}.", where=str(path), why=why, do=do)
    try:
        found = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as problem:
        what = f"adapter_config.json is not JSON: {problem}."
        raise TunesmithError(what, where=str(path), why=why, do=do) from problem
    if not isinstance(found, dict):
        what = "adapter_config.json holds no JSON object."
        raise TunesmithError(what, where=str(path), why=why, do=do)
    return found


def source_facts(folder: Path, form: str, weights: str) -> dict[str, Any]:
    """Where it came from: the form and the hash of both files."""
    hashes = {name: files.sha256(folder / name) for name in (adapter.CONFIG, weights)}
    return {"form": form, "sha256": hashes}


def require_weights(folder: Path, name: str) -> Path:
    """The weights file, which must be safetensors."""
    path = folder / name
    if not path.is_file():
        pickled = sorted(found.name for end in PICKLED for found in folder.glob(end))
        raise TunesmithError(
            f"{folder} has {f'only {pickled[0]}' if pickled else 'no weights'}, not {name}.",
            where=str(folder),
            why="Other forms can be pickles, which run any code when opened; none is opened.",
            do="Save the adapter as safetensors.",
        )
    return path


def _peft(folder: Path, raw: dict[str, Any], name: str) -> Brought:
    require_weights(folder, adapter.WEIGHTS)
    adapter.check_config(raw, folder / adapter.CONFIG)
    _parsed(PeftConfig, raw, folder)
    lora = adapter.read(folder)
    loaded = peft_form().load(folder / adapter.WEIGHTS)
    old, new = ".lora_magnitude_vector.weight", ".lora_magnitude_vector"
    tensors = {key.replace(old, new): value for key, value in sorted(loaded.items())}
    own = {"base_model_name_or_path": name, "revision": None, "inference_mode": True}
    source = source_facts(folder, "peft", adapter.WEIGHTS)
    return Brought(lora.method, tensors, raw | own, source)


def _mlx(folder: Path, raw: dict[str, Any], name: str, base: Path) -> Brought:
    path = require_weights(folder, MLX_WEIGHTS)
    config = _parsed(MlxConfig, raw, folder)
    lora, where = config.lora_parameters, f"{folder / adapter.CONFIG}: lora_parameters"
    if lora is None:
        raise TunesmithError(
            "adapter_config.json has no lora_parameters.",
            where=where,
            why="Rank and scale decide what the weights do.",
            do="Use the adapter_config.json that mlx-lm wrote beside these weights.",
        )
    blocks = files.read_json(base / "config.json")["num_hidden_layers"]
    weights = peft_form().load(path)
    dora = config.fine_tune_type == "dora"
    tensors, said = peft_form().to_peft(
        weights, rank=lora.rank, scale=lora.scale, dora=dora, rslora=False, base=name,
        dropout=lora.dropout, blocks=blocks,
    )  # fmt: skip
    _require_reached(sorted(weights), config, blocks, folder / adapter.CONFIG)
    source = source_facts(folder, "mlx-lm", MLX_WEIGHTS)
    return Brought("dora" if dora else "lora", tensors, said, source, lora.scale)


def _parsed(kind: type[Config], raw: dict[str, Any], folder: Path) -> Config:
    """The config, its types checked; every mistake named by its key."""
    try:
        return kind.model_validate(raw)
    except ValidationError as failure:
        found = list(mistakes.explain(failure, kind, missing="is missing."))
        raise TunesmithError(
            "\n".join(f"adapter_config.json: {key}: {text}" for key, text in found),
            where=f"{folder / adapter.CONFIG}: {found[0][0]}",
            why="These settings decide what the weights do.",
            do="Use the adapter_config.json that was saved with these weights.",
        ) from failure


def _require_reached(names: list[str], config: MlxConfig, blocks: int, where: Path) -> None:
    """Every key has a tensor and every tensor a key, within the last `num_layers` blocks."""
    modules = sorted({name.rpartition(".")[0] for name in names})
    places = {module: peft_form().place(module) for module in modules}
    keys = config.lora_parameters.keys if config.lora_parameters else None
    known = {*modules, *(inside for _, inside in places.values())}
    for key in keys or []:
        if key not in known:
            raise _misfit(f"lora_parameters.keys names {key}, to which no tensor belongs.", where)
    first = blocks - config.num_layers if config.num_layers > 0 else 0
    for module, (block, inside) in places.items():
        named = keys is None or inside in keys
        if module not in (keys or []) and not (named and (block is None or block >= first)):
            what = f"num_layers: {config.num_layers} and lora_parameters.keys leave out {module}"
            raise _misfit(f"{what}, which the weights have.", where)


def _misfit(what: str, where: Path) -> TunesmithError:
    return TunesmithError(
        f"adapter_config.json: {what}",
        where=str(where),
        why="Config and weights are of two different runs.",
        do="Use the adapter_config.json that was saved with these weights.",
    )


def _require_fits(tensors: dict[str, Any], base: Path, where: Path) -> None:
    """Every update has its weight in the base, of the right shape, tied to no other."""
    found = {t.name: t.shape for shard in shards.weights(base) for t in shard.tensors}
    tied = files.read_json(base / "config.json").get("tie_word_embeddings")
    shapes: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, tensor in sorted(tensors.items()):
        module, part = adapter.split_key(name, where)
        shapes.setdefault(f"{module}.weight", {})[part] = tensor.shape
    for weight, parts in shapes.items():
        if weight == "lm_head.weight" and (tied or weight not in found):
            raise TunesmithError(
                "The adapter changes lm_head.weight, which this base ties to its embedding.",
                where=str(where),
                why="The change would reach the input embedding too, where it was not trained.",
                do="Train without lm_head.",
            )
        shape = (parts["b"][0], parts["a"][1])
        if found.get(weight) != shape or parts.get("magnitude", shape[:1]) != shape[:1]:
            listed = ", ".join(f"{part} {list(size)}" for part, size in sorted(parts.items()))
            has = f"has shape {list(found[weight])}" if weight in found else "is not there"
            raise TunesmithError(
                f"The adapter changes {weight} by {listed}, which in {base} {has}.",
                where=str(where),
                why="On another base than its own an adapter does not do what was trained.",
                do="Name the model whose base the adapter was trained on: --model <model>",
            )
