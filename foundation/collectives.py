"""Rows, sums and names that all processes of the default group agree on; of one process, its own."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

Value = TypeVar("Value")


def together() -> bool:
    """Whether there are several processes."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if together() else 1


def rank() -> int:
    """Of this process among all; 0 is the one that writes and speaks."""
    return dist.get_rank() if together() else 0


def everyones(value: Value) -> list[Value]:
    """What each process says, in the order of ranks: anything small that can be pickled."""
    if not together():
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def of_first(compute: Callable[[], Value]) -> Value:
    """What process 0 makes, known to all: anything small that can be pickled."""
    if not together():
        return compute()
    values = [compute() if rank() == 0 else None]
    dist.broadcast_object_list(values)
    return values[0]  # type: ignore[return-value]


def share_from_first(tensors: Iterable[Tensor]) -> None:
    """Give every process the values that process 0 has, where they are."""
    if together():
        for tensor in tensors:
            dist.broadcast(tensor.detach(), src=0)


def gather_sizes(size: int, device: torch.device) -> list[int]:
    """What each process says of a size, in the order of ranks."""
    if not together():
        return [size]
    sizes = torch.empty(world_size(), dtype=torch.int64, device=device)
    dist.all_gather_into_tensor(sizes, torch.tensor([size], dtype=torch.int64, device=device))
    return sizes.tolist()


def gather_rows(local: Tensor, sizes: list[int]) -> Tensor:
    """The rows of every process, in the order of ranks; processes may have different numbers of them.

    Args:
        local: [size of this process, ...].
        sizes: Of every process.

    Returns:
        [sum of sizes, ...], without a gradient.
    """
    if not together():
        return local.detach()
    longest = max(sizes)
    padded = _padded(local.detach(), longest)
    gathered = padded.new_empty((len(sizes) * longest, *padded.shape[1:]))
    dist.all_gather_into_tensor(gathered, padded)
    if min(sizes) == longest:
        return gathered
    return torch.cat([part[:size] for part, size in zip(gathered.split(longest), sizes, strict=True)])


def scatter_sums(everywhere: Tensor, sizes: list[int]) -> Tensor:
    """The transpose of `gather_rows`: this process's rows of the sum over processes.

    Args:
        everywhere: [sum of sizes, ...].
        sizes: Rows of every process.
    """
    if not together():
        return everywhere
    longest = max(sizes)
    parts = [_padded(part, longest) for part in everywhere.split(sizes)]
    total = everywhere.new_empty((longest, *everywhere.shape[1:]))
    dist.reduce_scatter_tensor(total, torch.cat(parts))
    return total[: sizes[dist.get_rank()]]


def own_rows(everywhere: Tensor, sizes: list[int]) -> Tensor:
    """This process's part of rows in the order of ranks, which every process holds.

    Args:
        everywhere: [sum of sizes, ...].
        sizes: Rows of every process.
    """
    return everywhere.split(sizes)[rank()]


def sum_over_processes(values: Tensor) -> Tensor:
    """Elementwise sum over processes, without a gradient."""
    total = values.detach().clone()
    if together():
        dist.all_reduce(total)
    return total


def max_over_processes(value: int, device: torch.device) -> int:
    """The largest of a number of each process."""
    return max(gather_sizes(value, device))


def logsumexp_over_processes(values: Tensor) -> Tensor:
    """Elementwise logarithm of the sum of exponentials over processes; -inf adds nothing."""
    if not together():
        return values
    top = values.clone()
    dist.all_reduce(top, op=dist.ReduceOp.MAX)
    top.clamp_(min=torch.finfo(top.dtype).min)
    return sum_over_processes((values - top).exp()).log() + top


def _padded(rows: Tensor, length: int) -> Tensor:
    if len(rows) == length:
        return rows.contiguous()
    return torch.cat([rows, rows.new_zeros((length - len(rows), *rows.shape[1:]))])


def name_hashes(names: Iterable[str]) -> Tensor:
    """[B] int64, one number per name, the same on every process: a hash, since none knows the names of the others."""
    # Names of groups are few and come again.
    known: dict[str, bytes] = {}
    digests = [known.get(name) or known.setdefault(name, _digest(name)) for name in names]
    return torch.from_numpy(np.frombuffer(b"".join(digests), dtype="<i8").astype(np.int64))


def _digest(name: str) -> bytes:
    return hashlib.blake2b(name.encode(), digest_size=8).digest()
