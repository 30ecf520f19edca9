"""Token rows and a base in, an adapter (PEFT form) or full weights with their manifest out."""

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages.backends.torch.train import checkpoints, preference, trainer, words
from stages.backends.torch.train.preference import Preferring
from stages.backends.torch.train.trainer import Planned
from stages.backends.torch.train.words import Device
from stages.core import batches, files, manifest, shards, targets
from stages.core.batches import Rows
from stages.core.errors import MissingPackage, TunesmithError
from stages.core.settings import Model

PACKAGES = ("torch", "transformers", "peft", "trl", "accelerate", "safetensors")
DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
LARGEST_FILE = "2GB"


def train(settings: Model, base: Path, tokens: Path, out: Path, report: Path) -> None:
    """Train `settings` on the rows of `tokens`, from `base`; write `out` and `report` whole.

    Two runs write the same bytes on one machine, and so does a run that was interrupted and
    went on from its last checkpoint.

    Raises:
        TunesmithError: a target that cannot be adapted, a precision the device lacks, a loss or
            gradient that is not finite (naming the step), tokens whose checks did not run or
            that are of the wrong kind (preference pairs are for method dpo, and it for them).
        MissingPackage: torch, transformers, peft or trl is not installed.
    """
    rows, valid = (batches.load(tokens, split) for split in ("train", "valid"))
    _require_kind(rows, settings, tokens)
    leaves = targets.resolve(settings.lora.targets, _tensors(base)) if _adapts(settings) else []
    facts = _facts(settings, base, tokens, rows)
    shaped = settings.model_dump(include={"method", "lora", "train"})
    run = checkpoints.folder(facts | {"settings": shaped})
    made = start(settings, base, leaves, rows, valid, run)
    made.run_from(checkpoints.last(run))
    series = made.state.log_history
    with files.directory(out) as work:
        if _adapts(settings):
            write_adapter(made.model, settings.base, leaves, work)
        else:
            write_weights(made.model, base, work)
        manifest.write(
            work, settings, **facts, loss=manifest.curve(series), device=made.device.name,
            precision=made.precision, steps=len(made.plan), dtype=_written(settings, base),
            trained_tokens=_trained(made.plan, rows), **_measured(settings, series),
        )  # fmt: skip
    with files.directory(report) as work:
        manifest.write_series(work / "loss.tsv", series, made.SERIES)
        summary = {"loss": manifest.curve(series), **_measured(settings, series)}
        files.write_json(work / "summary.json", summary)
    checkpoints.forget(run)


def _prefers(settings: Model) -> bool:
    return settings.method == "dpo"


def _require_kind(rows: Rows, settings: Model, tokens: Path) -> None:
    """Refuse pairs for another method than dpo, and dpo without pairs."""
    if (rows.rejected is not None) == _prefers(settings):
        return
    raise TunesmithError(
        f"These rows are {'no ' if _prefers(settings) else ''}preference pairs, "
        f"and the method is {settings.method}.",
        where=str(tokens),
        why="They were tokenised for another method; other parts of them would be trained.",
        do=f"dvc repro tokenise@{tokens.name}",
    )


def _measured(settings: Model, series: list[dict[str, Any]]) -> dict[str, Any]:
    """The highest learning rate used and, with dpo, the rewards at both ends of the run."""
    found: dict[str, Any] = {"learning_rate": max(row["learning_rate"] for row in series)}
    return found | ({"preference": preference.summary(series)} if _prefers(settings) else {})


def _adapts(settings: Model) -> bool:
    return settings.method != "full"


def _tensors(base: Path) -> list[shards.Tensor]:
    return [tensor for shard in shards.weights(base) for tensor in shard.tensors]


def _facts(settings: Model, base: Path, tokens: Path, rows: Rows) -> dict[str, Any]:
    """Everything besides the settings that the result depends on, by hash or version."""
    return {
        "base": manifest.base_facts(settings.base, base),
        "dataset": {"name": settings.dataset, "tokens": files.tree_hash(tokens)},
        "template": manifest.template_hash(base),
        "rows": len(rows),
        "versions": manifest.versions(PACKAGES),
    }


def _trained(plan: list[batches.Step], rows: Rows) -> int:
    counts = rows.trained_tokens
    return sum(int(counts[micro].sum()) for step in plan for micro in step)


