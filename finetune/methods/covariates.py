"""What heads read beside the fused embedding: single features, such as age and stage, as they are.

An embedding keeps what many features share; that a patient is old is one number among thousands to it. Read directly,
few strong covariates count as much as they do in a linear model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from foundation.data.batch import Batch
from foundation.model.layers.values import masked
from foundation.model.view import View


def covariate_values(batch: Batch, modalities: Sequence[str], view: View) -> Tensor:
    """Values [B, E] of some omics modalities, 0 where not seen, and behind them which were seen.

    Args:
        batch: Records.
        modalities: Omics modalities to read; none gives [B, 0].
        view: What of them may be seen.
    """
    columns = [batch.present_BM.new_zeros(len(batch), 0, dtype=torch.float32)]
    for name in modalities:
        seen_BF = view.shown(name, batch.observed[name])
        columns += [masked(batch.omics[name], seen_BF), seen_BF.float()]
    return torch.cat(columns, dim=1)


def covariates_width(features: Mapping[str, int], modalities: Sequence[str]) -> int:
    """E: twice the features of these modalities."""
    return 2 * sum(features[name] for name in modalities)
