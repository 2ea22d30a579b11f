"""What each strategy keeps on a GPU, and what it sends over the network in a step.

`tests/distributed/test_plan_of_strategies.py` holds all of it against what two processes keep and send.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from foundation.training.parallel.strategies import Strategy
from foundation.training.parallel.zero import BUCKET
from pretrain.planning.hardware import ROUNDS, Collective, passed_on

NUMBER = 4
"""Bytes: weights, gradients, moments and all that is sent of them are float32."""

Kind = Literal["gradients", "parameters", "contrast"]


@dataclass(frozen=True)
class Block:
    """A block of a tower.

    Attributes:
        shapes: Of its parameters.
        parts: Modules in it that have parameters.
        calls: In one forward pass over all views.
        trained: Whether anything of it is.
    """

    shapes: tuple[tuple[int, ...], ...]
    parts: int
    calls: int
    trained: bool = True

    @property
    def numbers(self) -> int:
        """In all parameters."""
        return sum(math.prod(shape) for shape in self.shapes)

    def rows(self, gpus: int) -> int:
        """Numbers that each GPU has where every parameter is dealt out by rows; all have as many."""
        return sum(math.ceil(shape[0] / gpus) * math.prod(shape[1:]) for shape in self.shapes)


@dataclass(frozen=True)
class Around:
    """The parameters around the blocks of towers.

    Attributes:
        numbers, trained: In all of them, and in those that are trained.
        tensors: How many parameters they are.
    """

    numbers: int
    trained: int
    tensors: int


@dataclass(frozen=True)
class Shared:
    """What the strategies share out.

    Attributes:
        blocks, around: All parameters.
        with_gradient, without: Forward passes of one step; each with a gradient has a backward pass.
        averaged: Whether there is a moving average of what is trained.
        recomputed: Whether blocks run again in the backward pass, as activation checkpointing has them.
    """

    blocks: tuple[Block, ...]
    around: Around
    with_gradient: int = 1
    without: int = 0
    averaged: bool = False
    recomputed: bool = False

    @property
    def numbers(self) -> int:
        """In all parameters."""
        return sum(block.numbers for block in self.blocks) + self.around.numbers

    @property
    def trained(self) -> int:
        """In all that are trained."""
        return sum(block.numbers for block in self.blocks if block.trained) + self.around.trained

    @property
    def largest(self) -> int:
        """Numbers in the largest block."""
        return max((block.numbers for block in self.blocks), default=0)

    @property
    def passes(self) -> int:
        """How often a block is gathered for each of its calls: in every forward and every backward pass."""
        return self.without + 2 * self.with_gradient


@dataclass(frozen=True)
class Kept:
    """Bytes on one GPU.

    Attributes:
        weights, gradients, optimiser, average: As long as the run.
        backward: At the most beside the activations: what is gathered, and gradients on their way.
        step: At the most after the backward pass.
    """

    weights: int
    gradients: int
    optimiser: int
    average: int
    backward: int
    step: int


@dataclass(frozen=True)
class Traffic:
    """Collectives of one step.

    Attributes:
        kind: What is sent.
        collective: How.
        size: Bytes of the whole tensors, over all of them.
        count: How many there are.
        hidden: Whether they may run while the GPU computes.
    """

    kind: Kind
    collective: Collective
    size: int
    count: int
    hidden: bool = False

    def sent(self, gpus: int) -> float:
        """Bytes that each GPU sends, in a ring."""
        return ROUNDS[self.collective] * passed_on(self.size, gpus)


Cost = tuple[Kept, list[Traffic]]


def ddp(shared: Shared, gpus: int) -> Cost:
    """Everything on every GPU; gradients are copied into one tensor and summed after the last backward pass."""
    weights, trained = NUMBER * shared.numbers, NUMBER * shared.trained
    kept = Kept(weights, trained, 2 * trained, trained * shared.averaged, 0, trained * (gpus > 1))
    return kept, [Traffic("gradients", "all_reduce", trained, 1)]


def fsdp(shared: Shared, gpus: int) -> Cost:
    """Blocks dealt out by rows, gathered for every call in every pass; what is around them as in `ddp`.

    The next block is gathered while one computes, and the gradients of one are sent while those of the next are made:
    at the most two blocks are gathered, one has whole gradients, and the copies of two are being sent.
    """
    around, rows = shared.around, sum(block.rows(gpus) for block in shared.blocks)
    rows_trained = sum(block.rows(gpus) for block in shared.blocks if block.trained)
    weights, trained = NUMBER * (rows + around.numbers), NUMBER * (rows_trained + around.trained)
    backward = NUMBER * 5 * shared.largest if gpus > 1 else 0
    kept = Kept(
        weights, trained, 2 * trained, trained * shared.averaged, backward, NUMBER * around.trained * (gpus > 1)
    )
    gathered = shared.passes * sum(block.calls * block.rows(gpus) for block in shared.blocks)
    return kept, [
        Traffic("parameters", "all_gather", NUMBER * gpus * gathered, shared.passes * _calls(shared), hidden=True),
        Traffic(
            "gradients",
            "reduce_scatter",
            NUMBER * gpus * rows_trained * shared.with_gradient,
            sum(block.trained for block in shared.blocks) * shared.with_gradient,
            hidden=True,
        ),
        Traffic("gradients", "all_reduce", NUMBER * around.trained, 1),
    ]


def zero2(shared: Shared, gpus: int) -> Cost:
    """Gradients, moments and a second copy of what is trained dealt out; gradients are summed in each backward pass.

    DeepSpeed sums all of them on every GPU and keeps its part. On GPUs it has two buckets, one to fill and one to send.
    """
    weights, trained = NUMBER * shared.numbers, NUMBER * shared.trained
    part = math.ceil(trained / gpus)
    kept = Kept(weights, part, 3 * part, trained * shared.averaged, 2 * NUMBER * BUCKET, part)
    buckets = math.ceil(shared.trained / BUCKET)
    return kept, [
        Traffic(
            "gradients",
            "all_reduce",
            trained * shared.with_gradient,
            buckets * shared.with_gradient,
            hidden=True,
        ),
        Traffic("parameters", "all_gather", trained, buckets),
    ]


def zero3(shared: Shared, gpus: int) -> Cost:
    """Everything dealt out, and what is around the blocks kept whole too; each part of a block gathered by itself.

    Steps have several forward passes, whose order DeepSpeed is told to forget, so nothing is gathered ahead. A block
    that runs again in the backward pass is gathered once more. What is gathered is a bound: of some parts, which are
    needed again soon, the backward pass finds the parameters there.
    """
    weights, trained = NUMBER * shared.numbers, NUMBER * shared.trained
    part = math.ceil(trained / gpus)
    around = NUMBER * shared.around.numbers
    kept = Kept(math.ceil(weights / gpus) + around, part, 3 * part, 0, NUMBER * (BUCKET + 2 * shared.largest), part)
    passes = shared.passes + shared.with_gradient * shared.recomputed
    gathered = NUMBER * passes * sum(block.calls * block.numbers for block in shared.blocks)
    parts = passes * sum(block.calls * block.parts for block in shared.blocks)
    buckets = math.ceil(shared.trained / BUCKET)
    return kept, [
        Traffic("parameters", "all_gather", gathered + around, parts + shared.around.tensors),
        Traffic(
            "gradients",
            "reduce_scatter",
            trained * shared.with_gradient,
            buckets * shared.with_gradient,
            hidden=True,
        ),
    ]


def _calls(shared: Shared) -> int:
    return sum(block.calls for block in shared.blocks)


COSTS: dict[Strategy, Callable[[Shared, int], Cost]] = {"ddp": ddp, "fsdp": fsdp, "zero2": zero2, "zero3": zero3}


def contrast(pairs: int, records: int, width: int) -> tuple[int, list[Traffic]]:
    """Bytes that a contrast holds at the most beside embeddings of its own records, and what it sends for one batch.

    Side b of each pair is gathered, and its gradients are sent back: foundation/objectives/contrastive.

    Args:
        pairs: Of views that are compared, one after the other.
        records: Of the batch of all GPUs; everybody has both sides, the dearest there is.
        width: Of embeddings.
    """
    side = NUMBER * records * width
    # Who has what: three numbers of eight bytes. Sums of columns: the greatest, the exponentials, the gradients.
    who, columns = 24 * records, 3 * NUMBER * records
    # As received and sorted by patient; the gradients of both.
    held = 4 * side if pairs else 0
    return held, [
        Traffic("contrast", "all_gather", pairs * (side + who), 3 * pairs),
        Traffic("contrast", "reduce_scatter", pairs * side, pairs),
        Traffic("contrast", "all_reduce", pairs * columns, 4 * pairs),
    ]
