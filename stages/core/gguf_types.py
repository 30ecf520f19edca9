"""Encode: a block of fp32 rows -> the bytes that a GGUF tensor type stores for them.

The bytes equal those of llama.cpp's gguf-py (gguf/quants.py) and, for q8_0, of ggml's reference
quantize_row_q8_0: blocks of 32 values, a scale of max(|x|)/127 in fp16, then 32 signed bytes.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

BLOCK = 32


def q8_0(values: "torch.Tensor") -> "torch.Tensor":
    """fp32 [n], n a multiple of 32 -> uint8 [n / 32, 34]."""
    import torch

    blocks = values.view(-1, BLOCK)
    scale = blocks.abs().amax(dim=1, keepdim=True).div_(127)
    inverse = torch.where(scale == 0, 0.0, 1 / scale)
    scaled = blocks * inverse
    whole = scaled.to(torch.int8)
    whole += scaled.sub_(whole).mul_(2).to(torch.int8)  # half away from zero, as C's roundf
    out = torch.empty(len(blocks), BLOCK + 2, dtype=torch.uint8)
    out[:, :2] = scale.half().view(torch.uint8)
    out[:, 2:] = whole.view(torch.uint8)
    return out


def rows(values: "torch.Tensor", kind: str) -> "torch.Tensor":
    """fp32 rows as the tensor type `kind` (f32, f16, bf16, q8_0), contiguous."""
    import torch

    if kind == "q8_0":
        return q8_0(values.reshape(-1))
    dtype = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[kind]
    return values.to(dtype).contiguous()


def bytes_of(values: "torch.Tensor") -> memoryview:
    """The tensor's bytes, not copied."""
    import torch

    return memoryview(values.reshape(-1).view(torch.uint8).numpy())
