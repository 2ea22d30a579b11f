"""Scalers, feature vocabularies and intensity statistics, fitted to the training records, and the config of the fit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from foundation.cohort.manifest import ImageEntry, OmicsEntry
from foundation.cohort.store import PreparedCohort
from foundation.config import Config
from foundation.data.preprocessing import ImageScaling, OmicsScaling, Preprocessing
from foundation.data.presence import observed_N
from foundation.data.sample import sample
from foundation.data.sampler import unique_rows
from foundation.errors import ConfigError, DataError, nearest
from foundation.modality import ImageForm, OmicsForm

BLOCK_VALUES = 8_000_000
IQR_OF_A_STANDARD_NORMAL = 1.349

MOST_FITTED = 8192
"""Records that the scales of an omics modality are learned from; with so many a median is known to 1.5 % of a scale."""


class PreprocessingConfig(Config):
    """What to fit."""

    modalities: list[str] | None = Field(default=None, description="Modalities to use, in this order; all by default.")
    clip: float = Field(default=10.0, gt=0, description="Bound on a scaled omics value, either side.")
    minimum_observed: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Leave out a feature that fewer of the training records with the modality have.",
    )
    minimum_overlap: float = Field(
        default=0.5, ge=0, le=1, description="Refuse a cohort that has fewer of a modality's features."
    )


def fit_preprocessing(
    cohort: PreparedCohort, rows: Sequence[int] | np.ndarray, config: PreprocessingConfig | None = None
) -> Preprocessing:
    """Learn scalers and vocabularies from the training records; no other record is read.

    Of many records with an omics modality, a sample of MOST_FITTED teaches its scales and vocabulary.

    Args:
        cohort: The prepared cohort.
        rows: Training rows, in any order; each counts once.
        config: What to fit.

    Raises:
        ConfigError: The config names a modality that the cohort does not have.
        DataError: There is no training record, or none has some modality.
    """
    config = config or PreprocessingConfig()
    rows = unique_rows(rows)
    if not len(rows):
        raise DataError("no training record to fit preprocessing on", where=str(cohort.path), fix="check the split")
    modalities = {}
    for name in config.modalities or cohort.modalities:
        if name not in cohort.modalities:
            fix = nearest(name, cohort.modalities)
            raise ConfigError(f"no modality is called '{name}'", where="preprocessing.modalities", fix=fix)
        present = rows[_has(cohort, name, rows)]
        if not len(present):
            raise DataError(
                f"no training patient has the modality '{name}'",
                where=str(cohort.path),
                fix="leave it out by naming the others in `preprocessing.modalities`, or check the split",
            )
        fit = _fit_image if isinstance(cohort.manifest.modalities[name], ImageEntry) else _fit_omics
        modalities[name] = fit(cohort, name, present, config)
    patients = cohort.count_patients(rows)
    return Preprocessing(cohort=cohort.manifest.name, patients=patients, records=len(rows), modalities=modalities)


def _has(cohort: PreparedCohort, name: str, rows: np.ndarray) -> np.ndarray:
    """Bool [N], which records have an image, or any feature of an omics modality observed."""
    if isinstance(cohort.manifest.modalities[name], ImageEntry):
        return cohort.present_NM[rows, cohort.modalities.index(name)]
    return observed_N(cohort, name, rows, np.arange(len(cohort.features[name])))


def _fit_image(cohort: PreparedCohort, name: str, rows: np.ndarray, config: PreprocessingConfig) -> ImageScaling:
    entry = cohort.image(name)
    statistics = cohort.statistics_NC4(name, rows).astype(np.float64)
    channels_NC = cohort.channels_NC(name, rows)
    means, stds, patients = [], [], []
    for channel in range(len(entry.channels)):
        here = channels_NC[:, channel]
        mean, std = _pool(statistics[here, channel])
        means.append(mean)
        stds.append(std)
        patients.append(cohort.count_patients(rows[here]))
    return ImageScaling(
        channels=list(entry.channels),
        **{key: getattr(entry, key) for key in ImageForm.model_fields},
        mean=means,
        std=stds,
        patients=patients,
    )


def _pool(statistics_N4: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation over images that count the same, each brought to 0 to 1."""
    low, high, mean_N, std_N = statistics_N4[statistics_N4[:, 1] > statistics_N4[:, 0]].T
    if not len(low):
        return 0.0, 1.0
    mean_N = (mean_N - low) / (high - low)
    std_N = std_N / (high - low)
    std = float(np.sqrt(np.mean(std_N**2) + np.var(mean_N)))
    return float(np.mean(mean_N)), std if std > 0 else 1.0


