"""Records of a prepared cohort as batches, built whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from foundation.data.alignment import Aligned, intensity_range
from foundation.data.augment import Augmentation
from foundation.data.batch import Batch
from foundation.data.memory import zeros
from foundation.data.modality_dropout import ModalityDropout
from foundation.data.prefetch import Ahead
from foundation.data.sampler import BatchKey, OnePass, PatientOrder, unique_rows
from foundation.errors import ConfigError, DataError, nearest


class CohortDataset(Dataset[Batch]):
    """Batches of a cohort for `torch.utils.data.DataLoader(dataset, batch_sampler=…, collate_fn=whole)`.

    A batch is a function of the seed and of its `BatchKey`: which process builds it, and what was built
    before, change nothing. A record that turns out to be damaged is replaced by the next one of `rows` that
    is not, and reported in `Batch.quarantined`.

    Args:
        aligned: The cohort, matched to the preprocessing.
        rows: Rows that may replace a damaged one, such as the training rows; all by default.
        seed: Of the run.
        dropout: Modality dropout; None for evaluation.
        augmentation: Augmentation of images; None for evaluation.
        annotations: Names of those that batches carry, as targets.
        stop_above: Fraction of `rows` that may turn out damaged.

    Attributes:
        quarantined: Damaged records seen by this process, to the reason.

    Raises:
        ConfigError: The dropout names a modality that the model does not have, or an annotation is drawn on one.
        DataError: The cohort has no such annotation.
    """

    def __init__(
        self,
        aligned: Aligned,
        rows: Sequence[int] | np.ndarray | None = None,
        *,
        seed: int = 0,
        dropout: ModalityDropout | None = None,
        augmentation: Augmentation | None = None,
        annotations: Sequence[str] = (),
        stop_above: float = 0.01,
    ) -> None:
        self.aligned = aligned
        self.cohort = aligned.cohort
        self.rows = np.arange(len(self.cohort)) if rows is None else unique_rows(rows)
        self.seed = seed
        self.dropout = dropout or ModalityDropout()
        self.dropout.check(aligned.modalities)
        self.augmentation = augmentation
        self.annotations = {name: self._image_of(name) for name in annotations}
        self.stop_above = stop_above
        self.quarantined: dict[str, str] = {}

    def _image_of(self, annotation: str) -> str:
        image, known = self.cohort.annotation_entry(annotation).image, self.aligned.preprocessing.images()
        if image not in known:
            what = f"annotation '{annotation}' is drawn on '{image}', which the model does not read"
            raise ConfigError(what, fix=nearest(image, known))
        return image

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.rows)

    def __getitems__(self, key: BatchKey) -> Batch:
        """Build the batch of a key.

        Raises:
            DataError: More records than `stop_above` are damaged.
        """
        rows, found = key.rows, {}
        while True:
            batch, damaged = self._build(rows, key.epochs)
            if not damaged:
                batch.quarantined = found
                return batch
            rows = rows.copy()
            for position, reason in damaged.items():
                found[batch.records[position]] = reason
                rows[position] = self._after(rows[position])
            self.note(found)

    def note(self, found: Mapping[str, str]) -> None:
        """Add to `quarantined`; call it with `Batch.quarantined` where workers build the batches.

        Raises:
            DataError: Too many records are damaged.
        """
        self.quarantined.update(found)
        if len(self.quarantined) > self.stop_above * len(self.rows):
            record, reason = next(iter(self.quarantined.items()))
            raise DataError(
                f"{len(self.quarantined)} of {len(self.rows)} records are damaged, more than {self.stop_above:.1%}; "
                f"{record}: {reason}",
                where=str(self.cohort.path),
                fix="check the disk and prepare the cohort again, or raise `stop_above`",
            )

    def _after(self, row: int) -> int:
        return int(self.rows[np.searchsorted(self.rows, row, side="right") % len(self.rows)])

    def _build(self, rows: np.ndarray, epochs: np.ndarray) -> tuple[Batch, dict[int, str]]:
        records = self._records(rows)
        present_BM, channels = self.aligned.presence(rows)
        omics, observed, damaged = self._read_omics(rows)
        present_BM, channels = self.dropout.drop(
            present_BM, channels, modalities=self.aligned.modalities, records=records, epochs=epochs, seed=self.seed
        )
        for name in omics:
            dropped = ~present_BM[:, self.aligned.modalities.index(name)]
            omics[name][dropped] = 0
            observed[name][dropped] = False
        images = {name: self._read_images(name, rows, channels[name], damaged) for name in channels}
        regions = {name: self._read_regions(name, rows, damaged) for name in self.annotations}
        if self.augmentation is not None and not damaged:
            for name in images:
                self._augment(name, images[name], channels[name], records, epochs)
            for name in regions:
                regions[name] = self._augment_regions(self.annotations[name], regions[name], records, epochs)
        batch = Batch(
            modalities=self.aligned.modalities,
            patients=self.cohort.patients[rows].tolist(),
            records=records,
            rows=torch.from_numpy(rows),
            epochs=torch.from_numpy(epochs),
            present_BM=torch.from_numpy(present_BM),
            images=images,
            channels=_tensors(channels),
            omics=_tensors(omics),
            observed=_tensors(observed),
            endpoints={
                name: _tensors({p: v[rows] for p, v in parts.items()}) for name, parts in self._endpoints.items()
            },
            sites=self.cohort.sites[rows].tolist(),
            groups=self.cohort.groups[rows].tolist(),
            annotations=regions,
            annotated={name: torch.from_numpy(self.cohort.annotated_NR(name, rows)) for name in regions},
        )
        return batch, damaged

    def _records(self, rows: np.ndarray) -> list[str]:
        pairs = zip(self.cohort.patients[rows], self.cohort.time_points[rows], strict=True)
        return [f"{patient}/{time_point}" if time_point else patient for patient, time_point in pairs]

    def _read_omics(self, rows: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[int, str]]:
        """Omics of all rows, what of them was observed, and the positions of damaged records."""
        omics, observed, damaged = {}, {}, {}
        for name in self.aligned.preprocessing.omics():
            omics[name], observed[name], infinite_B = self.aligned.read_omics(name, rows)
            damaged |= {int(b): f"'{name}' holds an infinite value" for b in np.flatnonzero(infinite_B)}
        return omics, observed, damaged

    def _read_images(
        self, name: str, rows: np.ndarray, channels_BC: np.ndarray, damaged: dict[int, str]
    ) -> torch.Tensor:
        """[B, C, *shape] of one modality; adds to `damaged` what cannot be read."""
        scaling = self.aligned.preprocessing.images()[name]
        x_BCXYZ = zeros(len(rows), len(scaling.channels), *scaling.shape)
        for b, row in enumerate(rows):
            if b in damaged or not channels_BC[b].any():
                continue
            try:
                self.aligned.read_image(name, int(row), channels_BC[b], x_BCXYZ[b])
            except DataError as error:
                damaged[b] = error.what
        return x_BCXYZ

    def _read_regions(self, name: str, rows: np.ndarray, damaged: dict[int, str]) -> torch.Tensor:
        """[B, R, *shape] bool of one annotation; adds to `damaged` what cannot be read."""
        shape = self.aligned.preprocessing.images()[self.annotations[name]].shape
        regions_BRXYZ = torch.zeros(
            len(rows), len(self.cohort.annotation_entry(name).regions), *shape, dtype=torch.bool
        )
        for b, row in enumerate(rows):
            if b in damaged:
                continue
            try:
                annotation = self.cohort.annotation(name, int(row))
            except DataError as error:
                damaged[b] = error.what
                continue
            if annotation is not None:
                regions_BRXYZ[b] = torch.from_numpy(annotation.regions)
        return regions_BRXYZ

    def _geometry(self, name: str) -> dict[str, Any]:
        """What augmentation wants to know of an image modality's axes."""
        scaling = self.aligned.preprocessing.images()[name]
        spacing = scaling.spacing if isinstance(scaling.spacing, tuple) else (1.0,) * len(scaling.shape)
        return {"mirror": self.cohort.image(name).mirror, "spacing": spacing, "name": name, "seed": self.seed}

    def _augment_regions(
        self, image: str, regions_BRXYZ: torch.Tensor, records: list[str], epochs: np.ndarray
    ) -> torch.Tensor:
        assert self.augmentation is not None
        if not len(records):
            return regions_BRXYZ
        return self.augmentation.apply_to_regions(
            regions_BRXYZ, records=records, epochs=epochs, **self._geometry(image)
        )

    def _augment(
        self, name: str, x_BCXYZ: torch.Tensor, channels_BC: np.ndarray, records: list[str], epochs: np.ndarray
    ) -> None:
        assert self.augmentation is not None
        scaling = self.aligned.preprocessing.images()[name]
        here = np.flatnonzero(channels_BC.any(axis=1))
        if not len(here):
            return
        x_BCXYZ[here] = self.augmentation.apply(
            x_BCXYZ[here],
            torch.from_numpy(channels_BC[here]),
            floor_C=[intensity_range(scaling, c)[0] for c in range(len(scaling.channels))],
            records=[records[b] for b in here],
            epochs=epochs[here],
            **self._geometry(name),
        )

    @cached_property
    def _endpoints(self) -> dict[str, dict[str, np.ndarray]]:
        """Numbers as float32, as losses want them; class codes as int64."""
        endpoints = {name: self.cohort.endpoint(name) for name in self.cohort.manifest.endpoints}
        return {
            name: {p: v if v.dtype == np.int64 else v.astype(np.float32) for p, v in parts.items()}
            for name, parts in endpoints.items()
        }


def whole(batch: Batch) -> Batch:
    """The `collate_fn`: the dataset builds batches whole."""
    return batch


def load(
    dataset: CohortDataset, order: PatientOrder | OnePass, *, workers: int = 0, pin_memory: bool = False
) -> DataLoader[Batch]:
    """The batches of a dataset in an order; of a cohort at a URL, shards are fetched ahead of them.

    Args:
        dataset: What to load.
        order: Which records come next.
        workers: Processes that build batches; 0 builds them here.
        pin_memory: Whether to put them where a GPU copies from faster.
    """
    return DataLoader(
        dataset,
        batch_sampler=Ahead(order, dataset.cohort) if dataset.cohort.remote else order,  # type: ignore[arg-type]
        collate_fn=whole,  # type: ignore[arg-type]
        num_workers=workers,
        pin_memory=pin_memory,
    )


def _tensors(arrays: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in arrays.items()}
