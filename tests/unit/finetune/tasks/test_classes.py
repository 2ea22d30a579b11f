"""Losses of classes by their definition: weights of classes, and several endpoints of which some are missing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from finetune.tasks.molecular import Molecular, MolecularConfig
from finetune.tasks.regression import Regression, RegressionConfig
from finetune.tasks.subtype import Subtype, SubtypeConfig
from foundation.errors import ConfigError

DECLARED = {
    "subtype": {"kind": "subtype", "classes": {"a": 1, "b": 1, "c": 1}},
    "idh": {"kind": "subtype", "classes": {"wildtype": 1, "mutant": 1}},
    "mgmt": {"kind": "subtype", "classes": {"unmethylated": 1, "methylated": 1}},
    "ic50": {"kind": "regression", "unit": "µM"},
}
GROUPS = np.full(6, "")


@pytest.mark.parametrize("balanced", [True, False])
def test_subtype_is_cross_entropy_by_the_weights_of_classes(balanced):
    code = np.array([0, 0, 0, 1, -1, 2])
    task = Subtype(SubtypeConfig(endpoint="subtype", balanced=balanced), DECLARED)
    task.fit({"subtype": {"code": code}}, GROUPS)
    logits = np.random.default_rng(0).standard_normal((6, 3))
    log_chance = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    weight = 5 / (3 * np.bincount(code[code >= 0])) if balanced else np.ones(3)
    here = np.flatnonzero(code >= 0)
    expected = -(weight[code[here]] * log_chance[here, code[here]]).sum() / weight[code[here]].sum()
    found = task.loss(torch.from_numpy(logits), {"subtype": {"code": torch.from_numpy(code)}}, list(GROUPS))
    assert found.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("balanced", [True, False])
def test_molecular_is_the_mean_over_endpoints_of_the_mean_over_patients(balanced):
    codes = {"idh": np.array([0, 1, 1, -1, 1, 0]), "mgmt": np.array([-1, -1, 0, 1, -1, 1])}
    task = Molecular(MolecularConfig(endpoints=("idh", "mgmt"), balanced=balanced), DECLARED)
    task.fit({name: {"code": code} for name, code in codes.items()}, GROUPS)
    logits = np.random.default_rng(0).standard_normal((6, 2))
    expected = []
    for e, code in enumerate(codes.values()):
        here = np.flatnonzero(code >= 0)
        count = np.bincount(code[here])
        weight = (count.sum() / (2 * count))[code[here]] if balanced else np.ones(len(here))
        chance = 1 / (1 + np.exp(-logits[here, e]))
        expected.append(-np.average(np.log(np.where(code[here] == 1, chance, 1 - chance)), weights=weight))
    labels = {name: {"code": torch.from_numpy(code)} for name, code in codes.items()}
    assert task.loss(torch.from_numpy(logits), labels, list(GROUPS)).item() == pytest.approx(
        np.mean(expected), rel=1e-6
    )


def test_molecular_asks_for_yes_or_no():
    with pytest.raises(ConfigError, match="3 classes"):
        Molecular(MolecularConfig(endpoints=("idh", "subtype")), DECLARED)


def test_regression_is_in_standard_deviations_of_the_training_patients():
    value = np.array([1.0, 3.0, np.nan, 5.0, 7.0, 9.0])
    task = Regression(RegressionConfig(endpoint="ic50"), DECLARED)
    task.fit({"ic50": {"value": value}}, GROUPS)
    outputs = torch.zeros(6, 1, dtype=torch.float64)
    loss = task.loss(outputs, {"ic50": {"value": torch.from_numpy(value)}}, list(GROUPS))
    assert loss.item() == pytest.approx(1)
    np.testing.assert_allclose(task.predict(outputs, GROUPS)["value"], np.nanmean(value))
