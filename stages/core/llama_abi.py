"""llama.cpp's C interface: the library inside the xllamacpp wheel -> typed functions, its log kept.

No compiler is needed: the wheel's own extension exports the functions. Layouts and signatures are
those of include/llama.h (ggml-org/llama.cpp) in the source of this one xllamacpp version.
"""

import ctypes
from collections import deque
from ctypes import (
    POINTER,
    Structure,
    c_bool,
    c_char_p,
    c_float,
    c_int,
    c_int8,
    c_int32,
    c_size_t,
    c_uint32,
    c_void_p,
)
from functools import cache
from typing import Any

from stages.core.errors import MissingPackage, TunesmithError

VERSION = "2026.10.11549"
ERROR, CONTINUED = 4, 5  # ggml.h, ggml_log_level
LOG: deque[tuple[int, str]] = deque(maxlen=400)
_LOGGER = ctypes.CFUNCTYPE(None, c_int, c_char_p, c_void_p)


class ModelParams(Structure):
    """`struct llama_model_params`."""

    _fields_ = (
        ("devices", POINTER(c_void_p)),
        ("tensor_buft_overrides", c_void_p),
        ("n_gpu_layers", c_int32),
        ("split_mode", c_int),
        ("load_mode", c_int),
        ("lazy_mode", c_int),
        ("main_gpu", c_int32),
        ("tensor_split", POINTER(c_float)),
        ("progress_callback", c_void_p),
        ("progress_callback_user_data", c_void_p),
        ("kv_overrides", c_void_p),
        ("vocab_only", c_bool),
        ("check_tensors", c_bool),
        ("use_extra_bufts", c_bool),
        ("no_host", c_bool),
        ("no_alloc", c_bool),
        ("load_mtp", c_bool),
    )


class ContextParams(Structure):
    """`struct llama_context_params`."""

    _fields_ = (
        ("n_ctx", c_uint32),
        ("n_batch", c_uint32),
        ("n_ubatch", c_uint32),
        ("n_seq_max", c_uint32),
        ("n_rs_seq", c_uint32),
        ("n_outputs_max", c_uint32),
        ("n_outputs_max_per_seq", c_uint32),
        ("n_threads", c_int32),
        ("n_threads_batch", c_int32),
        ("ctx_type", c_int),
        ("rope_scaling_type", c_int),
        ("pooling_type", c_int),
        ("attention_type", c_int),
        ("flash_attn_type", c_int),
        ("rope_freq_base", c_float),
        ("rope_freq_scale", c_float),
        ("yarn_ext_factor", c_float),
        ("yarn_attn_factor", c_float),
        ("yarn_beta_fast", c_float),
        ("yarn_beta_slow", c_float),
        ("yarn_orig_ctx", c_uint32),
        ("defrag_thold", c_float),
        ("cb_eval", c_void_p),
        ("cb_eval_user_data", c_void_p),
        ("type_k", c_int),
        ("type_v", c_int),
        ("moe_cache_size", c_size_t),
        ("abort_callback", c_void_p),
        ("abort_callback_data", c_void_p),
        ("embeddings", c_bool),
        ("offload_kqv", c_bool),
        ("no_perf", c_bool),
        ("op_offload", c_bool),
        ("swa_full", c_bool),
        ("kv_unified", c_bool),
        ("samplers", c_void_p),
        ("n_samplers", c_size_t),
        ("ctx_other", c_void_p),
    )


class Batch(Structure):
    """`struct llama_batch`."""

    _fields_ = (
        ("n_tokens", c_int32),
        ("token", POINTER(c_int32)),
        ("embd", POINTER(c_float)),
        ("pos", POINTER(c_int32)),
        ("n_seq_id", POINTER(c_int32)),
        ("seq_id", POINTER(POINTER(c_int32))),
        ("logits", POINTER(c_int8)),
    )


