"""How a block runs: compiled, or with its activations computed again in the backward pass.

Both change the block where it is: the names of its parameters stay, as they would not in a module around it, and a
checkpoint of one run is a checkpoint of the other. Of a block that is to be both, the compiled one is recomputed.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def compiled(block: nn.Module) -> None:
    """Compile a block, for any number of records and tokens, as these differ from batch to batch."""
    block.forward = torch.compile(block.forward, dynamic=True)


def recomputed(block: nn.Module) -> None:
    """Have a block keep its inputs alone for the backward pass: less memory for about a third more time.

    Dropout is drawn again as it was, so that the result is the same, bit for bit. A block with batch normalisation
    counts each batch twice in its running statistics.

    Chen et al. 2016, Training deep nets with sublinear memory cost.
    """
    block.forward = partial(checkpoint, block.forward, use_reentrant=False)
