"""A batch: what a model sees of some records, and what it does not see."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple

import numpy as np
import torch


class Host(NamedTuple):
    """What decides shapes and draws: [B, M] presence and [B] epochs."""

    present_BM: np.ndarray
    epochs: np.ndarray


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
        annotations: Annotation to bool [B, R, X, Y, Z] (or [B, R, X, Y]), regions on the grid of their image, moved by
            augmentation as that is: targets, which no view of a model holds. Only those asked for.
        annotated: Annotation to bool [B, R]; somebody looked for the region, so that an empty one is not there.
        quarantined: Records that were found damaged, and replaced, to the reason.
        host: What is known on the host of tensors that were moved to a device, so that nothing waits for it.
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
    annotations: dict[str, torch.Tensor] = field(default_factory=dict)
    annotated: dict[str, torch.Tensor] = field(default_factory=dict)
    quarantined: dict[str, str] = field(default_factory=dict)
    host: Host | None = None

    def __len__(self) -> int:
        """Number of records."""
        return len(self.records)

    @property
    def device(self) -> torch.device:
        """Where its tensors are."""
        return self.present_BM.device

    @property
    def host_present_BM(self) -> np.ndarray:
        """`present_BM` on the host."""
        return self._on_host().present_BM

    @property
    def host_epochs(self) -> np.ndarray:
        """`epochs` on the host."""
        return self._on_host().epochs

    def _on_host(self) -> Host:
        if self.host is not None:
            return self.host
        return Host(self.present_BM.numpy(force=True), self.epochs.numpy(force=True))

    def part(self, start: int, stop: int) -> Batch:
        """Records `start` to `stop` of the batch, as views of the same memory."""
        lists = {name: getattr(self, name)[start:stop] for name in ("patients", "records", "sites", "groups")}
        host = None if self.host is None else Host(*(values[start:stop] for values in self.host))
        return replace(self._map(lambda tensor: tensor[start:stop]), **lists, host=host)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Batch:
        """The same batch with its tensors on `device`."""
        moved = self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))
        return replace(moved, host=self._on_host()) if moved.device != self.device else moved

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
