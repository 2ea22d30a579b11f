"""The cells of an image that tokens of a tower stand for: from tokens to a map on their grid, and on to voxels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from foundation.model.towers.base import ImageTower


@dataclass(frozen=True, eq=False)
class Cells:
    """Boxes that divide an image, one for each token.

    A tower that reads some slices of a volume has tokens that see one slice; their cells reach half way to the next.

    Attributes:
        shape: Voxels per axis.
        number: Of each axis [n] int64, the cell that each voxel lies in.
        center: Of each axis [g] float64, voxel indices of the middle of what tokens see.
        order: Axes of the image in the order of tokens, the slowest first.
    """

    shape: tuple[int, ...]
    number: tuple[Tensor, ...]
    center: tuple[Tensor, ...]
    order: tuple[int, ...]

    @classmethod
    def of(cls, tower: ImageTower, shape: Sequence[int]) -> Cells:
        """Those of a tower on images of a shape."""
        count = dict(zip(tower.order, tower.grid, strict=True))
        number, center = [], []
        for axis, (size, patch) in enumerate(zip(shape, tower.patch, strict=True)):
            voxel, token = torch.arange(size), torch.arange(count[axis], dtype=torch.float64)
            if patch * count[axis] >= size:
                number.append(voxel // patch)
                center.append(token * patch + (patch - 1) / 2)
            else:
                number.append(voxel * count[axis] // size)
                center.append(((token + 0.5) * size / count[axis]).floor())
        return cls(tuple(shape), tuple(number), tuple(center), tuple(tower.order))

    @property
    def grid(self) -> tuple[int, ...]:
        """Cells per axis of the image."""
        return tuple(map(len, self.center))

    def __len__(self) -> int:
        """T."""
        return torch.Size(self.grid).numel()

    def from_tokens(self, x_BT: Tensor) -> Tensor:
        """[..., T] in the order of tokens to [..., *grid] in the order of the image's axes."""
        leading = x_BT.ndim - 1
        x = x_BT.unflatten(-1, [self.grid[axis] for axis in self.order])
        places = [leading + self.order.index(axis) for axis in range(len(self.order))]
        return x.permute(*range(leading), *places)

    def sums(self, x_BXYZ: Tensor) -> Tensor:
        """[..., *shape] to [..., *grid], summed within cells."""
        first = x_BXYZ.ndim - len(self.shape)
        for axis, (number, center) in enumerate(zip(self.number, self.center, strict=True)):
            shape = list(x_BXYZ.shape)
            shape[first + axis] = len(center)
            x_BXYZ = x_BXYZ.new_zeros(shape).index_add(first + axis, number.to(x_BXYZ.device), x_BXYZ)
        return x_BXYZ

    def blocks(self, x_BG: Tensor) -> Tensor:
        """[..., *grid] to [..., *shape]: each voxel what its cell is."""
        first = x_BG.ndim - len(self.shape)
        for axis, number in enumerate(self.number):
            x_BG = x_BG.index_select(first + axis, number.to(x_BG.device))
        return x_BG

    def smooth(self, x_BG: Tensor) -> Tensor:
        """[..., *grid] to [..., *shape], linear between the centres of cells and level beyond the outermost."""
        first = x_BG.ndim - len(self.shape)
        for axis, (size, center) in enumerate(zip(self.shape, self.center, strict=True)):
            voxel = torch.arange(size, dtype=torch.float64).clamp(center[0], center[-1])
            low = (torch.searchsorted(center, voxel, right=True) - 1).clamp(0, max(len(center) - 2, 0))
            high = (low + 1).clamp(max=len(center) - 1)
            part = torch.where(high > low, (voxel - center[low]) / (center[high] - center[low]).clamp(min=1e-9), 0.0)
            part = part.to(x_BG).view(-1, *[1] * (len(self.shape) - axis - 1))
            below, above = (x_BG.index_select(first + axis, at.to(x_BG.device)) for at in (low, high))
            x_BG = below + part * (above - below)
        return x_BG
