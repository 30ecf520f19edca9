"""GGUF data: planned outputs and the weights' places -> the tensors' bytes, all files in one pass.

Each job reads a block of rows once and writes it to every output at its place, so the order of
the jobs does not show in the files.
"""

import math
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.core import gguf_types, threads
from stages.core.errors import TunesmithError
from stages.core.progress import Progress
from stages.core.shards import Tensor

if TYPE_CHECKING:
    import torch

BLOCK_VALUES = 1 << 16  # a quarter megabyte of fp32: read, converted and written inside the cache
JOB_VALUES = 1 << 24
DTYPES = {"F32": "f32", "F16": "f16", "BF16": "bf16"}
LARGEST_F16 = 65504.0


@dataclass(slots=True)
class Output:
    """One file: llama.cpp's writer with header and table, and where each tensor goes."""

    path: Path
    writer: Any
    handle: int = -1
    places: dict[str, int] = field(default_factory=dict)

    @property
    def table(self) -> dict[str, Any]:
        """Tensor name -> TensorInfo(shape, dtype, nbytes), in the file's order."""
        table: dict[str, Any] = self.writer.tensors[0]
        return table


@dataclass(frozen=True, slots=True)
class Job:
    """Some rows of one tensor, unchanged from its file; or all of one that must be computed."""

    name: str
    tensor: Tensor | None
    first: int
    last: int


def write(
    outputs: list[Output], same: dict[str, Tensor], compute: Callable[[str], "torch.Tensor"]
) -> None:
    """Write headers and data of all outputs.

    Args:
        same: output tensors that are a weight of the model unchanged; the others come from
            `compute(name)`, whole and in fp32 or fp16.
    """
    for output in outputs:
        write_header(output)
    total = sum(tensor.size for tensor in same.values())
    progress = Progress("gguf, MB read", total // 1_000_000)
    with ExitStack() as stack, threads.workers() as pool:
        for output in outputs:
            output.handle = os.open(output.path, os.O_WRONLY)
            stack.callback(os.close, output.handle)
        for megabytes in pool.map(lambda job: _do(job, outputs, compute), jobs(outputs[0], same)):
            progress.step(megabytes)
    progress.close()


def write_header(output: Output) -> None:
    """Header, metadata and table through llama.cpp's writer; then the place of every tensor."""
    output.writer.write_header_to_file(path=output.path)
    output.writer.write_kv_data_to_file()
    output.writer.write_ti_data_to_file()
    output.writer.close()
    align = output.writer.data_alignment
    end = output.path.stat().st_size
    for name, info in output.table.items():
        output.places[name] = start = -(-end // align) * align
        end = start + info.nbytes
    os.truncate(output.path, -(-end // align) * align)


def jobs(output: Output, same: dict[str, Tensor]) -> Iterator[Job]:
    """All rows of all tensors, about 16 million values a job."""
    for name, info in output.table.items():
        tensor, count = same.get(name), info.shape[0]
        step = max(1, JOB_VALUES // max(1, math.prod(info.shape[1:]))) if tensor else count
        for first in range(0, count, step):
            yield Job(name, tensor, first, min(first + step, count))


def _do(job: Job, outputs: list[Output], compute: Callable[[str], "torch.Tensor"]) -> int:
    """One job; returns the megabytes it read."""
    import torch

    with torch.inference_mode():
        if job.tensor is None:
            _encode(job.name, compute(job.name).float(), 0, outputs)
            return 0
        width = math.prod(job.tensor.shape[1:])
        step = max(1, BLOCK_VALUES // max(1, width))
        with job.tensor.path.open("rb") as source:
            source.seek(job.tensor.offset + job.first * job.tensor.row_bytes)
            for first in range(job.first, job.last, step):
                count = min(step, job.last - first)
                raw = bytearray(source.read(count * job.tensor.row_bytes))
                _block(job, raw, first, outputs)
    return (job.last - job.first) * job.tensor.row_bytes // 1_000_000


def _block(job: Job, raw: bytearray, first: int, outputs: list[Output]) -> None:
    """One block of an unchanged tensor; an output of the weight's own type takes its bytes."""
    import torch

    assert job.tensor is not None
    dtype = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    values = torch.frombuffer(raw, dtype=dtype[job.tensor.dtype]).view(-1, *job.tensor.shape[1:])
    own = DTYPES[job.tensor.dtype]
    copied = [output for output in outputs if _type(output, job.name) == own]
    for output in copied:
        _place(output, job.name, first, memoryview(raw))
    others = [output for output in outputs if output not in copied]
    if others:
        _encode(job.name, values.float(), first, others)


def _encode(name: str, values: "torch.Tensor", first: int, outputs: list[Output]) -> None:
    """Write fp32 rows to each output in its tensor's type, after a look at their range."""
    import torch

    low, high = (float(bound) for bound in torch.aminmax(values))
    if not (math.isfinite(low) and math.isfinite(high)):
        raise _out_of_range(name, "holds values that are not finite", "Train again; look at loss.")
    done: dict[str, memoryview] = {}
    for output in outputs:
        kind = _type(output, name)
        if kind == "f16" and max(-low, high) > LARGEST_F16:
            what = f"reaches {max(-low, high):.3g}, more than fp16 holds"
            raise _out_of_range(name, what, "Use quant bf16, f32 or q8_0 for this model.")
        if kind not in done:
            done[kind] = gguf_types.bytes_of(gguf_types.rows(values, kind))
        _place(output, name, first, done[kind])


def _type(output: Output, name: str) -> str:
    return str(output.table[name].dtype.name).lower()


def _place(output: Output, name: str, first: int, data: memoryview) -> None:
    """Write rows from row `first` on at their place in the file."""
    info = output.table[name]
    offset = output.places[name] + first * (info.nbytes // info.shape[0])
    while data:
        done = os.pwrite(output.handle, data, offset)
        data, offset = data[done:], offset + done


def _out_of_range(name: str, what: str, do: str) -> TunesmithError:
    return TunesmithError(
        f"The weight {name} {what}.",
        where=name,
        why="Infinity in one weight makes every answer empty or NaN.",
        do=do,
    )
