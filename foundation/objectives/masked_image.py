"""Masked image modelling: predict hidden patches of an image from those that are left.

What is predicted are the voxels of each hidden patch, normalised within the patch as in masked autoencoders (He et al.
2022, Masked autoencoders are scalable vision learners). A hidden patch keeps its place as a learned mask, and a small
head reads its token, as in SimMIM (Xie et al. 2022, SimMIM: a simple framework for masked image modeling): so every
tower can be trained with it, and there is no decoder to throw away.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from foundation.collectives import sum_over_processes
from foundation.config import Config
from foundation.data.batch import Batch
from foundation.errors import ConfigError
from foundation.model.layers.masking import masked
from foundation.model.view import TowerOutput, TowerSpec, View
from foundation.objectives.base import Loss, Objective, objectives
from foundation.randomness import draw


class MaskedImageConfig(Config):
    """How much is hidden, and how it is predicted."""

    objective: Literal["masked_image"] = "masked_image"
    fraction: float = Field(default=0.6, gt=0, lt=1, description="Of an image's patches; at least one is hidden.")
    normalise: bool = Field(
        default=True, description="Predict each channel of a patch at mean 0 and standard deviation 1."
    )
    width: int | None = Field(default=None, gt=0, description="Of the head's hidden layer; it has none by default.")


@objectives.register("masked_image")
class MaskedImage(Objective):
    """Hide random patches of every image and predict their voxels.

    The loss is the mean over image towers of the mean over all records of all processes that have the image, of the
    squared error of a record's hidden patches in its acquired channels.

    Raises:
        ConfigError: No tower looks at images.
    """

    Config = MaskedImageConfig
    needs_tokens = True

    @classmethod
    def tiny(cls) -> MaskedImageConfig:
        """The defaults: the head is one linear map."""
        return MaskedImageConfig()

    def __init__(self, config: MaskedImageConfig, sites: Sequence[TowerSpec], widths: Mapping[str, int]) -> None:
        super().__init__(config, sites, widths)
        self.config = config
        self.sites = {site.name: site for site in sites if site.kind == "image"}
        if not self.sites:
            raise ConfigError(
                "masked_image hides patches of images, and no tower looks at images",
                where="objectives",
                fix="leave it out, or add a tower for an image modality",
            )
        self.heads = nn.ModuleDict({name: _head(config, widths[name], site) for name, site in self.sites.items()})

    def views(self, batch: Batch, seed: int) -> dict[str, View]:
        """One look by each image tower, with patches hidden; every record that has the image counts the same."""
        here_BM = torch.stack([batch.present_BM[:, batch.modalities.index(name)] for name in self.sites], dim=1)
        weight_BM = here_BM / sum_over_processes(here_BM.sum(dim=0)).clamp(min=1)
        everything = torch.ones_like(batch.present_BM)
        return {
            site.name: View(site.name, everything, {site.name: self._hide(site, batch, seed)}, weight_B)
            for site, weight_B in zip(self.sites.values(), weight_BM.unbind(dim=1), strict=True)
        }

    def _count(self, site: TowerSpec) -> int:
        """Patches to hide; the same number of every record."""
        return max(1, round(self.config.fraction * math.prod(site.grid)))

    def _hide(self, site: TowerSpec, batch: Batch, seed: int) -> Tensor:
        purpose, tokens = f"masked patches of {site.name}", math.prod(site.grid)
        draws_BT = draw(seed, purpose, batch.records, batch.epochs.tolist(), tokens)
        hidden_BT = np.argsort(np.argsort(draws_BT, axis=1), axis=1) < self._count(site)
        return torch.from_numpy(hidden_BT).to(batch.present_BM.device)

    def forward(self, seen: Mapping[str, TowerOutput], batch: Batch) -> Loss:
        """Predict what was hidden."""
        losses = torch.stack([self._loss(site, seen[name], batch) for name, site in self.sites.items()])
        logged = dict(zip(self.sites, sum_over_processes(losses.detach()), strict=True))
        return Loss(losses.mean(), logged)

    def _loss(self, site: TowerSpec, look: TowerOutput, batch: Batch) -> Tensor:
        tokens, rows, patches, weight_B = look.tokens, look.rows, look.patches, look.view.weight_B
        assert tokens is not None and rows is not None and patches is not None and weight_B is not None
        hidden_BT = look.view.hidden[site.name][rows]
        channels_BC = batch.channels[site.name][rows]
        predicted_BTCV = self._by_channel(site, self.heads[site.name](tokens.tokens_BTD[hidden_BT]))
        true_BTCV = masked(self._by_channel(site, patches[hidden_BT]), channels_BC[:, None, :, None])
        if self.config.normalise:
            true_BTCV = functional.layer_norm(true_BTCV, true_BTCV.shape[-1:], eps=1e-6)
        error_BTCV = functional.mse_loss(predicted_BTCV.to(true_BTCV.dtype), true_BTCV, reduction="none")
        error_BC = masked(error_BTCV.mean(dim=(1, 3)), channels_BC)
        # A stand-in has no channel; its weight is zero.
        error_B = error_BC.sum(dim=1) / channels_BC.sum(dim=1).clamp(min=1)
        return (error_B * weight_B[rows]).sum()

    def _by_channel(self, site: TowerSpec, hidden: Tensor) -> Tensor:
        """The hidden patches of all records after each other, [B * T, C * V] to [B, T, C, V]."""
        return hidden.unflatten(0, (-1, self._count(site))).unflatten(-1, (site.channels, -1))


def _head(config: MaskedImageConfig, width: int, site: TowerSpec) -> nn.Module:
    values = site.channels * math.prod(site.patch)
    if config.width is None:
        return nn.Linear(width, values)
    return nn.Sequential(nn.Linear(width, config.width), nn.GELU(), nn.Linear(config.width, values))
