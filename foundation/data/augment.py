"""Augmentation of images: mirrored, moved a little, brighter or darker; the same for a record in the same epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch.nn.functional import grid_sample

from foundation.config import Config
from foundation.randomness import draw, generator

AXES = "xyz"


class Draws(NamedTuple):
    """Of a batch: `flip` [B, axes] from 0 to 1, the others from -1 to 1, [B, axes], [B, 1] or [B, C]."""

    flip: np.ndarray
    rotate: np.ndarray
    translate: np.ndarray
    scale: np.ndarray
    gain: np.ndarray
    offset: np.ndarray


class Augmentation(Config):
    """How much an image may change; 0 switches a change off. Every draw is uniform but the noise, which is normal."""

    flip: float = Field(
        default=0.5, ge=0, le=1, description="Probability per axis along which the cohort allows mirroring."
    )
    rotate: float = Field(default=10.0, ge=0, le=180, description="Degrees, up to, about each axis.")
    scale: float = Field(default=0.1, ge=0, lt=1, description="Fraction larger or smaller, up to.")
    translate: float = Field(default=4.0, ge=0, description="Voxels, up to, along each axis.")
    gain: float = Field(default=0.1, ge=0, lt=1, description="Fraction more or less contrast, up to, per channel.")
    offset: float = Field(
        default=0.1, ge=0, description="Training standard deviations brighter or darker, up to, per channel."
    )
    noise: float = Field(default=0.0, ge=0, description="Training standard deviations of normal noise per voxel.")

    def apply(
        self,
        x_BCXYZ: torch.Tensor,
        channels_BC: torch.Tensor,
        *,
        floor_C: Sequence[float],
        mirror: Sequence[str],
        spacing: Sequence[float],
        name: str,
        records: Sequence[str],
        epochs: Sequence[int] | np.ndarray,
        seed: int,
    ) -> torch.Tensor:
        """Change every image by draws of its own; all channels of an image move together.

        What comes in from outside the image, and background, is the lowest intensity; absent channels stay zero.

        Args:
            x_BCXYZ: Standardised images, [B, C, X, Y, Z] or [B, C, X, Y].
            channels_BC: Bool, the channels that are there.
            floor_C: [C] lowest standardised intensity.
            mirror: Axes that may be mirrored, of x, y and z.
            spacing: Millimetres per axis, so that a rotation does not shear.
            name: Of the modality.
            records: [B] keys of the records.
            epochs: [B] epoch of each record.
            seed: Of the run.

        Returns:
            The changed images, same shape.
        """
        axes = x_BCXYZ.ndim - 2
        floor = _per_channel(torch.tensor(floor_C) * channels_BC, axes)
        draws = _draws(axes, len(floor_C), name, records, epochs, seed)
        x_BCXYZ = self._geometry(x_BCXYZ - floor, draws, mirror, spacing, "bilinear")
        foreground = x_BCXYZ > 0
        x_BCXYZ.mul_(_per_channel(torch.from_numpy(1 + self.gain * draws.gain), axes))
        x_BCXYZ.add_(_per_channel(torch.from_numpy(self.offset * draws.offset), axes))
        self._add_noise(x_BCXYZ, name, records, epochs, seed)
        return x_BCXYZ.mul_(foreground).add_(floor)

    def apply_to_regions(
        self,
        regions_BRXYZ: torch.Tensor,
        *,
        mirror: Sequence[str],
        spacing: Sequence[float],
        name: str,
        records: Sequence[str],
        epochs: Sequence[int] | np.ndarray,
        seed: int,
    ) -> torch.Tensor:
        """Move regions as `apply` moves the image that they are drawn on; each voxel takes what is nearest.

        Args:
            regions_BRXYZ: Bool, [B, R, X, Y, Z] or [B, R, X, Y]; outside of the image there is no region.
            mirror: As for `apply`.
            spacing: As for `apply`.
            name: Of the image modality.
            records: As for `apply`.
            epochs: As for `apply`.
            seed: As for `apply`.

        Returns:
            The moved regions, same shape.
        """
        draws = _draws(regions_BRXYZ.ndim - 2, 0, name, records, epochs, seed)
        return self._geometry(regions_BRXYZ.float(), draws, mirror, spacing, "nearest") > 0

    def _geometry(
        self, x_BCXYZ: torch.Tensor, draws: Draws, mirror: Sequence[str], spacing: Sequence[float], mode: str
    ) -> torch.Tensor:
        """Mirror, turn, scale and shift, in place as far as that goes; zero comes in from outside."""
        self._flip(x_BCXYZ, draws.flip, mirror)
        if self.rotate or self.scale or self.translate:
            angles, size = np.deg2rad(self.rotate) * draws.rotate, 1 + self.scale * draws.scale
            matrices = _matrices(angles, size, np.asarray(spacing))
            x_BCXYZ = _move(x_BCXYZ, matrices, self.translate * draws.translate, mode)
        return x_BCXYZ

    def _flip(self, x_BCXYZ: torch.Tensor, draws: np.ndarray, mirror: Sequence[str]) -> None:
        for axis in range(x_BCXYZ.ndim - 2):
            chosen = torch.from_numpy(draws[:, axis] < self.flip)
            if AXES[axis] in mirror and chosen.any():
                x_BCXYZ[chosen] = x_BCXYZ[chosen].flip(axis + 2)

    def _add_noise(
        self, x_BCXYZ: torch.Tensor, name: str, records: Sequence[str], epochs: Sequence[int] | np.ndarray, seed: int
    ) -> None:
        if self.noise:
            for x_CXYZ, record, epoch in zip(x_BCXYZ, records, epochs, strict=True):
                stream = generator(seed, f"noise of {name}", record, epoch)
                noise = stream.standard_normal(x_CXYZ.shape, dtype=np.float32)
                x_CXYZ.add_(torch.from_numpy(noise), alpha=self.noise)


def _draws(
    axes: int, channels: int, name: str, records: Sequence[str], epochs: Sequence[int] | np.ndarray, seed: int
) -> Draws:
    # Those of channels come last: regions have none, and the same draws before.
    counts = [axes, axes, axes, 1, channels, channels]
    drawn = draw(seed, f"augmentation of {name}", records, epochs, sum(counts))
    flip, *others = np.split(drawn, np.cumsum(counts[:-1]), axis=1)
    return Draws(flip, *(2 * other - 1 for other in others))


def _per_channel(values_BC: torch.Tensor, axes: int) -> torch.Tensor:
    return values_BC.float().view(*values_BC.shape, *[1] * axes)


def _matrices(angles: np.ndarray, size: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """[B, axes, axes] from a voxel's offset from the centre to the offset it is read from, in voxels."""
    axes = len(spacing)
    matrices = np.tile(np.eye(axes), (len(angles), 1, 1))
    planes = [(0, 1)] if axes == 2 else [(1, 2), (0, 2), (0, 1)]
    for plane, (i, j) in enumerate(planes):
        turn = np.tile(np.eye(axes), (len(angles), 1, 1))
        turn[:, i, i] = turn[:, j, j] = np.cos(angles[:, plane])
        turn[:, i, j] = -np.sin(angles[:, plane])
        turn[:, j, i] = np.sin(angles[:, plane])
        matrices = matrices @ turn
    in_voxels = matrices * spacing[None, None, :] / spacing[None, :, None]
    return in_voxels / size[:, :, None]


def _move(x_BCXYZ: torch.Tensor, matrices: np.ndarray, shifts: np.ndarray, mode: str = "bilinear") -> torch.Tensor:
    """Resample each image; zero comes in from outside."""
    shape = x_BCXYZ.shape[2:]
    axes = len(shape)
    grid = torch.empty(len(x_BCXYZ), *shape, axes)
    for i in range(axes):
        # Sums of products per element, not a matrix product, whose rounding may change with the batch size.
        coordinate = torch.from_numpy(shifts[:, i]).float().view(-1, *[1] * axes)
        for j in range(axes):
            offset = torch.arange(shape[j], dtype=torch.float32) - (shape[j] - 1) / 2
            weight = torch.from_numpy(matrices[:, i, j]).float().view(-1, *[1] * axes)
            coordinate = coordinate + weight * offset.view(-1, *[1] * (axes - 1 - j))
        # grid_sample wants the last axis first, in halves of the image.
        grid[..., axes - 1 - i] = coordinate * (2 / shape[i])
    return grid_sample(x_BCXYZ, grid, mode=mode, padding_mode="zeros", align_corners=False)
