"""Retrieval, alignment, uniformity and the map, against loops over pairs."""

from __future__ import annotations

import json
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foundation.errors import DataError
from pretrain.evaluation import space
from pretrain.evaluation.space import chance_of_recall, embedding_map, measure_space, rank_patients

PAIRS = [("mri", "rna")]


def slow_ranks(query, answer, patients):
    """Own patient's rank of each record, by loops over pairs."""
    ranks = []
    for i in range(len(query)):
        score = [round(float(np.dot(query[i].astype(float), answer[j].astype(float))), 6) for j in range(len(answer))]
        best = max(score[j] for j in range(len(answer)) if patients[j] == patients[i])
        ranks.append(1 + sum(score[j] >= best and patients[j] != patients[i] for j in range(len(answer))))
    return np.array(ranks)


@settings(max_examples=30)
@given(st.integers(2, 25), st.integers(1, 4), st.integers(0, 10**6), st.booleans())
def test_ranks_agree_with_loops_over_pairs(records, each, seed, ties):
    random = np.random.default_rng(seed)
    query, answer = random.standard_normal((2, records, 3))
    if ties:
        query, answer = query.round(), answer.round()
    names = random.integers(0, max(1, records // each), records)
    _, of_patient = np.unique(names, return_inverse=True)
    ranks = rank_patients(query, answer, of_patient)
    np.testing.assert_array_equal(ranks[np.arange(records), of_patient], slow_ranks(query, answer, names))


def test_retrieval_reports_what_loops_find(make):
    held_out = make(30, "h", records=2, signal=0.4, absent=0.2)
    result = measure_space(held_out, pairs=PAIRS, seed=0, permutations=50)["retrieval"]
    both = held_out.present["mri"] & held_out.present["rna"]
    mri, rna, patients = held_out.views["mri"][both], held_out.views["rna"][both], held_out.patients[both]
    for name, ranks in (
        ("mri->rna", slow_ranks(mri, rna, patients)),
        ("rna->mri", slow_ranks(rna, mri, patients)),
    ):
        assert result[name]["n"] == both.sum()
        assert result[name]["median_rank"] == np.median(ranks)
        for k in (1, 5, 10):
            assert result[name][f"recall@{k}"] == pytest.approx(np.mean(ranks <= k))


def test_collapsed_embeddings_find_nobody(make):
    held_out = make(30, "h")
    for view in held_out.views:
        held_out.views[view] = np.tile(held_out.views[view][:1], (30, 1))
    result = measure_space(held_out, pairs=PAIRS, seed=0, permutations=50)
    assert result["retrieval"]["mri->rna"]["recall@10"] == 0
    assert result["retrieval"]["mri->rna"]["median_rank"] == 30
    assert result["retrieval"]["mri->rna"]["p_value"] == 1
    assert result["uniformity"]["mri"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("records", "k"), [([1] * 57, 10), ([1, 2, 3, 1], 2), ([4, 1], 3), ([2, 2], 10), ([1] * 5, 10)]
)
def test_chance_is_the_recall_of_a_random_order(records, k):
    total = sum(records)
    exact = sum(m * (1 - comb(total - m, k) / comb(total, k) if k <= total else 1) for m in records) / total
    assert chance_of_recall(np.array(records), k) == pytest.approx(exact)
    if set(records) == {1}:
        assert exact == pytest.approx(min(k / total, 1))
    random = np.random.default_rng(0)
    of_patient = np.repeat(np.arange(len(records)), records)
    found = []
    for _ in range(3000):
        order = of_patient[random.permutation(total)]
        found.append(np.mean([patient in order[:k] for patient in of_patient]))
    assert np.mean(found) == pytest.approx(exact, abs=0.02)


def test_p_values_without_signal_are_uniform_and_with_signal_small(make):
    p_values = [
        measure_space(make(40, "h", signal=0, records=records, seed=seed), pairs=PAIRS, seed=seed, permutations=99)[
            "retrieval"
        ]["mri->rna"]["p_value"]
        for seed in range(60)
        for records in (1, 2)
    ]
    # 120 values at most 0.1 with probability 0.1 each: more than 24 come once in a thousand.
    assert np.sum(np.array(p_values) <= 0.1) <= 24
    assert np.mean(p_values) > 0.4
    assert (
        measure_space(make(40, "h"), pairs=PAIRS, seed=0, permutations=999)["retrieval"]["mri->rna"]["p_value"] == 1e-3
    )


def test_p_value_counts_the_permutations_that_do_as_well(make):
    held_out = make(20, "h", signal=0.25)
    ranks = rank_patients(held_out.views["mri"], held_out.views["rna"], np.arange(20))
    random, hits = np.random.default_rng(1), []
    for _ in range(4000):
        hits.append(np.mean(ranks[np.arange(20), random.permutation(20)] <= 10))
    expected = np.mean(np.array(hits) >= np.mean(np.diag(ranks) <= 10))
    result = measure_space(held_out, pairs=PAIRS, seed=0, permutations=4000)["retrieval"]["mri->rna"]
    assert 0.005 < expected < 0.995
    assert result["p_value"] == pytest.approx(expected, abs=0.04)


def test_ten_candidates_are_judged_by_the_reciprocal_rank(make):
    result = measure_space(make(10, "h"), pairs=PAIRS, seed=0, permutations=500)["retrieval"]["mri->rna"]
    assert result["recall@10"] == result["chance@10"] == 1
    assert result["p_statistic"] == "mean reciprocal rank"
    assert result["p_value"] < 0.05


def test_alignment_and_uniformity_agree_with_loops_over_pairs(make):
    held_out = make(12, "h", records=2, absent=0.2)
    result = measure_space(held_out, pairs=PAIRS, seed=0, permutations=10)
    mri, rna = (held_out.views[view].astype(float) for view in ("mri", "rna"))
    both = np.flatnonzero(held_out.present["mri"] & held_out.present["rna"])
    assert result["alignment"]["mri~rna"] == pytest.approx(np.mean([np.sum((mri[i] - rna[i]) ** 2) for i in both]))
    rows = np.flatnonzero(held_out.present["mri"])
    close = [
        np.exp(-2 * np.sum((mri[i] - mri[j]) ** 2))
        for i in rows
        for j in rows
        if held_out.patients[i] != held_out.patients[j]
    ]
    assert result["uniformity"]["mri"] == pytest.approx(np.log(np.mean(close)))


def test_an_embedding_that_is_not_finite_is_refused(make):
    held_out = make(30, "h")
    held_out.views["rna"][4, 2] = np.nan
    with pytest.raises(DataError, match="'rna' of 1 records"):
        measure_space(held_out, pairs=PAIRS, seed=0, permutations=10)


def test_views_that_too_few_have_say_so(make):
    held_out = make(30, "h")
    held_out.present["rna"][9:] = False
    result = measure_space(held_out, pairs=[*PAIRS, ("mri", "nothing")], seed=0, permutations=10)
    assert result["retrieval"]["mri->rna"] == {"n": 9, "skipped": "only 9 held-out patients have both"}
    assert result["retrieval"]["nothing->mri"]["n"] == 0
    assert result["alignment"]["mri~nothing"] is None
    held_out.present["rna"][:] = False
    assert measure_space(held_out, pairs=[], seed=0, permutations=10)["uniformity"]["rna"] is None


def test_many_patients_are_sampled(make, monkeypatch):
    monkeypatch.setattr(space, "MOST_PATIENTS", 15)
    result = measure_space(make(40, "h", records=2), pairs=PAIRS, seed=0, permutations=10)["retrieval"]["mri->rna"]
    assert (result["patients"], result["n"]) == (15, 30)


def test_the_map_lies_in_the_principal_plane_and_never_flips(make):
    held_out = make(40, "h", absent=0.2)
    drawn = embedding_map(held_out, "mri", {"subtype": ["a", "b", "c"]})
    x = held_out.views["mri"][held_out.present["mri"]].astype(float)
    values, axes = np.linalg.eigh(np.cov(x.T))
    for coordinate, axis in (("x", axes[:, -1]), ("y", axes[:, -2])):
        axis = axis * np.sign(axis[np.abs(axis).argmax()])
        np.testing.assert_allclose(drawn[coordinate], (x - x.mean(axis=0)) @ axis, atol=1e-4)
    np.testing.assert_allclose(drawn["share"], values[::-1][:2] / values.sum(), atol=1e-3)
    assert drawn["codes"]["subtype"] == held_out.endpoints["subtype"]["code"][held_out.present["mri"]].tolist()
    assert "SECRET" not in json.dumps(drawn)
    assert len(embedding_map(held_out, "mri", most=7)["x"]) == 7


def test_a_map_of_next_to_nobody_is_empty(make):
    held_out = make(40, "h")
    held_out.present["mri"][2:] = False
    drawn = embedding_map(held_out, "mri", {"subtype": ["a", "b", "c"]})
    assert drawn["x"] == drawn["sites"] == drawn["codes"]["subtype"] == []
