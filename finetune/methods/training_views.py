"""Embeddings that heads are first fitted to: training records in several views, before any training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from finetune.methods.adapted import EVERYTHING, Adapted
from foundation.data.dataset import CohortDataset
from foundation.model.embedding import batches

PER_RECORD = 3
"""Views of each training record: one of all that it has, and others under modality dropout."""

MOST = 6000
"""Of all records together, unless two of each are more; a line through so many has no use for more."""


@dataclass(frozen=True)
class TrainingViews:
    """Inputs of heads, of training records by the model as it is.

    Attributes:
        rows: [L] record of each view.
        whole: [L] bool, nothing was dropped.
        x_LE: What heads read.
    """

    rows: np.ndarray
    whole: np.ndarray
    x_LE: Tensor

    @classmethod
    def of_model(
        cls, adapted: Adapted, plain: CohortDataset, dropped: CohortDataset, rows: np.ndarray
    ) -> TrainingViews:
        """Embed records as they are, and under draws of modality dropout where there is any.

        Args:
            adapted: The model before training.
            plain: The cohort as the model reads it.
            dropped: The same with modality dropout.
            rows: Of the cohort.
        """
        drops = bool(dropped.dropout.default or dropped.dropout.modalities)
        draws = max(1, min(PER_RECORD, MOST // len(rows)) - 1) if drops else 0
        parts = [_inputs(adapted, plain, rows, 0), *(_inputs(adapted, dropped, rows, epoch) for epoch in range(draws))]
        whole = np.arange(len(rows) * (1 + draws)) < len(rows)
        return cls(np.tile(rows, 1 + draws), whole, torch.cat(parts))

    def of(self, rows: np.ndarray, *, whole: bool = False) -> TrainingViews:
        """Those of some records; with `whole`, only the one of each that shows all that it has."""
        here = np.isin(self.rows, rows) & (self.whole | (not whole))
        return TrainingViews(self.rows[here], self.whole[here], self.x_LE[torch.from_numpy(here).to(self.x_LE.device)])


@torch.no_grad()
def _inputs(adapted: Adapted, data: CohortDataset, rows: np.ndarray, epoch: int) -> Tensor:
    """[N, E] what heads read of records, by the draws of an epoch."""
    return torch.cat([adapted.inputs(batch)[EVERYTHING] for batch in batches(adapted, data, rows, epoch=epoch)])
