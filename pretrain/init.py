"""Where a run starts: omics at factors that the training patients share, projections centred on what they are given."""

from __future__ import annotations

import numpy as np
import torch

from foundation.data.alignment import Aligned
from foundation.data.dataset import CohortDataset, load
from foundation.data.sampler import OnePass
from foundation.linear.factors import shared_factors
from foundation.model.multimodal import MultimodalModel
from foundation.model.towers.base import OmicsTower
from foundation.model.view import TowerSpec, View

MOST_RECORDS = 1000
"""Training records that a start looks at; more are thinned out evenly."""

FACTORS = 16


def start(model: MultimodalModel, aligned: Aligned, rows: np.ndarray, batch_size: int) -> None:
    """Give a model that is still random its start, from training records alone.

    Args:
        model: Changed in place, where it is.
        aligned: The cohort.
        rows: Training records.
        batch_size: Records that are embedded at a time.
    """
    rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), MOST_RECORDS)).round().astype(np.int64)]
    for site in model.sites:
        if site.kind == "omics":
            _start_omics(model, site, aligned, rows)
    _start_projections(model, aligned, rows, batch_size)


def _start_omics(model: MultimodalModel, site: TowerSpec, aligned: Aligned, rows: np.ndarray) -> None:
    tower = model.towers[site.name]
    assert isinstance(tower, OmicsTower)
    read = {name: aligned.read_omics(name, rows) for name in site.modalities}
    values, observed = ({name: parts[i] for name, parts in read.items()} for i in (0, 1))
    factors = shared_factors(values, observed, min(FACTORS, tower.width))
    device = next(model.parameters()).device
    tower.init_from({name: torch.from_numpy(weights_FK).float().to(device) for name, weights_FK in factors.items()})


@torch.no_grad()
def _start_projections(model: MultimodalModel, aligned: Aligned, rows: np.ndarray, batch_size: int) -> None:
    device = next(model.parameters()).device
    pooled: dict[str, list[torch.Tensor]] = {site.name: [] for site in model.sites}
    was_training = model.training
    model.eval()
    for batch in load(CohortDataset(aligned, rows), OnePass(rows, batch_size)):
        batch = batch.to(device)
        for site in model.sites:
            seen = model(batch, View(site.name, torch.ones_like(batch.present_BM)), tokens=True)
            pooled[site.name].append(seen.tokens.pooled_BD[seen.present_B[seen.rows]])
    model.train(was_training)
    for name, parts in pooled.items():
        x_ND = torch.cat(parts)
        if len(x_ND) > 1:
            model.projections[name].init_from(x_ND)  # type: ignore[operator]
