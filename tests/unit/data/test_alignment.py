"""A cohort read through a model's preprocessing: agreement, matching by name, values."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from foundation.data.alignment import align
from foundation.data.scaling import PreprocessingConfig, fit_preprocessing
from foundation.errors import DataError

ALL = np.arange(40)


def fit(cohort, **config):
    return fit_preprocessing(cohort, ALL[::2], PreprocessingConfig(**config))


def plain(sentence):
    assert "\n" not in sentence
    return sentence.replace("\N{NO-BREAK SPACE}", " ")


def update(modality, **values):
    def change(records, modalities, features):
        modalities[modality] = modalities[modality].model_copy(update=values)

    return change


@pytest.mark.parametrize(
    ("modality", "values", "message"),
    [
        ("mri", {"spacing": (1.0, 1.0, 1.0)}, r"spacing \[1.0, 1.0, 1.0\], the model was trained on \[1.0, 1.0, 2.0\]"),
        ("mri", {"orientation": "native"}, "orientation 'native'"),
        ("mri", {"shape": [6, 4, 5]}, "shape"),
        ("mri", {"crop_foreground": True}, "crop_foreground True"),
        ("mri", {"foreground_above": 5.0}, "foreground_above 5.0"),
        ("mri", {"stretch": ["z"]}, "stretch"),
        ("ct", {"background": -1000.0}, "background -1000.0"),
        ("ct", {"spacing": "untrue"}, "spacing 'untrue'"),
        ("rna", {"unit": "z-score"}, "unit 'z-score', the model was trained on 'log2 TPM'"),
        ("rna", {"values": "count"}, "values 'count'"),
        ("rna", {"transform": []}, "transform"),
    ],
)
def test_what_disagrees_is_refused_by_name(cohort, make_cohort, modality, values, message):
    preprocessing = fit(cohort)
    with pytest.raises(DataError, match=message) as raised:
        align(preprocessing, make_cohort(change=update(modality, **values)))
    assert f"modalities.{modality}." in raised.value.fix


def test_another_window_is_refused(cohort, make_cohort):
    def change(records, modalities, features):
        intensity = modalities["ct"].intensity.model_copy(update={"low": -160.0, "high": 240.0})
        modalities["ct"] = modalities["ct"].model_copy(update={"intensity": intensity})

    with pytest.raises(DataError, match="intensity"):
        align(fit(cohort), make_cohort(change=change))


@pytest.mark.parametrize("stored_as", ["float32", "float16"])
def test_another_way_to_store_the_same_values_is_not_refused(cohort, make_cohort, stored_as):
    def change(records, modalities, features):
        modalities["ct"] = modalities["ct"].model_copy(update={"stored_as": stored_as})
        for record in records:
            if "ct" in record.images:
                record.images["ct"].voxels = record.images["ct"].voxels.astype(stored_as)

    aligned, again = align(fit(cohort), cohort), align(fit(cohort), make_cohort(change=change))
    row = int(np.flatnonzero(aligned.presence(ALL)[0][:, 1])[0])
    images = [torch.zeros(1, 7, 3), torch.zeros(1, 7, 3)]
    aligned.read_image("ct", row, np.array([True]), images[0])
    again.read_image("ct", row, np.array([True]), images[1])
    assert torch.equal(*images)


def test_features_are_matched_by_name_in_any_order(cohort, make_cohort):
    random = np.random.default_rng(3)
    order = random.permutation(12)

    def change(records, modalities, features):
        features["rna"] = [features["rna"][i] for i in order] + ["UNKNOWN"]
        modalities["rna"] = modalities["rna"].model_copy(update={"features": 13})
        for record in records:
            if "rna" in record.omics:
                record.omics["rna"] = np.append(record.omics["rna"][order], 99).astype(np.float32)

    expected = align(fit(cohort), cohort).read_omics("rna", ALL)
    aligned = align(fit(cohort), make_cohort(change=change))
    for mine, theirs in zip(aligned.read_omics("rna", ALL), expected, strict=True):
        assert np.array_equal(mine, theirs)
    assert aligned.overlap["rna"] == 1.0


def test_features_of_another_ensembl_version_are_matched_and_told(cohort, make_cohort):
    def versions(first, others):
        def change(records, modalities, features):
            ids = [f"ENSG{i:011d}" for i in range(12)]
            features["rna"] = [f"{name}.{first if i < 3 else others}" for i, name in enumerate(ids)]

        return make_cohort(change=change)

    trained = versions(14, 3)
    aligned = align(fit(trained), versions(15, 3))
    for mine, theirs in zip(
        aligned.read_omics("rna", ALL), align(fit(trained), trained).read_omics("rna", ALL), strict=True
    ):
        assert np.array_equal(mine, theirs)
    told = "'rna': this cohort has all 12 features that the model reads."
    assert plain(aligned.sentences()[0]) == f"{told} Matched by an Ensembl id of another version: 3 features."


def test_features_that_are_lacking_are_not_observed(cohort, make_cohort):
    def change(records, modalities, features):
        features["rna"] = [f"X{i}" if i in (2, 5, 7) else name for i, name in enumerate(features["rna"])]

    aligned = align(fit(cohort), make_cohort(change=change))
    values, observed, _ = aligned.read_omics("rna", ALL)
    expected_values, expected, _ = align(fit(cohort), cohort).read_omics("rna", ALL)
    expected[:, [2, 5, 7]] = False
    assert np.array_equal(observed, expected)
    assert np.array_equal(values, np.where(expected, expected_values, 0))
    assert aligned.overlap == {"rna": 0.75, "mut": 1.0}
    rna, mut = aligned.sentences()
    shared = "'rna': this cohort has 9 of the 12 features that the model reads (75 %); the rest count as not measured."
    assert plain(rna) == f"{shared} Not used: 3 features that the model does not know."
    assert mut == "'mut': this cohort has all 5 features that the model reads."


def test_too_small_an_overlap_is_refused(cohort, make_cohort):
    def change(records, modalities, features):
        features["rna"] = [f"ENSG{i}" if i < 7 else name for i, name in enumerate(features["rna"])]

    with pytest.raises(DataError, match=r"41.7% of the 12 features .* at least 50% .* lacking: G0, G1, G2"):
        align(fit(cohort), make_cohort(change=change))
    assert align(fit(cohort, minimum_overlap=0.4), make_cohort(change=change)).overlap["rna"] == 5 / 12


def test_channels_are_matched_by_name(cohort, make_cohort):
    def change(records, modalities, features):
        modalities["mri"] = modalities["mri"].model_copy(update={"channels": {"flair": 0, "t2": 0}})

    aligned, before = align(fit(cohort), make_cohort(change=change)), align(fit(cohort), cohort)
    present, channels = aligned.presence(ALL)
    present_before, channels_before = before.presence(ALL)
    assert not channels["mri"][:, 0].any()
    assert np.array_equal(channels["mri"][:, 1], channels_before["mri"][:, 1])
    assert np.array_equal(present[:, 0], channels["mri"].any(axis=1))
    assert present[:, 0].sum() < present_before[:, 0].sum()
    row = int(np.flatnonzero(channels["mri"][:, 1])[0])
    images = [torch.zeros(2, 6, 5, 4), torch.zeros(2, 6, 5, 4)]
    aligned.read_image("mri", row, channels["mri"][row], images[0])
    before.read_image("mri", row, np.array([False, True]), images[1])
    assert torch.equal(*images)
    assert aligned.sentences()[:2] == [
        "'mri': the model was trained without the channel 'flair', so it is not used.",
        "'mri': no scan of this cohort has 't1', so all are read from 't2' alone.",
    ]


def test_no_channel_in_common_is_refused(cohort, make_cohort):
    with pytest.raises(DataError, match="channels"):
        align(fit(cohort), make_cohort(change=update("mri", channels={"flair": 0, "t1gd": 0})))


def without(*names):
    def change(records, modalities, features):
        for name in names:
            modalities.pop(name)
            features.pop(name, None)

    return change


def test_a_modality_that_the_cohort_lacks_is_absent_for_all(cohort, make_cohort):
    aligned = align(fit(cohort), make_cohort(change=without("rna", "ct")))
    present, channels = aligned.presence(ALL)
    assert not present[:, [1, 2]].any()
    assert present[:, [0, 3]].any(axis=0).all()
    assert not channels["ct"].any()
    values, observed, _ = aligned.read_omics("rna", ALL)
    assert values.shape == observed.shape == (40, 12)
    assert not observed.any()
    assert aligned.sentences() == [
        "'ct': this cohort has none, so every patient is read without it.",
        "'rna': this cohort has none, so every patient is read without it.",
        "'mut': this cohort has all 5 features that the model reads.",
    ]


def test_a_modality_that_the_model_lacks_is_left_out(cohort):
    aligned = align(fit(cohort, modalities=["mut"]), cohort)
    assert aligned.modalities == ("mut",)
    assert aligned.sentences() == [
        "'mut': this cohort has all 5 features that the model reads.",
        *(f"'{name}': the model was trained without it, so it is not used." for name in ("mri", "ct", "rna")),
    ]


def test_what_a_run_leaves_out_on_purpose_is_not_told(cohort):
    aligned = align(fit(cohort), cohort)
    narrowed = replace(aligned, positions={"mri": aligned.positions["mri"], "mut": aligned.positions["mut"]})
    assert narrowed.sentences() == ["'mut': this cohort has all 5 features that the model reads."]
    assert narrowed.overlap == {"mut": 1.0}


def test_nothing_in_common_is_refused(cohort, make_cohort):
    with pytest.raises(DataError, match="has none of the modalities"):
        align(fit(cohort, modalities=["mut"]), make_cohort(change=without("mut")))


def test_a_modality_of_another_kind_is_refused(cohort, make_cohort):
    def change(records, modalities, features):
        modalities["ct"] = modalities["mut"]
        features["ct"] = features["mut"]

    with pytest.raises(DataError, match="kind 'omics'"):
        align(fit(cohort), make_cohort(change=change))


def test_scaled_omics_agree_with_numpy(cohort):
    preprocessing = fit(cohort, clip=1.5)
    scaling = preprocessing.modalities["rna"]
    values, observed, damaged = align(preprocessing, cohort).read_omics("rna", ALL)
    stored = cohort.values_NF("rna", ALL).astype(np.float64)
    expected = np.clip((stored - scaling.center) / scaling.scale, -1.5, 1.5)
    assert np.array_equal(observed, ~np.isnan(stored))
    np.testing.assert_allclose(values, np.where(observed, expected, 0), atol=1e-6)
    assert np.abs(values).max() == 1.5
    assert not damaged.any()


@pytest.mark.parametrize("name", ["mri", "ct"])
def test_standardised_images_agree_with_numpy(cohort, name, monkeypatch):
    monkeypatch.setattr("foundation.data.alignment.BLOCK_VOXELS", 50)
    preprocessing = fit(cohort)
    scaling, entry = preprocessing.modalities[name], cohort.image(name)
    aligned = align(preprocessing, cohort)
    _, channels = aligned.presence(ALL)
    for row in np.flatnonzero(channels[name].any(axis=1)):
        x = torch.zeros(len(entry.channels), *entry.shape)
        aligned.read_image(name, int(row), channels[name][row], x)
        for c in range(len(entry.channels)):
            if not channels[name][row, c]:
                assert not x[c].any()
                continue
            low, high = cohort.statistics_NC4(name, [row])[0, c, :2].astype(np.float64)
            if name == "ct":
                low, high = -1000.0, 400.0
            unit = np.clip((cohort.voxels(name, row)[c].astype(np.float64) - low) / (high - low), 0, 1)
            np.testing.assert_allclose(x[c], (unit - scaling.mean[c]) / scaling.std[c], atol=2e-6)


def test_an_image_of_one_value_becomes_the_lowest_intensity(cohort, make_cohort):
    def change(records, modalities, features):
        for record in records:
            if "mri" in record.images:
                record.images["mri"].voxels[:] = 5
                record.images["mri"].statistics[:] = [5, 5, 5, 0]

    preprocessing = fit(cohort)
    aligned = align(preprocessing, make_cohort(change=change))
    _, channels = aligned.presence(ALL)
    row = int(np.flatnonzero(channels["mri"].all(axis=1))[0])
    x = torch.zeros(2, 6, 5, 4)
    aligned.read_image("mri", row, channels["mri"][row], x)
    scaling = preprocessing.modalities["mri"]
    for c in range(2):
        assert torch.equal(x[c], torch.full((6, 5, 4), -scaling.mean[c] / scaling.std[c]))


def test_a_feature_in_another_unit_is_told_with_its_usual_values(cohort, make_cohort):
    preprocessing = fit(cohort)
    name = preprocessing.omics()["rna"].features[3]

    def in_another_unit(records, modalities, features):
        place = features["rna"].index(name)
        for record in records:
            if "rna" in record.omics:
                record.omics["rna"][place] = 12 * record.omics["rna"][place] + 600

    beyond = [s for s in align(preprocessing, make_cohort(change=in_another_unit)).matched() if "beyond" in s]
    assert len(beyond) == 1 and beyond[0].startswith(f"'rna': '{name}' (usually ")
    assert "lies beyond what training saw in most records: check unit and coding" in beyond[0]
    assert not any("beyond" in sentence for sentence in align(preprocessing, cohort).matched())


def test_one_strange_value_in_one_patient_is_no_other_unit(cohort, make_cohort):
    def strange(records, modalities, features):
        next(record for record in records if "rna" in record.omics).omics["rna"][3] = 1e6

    told = align(fit(cohort), make_cohort(change=strange)).matched()
    assert not any("beyond" in sentence for sentence in told)
