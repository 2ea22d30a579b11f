"""Sums over patients, their bootstrap, and tests of gene sets."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from finetune.explain.genes import LOWERS, NEITHER, RAISES, CohortSums, directions
from finetune.explain.pathways import enrichment, refuse_strangers
from foundation.errors import DataError


@pytest.fixture
def batch() -> tuple[np.ndarray, np.ndarray]:
    """Forty patients, one score and six features: the first raises, the second lowers, the third is constant."""
    random = np.random.default_rng(0)
    values = random.standard_normal((40, 6))
    values[:, 2] = 1
    values[::4, 3] = np.nan
    slopes = np.array([2.0, -1.0, 0.5, 0.2, 0.1, 0.0])
    return np.nan_to_num(values * slopes)[:, None].astype(np.float32), values


def test_sums_in_batches_are_those_of_all_at_once(batch):
    a_BSP, values = batch
    whole, parts = CohortSums(1, 6, seed=1), CohortSums(1, 6, seed=1)
    whole.add(np.arange(40), a_BSP, values)
    for start in range(0, 40, 7):
        parts.add(np.arange(40)[start : start + 7], a_BSP[start : start + 7], values[start : start + 7])
    seen = ~np.isnan(values[:, 3])
    np.testing.assert_allclose(whole.importance()[0, 3], np.abs(a_BSP[seen, 0, 3]).mean(), rtol=1e-6)
    np.testing.assert_array_equal(whole.records_P, [40, 40, 40, 30, 40, 40])
    for of in (CohortSums.importance, CohortSums.mean, CohortSums.association):
        np.testing.assert_allclose(of(parts), of(whole), atol=1e-9)
    np.testing.assert_allclose(parts.stability(0), whole.stability(0))
    assert directions(whole.association())[0].tolist() == [RAISES, LOWERS, NEITHER, RAISES, RAISES, NEITHER]


def test_ranks_that_patients_agree_on_are_stable(batch):
    a_BSP, values = batch
    sums = CohortSums(1, 6, seed=1)
    sums.add(np.arange(40), a_BSP, values)
    _, low, high = sums.stability(0)
    assert (low[0], high[0]) == (1, 1) and low[5] == 6
    assert low[2] >= 2 and high[1] <= 3


def test_a_set_of_genes_that_matter_is_found_and_a_random_one_is_not():
    random = np.random.default_rng(0)
    size = random.exponential(size=200)
    size[:20] += 2
    genes = pd.DataFrame({"gene": [f"G{g}" for g in range(200)], "mean_absolute": size, "modalities": "rna"})
    genes["direction"] = np.where(np.arange(200) < 15, "raises", "lowers")
    age = pd.DataFrame({"gene": ["age"], "mean_absolute": [99.0], "modalities": ["clinical"], "direction": ["raises"]})
    sets = {"hit": genes["gene"][:20].tolist(), "random": genes["gene"][40:60].tolist(), "small": ["G1", "G2"]}
    found = enrichment(pd.concat([genes, age]), sets, seed=0).set_index("pathway")
    assert list(found.index) == ["hit", "random"]
    assert found.loc["hit", "fdr"] < 0.01 < 0.05 < found.loc["random", "p_value"]
    assert found.loc["hit", "direction"] == RAISES and 0.6 < found.loc["hit", "raises"] < 0.9


def test_sets_of_other_names_are_refused():
    with pytest.raises(DataError, match="none of its genes, such as 'ENSG1'"):
        refuse_strangers({"a": ["ENSG1"]}, ["TP53"], "sets.gmt")
