"""Memory for the images of a batch: zeroed by the system, in huge pages where it has them."""

from __future__ import annotations

import math
import mmap

import torch

HUGE_PAGE = 2 * 2**20


def zeros(*shape: int) -> torch.Tensor:
    """Float32 zeros, in huge pages where the system has them.

    A new batch of volumes is new memory, and to get it in pages of 4 KiB takes several times as long as to fill it.
    """
    count = 4 * math.prod(shape)
    if count < HUGE_PAGE or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.zeros(shape)
    memory = mmap.mmap(-1, count, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    try:
        memory.madvise(mmap.MADV_HUGEPAGE)
    except OSError:  # A kernel built without huge pages: the memory is as good, only slower.
        return torch.zeros(shape)
    return torch.frombuffer(memory, dtype=torch.float32).view(shape)
