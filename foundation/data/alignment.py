"""A cohort seen through a model's preprocessing: checked for agreement, matched by name, scaled."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch

from foundation.cohort.manifest import ImageEntry, OmicsEntry
from foundation.cohort.store import PreparedCohort
from foundation.data.preprocessing import ImageScaling, OmicsScaling, Preprocessing
from foundation.errors import DataError

# Two megabytes of float32 stay in a core's cache from the copy to the last step of scaling.
BLOCK_VOXELS = 2**19
IMAGE_AGREES = (
    "shape",
    "orientation",
    "spacing",
    "intensity",
    "crop_foreground",
    "foreground_above",
    "stretch",
    "background",
)
OMICS_AGREES = ("values", "unit", "transform")
KEY_IN_YAML = {"shape": "size"}


@dataclass(frozen=True)
class Aligned:
    """A cohort that a model may read; arrays have the model's modalities, channels and features.

    Attributes:
        cohort: The prepared cohort.
        preprocessing: The model's.
        positions: Modality to [C] or [F] int64: where each channel or feature of the model is in the cohort,
            -1 where the cohort lacks it. A modality that the cohort lacks is not here.
        overlap: Omics modality to the fraction of the model's features that the cohort has.
        notes: What a user should know though nothing is refused.
    """

    cohort: PreparedCohort
    preprocessing: Preprocessing
    positions: dict[str, np.ndarray]
    overlap: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the axis M."""
        return tuple(self.preprocessing.modalities)

    def presence(self, rows: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """What records have of what the model knows.

        Returns:
            Bool [B, M], and bool [B, C] per image modality; an image none of whose channels the model
            knows is absent.
        """
        present_BM = np.zeros((len(rows), len(self.modalities)), dtype=bool)
        channels = {}
        for m, (name, scaling) in enumerate(self.preprocessing.modalities.items()):
            position = self.positions.get(name)
            if position is not None:
                present_BM[:, m] = self.cohort.present_NM[rows, self.cohort.modalities.index(name)]
            if isinstance(scaling, ImageScaling):
                channels[name] = np.zeros((len(rows), len(scaling.channels)), dtype=bool)
                if position is not None:
                    known = np.flatnonzero(position >= 0)
                    acquired_BC = self.cohort.channels_NC(name, rows)[:, position[known]]
                    channels[name][:, known] = acquired_BC & present_BM[:, [m]]
                present_BM[:, m] &= channels[name].any(axis=1)
        return present_BM, channels

    def read_omics(self, name: str, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Scaled values of records.

        Returns:
            Values [B, F] float32, zero where not observed; observed [B, F] bool; and [B] bool, True where
            the record holds an infinite value and cannot be used.
        """
        scaling = self.preprocessing.omics()[name]
        position = self.positions.get(name)
        if position is None:
            shape = (len(rows), len(scaling.features))
            return np.zeros(shape, np.float32), np.zeros(shape, bool), np.zeros(len(rows), bool)
        values_BF = self.cohort.values_NF(name, rows)
        if len(position) != values_BF.shape[1] or (position != np.arange(len(position))).any():
            values_BF = values_BF[:, position]
            values_BF[:, position < 0] = np.nan
        observed_BF = ~np.isnan(values_BF)
        damaged_B = np.logical_or.reduce(np.isinf(values_BF), axis=1)
        values_BF -= np.asarray(scaling.center, dtype=np.float32)
        values_BF /= np.asarray(scaling.scale, dtype=np.float32)
        np.clip(values_BF, -scaling.clip, scaling.clip, out=values_BF)
        values_BF[~observed_BF] = 0
        return values_BF, observed_BF, damaged_B

    def read_image(self, name: str, row: int, channels_C: np.ndarray, into_CXYZ: torch.Tensor) -> None:
        """Copy the voxels of one record into a batch, standardised on the way; channels that are not wanted stay.

        Raises:
            DataError: The voxels are not as many as they should be, or not finite.
        """
        scaling = self.preprocessing.images()[name]
        position = self.positions[name]
        voxels = self.cohort.voxels(name, row)
        if voxels is None:
            raise DataError(f"the image '{name}' holds no voxels", where=self._record(row))
        low, high = self.cohort.statistics_NC4(name, [row])[0, :, :2].astype(np.float64).T
        for c in np.flatnonzero(channels_C).tolist():
            stored = position[c]
            width = high[stored] - low[stored]
            shift = low[stored] + scaling.mean[c] * width
            lowest, highest = intensity_range(scaling, c)
            # An image of one value has no contrast to show: all of it becomes the lowest intensity.
            factor, highest = (1.0 / (width * scaling.std[c]), highest) if width > 0 else (1.0, lowest)
            if not np.isfinite(width) or not _scale(voxels[stored], into_CXYZ[c], shift, factor, lowest, highest):
                raise DataError(f"the image '{name}' holds values that are not finite", where=self._record(row))

    def _record(self, row: int) -> str:
        return f"{self.cohort.path}, record {row}"


def intensity_range(scaling: ImageScaling, channel: int) -> tuple[float, float]:
    """The lowest and the highest standardised intensity of a channel."""
    return -scaling.mean[channel] / scaling.std[channel], (1 - scaling.mean[channel]) / scaling.std[channel]


def _scale(voxels: np.ndarray, into: torch.Tensor, shift: float, factor: float, lowest: float, highest: float) -> bool:
    """Copy `(voxels - shift) * factor`, clipped, block by block; False when a voxel is not finite."""
    # Through DLPack, because torch warns of arrays that may only be read.
    source, target = torch.from_dlpack(voxels.reshape(-1)), into.view(-1)
    for start in range(0, len(source), BLOCK_VOXELS):
        block, stored = target[start : start + BLOCK_VOXELS], source[start : start + BLOCK_VOXELS]
        if stored.dtype == block.dtype:
            torch.sub(stored, shift, out=block)
        else:
            block.copy_(stored).sub_(shift)
        block.mul_(factor)
        # One sum is the cheapest look at every voxel; clipping would hide an infinite one.
        if not math.isfinite(block.sum().item()):
            return False
        block.clamp_(lowest, highest)
    return True


def align(preprocessing: Preprocessing, cohort: PreparedCohort) -> Aligned:
    """Check that a model may read a cohort, and match channels and features by name.

    Raises:
        DataError: The cohort was prepared otherwise than the model expects, shares no modality with it,
            or has too few of its features.
    """
    aligned = Aligned(cohort, preprocessing, {})
    for name, scaling in preprocessing.modalities.items():
        entry = cohort.manifest.modalities.get(name)
        if entry is None:
            aligned.notes.append(f"nobody has '{name}': the cohort does not hold it")
            continue
        if isinstance(entry, ImageEntry) and isinstance(scaling, ImageScaling):
            aligned.positions[name] = _match_image(aligned, name, entry, scaling)
        elif isinstance(entry, OmicsEntry) and isinstance(scaling, OmicsScaling):
            aligned.positions[name] = _match_omics(aligned, name, entry, scaling)
        else:
            raise _disagreement(cohort, name, "kind", entry.kind, scaling.kind)
    if not aligned.positions:
        raise DataError(
            f"has none of the modalities of the model ({', '.join(preprocessing.modalities)}), "
            f"only {', '.join(cohort.modalities)}",
            where=str(cohort.path),
            fix="give the modalities of the cohort's YAML the names that the model uses",
        )
    for name in cohort.modalities:
        if name not in preprocessing.modalities:
            aligned.notes.append(f"'{name}' is left out: the model does not know it")
    return aligned


def _match_image(aligned: Aligned, name: str, entry: ImageEntry, scaling: ImageScaling) -> np.ndarray:
    _check_agreement(aligned.cohort, name, entry, scaling, IMAGE_AGREES)
    here = list(entry.channels)
    for channel in here:
        if channel not in scaling.channels:
            aligned.notes.append(f"channel '{channel}' of '{name}' is left out: the model does not know it")
    for channel in scaling.channels:
        if channel not in here:
            aligned.notes.append(f"nobody has channel '{channel}' of '{name}': the cohort does not hold it")
    positions = np.array([here.index(c) if c in here else -1 for c in scaling.channels], dtype=np.int64)
    if (positions < 0).all():
        raise _disagreement(aligned.cohort, name, "channels", here, scaling.channels)
    return positions


def _match_omics(aligned: Aligned, name: str, entry: OmicsEntry, scaling: OmicsScaling) -> np.ndarray:
    _check_agreement(aligned.cohort, name, entry, scaling, OMICS_AGREES)
    place = {feature: i for i, feature in enumerate(aligned.cohort.features[name])}
    positions = np.array([place.get(feature, -1) for feature in scaling.features], dtype=np.int64)
    overlap = float((positions >= 0).mean())
    aligned.overlap[name] = overlap
    if overlap < scaling.minimum_overlap:
        lacking = [f for f, p in zip(scaling.features, positions, strict=True) if p < 0][:3]
        raise DataError(
            f"'{name}' has {overlap:.1%} of the {len(scaling.features)} features that the model knows, "
            f"at least {scaling.minimum_overlap:.0%} are needed; lacking: {', '.join(lacking)} …, "
            f"there: {', '.join(aligned.cohort.features[name][:3])} …",
            where=str(aligned.cohort.path),
            fix="name features as the model does (symbols or Ensembl identifiers), or leave the modality out",
        )
    if overlap < 1:
        aligned.notes.append(f"'{name}' has {overlap:.1%} of the {len(scaling.features)} features the model knows")
    return positions


def _check_agreement(
    cohort: PreparedCohort,
    name: str,
    entry: ImageEntry | OmicsEntry,
    scaling: ImageScaling | OmicsScaling,
    keys: tuple[str, ...],
) -> None:
    here, there = entry.model_dump(mode="json"), scaling.model_dump(mode="json", include=set(keys))
    for key in keys:
        if here[key] != there[key]:
            raise _disagreement(cohort, name, key, here[key], there[key])


def _disagreement(cohort: PreparedCohort, name: str, key: str, here: object, there: object) -> DataError:
    in_yaml = f"modalities.{name}.{KEY_IN_YAML.get(key, key)}"
    return DataError(
        f"'{name}' was prepared with {key} {here!r}, the model was trained on {there!r}",
        where=str(cohort.path),
        fix=f"prepare the cohort again with {in_yaml} = {there!r}, or use another model",
    )
