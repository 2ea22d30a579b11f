"""Folds: everybody is tested once, nobody is on both sides, and strata, sites and seen patients are kept to."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.leakage import refuse_overlap
from finetune.splits import Fold, Folds, Records, SplitConfig, within_groups
from foundation.errors import ConfigError, DataError


def records(seed: int, patients: int, sites: int = 12, strata: int = 3, unlabelled: float = 0.1) -> Records:
    """Patients with one to three records each, in a random order; a patient has one site and one stratum."""
    random = np.random.default_rng(seed)
    site = random.integers(0, sites, patients)
    stratum = np.where(random.random(patients) < unlabelled, -1, random.integers(0, strata, patients))
    who = random.permutation(np.repeat(np.arange(patients), random.integers(1, 4, patients)))
    names = np.array([f"P{i:03d}" for i in range(patients)], dtype=object)
    sites_of = np.array([f"S{i}" for i in range(sites)], dtype=object)
    return Records(names[who], sites_of[site[who]], stratum[who])


def names(rec: Records, rows: np.ndarray) -> set[str]:
    return set(rec.patients[rows])


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    patients=st.integers(40, 90),
    count=st.integers(2, 6),
    repeats=st.integers(1, 3),
    by=st.sampled_from(["patient", "site"]),
)
def test_every_labelled_record_is_tested_once_per_repeat_and_nobody_is_on_both_sides(
    seed, patients, count, repeats, by
):
    rec = records(seed, patients)
    made = Folds.make(SplitConfig(folds=count, repeats=repeats, by=by, inner_folds=2), rec, seed)
    labelled = np.flatnonzero(rec.strata >= 0)
    assert len(made.folds) == count * repeats
    assert len({fold.name for fold in made.folds}) == count * repeats
    for fold in made.folds:
        np.testing.assert_array_equal(np.sort(np.concatenate([fold.train, fold.test])), labelled)
        assert len(fold.train)
        assert len(fold.test)
        assert not names(rec, fold.train) & names(rec, fold.test)
        if by == "site":
            assert not set(rec.sites[fold.train]) & set(rec.sites[fold.test])
    for start in range(0, len(made.folds), count):
        tested = np.concatenate([fold.test for fold in made.folds[start : start + count]])
        np.testing.assert_array_equal(np.sort(tested), labelled)


@settings(max_examples=40)
@given(seed=st.integers(0, 10**6), patients=st.integers(20, 90), count=st.integers(2, 6))
def test_shares_of_a_stratum_and_sizes_of_folds_differ_by_one_at_most(seed, patients, count):
    rec = records(seed, patients)
    folds = Folds.make(SplitConfig(folds=count), rec, seed).folds
    sizes = [len(names(rec, fold.test)) for fold in folds]
    assert max(sizes) - min(sizes) <= 1
    for stratum in range(3):
        here = [len(names(rec, fold.test[rec.strata[fold.test] == stratum])) for fold in folds]
        assert max(here) - min(here) <= 1


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6), by=st.sampled_from(["patient", "site"]))
def test_inner_folds_divide_the_training_rows_by_the_same_rules(seed, by):
    rec = records(seed, 80)
    config = SplitConfig(folds=3, inner_folds=4, by=by)
    made = Folds.make(config, rec, seed)
    for fold in made.folds:
        inner = made.inner(fold)
        np.testing.assert_array_equal(np.sort(np.concatenate([each.test for each in inner])), fold.train)
        for each in inner:
            refuse_overlap(rec.sides(config, each), each.name)
            assert not np.intersect1d(np.concatenate([each.train, each.test]), fold.test).size
    assert not np.array_equal(made.inner(made.folds[0])[0].test, made.inner(made.folds[1])[0].test)


def test_folds_by_site_share_out_patients_and_strata_well():
    rec = records(3, 400, sites=40)
    folds = Folds.make(SplitConfig(by="site"), rec, 0).folds
    total = len(names(rec, np.flatnonzero(rec.strata >= 0)))
    for fold in folds:
        assert len(names(rec, fold.test)) == pytest.approx(total / 5, rel=0.1)
        for stratum in range(3):
            all_of_it = len(names(rec, np.flatnonzero(rec.strata == stratum)))
            here = len(names(rec, fold.test[rec.strata[fold.test] == stratum]))
            assert here == pytest.approx(all_of_it / 5, rel=0.25)


def test_the_split_is_a_function_of_the_patients_and_the_seed_alone():
    rec = records(0, 60)
    shuffled = np.random.default_rng(1).permutation(len(rec.patients))
    again = Records(rec.patients[shuffled], rec.sites[shuffled], rec.strata[shuffled])
    first, second, other = (Folds.make(SplitConfig(), r, s) for r, s in ((rec, 0), (again, 0), (rec, 1)))
    assert first.hash() == second.hash() != other.hash()
    assert [names(rec, f.test) for f in first.folds] == [names(again, f.test) for f in second.folds]
    assert len({Folds.make(SplitConfig(repeats=2), rec, 0).folds[k].test.tobytes() for k in (0, 5)}) == 2


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    share=st.floats(0, 0.5),
    repeats=st.integers(1, 2),
    by=st.sampled_from(["patient", "site"]),
)
def test_who_was_seen_trains_in_every_fold_and_is_never_tested_but_may_be_chosen_on(seed, share, repeats, by):
    rec = records(seed, 120, sites=60)
    random = np.random.default_rng(seed)
    # Of a patient with several records one is enough.
    seen = random.random(len(rec.patients)) < share / (4 if by == "site" else 1)
    config = SplitConfig(folds=3, inner_folds=2, repeats=repeats, by=by)
    made = Folds.make(config, rec, seed, seen=seen)
    units = rec.sites if by == "site" else rec.patients
    only_train = np.isin(units, units[np.isin(rec.patients, rec.patients[seen])]) & (rec.strata >= 0)
    testable = np.flatnonzero(~only_train & (rec.strata >= 0))
    for start in range(0, len(made.folds), 3):
        tested = np.concatenate([fold.test for fold in made.folds[start : start + 3]])
        np.testing.assert_array_equal(np.sort(tested), testable)
    for fold in made.folds:
        assert set(np.flatnonzero(only_train)) <= set(fold.train)
        assert not names(rec, fold.train) & names(rec, fold.test)
        inner = made.inner(fold)
        chosen_on = np.concatenate([each.test for each in inner])
        np.testing.assert_array_equal(np.sort(chosen_on), fold.train)
        for each in inner:
            np.testing.assert_array_equal(np.union1d(each.train, each.test), fold.train)
            refuse_overlap(rec.sides(config, each), each.name)
    assert made.counts()["seen_train_only"] == len(names(rec, np.flatnonzero(only_train)))


def test_folds_of_whom_nobody_was_seen_are_those_without_a_model():
    rec = records(0, 60)
    made = Folds.make(SplitConfig(), rec, 0)
    assert Folds.make(SplitConfig(), rec, 0, seen=np.zeros(len(rec.patients), dtype=bool)).hash() == made.hash()
    assert made.counts()["seen_train_only"] == 0


@pytest.mark.parametrize(
    ("by", "message"),
    [("patient", "only 3 of 40 patients were not seen"), ("site", "only 0 of 12 sites were not seen")],
)
def test_too_few_who_were_not_seen_are_counted_and_the_ways_out_are_named(by, message):
    rec = records(0, 40, unlabelled=0)
    seen = ~np.isin(rec.patients, ["P000", "P001", "P002"])
    with pytest.raises(ConfigError, match=message) as caught:
        Folds.make(SplitConfig(by=by), rec, 0, seen=seen)
    assert all(way in str(caught.value) for way in ("`held_out`", "`pretrain: per_fold`", "`allow_seen: true`"))


def test_published_folds_are_not_changed_by_who_was_seen():
    rec = Records(np.array(list("abcd"), dtype=object), np.full(4, ""), np.zeros(4, dtype=int))
    published = {"0": {"a": "train", "b": "train", "c": "val", "d": "val"}}
    config = SplitConfig(published=True, inner_folds=2)
    made, plain = (Folds.make(config, rec, 0, published, seen) for seen in (np.ones(4, dtype=bool), None))
    assert made.counts() == plain.counts()
    assert [f.test.tolist() for f in made.inner(made.folds[0])] == [f.test.tolist() for f in plain.inner(made.folds[0])]


def test_published_folds_are_taken_as_they_are_and_the_rest_is_counted():
    rec = Records(
        np.array(["a", "b", "c", "d", "d", "e", "f"], dtype=object), np.full(7, ""), np.array([0, 1, 0, 1, 1, -1, 0])
    )
    published = {
        "x": {"a": "train", "b": "train", "c": "val", "d": "val", "e": "val"},
        "y": {"a": "train", "b": "val", "c": "test", "d": "test", "e": "train"},
    }
    made = Folds.make(SplitConfig(published=True, inner_folds=2), rec, 0, published)
    assert [(f.name, f.train.tolist(), f.test.tolist()) for f in made.folds] == [
        ("x", [0, 1], [2, 3, 4]),
        ("y", [0, 1], [2, 3, 4]),
    ]
    assert made.left_out == {"no label": 1, "in no published fold": 1}
    counts = made.counts()
    assert (counts["patients"], counts["folds"][0]) == (4, {"fold": "x", "train": 2, "test": 2})
    assert len(counts["hash"]) == 64


def test_a_patient_planted_in_both_sides_is_caught():
    rec = records(0, 40)
    made = Folds.make(SplitConfig(), rec, 0)
    fold = made.folds[0]
    # Another record of a patient who is tested.
    several = next(row for row in fold.test if (rec.patients == rec.patients[row]).sum() > 1)
    planted = Fold("0", np.append(fold.train, several), np.setdiff1d(fold.test, several))
    with pytest.raises(DataError, match="1 patient in both training and test") as caught:
        refuse_overlap(rec.sides(made.config, planted), planted.name)
    assert rec.patients[several] not in str(caught.value)


def test_published_folds_with_a_site_on_both_sides_are_refused_where_the_split_is_by_site():
    rec = Records(np.array(list("abcd"), dtype=object), np.array(list("AABB"), dtype=object), np.zeros(4, dtype=int))
    fair, unfair = ({"a": one, "b": two, "c": "val", "d": "val"} for one, two in (("train", "train"), ("train", "val")))
    config = SplitConfig(published=True, by="site")
    Folds.make(config, rec, 0, {"0": fair})
    with pytest.raises(DataError, match="1 site in both training and test"):
        Folds.make(config, rec, 0, {"0": unfair})


def test_who_has_no_site_takes_no_part_in_a_split_by_site():
    rec = records(0, 60, unlabelled=0)
    rec.sites[rec.patients == "P000"] = ""
    made = Folds.make(SplitConfig(by="site", folds=3), rec, 0)
    assert made.left_out == {"no site": 1}
    assert "P000" not in made.used()


@pytest.mark.parametrize(
    ("config", "patients", "message"),
    [
        (SplitConfig(folds=9), 8, "8 patients cannot be split into 9 folds"),
        (SplitConfig(folds=5, by="site"), 40, "3 sites cannot be split into 5 folds"),
        (SplitConfig(published=True), 40, "the cohort has no published folds"),
    ],
)
def test_what_cannot_be_split_is_refused(config, patients, message):
    with pytest.raises(ConfigError, match=message):
        Folds.make(config, records(0, patients, sites=3, unlabelled=0), 0, {})


def test_a_published_fold_without_labels_on_one_side_is_refused():
    rec = Records(np.array(["a", "b"], dtype=object), np.full(2, ""), np.array([0, -1]))
    with pytest.raises(DataError, match="fold 0"):
        Folds.make(SplitConfig(published=True), rec, 0, {"0": {"a": "train", "b": "val"}})


def test_strata_within_groups_are_one_code_per_pair():
    groups, strata = np.array(list("aabbb")), np.array([0, 1, 0, 0, -1])
    codes = within_groups(groups, strata)
    assert codes[-1] == -1
    assert len(set(codes[:4])) == 3
    assert codes[2] == codes[3]
