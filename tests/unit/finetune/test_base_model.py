"""A cohort as a model and its heads read it: what is learned of covariates that the model does not know."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from finetune.base_model import as_read
from finetune.config import FinetuneConfig, TaskDropout
from finetune.run import make_study
from finetune.study import Study
from foundation.cohort.store import PreparedCohort
from foundation.config import load_config
from foundation.data.dataset import CohortDataset
from foundation.data.preprocessing import Preprocessing
from foundation.data.sampler import BatchKey


@pytest.fixture(scope="module")
def study(workplace: Path) -> Study:
    changes = [f"pretrain={workplace / 'model_without_clinical'}", "covariates=[clinical]"]
    return make_study(load_config(FinetuneConfig, workplace / "config.yaml", changes))


@pytest.fixture(scope="module")
def base(workplace: Path) -> Preprocessing:
    return Preprocessing.read(workplace / "model_without_clinical")


def test_covariates_come_last_and_the_model_is_read_as_before(study, base):
    found = as_read(base, study, study.folds.folds[0])
    assert found.modalities == ("rna", "mutation", "clinical")
    assert found.preprocessing.without(["clinical"]) == base
    assert found.overlap["clinical"] == 1


def test_their_scaling_is_that_of_the_training_patients_whatever_others_have(study, base, monkeypatch):
    fold = study.folds.folds[0]
    values_NF = study.cohort.values_NF("clinical", fold.train)
    found = as_read(base, study, fold).preprocessing.omics()["clinical"]
    np.testing.assert_allclose(found.center, np.nanmedian(values_NF, axis=0))
    assert found.patients == len(np.unique(study.cohort.patients[fold.train][~np.isnan(values_NF).all(axis=1)]))
    read = PreparedCohort.values_NF

    def spoilt(self, name, rows, features=slice(None)):
        values = read(self, name, rows, features)
        return np.where(np.isin(rows, fold.train)[:, None], values, 1000 * values)

    monkeypatch.setattr(PreparedCohort, "values_NF", spoilt)
    assert as_read(base, study, fold).preprocessing.omics()["clinical"] == found
    other = study.folds.folds[1]
    assert as_read(base, study, other).preprocessing.omics()["clinical"].center != found.center


def test_few_labels_teach_a_scaling_of_their_own(study, base):
    fold = study.folds.folds[0]
    few = study.few(fold, 8)
    expected = np.nanmedian(study.cohort.values_NF("clinical", few.train), axis=0)
    np.testing.assert_allclose(as_read(base, study, few).preprocessing.omics()["clinical"].center, expected)


def test_a_batch_says_who_has_them_and_dropout_hides_them(study, base):
    found = as_read(base, study, study.folds.folds[0])
    rows = np.arange(len(study.cohort))
    key = BatchKey(rows, np.zeros(len(rows), dtype=np.int64))
    batch = CohortDataset(found).__getitems__(key)
    np.testing.assert_array_equal(
        batch.host_present_BM[:, 2], ~np.isnan(study.cohort.values_NF("clinical", rows)).all(axis=1)
    )
    np.testing.assert_array_equal(batch.host_present_BM[:, 2], batch.observed["clinical"].any(dim=1))
    dropout = TaskDropout(default=0, modalities={"clinical": 1.0})
    dropped = CohortDataset(found, dropout=dropout).__getitems__(key)
    alone = batch.host_present_BM[:, 2] & (batch.host_present_BM.sum(axis=1) == 1)
    assert alone.any() and batch.host_present_BM[:, 2].sum() > alone.sum()
    np.testing.assert_array_equal(dropped.host_present_BM[:, 2], alone, "nobody loses all that there is")
    np.testing.assert_array_equal(dropped.omics["clinical"].any(dim=1), alone)
