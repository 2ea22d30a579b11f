"""Several prepared cohorts read like one: by name, with presence, and refused where they disagree."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from foundation.cohort.manifest import OmicsEntry
from foundation.cohort.united import UnitedCohort
from foundation.data.alignment import align
from foundation.data.dataset import CohortDataset
from foundation.data.presence import observed_N
from foundation.data.sampler import BatchKey
from foundation.data.scaling import fit_preprocessing
from foundation.errors import ConfigError, DataError


def pairs(records, modalities, features):
    """MRI, RNA and mutations."""
    for record in records:
        record.patient = f"A{record.patient}"
        record.images.pop("ct", None)
    del modalities["ct"]


def scans(records, modalities, features):
    """MRI with its channels in another order and one more."""
    for record in records:
        record.patient = f"B{record.patient}"
        record.omics.clear()
        record.images.pop("ct", None)
        if "mri" in record.images:
            image = record.images["mri"]
            image.voxels = np.stack([image.voxels[1], image.voxels[0] * 2, image.voxels[0]])
            image.channels = image.channels[[1, 0, 0]]
            image.statistics = image.statistics[[1, 0, 0]] * np.array([[1], [2], [1]], dtype=np.float32)
    del modalities["ct"], modalities["rna"], modalities["mut"]
    modalities["mri"].channels = {"t2": 0, "flair": 0, "t1": 0}
    modalities["mri"].mirror = []
    features.clear()


def omics(records, modalities, features):
    """RNA with other genes in another order, and a modality of its own."""
    for record in records:
        record.patient = f"C{record.patient}"
        record.images.clear()
        record.omics.pop("mut", None)
        if "rna" in record.omics:
            record.omics["cnv"] = record.omics["rna"][:3].copy()
            record.omics["rna"] = np.concatenate([record.omics["rna"][::-1], [7.0]]).astype(np.float32)
    del modalities["ct"], modalities["mri"], modalities["mut"]
    features["rna"] = [*features["rna"][::-1], "OTHER"]
    features["cnv"] = ["G0", "G1", "X"]
    del features["mut"]
    modalities["rna"].features = len(features["rna"])
    modalities["cnv"] = OmicsEntry(patients=0, features=3, values="continuous", unit="log2 ratio", transform=[])


@pytest.fixture
def parts(make_cohort):
    made = {"pairs": (12, pairs), "scans": (9, scans), "omics": (10, omics)}
    return {name: make_cohort(count, seed, change) for seed, (name, (count, change)) in enumerate(made.items())}


@pytest.fixture
def united(parts):
    return UnitedCohort(parts)


def test_records_are_numbered_over_all_and_what_a_cohort_lacks_is_absent(parts, united):
    assert len(united) == 31 and united.modalities == ["mri", "rna", "mut", "cnv"]
    assert united.manifest.name == "pairs, scans and omics"
    assert united.patients.tolist() == [p for cohort in parts.values() for p in cohort.patients]
    assert united.time_points.tolist() == [t for cohort in parts.values() for t in cohort.time_points]
    for m, name in enumerate(united.modalities):
        start = 0
        for cohort in parts.values():
            here = united.present_NM[start : start + len(cohort), m]
            if name in cohort.modalities:
                assert (here == cohort.present_NM[:, cohort.modalities.index(name)]).all()
            else:
                assert not here.any()
            start += len(cohort)
    assert set(united.groups) == {"pairs", "scans", "omics"}


def test_features_are_joined_by_name(parts, united):
    assert united.features["rna"] == [*parts["pairs"].features["rna"], "OTHER"]
    rows = np.array([25, 3, 30, 14, 3])
    values = united.values_NF("rna", rows)
    np.testing.assert_array_equal(values[[1, 4]][:, :12], parts["pairs"].values_NF("rna", [3, 3]))
    assert np.isnan(values[[1, 4], 12]).all() and np.isnan(values[3]).all()
    np.testing.assert_array_equal(values[[0, 2], :12], parts["omics"].values_NF("rna", [4, 9])[:, 11::-1])
    for window in (slice(0, 4), slice(5, 13), slice(12, 13), slice(4, 4)):
        np.testing.assert_array_equal(united.values_NF("rna", rows, window), values[:, window])
    assert np.isnan(united.values_NF("mut", rows)[[0, 2, 3]]).all()


def test_values_are_the_same_however_few_are_read_at_a_time(united, monkeypatch):
    rows = np.array([25, 3, 30, 14, 3, 28, 29])
    expected = united.values_NF("rna", rows)
    monkeypatch.setattr("foundation.cohort.united.BLOCK_VALUES", 20)
    np.testing.assert_array_equal(united.values_NF("rna", rows), expected)


@pytest.mark.parametrize("features", [range(13), [12], [0, 5], []])
def test_something_is_observed_where_a_value_is(united, features):
    rows, features = np.arange(len(united)), np.array(features, dtype=np.int64)
    expected = ~np.isnan(united.values_NF("rna", rows))[:, features]
    np.testing.assert_array_equal(observed_N(united, "rna", rows, features), expected.any(axis=1))


def test_channels_are_joined_by_name(parts, united):
    assert list(united.image("mri").channels) == ["t1", "t2", "flair"]
    assert united.image("mri").mirror == [], "an axis that one cohort must not mirror is not mirrored"
    own = np.flatnonzero(parts["scans"].present_NM[:, 0])
    rows = 12 + own
    np.testing.assert_array_equal(united.channels_NC("mri", rows), parts["scans"].channels_NC("mri", own)[:, [2, 0, 1]])
    np.testing.assert_array_equal(
        united.statistics_NC4("mri", rows), parts["scans"].statistics_NC4("mri", own)[:, [2, 0, 1]]
    )
    for row, here in zip(rows, own, strict=True):
        np.testing.assert_array_equal(united.voxels("mri", row), parts["scans"].voxels("mri", here)[[2, 0, 1]])
    paired = int(np.flatnonzero(parts["pairs"].present_NM[:, 0])[0])
    np.testing.assert_array_equal(united.voxels("mri", paired)[:2], parts["pairs"].voxels("mri", paired))
    assert not united.channels_NC("mri", [paired])[0, 2] and not united.voxels("mri", paired)[2].any()
    assert united.voxels("mri", 25) is None and not united.channels_NC("mri", [25]).any()
    assert np.isnan(united.affine_N44("mri", [25])).all()


def test_voxels_of_a_cohort_with_all_channels_are_not_copied(make_cohort):
    cohorts = {"one": make_cohort(6, 1, pairs), "other": make_cohort(6, 2, scans)}
    united = UnitedCohort({"other": cohorts["other"], "one": cohorts["one"]})
    row = int(np.flatnonzero(cohorts["other"].present_NM[:, 0])[0])
    assert not united.voxels("mri", row).flags.writeable


def test_a_batch_reads_all_of_them_at_once(parts, united):
    rows = np.arange(len(united))
    aligned = align(fit_preprocessing(united, rows), united)
    batch = CohortDataset(aligned, rows).__getitems__(BatchKey(rows, np.zeros(len(rows), np.int64)))
    assert batch.modalities == ("mri", "rna", "mut", "cnv")
    np.testing.assert_array_equal(batch.present_BM.numpy(), aligned.presence(rows)[0])
    alone = align(fit_preprocessing(united, rows), parts["omics"])
    np.testing.assert_array_equal(batch.omics["rna"][21:].numpy(), alone.read_omics("rna", np.arange(10))[0])
    assert not batch.present_BM[21:, 0].any() and not batch.images["mri"][21:].any()


def test_a_worker_opens_the_same(united):
    again = pickle.loads(pickle.dumps(united))
    np.testing.assert_array_equal(again.patients, united.patients)
    np.testing.assert_array_equal(again.values_NF("rna", [2, 28]), united.values_NF("rna", [2, 28]))


def test_endpoints_are_joined_where_they_are_the_same_and_kept_apart_where_not(make_cohort):
    one, other = make_cohort(10, 1, pairs), make_cohort(8, 2, omics)
    for cohort, unit in ((one, "days"), (other, "months")):
        cohort.manifest.endpoints["os"] = {"kind": "survival", "unit": unit, "patients": 4, "events": 2}
        cohort.manifest.endpoints["subtype"] = {"kind": "subtype", "patients": 4, "classes": {"a": 1, "b": 2, "c": 1}}
    united = UnitedCohort({"one": one, "other": other})
    entries = united.manifest.endpoints
    assert set(entries) == {"subtype", "dose", "os of one", "os of other"}
    assert entries["subtype"]["classes"] == {"a": 2, "b": 4, "c": 2}
    codes = [one.endpoint("subtype")["code"], other.endpoint("subtype")["code"]]
    np.testing.assert_array_equal(united.endpoint("subtype")["code"], np.concatenate(codes))
    times = united.endpoint("os of other")["time"]
    assert np.isnan(times[:10]).all()
    np.testing.assert_array_equal(times[10:], other.endpoint("os")["time"])
    with pytest.raises(DataError, match="has no endpoint 'os'"):
        united.endpoint("os")


def test_cohorts_that_prepared_a_modality_differently_are_refused(make_cohort):
    def otherwise(records, modalities, features):
        omics(records, modalities, features)
        modalities["rna"].unit = "counts"

    cohorts = {"one": make_cohort(5, 1, pairs), "other": make_cohort(5, 2, otherwise)}
    with pytest.raises(
        DataError, match="'rna' has unit 'log2 TPM' in the cohort 'one' and 'counts' in 'other'"
    ) as found:
        UnitedCohort(cohorts)
    assert "modalities.rna.unit" in str(found.value) and found.value.exit_code == 2
    assert UnitedCohort(cohorts, ["mut", "cnv"]).modalities == ["mut", "cnv"], "what is not used need not agree"

    def smaller(records, modalities, features):
        scans(records, modalities, features)
        modalities["mri"].spacing = (1.0, 1.0, 1.0)

    with pytest.raises(DataError, match=r"'mri' has spacing \[1.0, 1.0, 2.0\]"):
        UnitedCohort({"one": make_cohort(5, 1, pairs), "other": make_cohort(5, 2, smaller)})

    def image(records, modalities, features):
        omics(records, modalities, features)
        modalities["mri"] = modalities.pop("cnv")
        features["mri"] = features.pop("cnv")
        for record in records:
            if "cnv" in record.omics:
                record.omics["mri"] = record.omics.pop("cnv")

    with pytest.raises(DataError, match="'mri' has kind 'image' in the cohort 'one' and 'omics' in 'other'"):
        UnitedCohort({"one": make_cohort(5, 1, pairs), "other": make_cohort(5, 2, image)})


def test_equal_names_of_patients_need_a_word(make_cohort):
    cohorts = {"one": make_cohort(6, 1), "other": make_cohort(4, 2)}
    with pytest.raises(ConfigError, match="4 names of patients are in both 'one' and 'other'") as found:
        UnitedCohort(cohorts)
    assert "P000" not in str(found.value) and "equal_names: same_patient" in str(found.value)
    same = UnitedCohort(cohorts, equal_names="same_patient")
    assert same.manifest.patients == 6 and same.patients[0] == same.patients[6]
    apart = UnitedCohort(cohorts, equal_names="different_patients")
    assert apart.manifest.patients == 10 and apart.patients[0] == "one:P0000" and apart.patients[6] == "other:P0000"
    assert apart.own_names[0] == apart.own_names[6] == "P0000"
    assert set(apart.sites) == {"", "one:A", "one:B", "other:A", "other:B"}


def test_names_that_differ_in_spelling_only_are_refused(make_cohort):
    def lower(records, modalities, features):
        for record in records:
            record.patient = record.patient.replace("P", "p_")

    def upper(records, modalities, features):
        for record in records:
            record.patient = record.patient.replace("P", "P-")

    cohorts = {"one": make_cohort(6, 1, lower), "other": make_cohort(4, 2, upper)}
    with pytest.raises(DataError, match=r"4 patients have names in 'one' and in 'other' that differ in case"):
        UnitedCohort(cohorts, equal_names="same_patient")
    assert UnitedCohort(cohorts, equal_names="different_patients").manifest.patients == 10
