"""The processes of a run: the group that torchrun, or whoever speaks as it does, has started this one into."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

TIMEOUT = timedelta(minutes=30)
"""How long a process waits for the others: the longest evaluation by one of them, and the slowest file system."""


@contextmanager
def process_group(timeout: timedelta = TIMEOUT) -> Iterator[None]:
    """While this lasts the processes that were started together are one group; alone, there is none.

    Tensors of a GPU go through NCCL, those of the processor through gloo.
    """
    if "WORLD_SIZE" not in os.environ or dist.is_initialized():
        yield
        return
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
        backend = "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, timeout=timeout)
    try:
        yield
    finally:
        dist.destroy_process_group()
