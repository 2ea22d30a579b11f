"""Masked omics: predict hidden features from everything else that a patient has.

Features are hidden per patient and predicted from the fused embedding, so that a scan, where there is one, helps too.
After masked language modelling (Devlin et al. 2019), with values in place of words: Huber's error of scaled values,
which an outlier does not rule, and cross-entropy of binary ones. Where a scan has to predict all omics, its tower
learns as from so many labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from foundation.collectives import sum_over_processes
from foundation.config import Config
from foundation.data.batch import Batch
from foundation.model.layers.masking import masked
from foundation.model.view import FUSED, TowerOutput, TowerSpec, View
from foundation.objectives.base import Loss, Objective, objectives
from foundation.randomness import draw


class MaskedOmicsConfig(Config):
    """How much is hidden."""

    objective: Literal["masked_omics"] = "masked_omics"
    fraction: float = Field(default=0.3, gt=0, lt=1, description="Of a patient's observed features.")
    image_alone: float = Field(
        default=0.0, ge=0, le=1, description="Of the patients with an image, those whose omics are hidden altogether."
    )
    width: int = Field(default=64, gt=0, description="Of the head.")


@objectives.register("masked_omics")
class MaskedOmics(Objective):
    """Hide a random part of every patient's observed features and predict it.

    The loss is the mean over modalities of the mean over all hidden features of all processes.
    """

    Config = MaskedOmicsConfig

    @classmethod
    def tiny(cls) -> MaskedOmicsConfig:
        """A narrow head."""
        return MaskedOmicsConfig(width=8)

    def __init__(self, config: MaskedOmicsConfig, sites: Sequence[TowerSpec], widths: Mapping[str, int]) -> None:
        super().__init__(config, sites, widths)
        self.config = config
        self.features = {
            name: features
            for site in sites
            if site.kind == "omics"
            for name, features in zip(site.modalities, site.features, strict=True)
        }
        self.images = [site.name for site in sites if site.kind == "image"]
        self.trunk = nn.Linear(widths[FUSED], config.width)
        self.heads = nn.ModuleDict({n: nn.Linear(config.width, len(f.names)) for n, f in self.features.items()})

    def views(self, batch: Batch, seed: int) -> dict[str, View]:
        """One look, by all towers together, with features hidden."""
        alone_B = self._image_alone(batch, seed)
        hidden = {name: self._hide(name, batch, seed, alone_B) for name in self.features}
        return {"masked": View(FUSED, torch.ones_like(batch.present_BM), hidden)}

    def _image_alone(self, batch: Batch, seed: int) -> Tensor:
        """Bool [B], records whose image has to predict all omics."""
        images_BM = batch.present_BM[:, [batch.modalities.index(name) for name in self.images]]
        draws_B1 = draw(seed, "image alone", batch.records, batch.epochs.tolist(), 1)
        return images_BM.any(dim=1) & (torch.from_numpy(draws_B1[:, 0]).to(images_BM.device) < self.config.image_alone)

    def _hide(self, name: str, batch: Batch, seed: int, alone_B: Tensor) -> Tensor:
        observed_BF = batch.observed[name]
        draws = draw(seed, f"masked {name}", batch.records, batch.epochs.tolist(), observed_BF.shape[1])
        drawn_BF = torch.from_numpy(draws < self.config.fraction).to(observed_BF.device)
        return observed_BF & (drawn_BF | alone_B[:, None])

    def forward(self, seen: Mapping[str, TowerOutput], batch: Batch) -> Loss:
        """Predict what was hidden, of the records of which something was still seen."""
        look = seen["masked"]
        # An embedding has length 1: brought to entries of about 1, as a linear layer expects them.
        z_BD = look.z_BD.to(self.trunk.weight.dtype) * look.z_BD.shape[1] ** 0.5
        trunk_BD = functional.gelu(self.trunk(z_BD))
        sums, counts = [], []
        for name, features in self.features.items():
            wanted_BF = look.view.hidden[name] & look.present_B[:, None]
            predicted_BF = masked(self.heads[name](trunk_BD), wanted_BF)
            true_BF = masked(batch.omics[name], wanted_BF).to(predicted_BF.dtype)
            binary = features.values == "binary"
            error = functional.binary_cross_entropy_with_logits if binary else functional.smooth_l1_loss
            sums.append(masked(error(predicted_BF, true_BF, reduction="none"), wanted_BF).sum())
            counts.append(wanted_BF.sum())
        everywhere = sum_over_processes(torch.stack(counts)).clamp(min=1).to(sums[0].dtype)
        losses = torch.stack(sums) / everywhere
        logged = {name: loss for name, loss in zip(self.features, sum_over_processes(losses.detach()), strict=True)}
        return Loss(losses.mean(), logged)
