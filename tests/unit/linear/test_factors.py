"""Shared factors, found in data made of known ones."""

from __future__ import annotations

import numpy as np
import pytest

from foundation.linear.factors import shared_factors


def cohort(patients: int = 160, seed: int = 0):
    """Two modalities that show the same two factors; half of the patients lack one of them."""
    random = np.random.default_rng(seed)
    factors_NK = random.standard_normal((patients, 2)) * [1.5, 1.0]
    values, observed = {}, {}
    for position, (name, features) in enumerate({"rna": 60, "protein": 25}.items()):
        loading_KF = random.standard_normal((2, features))
        values[name] = factors_NK @ loading_KF + random.standard_normal((patients, features))
        here_N = np.arange(patients) % 4 != position
        observed[name] = here_N[:, None] & (random.random((patients, features)) > 0.05)
    return factors_NK, values, observed


def explained(told_NK: np.ndarray, factors_NK: np.ndarray) -> np.ndarray:
    """Correlation of each true factor with the best linear function of what is told."""
    design = np.column_stack([told_NK, np.ones(len(told_NK))])
    fitted_NK = design @ np.linalg.lstsq(design, factors_NK, rcond=None)[0]
    return np.array([np.corrcoef(fitted_NK[:, k], factors_NK[:, k])[0, 1] for k in range(factors_NK.shape[1])])


def test_each_modality_alone_tells_the_factors():
    factors_NK, values, observed = cohort()
    weights = shared_factors(values, observed, 2)
    for name in values:
        here_N = observed[name].any(axis=1)
        told_NK = np.where(observed[name], values[name], 0)[here_N] @ weights[name]
        assert explained(told_NK, factors_NK[here_N]).min() > 0.9, name


def test_modalities_speak_of_the_same_factors():
    """What one modality says of a factor is what the other says, not a rotation or another scale of it."""
    _, values, observed = cohort()
    weights = shared_factors(values, observed, 2)
    both_N = observed["rna"].any(axis=1) & observed["protein"].any(axis=1)
    rna_NK, protein_NK = (np.where(observed[m], values[m], 0)[both_N] @ weights[m] for m in ("rna", "protein"))
    for k in range(2):
        assert np.corrcoef(rna_NK[:, k], protein_NK[:, k])[0, 1] > 0.8
        assert 0.7 < rna_NK[:, k].std() / protein_NK[:, k].std() < 1.4
    assert abs(np.corrcoef(rna_NK[:, 0], protein_NK[:, 1])[0, 1]) < 0.3


@pytest.mark.parametrize("garbage", [np.nan, 1e30])
def test_what_was_not_observed_changes_nothing(garbage):
    _, values, observed = cohort()
    spoilt = {name: np.where(observed[name], values_NF, garbage) for name, values_NF in values.items()}
    for name, weights_FK in shared_factors(spoilt, observed, 2).items():
        np.testing.assert_array_equal(weights_FK, shared_factors(values, observed, 2)[name])


def test_a_feature_that_never_varies_and_a_modality_that_nobody_has_weigh_nothing():
    _, values, observed = cohort()
    values["rna"][:, 3] = 7.0
    values["mirna"], observed["mirna"] = np.zeros((160, 4)), np.zeros((160, 4), dtype=bool)
    weights = shared_factors(values, observed, 2)
    assert not weights["rna"][3].any() and not weights["mirna"].any()
    assert all(np.isfinite(weights_FK).all() for weights_FK in weights.values())


def test_there_are_no_more_factors_than_patients():
    _, values, observed = cohort(patients=8)
    assert shared_factors(values, observed, 30)["rna"].shape[1] <= 8
