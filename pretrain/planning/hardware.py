"""What a plan assumes of the machines: speeds, as published or as written down, and so the time of a collective."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from foundation.config import Config

Collective = Literal["all_reduce", "all_gather", "reduce_scatter"]

ROUNDS: dict[Collective, int] = {"all_reduce": 2, "all_gather": 1, "reduce_scatter": 1}
"""How often a ring passes everything on: an all-reduce is a reduce-scatter and an all-gather."""


PROTOCOLS = ((1.0, 3.4e-6, 14.0e-6), (0.92, 1.9e-6, 4.0e-6), (0.5, 0.6e-6, 2.7e-6))
"""NCCL's Simple, LL128 and LL, of which it takes the fastest: share of the links' speed, and seconds of a hop inside a
node and between nodes. Constants of its own model of a ring (``hwLat`` and below in its ``graph/tuning.cc``)."""


class Hardware(Config):
    """Machines of a plan; a YAML of these keys is what `--hardware` names.

    Nothing here has been measured by this project. Speeds of GPUs, NVLink and network are those that NVIDIA publishes
    for a DGX H100; `utilisation` and both speeds of storage are assumptions, to be replaced by one's own.
    """

    name: str = "nodes of 8 NVIDIA H100 SXM"
    gpus_per_node: int = Field(default=8, ge=1)
    gpu_memory: float = Field(default=80, gt=0, description="GB.")
    bfloat16: float = Field(default=989, gt=0, description="TFLOP/s of one GPU, dense.")
    float32: float = Field(default=67, gt=0, description="TFLOP/s of one GPU, without TF32.")
    utilisation: float = Field(default=0.4, gt=0, le=1, description="Share of that speed that a step reaches.")
    inside_node: float = Field(default=450, gt=0, description="GB/s of one GPU in each direction (NVLink).")
    between_nodes: float = Field(default=50, gt=0, description="GB/s of one GPU in each direction (its network card).")
    storage: float = Field(default=40, gt=0, description="GB/s that all nodes together read or write.")
    storage_per_node: float = Field(default=5, gt=0, description="GB/s that one node reads or writes.")

    def nodes(self, gpus: int) -> int:
        """How many nodes so many GPUs are."""
        return math.ceil(gpus / self.gpus_per_node)

    def operations_per_second(self, precision: Literal["float32", "bfloat16"]) -> float:
        """Of one GPU, at the assumed utilisation."""
        return 1e12 * self.utilisation * (self.bfloat16 if precision == "bfloat16" else self.float32)

    def storage_speed(self, gpus: int) -> float:
        """Bytes per second that these GPUs' nodes read or write."""
        return 1e9 * min(self.storage, self.nodes(gpus) * self.storage_per_node)

    def ring_speed(self, gpus: int) -> float:
        """Bytes per second that each GPU passes on in a ring.

        Rings enter and leave a node once, over all its network cards at a time, and pass every GPU inside.
        """
        inside, between = 1e9 * self.inside_node, 1e9 * self.between_nodes * self.gpus_per_node
        return inside if self.nodes(gpus) == 1 else min(inside, between)

    def seconds(self, collective: Collective, size: float, count: int, gpus: int) -> float:
        """How long collectives of a kind take in a ring.

        Args:
            collective: Which.
            size: Bytes of the whole tensors, over all of them.
            count: How many there are.
            gpus: In the ring.
        """
        nodes = self.nodes(gpus)
        rest = passed_on(size, gpus) / self.ring_speed(gpus)
        return ROUNDS[collective] * min(
            rest / share + count * ((gpus - nodes) * inside + (nodes - 1) * between)
            for share, inside, between in PROTOCOLS
        )


def passed_on(size: float, gpus: int) -> float:
    """Bytes that each GPU sends while a ring passes a tensor of so many bytes around once."""
    return size * (gpus - 1) / gpus
