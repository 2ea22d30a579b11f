"""The strategies by name: what `strategy` of a run's config may say."""

from __future__ import annotations

from typing import Literal

import torch.distributed as dist

from foundation.training.parallel.base import Parallel, Precision
from foundation.training.parallel.replicated import Replicated
from foundation.training.parallel.sharded import Sharded
from foundation.training.parallel.zero import Zero2, Zero3

Strategy = Literal["ddp", "fsdp", "zero2", "zero3"]

STRATEGIES: dict[Strategy, type[Parallel]] = {"ddp": Replicated, "fsdp": Sharded, "zero2": Zero2, "zero3": Zero3}


def parallel_of(strategy: Strategy, precision: Precision) -> Parallel:
    """The strategy of a run; where nobody started several processes, there is nothing to share and it is plain."""
    return (STRATEGIES[strategy] if dist.is_initialized() else Replicated)(precision)
