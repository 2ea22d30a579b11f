"""Embeddings of records: the one way in which anything is embedded outside of training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from foundation.collectives import gather_rows, gather_sizes, rank, world_size
from foundation.data.batch import Batch
from foundation.data.dataset import CohortDataset, load
from foundation.data.sampler import BatchKey, piece
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
    """Embed records, in the order given. Processes share them, and every one gets all embeddings.

    Args:
        model: Where it is, the same on every process; left in the mode it was in.
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
    several = {"epoch": epoch, "batch_size": batch_size, "progress": progress, "label": label, "shared": True}
    for batch in batches(model, data, rows, **several):
        sizes = gather_sizes(len(batch), batch.device)
        for name, output in model(batch, views).items():
            z[name].append(gather_rows(output.z_BD.float(), sizes))
            present[name].append(gather_rows(output.present_B, sizes))
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
    shared: bool = False,
    device: torch.device | None = None,
) -> Iterator[Batch]:
    """Batches of records on the device of a model, which is in evaluation as long as they last.

    Arguments are those of `embed`; where batches are `shared` each process gets its part of every one. Without a
    `device` they go to that of the model.
    """
    was_training, progress = model.training, progress or Silent()
    device = next(model.parameters()).device if device is None else device
    wholes = [part for part in np.split(rows, range(batch_size, len(rows), batch_size)) if len(part)]
    parts = [part[piece(len(part), rank(), world_size())] for part in wholes] if shared else wholes
    keys = [BatchKey(part, np.full(len(part), epoch, dtype=np.int64)) for part in parts]
    model.eval()
    progress.start(label, len(rows), "records")
    try:
        for batch, whole in zip(load(data, keys), wholes, strict=True):  # type: ignore[arg-type]
            yield batch.to(device)
            progress.advance(len(whole))
    finally:
        model.train(was_training)
    progress.finish()
