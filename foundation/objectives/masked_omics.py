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
from foundation.model.layers.values import masked
from foundation.model.view import FUSED, TowerOutput, TowerSpec, View
from foundation.objectives.base import Loss, Objective, objectives
from foundation.randomness import chosen


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

    def __init__(self, config: MaskedOmicsConfig, specs: Sequence[TowerSpec], widths: Mapping[str, int]) -> None:
        super().__init__(config, specs, widths)
        self.config = config
        self.omics = {name: modality for spec in specs for name, modality in spec.omics.items()}
        self.images = [spec.image[0] for spec in specs if spec.kind == "image"]
        self.trunk = nn.Linear(widths[FUSED], config.width)
        self.heads = nn.ModuleDict({n: nn.Linear(config.width, len(m.features)) for n, m in self.omics.items()})

    def views(self, batch: Batch, seed: int) -> dict[str, View]:
        """One view, by all towers together, with features hidden."""
        shown_B = self._show_omics(batch, seed)
        alone_B1 = ~shown_B.to(batch.device)[:, None]
        hidden = {name: self._hide(name, batch, seed) | (batch.observed[name] & alone_B1) for name in self.omics}
        return {"masked": View(FUSED, keep=dict.fromkeys(self.omics, shown_B), hidden=hidden)}

    def _show_omics(self, batch: Batch, seed: int) -> Tensor:
        """Bool [B] on the host, records whose image does not have to predict all omics alone."""
        images_BM = batch.host_present_BM[:, [batch.modalities.index(name) for name in self.images]]
        alone_B1 = chosen(seed, "image alone", batch.records, batch.host_epochs, 1, self.config.image_alone)
        return torch.from_numpy(~(images_BM.any(axis=1) & alone_B1[:, 0]))

    def _hide(self, name: str, batch: Batch, seed: int) -> Tensor:
        observed_BF = batch.observed[name]
        purpose, count = f"masked {name}", observed_BF.shape[1]
        mask = chosen(seed, purpose, batch.records, batch.host_epochs, count, self.config.fraction)
        return observed_BF & torch.from_numpy(mask).to(observed_BF.device)

    def forward(self, outputs: Mapping[str, TowerOutput], batch: Batch) -> Loss:
        """Predict what was hidden, of the records of which something was still seen."""
        output = outputs["masked"]
        # An embedding has length 1: brought to entries of about 1, as a linear layer expects them.
        z_BD = output.z_BD.to(self.trunk.weight.dtype) * output.z_BD.shape[1] ** 0.5
        trunk_BD = functional.gelu(self.trunk(z_BD))
        sums, counts = [], []
        for name, modality in self.omics.items():
            wanted_BF = output.view.hidden[name] & output.present_B[:, None]
            predicted_BF = masked(self.heads[name](trunk_BD), wanted_BF)
            true_BF = masked(batch.omics[name], wanted_BF).to(predicted_BF.dtype)
            binary = modality.values == "binary"
            error = functional.binary_cross_entropy_with_logits if binary else functional.smooth_l1_loss
            sums.append(masked(error(predicted_BF, true_BF, reduction="none"), wanted_BF).sum())
            counts.append(wanted_BF.sum())
        everywhere = sum_over_processes(torch.stack(counts)).clamp(min=1).to(sums[0].dtype)
        losses = torch.stack(sums) / everywhere
        return Loss(losses.mean(), parts=dict(zip(self.omics, losses.detach(), strict=True)))