def start(
    settings: Model, base: Path, leaves: list[str], rows: Rows, valid: Rows, run: Path
) -> Any:
    """The trainer, ready: `run_from` trains its model; `state.log_history` is the loss series."""
    _prepare()
    from transformers import AutoTokenizer

    chosen, options = device(), settings.train
    use = words.precision(options.precision, chosen)
    plan = batches.plan(
        rows.sizes, options.batch_size, options.accumulate, options.epochs, options.max_steps,
        options.seed,
    )  # fmt: skip
    blocks = targets.blocks(settings.lora.layers, _tensors(base)) if leaves else None
    lora = words.lora_words(settings.method, settings.lora, leaves, blocks) if leaves else None
    said = words.trainer_words(options, len(plan), use, chosen) | words.method_words(settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # trl still uses transformers' older names
        made = trainer.build(
            Preferring if _prefers(settings) else Planned,
            load(base, use if leaves else "fp32"),
            AutoTokenizer.from_pretrained(base),
            said | {"output_dir": str(run)}, lora, plan, rows, valid, options.eval_steps,
        )  # fmt: skip
    made.device, made.precision = chosen, use
    trained = sum(weight.numel() for weight in made.model.parameters() if weight.requires_grad)
    # Weights and AdamW's two moments in a checkpoint, and the weights once more at the end, fp32.
    files.require_space(run, 4 * 4 * trained, "What this training writes")
    return made


def _prepare() -> None:
    """Check the packages and settle what must be set before torch is imported."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # the hub libraries would ask about the base
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")  # one device: the plan is one process's
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise TunesmithError(
            "Training was started as one of several processes.",
            where="WORLD_SIZE",
            why="The torch backend trains in one process on one device.",
            do="Start it alone: python -m stages train <model>",
        )
    try:
        import peft  # noqa: F401
        import torch
        import transformers
        import trl  # noqa: F401
    except ModuleNotFoundError as missing:
        raise MissingPackage(missing.name or "torch", "torch") from missing
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    if torch.cuda.is_available():
        torch.use_deterministic_algorithms(True, warn_only=True)


def device() -> Device:
    """The first CUDA device where there is one, else the CPU."""
    import torch

    if not torch.cuda.is_available():
        return Device("cpu", "cpu", bf16=True)
    bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return Device("cuda", torch.cuda.get_device_name(0), bf16)


def load(base: Path, use: str) -> Any:
    """The base model, its weights in fp32, bf16 or fp16."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[use]
    config = AutoConfig.from_pretrained(base, trust_remote_code=False)
    capped = getattr(config, "attn_logit_softcapping", None)  # only eager attention caps
    return AutoModelForCausalLM.from_pretrained(
        base, config=config, dtype=dtype, use_safetensors=True, trust_remote_code=False,
        attn_implementation="eager" if capped else "sdpa",
    )  # fmt: skip


def write_adapter(model: Any, base: str, leaves: list[str], out: Path) -> None:
    """Write adapter_model.safetensors in fp32 and adapter_config.json without machine paths."""
    import torch
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    found = get_peft_model_state_dict(model, save_embedding_layers=False)
    weights = {name: found[name].float().cpu().contiguous() for name in sorted(found)}
    _require_finite(weights, torch)
    save_file(weights, out / "adapter_model.safetensors", metadata={"format": "pt"})
    config = model.peft_config["default"]
    config.base_model_name_or_path, config.inference_mode = base, True
    config.target_modules = leaves  # a set until here, whose order differs from run to run
    config.save_pretrained(out)


def write_weights(model: Any, base: Path, out: Path) -> None:
    """Write all weights in the base's own type, under the base's names, in shards."""
    import torch

    _require_finite(dict(model.named_parameters()), torch)
    model.to(getattr(torch, DTYPES[_tensors(base)[0].dtype]))
    model.save_pretrained(out, max_shard_size=LARGEST_FILE)
    for name in ("config.json", "generation_config.json"):
        (out / name).unlink(missing_ok=True)  # fuse carries the base's own


def _written(settings: Model, base: Path) -> str:
    return "float32" if _adapts(settings) else DTYPES[_tensors(base)[0].dtype]


def _require_finite(weights: Mapping[str, Any], torch: Any) -> None:
    broken = sorted(name for name, weight in weights.items() if not torch.isfinite(weight).all())
    if broken:
        raise TunesmithError(
            f"{len(broken)} trained weights are not finite, first {broken[0]}.",
            where="models.<model>.train",
            why="Such a model answers with nothing but noise; nothing was written.",
            do="Lower train.learning_rate, or set train.precision: fp32.",
        )
