"""Threads: many small blocks of tensor work -> one worker a core, each doing its maths alone.

The maths library's own threads would wait for each other at every small block.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from stages.core.errors import require


@contextmanager
def workers() -> Iterator[ThreadPoolExecutor]:
    """A pool with as many workers as torch has threads; torch itself uses one meanwhile.

    Raises:
        MissingPackage: torch is not installed.
    """
    require("torch", "torch")
    import torch

    count = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(count) as pool:
            yield pool
    finally:
        torch.set_num_threads(count)
