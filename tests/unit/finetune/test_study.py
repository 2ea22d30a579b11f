"""What folds share: settings, of which one key changes no other, and inner folds that know nothing of test patients."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np

from finetune.config import FinetuneConfig
from finetune.run import make_study
from foundation.config import load_config


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
