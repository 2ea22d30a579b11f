"""The image baseline: its features by definition, each image read once, and the same interface as the others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import finetune.tasks  # noqa: F401  (registers every task)
from finetune.methods.baselines import BASELINES, FOUND, available, predict
from finetune.methods.image_features import PERCENTILES, ImageFeatures
from finetune.methods.inputs import Inputs
from finetune.splits import Folds, Records, SplitConfig
from finetune.tasks.base import tasks
from foundation.cohort.store import PreparedCohort
from foundation.metrics import class_scores


@pytest.fixture(scope="module")
def cohort(simulated: Path) -> PreparedCohort:
    return PreparedCohort(simulated / "cohort")


def folds_of(cohort: PreparedCohort, endpoint: str) -> Folds:
    declared = cohort.manifest.endpoints
    task = tasks.build(tasks[declared[endpoint]["kind"]].Config(endpoint=endpoint), declared)
    strata = task.strata({endpoint: cohort.endpoint(endpoint)})
    records = Records(cohort.patients, cohort.sites, strata)
    return Folds.make(SplitConfig(folds=3, inner_folds=3), records, 0)


def has_image(cohort: PreparedCohort) -> np.ndarray:
    return np.flatnonzero(cohort.present_NM[:, cohort.modalities.index("mri")])


def test_features_are_means_of_cells_and_statistics_of_the_whole_between_the_image_s_own_bounds(cohort):
    rows = has_image(cohort)
    rows = rows[np.argsort(cohort.channels_NC("mri", rows).all(axis=1), kind="stable")][:40:6]
    features, acquired = ImageFeatures(cohort).read("mri", rows)
    np.testing.assert_array_equal(acquired, cohort.channels_NC("mri", rows))
    assert (~acquired).any()
    for i, row in enumerate(rows):
        voxels = cohort.voxels("mri", row)
        assert voxels is not None
        for c in range(acquired.shape[1]):
            if not acquired[i, c]:
                assert not features[i, c].any()
                continue
            low, high = cohort.statistics_NC4("mri", [row])[0, c, :2].astype(float)
            image = np.clip((voxels[c].astype(float) - low) / (high - low), 0, 1)
            x, y, z = (size // cells for size, cells in zip(image.shape, (8, 8, 4), strict=True))
            cells = image.reshape(8, x, 8, y, 4, z).mean(axis=(1, 3, 5)).reshape(-1)
            whole = [image.mean(), image.std(), *np.percentile(image, PERCENTILES)]
            np.testing.assert_allclose(features[i, c], [*cells, *whole], atol=1e-5)


def test_an_image_is_read_once(cohort, monkeypatch):
    images, rows = ImageFeatures(cohort), has_image(cohort)[:5]
    first, _ = images.read("mri", rows)
    monkeypatch.setattr(PreparedCohort, "voxels", None)
    again, _ = images.read("mri", rows[::-1])
    np.testing.assert_array_equal(again, first[::-1])


OF_ALL = [name for name, needs in BASELINES.items() if FOUND not in needs]
"""Baselines that a cohort without annotations has."""


@pytest.mark.parametrize("name", OF_ALL)
def test_every_baseline_predicts_every_endpoint_for_every_test_patient(cohort, name):
    images = ImageFeatures(cohort)
    assert available(cohort) == OF_ALL
    for endpoint, entry in cohort.manifest.endpoints.items():
        made = folds_of(cohort, endpoint)
        fold = made.folds[0]
        said = predict(name, cohort, endpoint, fold, made.inner(fold), images=images)
        (part, values), *others = said.items()
        assert not others
        assert part == {"survival": "risk", "regression": "value"}.get(entry["kind"], "probability")
        assert len(values) == len(fold.test)
        assert np.isfinite(values).all()
        if part == "probability":
            np.testing.assert_allclose(values.sum(axis=1), 1)


def test_images_alone_find_what_images_show(cohort):
    made, images = folds_of(cohort, "subtype"), ImageFeatures(cohort)
    code = cohort.endpoint("subtype")["code"]
    found = []
    for fold in made.folds:
        test = np.isin(fold.test, has_image(cohort))
        chance = predict("image", cohort, "subtype", fold, made.inner(fold), images=images)["probability"][test]
        found.append(class_scores.macro_auroc(code[fold.test[test]], chance)(np.ones((1, test.sum())))[0])
    assert np.mean(found) > 0.75
    assert available(cohort, ["mri"]) == ["image"]
    assert "image" not in available(cohort, ["rna", "clinical"])


def test_what_is_missing_of_an_image_is_told_and_stands_at_the_training_mean(cohort):
    train = np.arange(0, len(cohort), 2)
    _, x = Inputs.learn(cohort, ["mri"], ImageFeatures(cohort), train)
    channels = len(cohort.image("mri").channels)
    assert x.shape == (len(train), 20 + channels)
    absent = ~cohort.channels_NC("mri", train)
    for c in range(channels):
        assert abs(np.corrcoef(x[:, 20 + c], absent[:, c])[0, 1]) == pytest.approx(1)
    # Nothing of the image is left: all components are the same for all who have none.
    without = x[absent.all(axis=1), :20]
    assert len(without) > 1
    np.testing.assert_allclose(without, np.tile(without[:1], (len(without), 1)), atol=1e-9)
    np.testing.assert_allclose(x.mean(axis=0), 0, atol=1e-9)