_IDS = POINTER(c_int32)
# name -> (result, arguments); opaque structs are c_void_p
SIGNATURES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "backend_init": (None, ()),
    "log_set": (None, (_LOGGER, c_void_p)),
    "model_default_params": (ModelParams, ()),
    "context_default_params": (ContextParams, ()),
    "model_load_from_file": (c_void_p, (c_char_p, ModelParams)),
    "model_free": (None, (c_void_p,)),
    "init_from_model": (c_void_p, (c_void_p, ContextParams)),
    "free": (None, (c_void_p,)),
    "n_ctx_seq": (c_uint32, (c_void_p,)),
    "model_get_vocab": (c_void_p, (c_void_p,)),
    "model_chat_template": (c_char_p, (c_void_p, c_char_p)),
    "model_n_ctx_train": (c_int32, (c_void_p,)),
    "vocab_n_tokens": (c_int32, (c_void_p,)),
    "vocab_is_eog": (c_bool, (c_void_p, c_int32)),
    "vocab_eos": (c_int32, (c_void_p,)),
    "vocab_get_add_bos": (c_bool, (c_void_p,)),
    "tokenize": (c_int32, (c_void_p, c_char_p, c_int32, _IDS, c_int32, c_bool, c_bool)),
    "detokenize": (c_int32, (c_void_p, _IDS, c_int32, c_char_p, c_int32, c_bool, c_bool)),
    "get_memory": (c_void_p, (c_void_p,)),
    "memory_clear": (None, (c_void_p, c_bool)),
    "memory_seq_rm": (c_bool, (c_void_p, c_int32, c_int32, c_int32)),
    "batch_init": (Batch, (c_int32, c_int32, c_int32)),
    "batch_free": (None, (Batch,)),
    "decode": (c_int32, (c_void_p, Batch)),
    "get_logits": (POINTER(c_float), (c_void_p,)),
}


def _keep(level: int, text: bytes, _: Any) -> None:
    LOG.append((level, text.decode("utf-8", "replace")))


_KEEP = _LOGGER(_keep)  # llama.cpp holds only its address


class Library:
    """`library().<name>` is the function `llama_<name>`."""

    def __init__(self, path: str) -> None:
        loaded = ctypes.CDLL(path)
        for name, (result, arguments) in SIGNATURES.items():
            function = getattr(loaded, f"llama_{name}")
            function.restype, function.argtypes = result, arguments
            setattr(self, name, function)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"llama_{name} is not among the declared functions")


@cache
def library() -> Library:
    """The library of the installed xllamacpp, its log caught.

    Raises:
        MissingPackage: xllamacpp is not installed.
        TunesmithError: another version of it, or one whose structs lie otherwise.
    """
    package = module()
    made = Library(package.xllamacpp.__file__)
    made.backend_init()
    listen(made)
    _check_layout(made)
    return made


def module() -> Any:
    """The package xllamacpp, if it is the version these layouts belong to.

    Raises:
        MissingPackage: it is not installed.
        TunesmithError: it is another version.
    """
    try:
        import xllamacpp
    except ModuleNotFoundError as missing:
        raise MissingPackage(missing.name or "xllamacpp", "torch") from missing
    if xllamacpp.__version__ != VERSION:
        raise _unknown(f"xllamacpp {xllamacpp.__version__} is installed, {VERSION} is needed.")
    return xllamacpp


def listen(made: Library) -> None:
    """Keep the log in `LOG` from here on; a server of xllamacpp takes it over when it starts."""
    made.log_set(_KEEP, None)


def errors() -> str:
    """The last lines that llama.cpp logged as errors, and what continues them."""
    found, on = [], False
    for level, text in LOG:
        on = level == ERROR or (level == CONTINUED and on)
        if on:
            found.append(text.rstrip())
    return "; ".join(found[-4:]) or "llama.cpp gave no reason"


def _check_layout(made: Library) -> None:
    """Known defaults at both ends of each struct: another layout would not show them all."""
    model, context = made.model_default_params(), made.context_default_params()
    found = (
        model.n_gpu_layers, model.load_mode, model.use_extra_bufts, model.vocab_only,
        context.n_ctx, context.n_batch, context.n_seq_max, context.flash_attn_type,
        context.yarn_ext_factor, context.type_k, context.type_v, context.offload_kqv,
        context.n_samplers,
    )  # fmt: skip
    expected = (-1, -1, True, False, 512, 2048, 1, -1, -1.0, 1, 1, True, 0)
    if found != expected:
        raise _unknown(f"Its default settings read {found}, not {expected}.")


def _unknown(what: str) -> TunesmithError:
    return TunesmithError(
        what,
        where="stages/core/llama_abi.py",
        why="The file is run through the C structs of one version; others lie otherwise in memory.",
        do=f"pip install xllamacpp=={VERSION}",
    )
