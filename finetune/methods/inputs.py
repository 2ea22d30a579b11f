"""What a linear model reads of any record, learned on training rows: covariates, principal components, what is missing.

P counts the features of all that has so many that only its components are used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np

from finetune.methods.image_features import ImageFeatures
from foundation.cohort.manifest import ImageEntry
from foundation.cohort.store import PreparedCohort
from foundation.data.alignment import Aligned, align_part
from foundation.data.preprocessing import ImageScaling, Preprocessing
from foundation.data.presence import observed_N
from foundation.data.scaling import PreprocessingConfig, fit_preprocessing
from foundation.errors import DataError
from foundation.finding.finder import FOUND_PREFIX

CLINICAL = "clinical"
"""The omics modality that holds covariates: each of its features is read by itself."""

COMPONENTS = 20


def by_itself(name: str) -> bool:
    """Whether each feature of a modality is read by itself: of covariates, and of what is found in images."""
    return name == CLINICAL or name.startswith(FOUND_PREFIX)


Block = tuple[np.ndarray, np.ndarray]
"""Values [N, F] of a modality, 0 where not observed, and bool [N, F], what was."""


@dataclass(frozen=True, eq=False)
class Inputs:
    """What was learned on training rows: the same arrays read the same of a record to the last bit.

    Columns are components of all that is not read by itself, taken together; then of each modality such features and
    which of them are missing, or which channels of an image are, or whether an omics modality is.

    Attributes:
        preprocessing: Of the modalities that a training row has; None where none has any.
        center_F: Mean over the training rows where observed, of every feature in the order of `preprocessing`.
        components_EP: [E, P] directions, none where P is 0. The means of components are part of `mean_D`.
        keep: Bool, which columns are inputs: those that vary, D of them.
        mean_D, scale_D: Of the inputs, by which they are centred and scaled.
    """

    preprocessing: Preprocessing | None
    center_F: np.ndarray
    components_EP: np.ndarray
    keep: np.ndarray
    mean_D: np.ndarray
    scale_D: np.ndarray

    @classmethod
    def learn(
        cls, cohort: PreparedCohort, names: Sequence[str], images: ImageFeatures, train: np.ndarray
    ) -> tuple[Inputs, np.ndarray]:
        """Learn from training rows.

        Args:
            cohort: The prepared cohort.
            names: Modalities; those that no training row has are left out.
            images: Of the cohort.
            train: Rows.

        Returns:
            What was learned, and [N, D] what it reads of the training rows.
        """
        names = [name for name in names if _somebody_has(cohort, name, train)]
        preprocessing = fit_preprocessing(cohort, train, PreprocessingConfig(modalities=names)) if names else None
        blocks = _read(preprocessing, cohort, images, train)
        sums = [values_NF.sum(axis=0) / np.maximum(seen_NF.sum(axis=0), 1) for values_NF, seen_NF in blocks.values()]
        center_F = np.concatenate([np.zeros(0), *sums])
        blocks = _imputed(blocks, center_F)
        components_EP = _components(_many(blocks, len(train)))
        raw = _columns(preprocessing, blocks, components_EP, len(train))
        scale = raw.std(axis=0)
        # One unit for all components, that of the first: a ridge then holds the small ones back.
        scale[: len(components_EP)] = scale[: len(components_EP)].max(initial=0)
        keep = scale > 1e-9
        learned = cls(preprocessing, center_F, components_EP, keep, raw.mean(axis=0)[keep], scale[keep])
        return learned, learned._scaled(raw)

    def read(self, cohort: PreparedCohort, rows: np.ndarray, images: ImageFeatures) -> np.ndarray:
        """What a linear model reads of records.

        Args:
            cohort: Any prepared cohort; its channels and features are matched by name.
            rows: Of that cohort.
            images: Of that cohort.

        Returns:
            [N, D] float64.

        Raises:
            DataError: The cohort was prepared otherwise than the training cohort or shares too little with it, or a
                record is damaged.
        """
        return self.of_blocks(self.blocks(cohort, rows, images), len(rows))

    def blocks(self, cohort: PreparedCohort, rows: np.ndarray, images: ImageFeatures) -> dict[str, Block]:
        """Each modality of records, scaled; with the same arguments as `read`, of which it is the first half."""
        return _read(self.preprocessing, cohort, images, rows)

    def of_blocks(self, blocks: Mapping[str, Block], records: int) -> np.ndarray:
        """[N, D] what a linear model reads of the blocks of so many records."""
        imputed = _imputed(blocks, self.center_F)
        return self._scaled(_columns(self.preprocessing, imputed, self.components_EP, records))

    def slopes(self, weights_DS: np.ndarray) -> dict[str, np.ndarray]:
        """Modality to [F, S]: weights of inputs carried back through components, to each observed value."""
        raw_DS = np.zeros((len(self.keep), weights_DS.shape[1]))
        raw_DS[self.keep] = weights_DS / self.scale_D[:, None]
        count = len(self.components_EP)
        many_PS, column, feature, start = self.components_EP.T @ raw_DS[:count], count, 0, 0
        found = {}
        for name, scaling in (self.preprocessing.modalities if self.preprocessing else {}).items():
            if isinstance(scaling, ImageScaling):
                width = len(scaling.channels) * ImageFeatures.count(scaling.shape)
                missing = len(scaling.channels)
            else:
                width, missing = len(scaling.features), 1
            if by_itself(name):
                found[name] = raw_DS[column : column + width]
                column += 2 * width
            else:
                found[name] = many_PS[feature : feature + width]
                feature, column = feature + width, column + missing
            start += width
        assert start == len(self.center_F) and column == len(self.keep)
        return found

    def _scaled(self, raw: np.ndarray) -> np.ndarray:
        return (raw[:, self.keep] - self.mean_D) / self.scale_D

    def state(self) -> dict[str, np.ndarray]:
        """Its arrays by name; `preprocessing` is written beside them."""
        return {name: getattr(self, name) for name in _arrays()}

    @classmethod
    def of(cls, preprocessing: Preprocessing | None, state: Mapping[str, np.ndarray]) -> Inputs:
        """The inverse of `state`.

        Raises:
            KeyError: An array is missing.
        """
        return cls(preprocessing, **{name: state[name] for name in _arrays()})


class LearnedInputs:
    """Inputs of one cohort, learned once for the same modalities and training rows, as endpoints share them.

    It holds all that it has learned: to be let go when others are needed, say after each baseline.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[tuple[str, ...], bytes], tuple[Inputs, np.ndarray]] = {}

    def learn(
        self, cohort: PreparedCohort, names: Sequence[str], images: ImageFeatures, train: np.ndarray
    ) -> tuple[Inputs, np.ndarray]:
        """As `Inputs.learn`; always of the same cohort."""
        key = (tuple(names), train.tobytes())
        if key not in self._known:
            self._known[key] = Inputs.learn(cohort, names, images, train)
        return self._known[key]


