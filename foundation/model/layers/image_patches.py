"""Images cut into patches, and the learned mask tokens for absent channels and hidden patches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from foundation.errors import ConfigError


def grid_of(shape: Sequence[int], patch: Sequence[int], tower: str) -> tuple[int, ...]:
    """Patches per axis of an image that is padded to a whole number of them.

    Args:
        shape: Voxels per axis.
        patch: Voxels per axis.
        tower: Name of the tower, for the message.

    Raises:
        ConfigError: A patch is larger than the image along some axis.
    """
    if any(size < cut for size, cut in zip(shape, patch, strict=True)):
        sizes, cuts = (" x ".join(map(str, numbers)) for numbers in (shape, patch))
        raise ConfigError(
            f"{tower} cuts images into patches of {cuts} voxels, larger than the {sizes} voxels of the image",
            where="towers",
            fix="choose smaller patches or another model, or prepare the cohort on a finer grid",
        )
    return tuple(-(-size // cut) for size, cut in zip(shape, patch, strict=True))


def pad(x: Tensor, patch: Sequence[int]) -> Tensor:
    """Repeat the last voxels of each axis until `patch` divides it; [B, C, ...] to [B, C, ...]."""
    missing = [-size % cut for size, cut in zip(x.shape[2:], patch, strict=True)]
    if not any(missing):
        return x
    return functional.pad(x, [n for more in reversed(missing) for n in (0, more)], mode="replicate")


def patchify(x: Tensor, patch: Sequence[int]) -> Tensor:
    """Patches of a padded image, [B, C, ...] to [B, T, C * voxels], the last axis of the image running fastest."""
    axes = len(patch)
    for axis, size in enumerate(patch):
        x = x.unflatten(2 + 2 * axis, (-1, size))
    counts, sizes = [2 + 2 * axis for axis in range(axes)], [3 + 2 * axis for axis in range(axes)]
    return x.permute(0, *counts, 1, *sizes).flatten(1, axes).flatten(2)


class MaskTokens(nn.Module):
    """Learned mask tokens for what a tower may not see of an image.

    An absent channel is a plane of one learned intensity, and the pattern of absent channels has a vector that is
    added to what comes out of the tower. A hidden patch shows learned voxels, the same for every hidden patch:
    whatever embeds patches, linearly or with convolutions, makes its mask token of them.

    Args:
        channels: C.
        patch: Voxels per axis.
        width: D of the tower's output.
    """

    def __init__(self, channels: int, patch: Sequence[int], width: int) -> None:
        super().__init__()
        self.absent_C = nn.Parameter(torch.zeros(channels))
        self.pattern_CD = nn.Parameter(torch.empty(channels, width))
        self.hidden_CP = nn.Parameter(torch.empty(channels, *patch))
        nn.init.trunc_normal_(self.pattern_CD, std=0.02)
        nn.init.trunc_normal_(self.hidden_CP, std=0.02)

    def forward(self, x: Tensor, channels_BC: Tensor, hidden_BT: Tensor | None) -> Tensor:
        """Put the mask tokens into padded images, [B, C, ...] to [B, C, ...]; what was there before is gone.

        Args:
            x: Images of a whole number of patches.
            channels_BC: Bool, acquired channels.
            hidden_BT: Bool, hidden patches in the order of `patchify`; None hides none.
        """
        sizes = self.hidden_CP.shape[1:]
        grid = [voxels // size for voxels, size in zip(x.shape[2:], sizes, strict=True)]
        if hidden_BT is None:
            # The mask takes part all the same: a parameter without a gradient stops a step on many processes.
            hidden_BT = torch.zeros(len(x), 1, dtype=torch.bool, device=x.device).expand(-1, torch.Size(grid).numel())
        hidden = hidden_BT.reshape(len(x), 1, *grid)
        for axis, size in enumerate(sizes):
            hidden = hidden.repeat_interleave(size, dim=2 + axis)
        ones = [1] * len(sizes)
        x = torch.where(channels_BC.view(*channels_BC.shape, *ones), x, self.absent_C.view(1, -1, *ones))
        return torch.where(hidden, self.hidden_CP.repeat(1, *grid), x)

    def pattern(self, channels_BC: Tensor) -> Tensor:
        """[B, D] what to add to the output for the channels that are absent; zeros where all are there."""
        return (~channels_BC).to(self.pattern_CD.dtype) @ self.pattern_CD
