"""Several processes of one test: forked from one that has imported what they need, which is most of their time."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Any

import torch.multiprocessing as mp

IMPORTED = ["pretrain.run", "timm", "deepspeed"]


def run_in_processes(work: Callable[..., None], arguments: tuple[Any, ...], count: int) -> None:
    """Call ``work(rank, *arguments)`` in each of some new processes, and wait for them.

    Raises:
        ProcessException: One of them failed.
    """
    multiprocessing.set_forkserver_preload(IMPORTED)
    mp.start_processes(work, arguments, nprocs=count, start_method="forkserver")