def _arrays() -> list[str]:
    return [field.name for field in fields(Inputs) if field.name != "preprocessing"]


def _somebody_has(cohort: PreparedCohort, name: str, rows: np.ndarray) -> bool:
    if isinstance(cohort.manifest.modalities[name], ImageEntry):
        return bool(cohort.present_NM[rows, cohort.modalities.index(name)].any())
    return bool(observed_N(cohort, name, rows, np.arange(len(cohort.features[name]))).any())


def _read(
    preprocessing: Preprocessing | None, cohort: PreparedCohort, images: ImageFeatures, rows: np.ndarray
) -> dict[str, Block]:
    """Each modality of the preprocessing, scaled by it."""
    if preprocessing is None:
        return {}
    aligned = align_part(preprocessing, cohort)
    return {
        name: _read_image(aligned, name, images, rows)
        if isinstance(scaling, ImageScaling)
        else _read_omics(aligned, name, rows)
        for name, scaling in preprocessing.modalities.items()
    }


def _read_omics(aligned: Aligned, name: str, rows: np.ndarray) -> Block:
    values_NF, observed_NF, damaged_N = aligned.read_omics(name, rows)
    if damaged_N.any():
        raise DataError(
            f"'{name}' holds an infinite value",
            where=f"{aligned.cohort.path}, record {rows[damaged_N][0]}",
            fix="prepare the cohort again, or leave the patient out",
        )
    return values_NF.astype(np.float64), observed_NF


def _read_image(aligned: Aligned, name: str, images: ImageFeatures, rows: np.ndarray) -> Block:
    scaling, shape = aligned.preprocessing.images()[name], aligned.preprocessing.images()[name].shape
    features_NCF = np.zeros((len(rows), len(scaling.channels), images.count(shape)))
    acquired_NC = np.zeros(features_NCF.shape[:2], dtype=bool)
    if name in aligned.positions:
        position = aligned.positions[name]
        here = position >= 0
        found_NCF, found_NC = images.read(name, rows)
        features_NCF[:, here], acquired_NC[:, here] = found_NCF[:, position[here]], found_NC[:, position[here]]
    # Every feature is in units of intensity, and so is as if of standardised voxels once it is centred.
    features_NCF /= np.array(scaling.std)[:, None]
    acquired_NCF = np.broadcast_to(acquired_NC[:, :, None], features_NCF.shape)
    # Of no rows, -1 would not be known.
    shape = len(rows), int(np.prod(features_NCF.shape[1:]))
    return features_NCF.reshape(shape), acquired_NCF.reshape(shape)


def _imputed(blocks: Mapping[str, Block], center_F: np.ndarray) -> dict[str, Block]:
    """Values about the mean of the training rows, 0 where not observed, and what was."""
    imputed, start = {}, 0
    for name, (values_NF, observed_NF) in blocks.items():
        stop = start + values_NF.shape[1]
        imputed[name] = np.where(observed_NF, values_NF - center_F[start:stop], 0), observed_NF
        start = stop
    return imputed


def _many(blocks: Mapping[str, Block], records: int) -> np.ndarray:
    """[N, P] values of all that has so many features that only its components are used."""
    return np.concatenate(
        [np.zeros((records, 0)), *(block[0] for name, block in blocks.items() if not by_itself(name))], axis=1
    )


def _components(many_NP: np.ndarray) -> np.ndarray:
    """[E, P] leading directions of imputed values."""
    from sklearn.decomposition import PCA

    if not many_NP.shape[1]:
        return np.zeros((0, 0))
    return np.ascontiguousarray(PCA(min(COMPONENTS, *many_NP.shape), random_state=0).fit(many_NP).components_)


def _columns(
    preprocessing: Preprocessing | None, blocks: Mapping[str, Block], components_EP: np.ndarray, records: int
) -> np.ndarray:
    """All columns of some records, from imputed values: components, covariates, and what is missing."""
    columns: list[np.ndarray] = [_many(blocks, records) @ components_EP.T]
    for name, (values_NF, observed_NF) in blocks.items():
        assert preprocessing is not None
        if by_itself(name):
            columns += [values_NF, ~observed_NF]
            continue
        scaling = preprocessing.modalities[name]
        parts = len(scaling.channels) if isinstance(scaling, ImageScaling) else 1
        of_parts = observed_NF.reshape(records, parts, observed_NF.shape[1] // parts)
        columns.append(np.logical_not(np.logical_or.reduce(of_parts, axis=2)))
    return np.concatenate(columns, axis=1, dtype=np.float64)
