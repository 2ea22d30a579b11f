"""A batch: what a model sees of some records, and what it does not see."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch


@dataclass
class Batch:
    """Records on their way into a model; wherever something is absent its values are zero.

    Attributes:
        modalities: Names of the axis M.
        patients: [B] patients.
        records: [B] keys: the patient, or patient/time point.
        rows: [B] int64, rows of the cohort.
        epochs: [B] int64, the epoch each record was drawn for.
        present_BM: Bool; the modality is there and has not been dropped.
        images: Image modality to float32 [B, C, X, Y, Z] (or [B, C, X, Y]), standardised.
        channels: Image modality to bool [B, C]; the channel is there and has not been dropped.
        omics: Omics modality to float32 [B, F], scaled.
        observed: Omics modality to bool [B, F]; the feature was measured. A measured zero is True.
        endpoints: Endpoint to its parts: ``code`` [B] int64, -1 where missing; ``time`` and ``event``, or
            ``value``, [B] float32, NaN where missing.
        sites, groups: [B], empty where unknown.
        quarantined: Records that were found damaged, and replaced, to the reason.
    """

    modalities: tuple[str, ...]
    patients: list[str]
    records: list[str]
    rows: torch.Tensor
    epochs: torch.Tensor
    present_BM: torch.Tensor
    images: dict[str, torch.Tensor]
    channels: dict[str, torch.Tensor]
    omics: dict[str, torch.Tensor]
    observed: dict[str, torch.Tensor]
    endpoints: dict[str, dict[str, torch.Tensor]]
    sites: list[str]
    groups: list[str]
    quarantined: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        """Number of records."""
        return len(self.records)

    def part(self, start: int, stop: int) -> Batch:
        """Records `start` to `stop` of the batch, as views of the same memory."""
        lists = {name: getattr(self, name)[start:stop] for name in ("patients", "records", "sites", "groups")}
        return replace(self._map(lambda tensor: tensor[start:stop]), **lists)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Batch:
        """The same batch with its tensors on `device`."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory, from which a GPU copies faster."""
        return self._map(torch.Tensor.pin_memory)

    def _map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        return replace(self, **{f.name: _map_tensors(getattr(self, f.name), change) for f in fields(self)})


def _map_tensors(value: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, dict):
        return {name: _map_tensors(item, change) for name, item in value.items()}
    return value
