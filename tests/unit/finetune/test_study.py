"""What folds share: settings, of which one key changes no other, and inner folds that know nothing of test patients."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest

from finetune.config import FinetuneConfig
from finetune.methods.linear import readable
from finetune.run import make_study
from finetune.study import Study
from foundation.cohort.store import PreparedCohort, Record
from foundation.config import load_config
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


def study_without_clinical(workplace, *changes: str) -> Study:
    """Of a model that does not know it."""
    model = f"pretrain={workplace / 'model_without_clinical'}"
    return make_study(load_config(FinetuneConfig, workplace / "config.yaml", [model, *changes]))


def test_a_covariate_that_the_model_does_not_know_may_be_seen_and_makes_patients_and_baselines_readable(workplace):
    plain, study = study_without_clinical(workplace), study_without_clinical(workplace, "covariates=[clinical]")
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
