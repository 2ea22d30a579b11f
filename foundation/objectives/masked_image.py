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
from foundation.model.layers.values import masked
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
        ConfigError: No tower reads images.
    """

    Config = MaskedImageConfig
    by_record = True

    @classmethod
    def tiny(cls) -> MaskedImageConfig:
        """The defaults: the head is one linear map."""
        return MaskedImageConfig()

    def __init__(self, config: MaskedImageConfig, specs: Sequence[TowerSpec], widths: Mapping[str, int]) -> None:
        super().__init__(config, specs, widths)
        self.config = config
        self.specs = {spec.name: spec for spec in specs if spec.kind == "image"}
        if not self.specs:
            raise ConfigError(
                "masked_image hides patches of images, and no tower reads images",
                where="objectives",
                fix="leave it out, or add a tower for an image modality",
            )
        self.heads = nn.ModuleDict({name: _head(config, widths[name], spec) for name, spec in self.specs.items()})

    def views(self, batch: Batch, seed: int) -> dict[str, View]:
        """One view by each image tower, with patches hidden; every record that has the image counts the same."""
        images = [spec.image[0] for spec in self.specs.values()]
        here_BM = batch.present_BM[:, [batch.modalities.index(name) for name in images]]
        weight_BM = here_BM / sum_over_processes(here_BM.sum(dim=0)).clamp(min=1)
        return {
            spec.name: View(
                spec.name,
                hidden={spec.image[0]: self._hide(spec, batch, seed)},
                weight_B=weight_BM[:, position],
                targets=True,
            )
            for position, spec in enumerate(self.specs.values())
        }

    def _count(self, spec: TowerSpec) -> int:
        """Patches to hide; the same number of every record."""
        return max(1, round(self.config.fraction * math.prod(spec.grid)))

    def _hide(self, spec: TowerSpec, batch: Batch, seed: int) -> Tensor:
        purpose, tokens = f"masked patches of {spec.name}", math.prod(spec.grid)
        draws_BT = draw(seed, purpose, batch.records, batch.host_epochs, tokens)
        hidden_BT = np.argsort(np.argsort(draws_BT, axis=1), axis=1) < self._count(spec)
        return torch.from_numpy(hidden_BT).to(batch.device)

    def forward(self, outputs: Mapping[str, TowerOutput], batch: Batch) -> Loss:
        """Predict what was hidden."""
        losses = {name: self._loss(spec, outputs[name], batch) for name, spec in self.specs.items()}
        return Loss(
            torch.stack(list(losses.values())).mean(), parts={name: loss.detach() for name, loss in losses.items()}
        )

    def _loss(self, spec: TowerSpec, output: TowerOutput, batch: Batch) -> Tensor:
        tokens, rows, weight_B = output.tokens, output.rows, output.view.weight_B
        assert tokens is not None and rows is not None and weight_B is not None
        name, _ = spec.image
        hidden_BT, channels_BC = output.view.hidden[name][rows], batch.channels[name][rows]
        predicted_BTCV = self._by_channel(spec, self.heads[spec.name](tokens.tokens_BTD[hidden_BT]), len(rows))
        true_BTCV = self._by_channel(spec, tokens.extras["patches"][hidden_BT], len(rows))
        true_BTCV = masked(true_BTCV, channels_BC[:, None, :, None])
        if self.config.normalise:
            true_BTCV = functional.layer_norm(true_BTCV, true_BTCV.shape[-1:], eps=1e-6)
        error_BTCV = functional.mse_loss(predicted_BTCV.to(true_BTCV.dtype), true_BTCV, reduction="none")
        error_BC = masked(error_BTCV.mean(dim=(1, 3)), channels_BC)
        error_B = error_BC.sum(dim=1) / channels_BC.sum(dim=1).clamp(min=1)
        return (error_B * weight_B[rows]).sum()

    def _by_channel(self, spec: TowerSpec, hidden: Tensor, records: int) -> Tensor:
        """The hidden patches of all records after each other, [B * T, C * V] to [B, T, C, V]."""
        channels = len(spec.image[1].channels)
        return hidden.reshape(records, self._count(spec), channels, hidden.shape[-1] // channels)


def _head(config: MaskedImageConfig, width: int, spec: TowerSpec) -> nn.Module:
    values = len(spec.image[1].channels) * math.prod(spec.patch)
    if config.width is None:
        return nn.Linear(width, values)
    return nn.Sequential(nn.Linear(width, config.width), nn.GELU(), nn.Linear(config.width, values))
