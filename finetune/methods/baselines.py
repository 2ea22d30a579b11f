"""Linear baselines: what each reads (covariates, principal components), fitted under an inner-fold penalty.

Everything is learned on the training rows of a fold, and every penalty is chosen on inner folds of them, by the rule of
`foundation.linear.selection`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from finetune.methods.image_features import ImageFeatures
from finetune.splits import Fold
from foundation.cohort.manifest import ImageEntry
from foundation.cohort.store import PreparedCohort
from foundation.data.alignment import Aligned, align
from foundation.data.scaling import PreprocessingConfig, fit_preprocessing
from foundation.errors import ConfigError, nearest
from foundation.linear.learners import LEARNERS, CoxLearner, Learner, Parts, Predict
from foundation.linear.selection import fit_chosen

CLINICAL = "clinical"
"""The omics modality that holds covariates; all others are molecular."""

MOLECULAR = "molecular"
IMAGE = "image"

COMPONENTS = 20

BASELINES: dict[str, tuple[str, ...]] = {
    "clinical": (CLINICAL,),
    "image": (IMAGE,),
    "omics": (MOLECULAR,),
    "clinical + omics": (CLINICAL, MOLECULAR),
}
"""Name to the kinds of modalities that it reads."""


def available(cohort: PreparedCohort, modalities: Sequence[str] | None = None) -> list[str]:
    """Baselines that there is something to fit on for.

    Args:
        cohort: The prepared cohort.
        modalities: Those that the task may read; all by default.
    """
    kinds = set(_kinds(cohort, modalities).values())
    return [name for name, needs in BASELINES.items() if kinds.issuperset(needs)]


def predict(
    name: str,
    cohort: PreparedCohort,
    endpoint: str,
    fold: Fold,
    inner: Sequence[Fold],
    modalities: Sequence[str] | None = None,
    images: ImageFeatures | None = None,
) -> dict[str, np.ndarray]:
    """Fit a baseline on the training rows of a fold and predict its test rows.

    A model of survival is fitted in each group (each cancer) by itself, since only patients of one group are compared.

    Args:
        name: Of the baseline.
        cohort: The prepared cohort.
        endpoint: Of the cohort, known for every row of the fold.
        fold: Rows; one per patient, lest a patient count twice.
        inner: Folds of the training rows, to choose the penalty on.
        modalities: Those that the task may read; all by default.
        images: Of the cohort; who holds on to it reads each image once for all folds.

    Returns:
        Of the test rows, for survival ``risk`` [N], or ``risk/CAUSE`` of each cause where there are several, for
        classes ``probability`` [N, K] in the order of their codes, for a number ``value`` [N].

    Raises:
        ConfigError: The cohort lacks what the baseline reads.
    """
    if name not in available(cohort, modalities):
        fix = nearest(name, available(cohort, modalities))
        raise ConfigError(f"the cohort has no data for the baseline '{name}'", where=str(cohort.path), fix=fix)
    entry, parts = cohort.manifest.endpoints[endpoint], cohort.endpoint(endpoint)
    names = [n for n, kind in _kinds(cohort, modalities).items() if kind in BASELINES[name]]
    images = images or ImageFeatures(cohort)
    found = {}
    for column, of_cause in _causes(entry, parts).items():
        learner = LEARNERS[entry["kind"]](of_cause, cohort.groups, len(entry.get("classes", ())))
        for part, values in _predict(learner, cohort, names, images, fold, inner).items():
            found[part + column] = values
    return found


def _causes(entry: Mapping[str, Any], parts: Parts) -> dict[str, Parts]:
    """Ending of a column to the endpoint that it is about: of each kind of event, to which others are censoring."""
    if not entry.get("causes"):
        return {"": parts}
    return {f"/{cause}": {**parts, "event": parts["event"] == c} for c, cause in enumerate(entry["causes"], start=1)}


def _predict(
    learner: Learner,
    cohort: PreparedCohort,
    names: Sequence[str],
    images: ImageFeatures,
    fold: Fold,
    inner: Sequence[Fold],
) -> dict[str, np.ndarray]:
    """What a model predicts of the test rows, of all groups or of each by itself."""
    if not isinstance(learner, CoxLearner):
        return _fit(learner, cohort, names, images, fold.train, inner)(fold.test)
    risk_N = np.zeros(len(cohort))
    for group in np.unique(cohort.groups[fold.test].astype(str)):
        train, test = (side[cohort.groups[side] == group] for side in (fold.train, fold.test))
        # Fewer than two events teach nothing of a group: its patients stay alike.
        if learner.parts["event"][train].sum() > 1:
            within = [Fold(f.name, *(side[cohort.groups[side] == group] for side in (f.train, f.test))) for f in inner]
            risk_N[test] = _fit(learner, cohort, names, images, train, within)(test)["risk"]
    return {"risk": risk_N[fold.test]}


class Inputs:
    """What a baseline reads of any record, as learned on training rows.

    Args:
        cohort: The prepared cohort.
        names: Modalities; those that no training row has are left out.
        images: Of the cohort.
        train: Rows.
    """

    def __init__(self, cohort: PreparedCohort, names: Sequence[str], images: ImageFeatures, train: np.ndarray) -> None:
        from sklearn.decomposition import PCA

        present_NM = cohort.present_NM[train]
        self.kinds = _kinds(cohort, names)
        self.images = images
        self.names = [name for name in names if present_NM[:, cohort.modalities.index(name)].any()]
        self.aligned: Aligned | None = None
        if self.names:
            config = PreprocessingConfig(modalities=self.names)
            self.aligned = align(fit_preprocessing(cohort, train, config), cohort)
        self.center_F = {name: self._center(name, train) for name in self.names}
        many_NF = self._many(train)
        self.pca = None
        if many_NF.shape[1]:
            self.pca = PCA(min(COMPONENTS, *many_NF.shape), random_state=0).fit(many_NF)
        x_ND = self._raw(train)
        scale_D = x_ND.std(axis=0)
        if self.pca is not None:
            # One unit for all components, that of the first: a ridge then holds the small ones back.
            scale_D[: self.pca.n_components_] = scale_D[: self.pca.n_components_].max()
        self.keep_D = scale_D > 1e-9
        self.mean_D, self.scale_D = x_ND.mean(axis=0)[self.keep_D], scale_D[self.keep_D]

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """[N, D] float64: components, covariates, and what is missing, centred and scaled."""
        return (self._raw(rows)[:, self.keep_D] - self.mean_D) / self.scale_D

    def _read(self, name: str, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scaled values, 0 where not observed, and what was."""
        assert self.aligned is not None
        if self.kinds[name] == IMAGE:
            features_NCF, acquired_NC = self.images.read(name, rows)
            # Every feature is in units of intensity, and so is as if of standardised voxels once it is centred.
            features_NCF = features_NCF / np.array(self.aligned.preprocessing.images()[name].std)[:, None]
            acquired_NCF = np.broadcast_to(acquired_NC[:, :, None], features_NCF.shape)
            return features_NCF.reshape(len(rows), -1), acquired_NCF.reshape(len(rows), -1)
        values_NF, observed_NF, _ = self.aligned.read_omics(name, rows)
        return values_NF.astype(np.float64), observed_NF

    def _center(self, name: str, rows: np.ndarray) -> np.ndarray:
        values_NF, observed_NF = self._read(name, rows)
        return values_NF.sum(axis=0) / np.maximum(observed_NF.sum(axis=0), 1)

    def _imputed(self, name: str, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Values about the mean of the training rows, 0 where not observed, and what was."""
        values_NF, observed_NF = self._read(name, rows)
        return np.where(observed_NF, values_NF - self.center_F[name], 0), observed_NF

    def _many(self, rows: np.ndarray) -> np.ndarray:
        """Values of all that has so many features that only its components are used."""
        blocks = [self._imputed(name, rows)[0] for name in self.names if name != CLINICAL]
        return np.concatenate(blocks, axis=1) if blocks else np.zeros((len(rows), 0))

    def _raw(self, rows: np.ndarray) -> np.ndarray:
        blocks = [np.zeros((len(rows), 0))] if self.pca is None else [self.pca.transform(self._many(rows))]
        for name in self.names:
            values_NF, observed_NF = self._imputed(name, rows)
            blocks += [values_NF, ~observed_NF] if name == CLINICAL else [self._absent(name, observed_NF)]
        return np.concatenate(blocks, axis=1, dtype=np.float64)

    def _absent(self, name: str, observed_NF: np.ndarray) -> np.ndarray:
        """Bool, what is missing: [N, C] channels of an image, or the whole of an omics modality, [N, 1]."""
        assert self.aligned is not None
        parts = len(self.aligned.preprocessing.images()[name].channels) if self.kinds[name] == IMAGE else 1
        return np.logical_not(np.logical_or.reduce(observed_NF.reshape(len(observed_NF), parts, -1), axis=2))


def _fit(
    learner: Learner,
    cohort: PreparedCohort,
    names: Sequence[str],
    images: ImageFeatures,
    train: np.ndarray,
    inner: Sequence[Fold],
) -> Predict:
    """Fit with the penalty that the inner folds choose; what comes back predicts rows."""
    inputs = Inputs(cohort, names, images, train)
    best = fit_chosen(learner, inputs(train), train, [np.isin(train, fold.test) for fold in inner])
    return lambda rows: best(inputs(rows))


def _kinds(cohort: PreparedCohort, modalities: Sequence[str] | None) -> dict[str, str]:
    """Modalities of the cohort to their kind."""
    entries = cohort.manifest.modalities

    def kind(name: str) -> str:
        if isinstance(entries[name], ImageEntry):
            return IMAGE
        return CLINICAL if name == CLINICAL else MOLECULAR

    return {name: kind(name) for name in modalities or cohort.modalities if name in entries}
