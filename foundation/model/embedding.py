"""Embeddings of records: the one way in which anything is embedded outside of training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from foundation.data.batch import Batch
from foundation.data.dataset import CohortDataset, load
from foundation.data.sampler import BatchKey
from foundation.model.multimodal import MultimodalModel
from foundation.model.view import View
from foundation.progress import Progress, Silent

BATCH = 64


@dataclass(frozen=True)
class Embeddings:
    """Embeddings of records.

    Attributes:
        z: View to [N, D], normalised, float32; zeros where it is absent.
        present: View to bool [N].
    """

    z: dict[str, Tensor]
    present: dict[str, Tensor]


@torch.no_grad()
def embed(
    model: MultimodalModel,
    data: CohortDataset,
    rows: np.ndarray,
    views: Mapping[str, View] | None = None,
    *,
    epoch: int = 0,
    batch_size: int = BATCH,
    progress: Progress | None = None,
    label: str = "embedding",
) -> Embeddings:
    """Embed records, in the order given.

    Args:
        model: Where it is; left in the mode it was in.
        data: The cohort as the model reads it.
        rows: Of the cohort.
        views: By name; by default every view there is.
        epoch: Of the draws of modality dropout and augmentation, where `data` has any.
        batch_size: Records at a time.
        progress: Told of records.
        label: What `progress` calls it.
    """
    views = model.every_view() if views is None else views
    z: dict[str, list[Tensor]] = {name: [] for name in views}
    present: dict[str, list[Tensor]] = {name: [] for name in views}
    for batch in batches(model, data, rows, epoch=epoch, batch_size=batch_size, progress=progress, label=label):
        for name, output in model(batch, views).items():
            z[name].append(output.z_BD.float())
            present[name].append(output.present_B)
    return Embeddings({n: torch.cat(parts) for n, parts in z.items()}, {n: torch.cat(p) for n, p in present.items()})


def batches(
    model: nn.Module,
    data: CohortDataset,
    rows: np.ndarray,
    *,
    epoch: int = 0,
    batch_size: int = BATCH,
    progress: Progress | None = None,
    label: str = "embedding",
) -> Iterator[Batch]:
    """Batches of records on the device of a model, which is in evaluation as long as they last.

    Arguments are those of `embed`.
    """
    device, was_training, progress = next(model.parameters()).device, model.training, progress or Silent()
    parts = np.split(rows, range(batch_size, len(rows), batch_size))
    keys = [BatchKey(part, np.full(len(part), epoch, dtype=np.int64)) for part in parts if len(part)]
    model.eval()
    progress.start(label, len(rows), "records")
    try:
        for batch in load(data, keys):  # type: ignore[arg-type]
            yield batch.to(device)
            progress.advance(len(batch))
    finally:
        model.train(was_training)
    progress.finish()
