"""The memory of each GPU: what a strategy keeps, the batch, activations, and what is there at the worst moment."""

from __future__ import annotations

from dataclasses import dataclass

from pretrain.planning.strategies import Kept

GPU_SIZES = (24, 40, 80, 141)
"""Gigabytes: L4 and RTX 4090, A100, A100 and H100, H200."""

USABLE = 0.9
"""Of a GPU's memory; the rest goes to its context, to buffers of NCCL, and to gaps between tensors."""


@dataclass(frozen=True)
class Activations:
    """Bytes of activations on each GPU.

    Attributes:
        configured: With the activation checkpointing of the config.
        kept, checkpointed: Without it, and with it.
        records_at_once: What they are of: a chunk, or this GPU's share of the batch.
    """

    configured: int
    kept: int
    checkpointed: int
    records_at_once: int


@dataclass(frozen=True)
class Memory:
    """Bytes on each GPU.

    Attributes:
        weights, gradients, optimiser: In float32; AdamW keeps two numbers for each trained parameter, and DeepSpeed a
            copy of it.
        average: Of the moving average of the weights; 0 where the config asks for none.
        batch: This GPU's share of it.
        activations: Of the records that are embedded at once.
        working: What there is beside all these at the worst moment: blocks that are gathered, gradients on their way,
            embeddings of all GPUs.
        total: At the worst moment.
        fits: Size of a GPU in gigabytes to whether that fits.
    """

    weights: int
    gradients: int
    optimiser: int
    average: int
    batch: int
    activations: int
    working: int
    total: int
    fits: dict[int, bool]


def memory_of(kept: Kept, batch: int, activations: int, compared: int, cached: bool) -> Memory:
    """Add up what is there at the worst moment.

    Args:
        kept: By the strategy.
        batch: Bytes of this GPU's share.
        activations: Bytes.
        compared: Bytes that the contrast holds.
        cached: Whether it does so between forward passes, as in a cached step, and not while there are activations.
    """
    always = kept.weights + kept.gradients + kept.optimiser + kept.average + batch
    beside = kept.backward if cached else max(kept.backward, compared)
    worst = max(activations + beside, kept.step, compared if cached else 0)
    total = always + worst
    return Memory(
        weights=kept.weights,
        gradients=kept.gradients,
        optimiser=kept.optimiser,
        average=kept.average,
        batch=batch,
        activations=activations,
        working=max(0, worst - activations),
        total=total,
        fits={size: total <= USABLE * size * 1e9 for size in GPU_SIZES},
    )
