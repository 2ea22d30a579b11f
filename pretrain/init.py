"""Initial weights from training patients: omics at shared factors, projections centred and whitened."""

from __future__ import annotations

import numpy as np
import torch

from foundation.data.alignment import Aligned
from foundation.data.dataset import CohortDataset
from foundation.data.sample import sample
from foundation.linear.factors import shared_factors
from foundation.model.embedding import batches
from foundation.model.multimodal import MultimodalModel
from foundation.model.towers.base import FactorInit, OmicsTower
from foundation.model.view import TowerSpec, View

MOST_RECORDS = 1000
"""Training records that decide it; of more, a sample."""


def initialise(model: MultimodalModel, aligned: Aligned, rows: np.ndarray, *, batch_size: int, factors: int) -> None:
    """Give a model that is still random its initial weights, from training records alone.

    Args:
        model: Changed in place, where it is.
        aligned: The cohort.
        rows: Training records.
        batch_size: Records that are embedded at a time.
        factors: That omics are initialised at, where a tower is as wide.
    """
    rows = sample(aligned.cohort, rows, MOST_RECORDS)
    for spec in model.specs:
        if isinstance(model.towers[spec.name], FactorInit):
            _initialise_omics(model, spec, aligned, rows, factors)
    _initialise_projections(model, aligned, rows, batch_size)


def _initialise_omics(
    model: MultimodalModel, spec: TowerSpec, aligned: Aligned, rows: np.ndarray, factors: int
) -> None:
    tower = model.towers[spec.name]
    assert isinstance(tower, FactorInit) and isinstance(tower, OmicsTower)
    read = {name: aligned.read_omics(name, rows) for name in spec.modalities}
    values, observed = ({name: parts[i] for name, parts in read.items()} for i in (0, 1))
    weights = shared_factors(values, observed, min(factors, tower.width))
    device = next(model.parameters()).device
    tower.init_from({name: torch.from_numpy(weights_FK).float().to(device) for name, weights_FK in weights.items()})


@torch.no_grad()
def _initialise_projections(model: MultimodalModel, aligned: Aligned, rows: np.ndarray, batch_size: int) -> None:
    views = {spec.name: View(spec.name) for spec in model.specs}
    pooled: dict[str, list[torch.Tensor]] = {name: [] for name in views}
    for batch in batches(model, CohortDataset(aligned, rows), rows, batch_size=batch_size):
        for name, output in model(batch, views).items():
            pooled[name].append(output.tokens.pooled_BD[output.present_B[output.rows]])
    for name, parts in pooled.items():
        x_ND = torch.cat(parts)
        if len(x_ND) > 1:
            model.projections[name].init_from(x_ND)  # type: ignore[operator]