def _fit_omics(cohort: PreparedCohort, name: str, rows: np.ndarray, config: PreprocessingConfig) -> OmicsScaling:
    entry: OmicsEntry = cohort.omics(name)
    names, everybody = cohort.features[name], rows
    rows = sample(cohort, rows, MOST_FITTED)
    width = max(1, BLOCK_VALUES // len(rows))
    blocks = [slice(start, start + width) for start in range(0, len(names), width)]
    fitted = [_fit_features(_finite(cohort, name, rows, block), entry.values) for block in blocks]
    count, center, scale = (np.concatenate(parts) for parts in zip(*fitted, strict=True))
    # A feature that nobody in training has cannot be scaled, so it never enters a vocabulary.
    keep = np.flatnonzero(count >= max(config.minimum_observed * len(rows), 1))
    if not len(keep):
        raise DataError(
            f"no feature of '{name}' is observed in {config.minimum_observed:.0%} of the training records",
            where=str(cohort.path),
            fix="lower `preprocessing.minimum_observed`, or leave the modality out",
        )
    return OmicsScaling(
        features=[names[i] for i in keep],
        **{key: getattr(entry, key) for key in OmicsForm.model_fields},
        center=center[keep].tolist(),
        scale=scale[keep].tolist(),
        clip=config.clip,
        minimum_overlap=config.minimum_overlap,
        patients=cohort.count_patients(everybody[observed_N(cohort, name, everybody, keep)]),
    )


def _finite(cohort: PreparedCohort, name: str, rows: np.ndarray, features: slice) -> np.ndarray:
    values_NF = cohort.values_NF(name, rows, features)
    infinite = np.isinf(values_NF)
    if infinite.any():
        row, column = np.argwhere(infinite)[0]
        raise DataError(
            f"'{name}' holds an infinite value for {cohort.features[name][features][column]}",
            where=f"{cohort.path}, patient {cohort.patients[rows[row]]}",
            fix="prepare the cohort again, or leave the patient out of training",
        )
    return values_NF


def _fit_features(values_NF: np.ndarray, values: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Number of observations, center and scale of each feature, all [F]."""
    sorted_FN = np.sort(values_NF.T, axis=1)  # NaN sorts last
    count = (~np.isnan(sorted_FN)).sum(axis=1)
    if values == "binary":
        return count, np.zeros(len(count)), np.ones(len(count))
    quartiles = [_quantile(sorted_FN, count, q) for q in (0.25, 0.5, 0.75)]
    scale = (quartiles[2] - quartiles[0]) / IQR_OF_A_STANDARD_NORMAL
    tiny = np.finfo(np.float32).tiny
    flat = ~(scale > tiny)
    scale[flat] = _standard_deviation(sorted_FN[flat])
    scale[~(scale > tiny)] = 1.0
    return count, quartiles[1], scale


def _quantile(sorted_FN: np.ndarray, count: np.ndarray, q: float) -> np.ndarray:
    position = np.maximum(count - 1, 0) * q
    below = np.floor(position).astype(np.int64)
    above = np.minimum(below + 1, np.maximum(count - 1, 0))
    feature = np.arange(len(count))
    low = sorted_FN[feature, below].astype(np.float64)
    high = sorted_FN[feature, above].astype(np.float64)
    return low + (high - low) * (position - below)


def _standard_deviation(sorted_FN: np.ndarray) -> np.ndarray:
    observed = ~np.isnan(sorted_FN)
    count = np.maximum(observed.sum(axis=1), 1)
    # Measured from the lowest value, a feature that never varies gives an exact 0.
    values = np.where(observed, sorted_FN, sorted_FN[:, :1]).astype(np.float64) - sorted_FN[:, :1]
    mean = np.where(observed, values, 0).sum(axis=1) / count
    return np.sqrt((np.where(observed, values - mean[:, None], 0) ** 2).sum(axis=1) / count)
