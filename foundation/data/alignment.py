"""A cohort seen through a model's preprocessing: checked for agreement, matched by name, scaled."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from foundation.cohort.manifest import ImageEntry, OmicsEntry
from foundation.cohort.reading.feature_names import match_names
from foundation.cohort.store import PreparedCohort
from foundation.cohort.united_forms import KEY_IN_YAML
from foundation.data.preprocessing import ImageScaling, OmicsScaling, Preprocessing
from foundation.data.presence import observed_N
from foundation.errors import DataError
from foundation.modality import ImageForm, ImageModality, OmicsForm
from foundation.wording import counted, listed, percent

# Two megabytes of float32 stay in a core's cache from the copy to the last step of scaling.
BLOCK_VOXELS = 2**19

MOST_LOOKED_AT = 1000
"""Records whose values are compared with what training saw; of more, evenly spaced ones."""

FEW_BEYOND = 0.01
"""Share of the features of a modality that may lie beyond it."""


@dataclass(frozen=True)
class Aligned:
    """A cohort that a model may read; arrays have the model's modalities, channels and features.

    Attributes:
        cohort: The prepared cohort.
        preprocessing: The model's.
        positions: Modality to [C] or [F] int64: where each channel or feature of the model is in the cohort,
            -1 where the cohort lacks it. A modality that the cohort lacks is not here.
    """

    cohort: PreparedCohort
    preprocessing: Preprocessing
    positions: dict[str, np.ndarray]

    def only(self, modalities: Sequence[str]) -> Aligned:
        """The same without the modalities that may not be seen."""
        return replace(self, positions={n: p for n, p in self.positions.items() if n in modalities})

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the axis M."""
        return tuple(self.preprocessing.modalities)

    @property
    def overlap(self) -> dict[str, float]:
        """Omics modality to the fraction of the model's features that the cohort has."""
        omics = self.preprocessing.omics()
        return {name: float((position >= 0).mean()) for name, position in self.positions.items() if name in omics}

    def sentences(self) -> list[str]:
        """`matched`, and which modalities of the cohort are not used."""
        return self.matched() + not_used(self.cohort, self.preprocessing.modalities)

    def matched(self) -> list[str]:
        """What the cohort lacks of what the model reads, and what follows; the overlap of every omics modality.

        Returns:
            Sentences of one line each, to be shown to whoever starts a run or a prediction.
        """
        told = []
        for name, scaling in self.preprocessing.modalities.items():
            if name not in self.cohort.modalities:
                told.append(f"'{name}': this cohort has none, so every patient is read without it.")
            elif name not in self.positions:
                continue  # left out on purpose, by whoever narrowed the positions
            elif isinstance(scaling, ImageScaling):
                acquired_NC = self.cohort.channels_NC(name, np.arange(len(self.cohort)))
                channels = self.cohort.image(name).channels
                here = {channel: bool(acquired_NC[:, c].any()) for c, channel in enumerate(channels)}
                told += _tell_channels(name, here, scaling.channels)
            else:
                told.append(_tell_features(name, self.positions[name], scaling.features, self.cohort.features[name]))
                told += self._beyond(name, scaling)
        return told

    def _beyond(self, name: str, scaling: OmicsScaling) -> list[str]:
        """Of features that most records have beyond what training saw: another unit, or another coding."""
        here_N = np.flatnonzero(self.cohort.present_NM[:, self.cohort.modalities.index(name)])
        if scaling.values == "binary" or not len(here_N):
            return []
        rows = here_N[:: math.ceil(len(here_N) / MOST_LOOKED_AT)]
        values_BF, observed_BF, _ = self.read_omics(name, rows)
        beyond_BF = observed_BF & (np.abs(values_BF) >= 0.999 * scaling.clip)
        beyond_F = np.flatnonzero(2 * beyond_BF.sum(axis=0) > observed_BF.sum(axis=0))
        # Of thousands a few are always beyond, in one patient above all: that is no other unit.
        if len(beyond_F) <= FEW_BEYOND * len(scaling.features):
            return []
        first, lie = int(beyond_F[0]), "lie" if len(beyond_F) > 1 else "lies"
        more = f" and {counted(len(beyond_F) - 1, 'other feature')}" if len(beyond_F) > 1 else ""
        raw_B = self.cohort.values_NF(name, rows)[:, self.positions[name][first]]
        usual = f"usually {np.nanmedian(raw_B):.3g} here, {scaling.center[first]:.3g} in training"
        beyond = f"'{scaling.features[first]}' ({usual}){more} {lie} beyond what training saw in most records"
        return [f"'{name}': {beyond}: check unit and coding, these predictions are not to be relied on."]

    def presence(self, rows: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """What records have of what the model knows; whoever counts patients for a model counts these.

        Returns:
            Bool [B, M], and bool [B, C] per image modality. An image is there where a channel that the model
            knows was acquired, an omics modality where a feature that the model knows was observed.
        """
        present_BM = np.zeros((len(rows), len(self.modalities)), dtype=bool)
        channels = {}
        for m, (name, scaling) in enumerate(self.preprocessing.modalities.items()):
            if isinstance(scaling, ImageScaling):
                channels[name] = self._acquired(name, rows)
                present_BM[:, m] = channels[name].any(axis=1)
            elif name in self.positions:
                position = self.positions[name]
                present_BM[:, m] = observed_N(self.cohort, name, rows, position[position >= 0])
        return present_BM, channels

    def _acquired(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Bool [B, C], which of the model's channels of an image were acquired."""
        acquired_BC = np.zeros((len(rows), len(self.preprocessing.images()[name].channels)), dtype=bool)
        if name in self.positions:
            position = self.positions[name]
            known = np.flatnonzero(position >= 0)
            present_B = self.cohort.present_NM[rows, self.cohort.modalities.index(name)]
            acquired_BC[:, known] = self.cohort.channels_NC(name, rows)[:, position[known]] & present_B[:, None]
        return acquired_BC

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


def not_used(cohort: PreparedCohort, known: Iterable[str]) -> list[str]:
    """Of each modality of a cohort that is not among those that are read, a sentence that says so."""
    known = set(known)
    lacking = {name.lower(): name for name in known - set(cohort.modalities)}
    told = []
    for name in (name for name in cohort.modalities if name not in known):
        meant = lacking.get(name.lower())
        asked = f" The model reads '{meant}': if it is that, call it so in the cohort's YAML." if meant else ""
        told.append(f"'{name}': the model was trained without it, so it is not used.{asked}")
    return told


def _tell_channels(name: str, acquired: Mapping[str, bool], known: Sequence[str]) -> list[str]:
    here = [channel for channel, somewhere in acquired.items() if somewhere]
    unknown = [channel for channel in acquired if channel not in known]
    told = [f"'{name}': the model was trained without the channel '{c}', so it is not used." for c in unknown]
    if lacking := [f"'{channel}'" for channel in known if channel not in here]:
        read = listed([f"'{channel}'" for channel in known if channel in here])
        follows = f"all are read from {read} alone" if read else "none is read"
        told.append(f"'{name}': no scan of this cohort has {listed(lacking)}, so {follows}.")
    return told


def _tell_features(name: str, position: np.ndarray, features: Sequence[str], there: Sequence[str]) -> str:
    known, wanted, here = int((position >= 0).sum()), len(position), len(there)
    if known < wanted:
        share = f"{known:,} of the {wanted:,} features that the model reads ({percent(known, wanted)})"
        told = f"'{name}': this cohort has {share}; the rest count as not measured."
    else:
        told = f"'{name}': this cohort has all {wanted:,} features that the model reads."
    renamed = sum(there[place] != feature for place, feature in zip(position, features, strict=True) if place >= 0)
    if renamed:
        told += f" Matched by an Ensembl id of another version: {counted(renamed, 'feature')}."
    unknown = f" Not used: {counted(here - known, 'feature')} that the model does not know."
    return told + unknown if here > known else told


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
        # One sum is the cheapest check of every voxel; clipping would hide an infinite one.
        if not math.isfinite(block.sum().item()):
            return False
        block.clamp_(lowest, highest)
    return True


def unscaled(cohort: PreparedCohort, name: str, like: ImageModality | None = None) -> Aligned:
    """A cohort's images through a preprocessing that learned nothing: intensities of 0 to 1 between their own bounds.

    Args:
        cohort: The prepared cohort.
        name: Of an image modality.
        like: What images have to be, and the channels in their order; by default the cohort's own.

    Raises:
        DataError: The cohort has no such modality, it was prepared otherwise, or has none of the channels.
    """
    entry = cohort.image(name)
    form = {key: getattr(like or entry, key) for key in ImageForm.model_fields}
    channels = [*(like or entry).channels]
    count = len(channels)
    unit = ImageScaling(channels=channels, mean=[0.0] * count, std=[1.0] * count, patients=[0] * count, **form)
    preprocessing = Preprocessing(cohort=cohort.manifest.name, patients=0, records=0, modalities={name: unit})
    return align(preprocessing, cohort)


def align(preprocessing: Preprocessing, cohort: PreparedCohort) -> Aligned:
    """Check that a model may read a cohort, and match channels and features by name.

    Raises:
        DataError: As of `align_part`, or it shares no modality with the model.
    """
    aligned = align_part(preprocessing, cohort)
    refuse_nothing_shared(preprocessing.modalities, cohort)
    return aligned


def refuse_nothing_shared(modalities: Collection[str], cohort: PreparedCohort) -> None:
    """Refuse a cohort without any modality that is read.

    Raises:
        DataError: It is such.
    """
    if set(modalities).isdisjoint(cohort.modalities):
        raise DataError(
            f"has none of the modalities of the model ({', '.join(modalities)}), only {', '.join(cohort.modalities)}",
            where=str(cohort.path),
            fix="give the modalities of the cohort's YAML the names that the model uses",
        )


def align_part(preprocessing: Preprocessing, cohort: PreparedCohort) -> Aligned:
    """As `align`, for a part of what reads the cohort: others may read what this one does not know.

    Raises:
        DataError: The cohort was prepared otherwise than the model expects, or has too few of its features.
    """
    positions = {}
    for name, scaling in preprocessing.modalities.items():
        entry = cohort.manifest.modalities.get(name)
        if entry is None:
            continue
        if isinstance(entry, ImageEntry) and isinstance(scaling, ImageScaling):
            positions[name] = _match_image(cohort, name, entry, scaling)
        elif isinstance(entry, OmicsEntry) and isinstance(scaling, OmicsScaling):
            positions[name] = _match_omics(cohort, name, entry, scaling)
        else:
            raise _disagreement(cohort, name, "kind", entry.kind, scaling.kind)
    return Aligned(cohort, preprocessing, positions)


def _match_image(cohort: PreparedCohort, name: str, entry: ImageEntry, scaling: ImageScaling) -> np.ndarray:
    _check_agreement(cohort, name, entry, scaling, tuple(ImageForm.model_fields))
    here = list(entry.channels)
    positions = np.array([here.index(c) if c in here else -1 for c in scaling.channels], dtype=np.int64)
    if (positions < 0).all():
        raise _disagreement(cohort, name, "channels", here, scaling.channels)
    return positions


def _match_omics(cohort: PreparedCohort, name: str, entry: OmicsEntry, scaling: OmicsScaling) -> np.ndarray:
    _check_agreement(cohort, name, entry, scaling, tuple(OmicsForm.model_fields))
    positions = match_names(scaling.features, cohort.features[name])
    overlap = float((positions >= 0).mean())
    if overlap < scaling.minimum_overlap:
        lacking = [f for f, p in zip(scaling.features, positions, strict=True) if p < 0][:3]
        matched = set(positions.tolist())
        unknown = [f for p, f in enumerate(cohort.features[name]) if p not in matched][:3]
        others = f"; the cohort's own: {', '.join(unknown)} …" if unknown else ""
        naming = "name features as the model does (symbols or Ensembl identifiers)" if unknown else "add what lacks"
        raise DataError(
            f"'{name}' has {overlap:.1%} of the {len(scaling.features)} features that the model knows, "
            f"at least {scaling.minimum_overlap:.0%} are needed; lacking: {', '.join(lacking)} …{others}",
            where=str(cohort.path),
            fix=f"{naming}, or leave the modality out",
        )
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
