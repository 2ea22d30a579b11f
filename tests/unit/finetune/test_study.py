"""What folds share: settings, of which one key changes no other, and inner folds that know nothing of test patients."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from finetune.config import FinetuneConfig, TaskDropout
from finetune.methods.linear import readable
from finetune.run import make_study
from finetune.study import Study
from foundation.cohort.records import Record
from foundation.cohort.store import PreparedCohort
from foundation.config import load_config
from foundation.data.alignment import align
from foundation.data.dataset import CohortDataset
from foundation.data.preprocessing import Preprocessing
from foundation.data.sampler import BatchKey
from foundation.errors import ConfigError


def test_inner_folds_are_the_same_whatever_became_of_test_patients(workplace):
    study = make_study(
        load_config(FinetuneConfig, workplace / "config.yaml", ["tasks=[{task: survival, endpoint: os}]"])
    )
    fold = study.folds.folds[0]
    times = study.cohort.endpoint("os")["time"]

    def late(name: str) -> dict[str, np.ndarray]:
        parts = study.cohort.endpoint(name)
        return {**parts, "time": np.where(np.isin(np.arange(len(times)), fold.test), 9 * parts["time"], parts["time"])}

    other = copy.copy(study.cohort)
    other.endpoint = late
    changed = replace(study, cohort=other)
    for one, again in zip(study.inner(fold), changed.inner(fold), strict=True):
        np.testing.assert_array_equal(one.test, again.test)
        assert not np.isin(one.test, fold.test).any()


def test_one_key_leaves_its_neighbours_as_they_are(workplace):
    changes = ["fit.optimiser.learning_rate=0.5", "dropout.channels=0.5"]
    plain, changed = (load_config(FinetuneConfig, workplace / "config.yaml", some) for some in ([], changes))
    assert changed.fit.optimiser == plain.fit.optimiser.model_copy(update={"learning_rate": 0.5})
    assert changed.dropout == plain.dropout.model_copy(update={"channels": 0.5})


def study_without_clinical(workplace: Path, *changes: str) -> Study:
    """Of a model that does not know it."""
    model = f"pretrain={workplace / 'model_without_clinical'}"
    return make_study(load_config(FinetuneConfig, workplace / "config.yaml", [model, *changes]))


@pytest.fixture(scope="module")
def study(workplace: Path) -> Study:
    return study_without_clinical(workplace, "covariates=[clinical]")


def test_a_covariate_that_the_model_does_not_know_makes_more_patients_and_baselines_readable(workplace, study):
    plain = study_without_clinical(workplace)
    assert (plain.modalities, plain.heads_only) == (("rna", "mutation"), ())
    assert (study.modalities, study.heads_only) == (("rna", "mutation", "clinical"), ("clinical",))
    assert ("clinical",) in list(study.subsets()) and len(list(study.subsets())) == 7
    assert readable(plain) == ["omics"] and readable(study) == ["clinical", "omics", "clinical + omics"]
    few = ["covariates=[clinical]", "modalities=[clinical, rna]"]
    assert study_without_clinical(workplace, *few).modalities == ("rna", "clinical")
    cohort = study.cohort
    alone_N = cohort.present_NM[:, cohort.modalities.index("clinical")] & (cohort.present_NM.sum(axis=1) == 1)

    def taking_part(of: Study) -> np.ndarray:
        return np.isin(np.arange(len(cohort)), [*of.folds.folds[0].train, *of.folds.folds[0].test])

    labelled_N = cohort.endpoint("subtype")["code"] >= 0
    assert (alone_N & labelled_N).any()
    assert taking_part(study)[alone_N & labelled_N].all() and not taking_part(plain)[alone_N].any()


def test_a_covariate_that_the_model_knows_is_read_by_towers_too(workplace):
    study = make_study(load_config(FinetuneConfig, workplace / "config.yaml", ["covariates=[clinical]"]))
    assert study.heads_only == ()


@pytest.mark.parametrize(("labels", "patients"), [([], 24), ([5], 5)])
def test_a_covariate_that_no_training_patient_has_is_refused(workplace, tmp_path, make_cohort, labels, patients):
    """Of as many as there are labels, where these are few."""
    features = {"rna": [f"G{number}" for number in range(16)], "mutation": [f"M{number}" for number in range(6)]}

    def record(number: int) -> Record:
        omics = {name: np.ones(len(names), np.float32) for name, names in features.items()}
        has = number == 47 or (labels and number % 12 == 0)
        omics |= {"clinical": np.array([1.0 if has else np.nan, np.nan], np.float32)}
        return Record(patient=f"Q{number:02d}", site="A", omics=omics, endpoints={"subtype": number % 2})

    cohort: PreparedCohort = make_cohort(
        tmp_path / "cohort",
        [record(number) for number in range(48)],
        {**features, "clinical": ["age", "grade"]},
        {"subtype": {"kind": "subtype", "classes": {"a": 0, "b": 0}}},
    )
    task = "tasks=[{task: subtype, endpoint: subtype}]"
    changes = [f"cohort={cohort.path}", task, "covariates=[clinical]", f"labels={labels}", "splits.inner_folds=2"]
    with pytest.raises(ConfigError, match=f"covariates: none of {patients} training patients of fold . has 'clinical'"):
        study_without_clinical(workplace, *changes)


def test_a_scaling_is_that_of_the_training_patients_whatever_others_have(study, monkeypatch):
    fold = study.folds.folds[0]
    values_NF = study.cohort.values_NF("clinical", fold.train)
    found = study.fit_heads_only(fold)
    assert list(found.modalities) == ["clinical"]
    assert found.patients == len(np.unique(study.cohort.patients[fold.train].astype(str)))
    np.testing.assert_allclose(found.modalities["clinical"].center, np.nanmedian(values_NF, axis=0))
    read = PreparedCohort.values_NF

    def spoilt(self, name, rows, features=slice(None)):
        values = read(self, name, rows, features)
        return np.where(np.isin(rows, fold.train)[:, None], values, 1000 * values)

    monkeypatch.setattr(PreparedCohort, "values_NF", spoilt)
    assert study.fit_heads_only(fold) == found
    other = study.fit_heads_only(study.folds.folds[1])
    assert other.modalities["clinical"].center != found.modalities["clinical"].center


def test_few_labels_teach_a_scaling_of_their_own(study):
    few = study.few(study.folds.folds[0], 8)
    expected = np.nanmedian(study.cohort.values_NF("clinical", few.train), axis=0)
    np.testing.assert_allclose(study.fit_heads_only(few).modalities["clinical"].center, expected)


def test_a_batch_says_who_has_a_covariate_that_the_model_does_not_know_and_dropout_hides_it(workplace, study):
    base = Preprocessing.read(workplace / "model_without_clinical")
    aligned = align(base.joined(study.fit_heads_only(study.folds.folds[0])), study.cohort).only(study.modalities)
    rows = np.arange(len(study.cohort))
    key = BatchKey(rows, np.zeros(len(rows), dtype=np.int64))
    batch = CohortDataset(aligned).__getitems__(key)
    assert batch.modalities == ("rna", "mutation", "clinical")
    has = batch.host_present_BM[:, 2]
    np.testing.assert_array_equal(has, ~np.isnan(study.cohort.values_NF("clinical", rows)).all(axis=1))
    np.testing.assert_array_equal(has, batch.observed["clinical"].any(dim=1))
    dropout = TaskDropout(default=0, modalities={"clinical": 1.0})
    dropped = CohortDataset(aligned, dropout=dropout).__getitems__(key)
    alone = has & (batch.host_present_BM.sum(axis=1) == 1)
    assert alone.any() and has.sum() > alone.sum()
    np.testing.assert_array_equal(dropped.host_present_BM[:, 2], alone, "nobody loses all that there is")
    np.testing.assert_array_equal(dropped.omics["clinical"].any(dim=1), alone)
