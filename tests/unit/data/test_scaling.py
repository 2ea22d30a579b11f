"""What is learned from training patients, against references in pandas and NumPy."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foundation.data import scaling as module
from foundation.data.alignment import align
from foundation.data.scaling import PreprocessingConfig, fit_preprocessing
from foundation.errors import ConfigError, DataError

ROWS = np.arange(0, 40, 2)


def table(cohort, name, rows):
    """Training values as pandas sees them, in float64, records without the modality left out."""
    values = pd.DataFrame(cohort.values_NF(name, rows), columns=cohort.features[name], dtype=np.float64)
    return values[cohort.present_NM[rows, cohort.modalities.index(name)]]


def test_robust_scaling_agrees_with_pandas(cohort):
    scaling = fit_preprocessing(cohort, ROWS).modalities["rna"]
    values = table(cohort, "rna", ROWS)
    assert scaling.features == list(values.columns)
    np.testing.assert_allclose(scaling.center, values.median(), rtol=1e-12)
    np.testing.assert_allclose(scaling.scale, (values.quantile(0.75) - values.quantile(0.25)) / 1.349, rtol=1e-12)
    assert scaling.patients == len(set(cohort.patients[ROWS[~np.isnan(cohort.values_NF("rna", ROWS)).all(axis=1)]]))
    assert (scaling.unit, scaling.transform, scaling.values) == ("log2 TPM", ["log2p1"], "continuous")


def test_patients_are_those_in_whom_something_was_observed(make_cohort):
    def change(records, modalities, features):
        for i, record in enumerate(records):
            record.omics["rna"] = np.linspace(0, 1, 12).astype(np.float32) + i
            if i in (2, 6):
                record.omics["rna"][:] = np.nan  # a row that holds nothing
            elif i == 4:
                record.omics["rna"][:11] = np.nan  # only a feature that hardly anybody has
            else:
                record.omics["rna"][11] = np.nan

    cohort = make_cohort(change=change)
    everyone = fit_preprocessing(cohort, ROWS).modalities["rna"]
    assert (everyone.patients, len(everyone.features)) == (18, 12)
    # 17 of 18 observed records have the other eleven features: rows that hold nothing are not among the 18.
    vocabulary = fit_preprocessing(cohort, ROWS, PreprocessingConfig(minimum_observed=17 / 18))
    assert (vocabulary.modalities["rna"].patients, len(vocabulary.modalities["rna"].features)) == (17, 11)
    present_NM, _ = align(vocabulary, cohort).presence(ROWS)
    assert present_NM[:, 2].tolist() == [row not in (2, 4, 6) for row in ROWS]


def test_binary_values_are_not_scaled(cohort):
    scaling = fit_preprocessing(cohort, ROWS).modalities["mut"]
    assert set(scaling.center) == {0.0}
    assert set(scaling.scale) == {1.0}


def test_blocks_of_features_change_no_bit(cohort, monkeypatch):
    whole = fit_preprocessing(cohort, ROWS).to_json()
    monkeypatch.setattr(module, "BLOCK_VALUES", 50)
    assert fit_preprocessing(cohort, ROWS).to_json() == whole


def test_flat_features_fall_back_to_the_standard_deviation_and_then_to_one(make_cohort):
    def change(records, modalities, features):
        for i, record in enumerate(records):
            values = np.linspace(0, 1, 12).astype(np.float32)
            values[0] = 0.1  # never varies
            values[1] = 7.5 if i < 2 else 0.3  # quartiles coincide
            values[2] = np.nan  # never observed
            values[3] = np.nan if i % 4 else i
            record.omics["rna"] = values

    cohort = make_cohort(change=change)
    rows = np.arange(40)
    scaling = fit_preprocessing(cohort, rows).modalities["rna"]
    assert scaling.features[:3] == ["G0", "G1", "G3"]
    assert scaling.scale[0] == 1.0
    values = table(cohort, "rna", rows)
    np.testing.assert_allclose(scaling.scale[1], values["G1"].std(ddof=0), rtol=1e-12)
    np.testing.assert_allclose(scaling.center[2], values["G3"].median(), rtol=1e-12)
    assert (
        "G3" in fit_preprocessing(cohort, rows, PreprocessingConfig(minimum_observed=0.25)).modalities["rna"].features
    )
    fewer = fit_preprocessing(cohort, rows, PreprocessingConfig(minimum_observed=0.26)).modalities["rna"].features
    assert "G3" not in fewer
    assert "G1" in fewer


@pytest.mark.parametrize("name", ["mri", "ct"])
def test_intensity_statistics_agree_with_a_pass_over_all_training_voxels(cohort, name):
    entry = cohort.image(name)
    scaling = fit_preprocessing(cohort, ROWS).modalities[name]
    acquired = cohort.channels_NC(name, ROWS)
    for c in range(len(entry.channels)):
        pieces = []
        for row in ROWS[acquired[:, c]]:
            values = cohort.voxels(name, row)[c].astype(np.float64)
            low, high = (-1000, 400) if name == "ct" else np.percentile(values, [0.5, 99.5])
            pieces.append(((np.clip(values, low, high) - low) / (high - low)).ravel())
        everything = np.concatenate(pieces)
        np.testing.assert_allclose([scaling.mean[c], scaling.std[c]], [everything.mean(), everything.std()], rtol=1e-5)
        assert scaling.patients[c] == len(set(cohort.patients[ROWS[acquired[:, c]]]))


def test_an_image_of_one_value_has_no_say(make_cohort):
    def change(records, modalities, features):
        for record in records:
            record.images.pop("ct", None)
        for record in records[:10]:
            if "mri" in record.images:
                record.images["mri"].statistics[:] = [5, 5, 5, 0]

    def leave_out(records, modalities, features):
        change(records, modalities, features)
        for record in records[:10]:
            record.images.pop("mri", None)

    config = PreprocessingConfig(modalities=["mri"])
    flat = fit_preprocessing(make_cohort(change=change), range(40), config).modalities["mri"]
    none = fit_preprocessing(make_cohort(change=leave_out), range(40), config).modalities["mri"]
    assert (flat.mean, flat.std) == (none.mean, none.std)


@settings(deadline=None, max_examples=8, derandomize=True)
@given(seed=st.integers(1, 1000), rows=st.lists(st.integers(0, 39), min_size=12, max_size=30, unique=True))
def test_only_the_training_rows_have_a_say(tmp_path_factory, cohort, small, seed, rows):
    """Everything about every other record is replaced, and not one bit of the result changes."""
    ours, others = small.records(40), small.records(40, seed)
    mixed = [ours[i] if i in set(rows) else others[i] for i in range(40)]
    other = small.write(tmp_path_factory.mktemp("mixed") / "cohort", mixed)
    before = fit_preprocessing(cohort, rows).to_json()
    assert fit_preprocessing(other, rows).to_json() == before
    assert fit_preprocessing(other, rows[::-1] + rows).to_json() == before
    assert fit_preprocessing(cohort, rows[:-4]).to_json() != before


def test_modalities_can_be_chosen(cohort):
    fitted = fit_preprocessing(cohort, ROWS, PreprocessingConfig(modalities=["rna", "mri"]))
    assert list(fitted.modalities) == ["rna", "mri"]
    with pytest.raises(ConfigError, match="did you mean 'rna'"):
        fit_preprocessing(cohort, ROWS, PreprocessingConfig(modalities=["rnaa"]))


def test_what_cannot_be_fitted_is_refused(make_cohort, cohort):
    with pytest.raises(DataError, match="no training record"):
        fit_preprocessing(cohort, [])
    without = np.flatnonzero(~cohort.present_NM[:, cohort.modalities.index("ct")])
    with pytest.raises(DataError, match="no training patient has the modality 'ct'"):
        fit_preprocessing(cohort, without)

    def hide(records, modalities, features):
        for record in records:
            record.omics["rna"] = np.full(12, np.nan, dtype=np.float32)

    with pytest.raises(DataError, match="no training patient has the modality 'rna'"):
        fit_preprocessing(make_cohort(change=hide), ROWS)

    def scatter(records, modalities, features):
        for i, record in enumerate(records):
            record.omics["rna"] = np.full(12, np.nan, dtype=np.float32)
            record.omics["rna"][i % 12] = 1

    with pytest.raises(DataError, match="no feature of 'rna' is observed in 50% of the training records"):
        fit_preprocessing(make_cohort(change=scatter), ROWS, PreprocessingConfig(minimum_observed=0.5))

    def explode(records, modalities, features):
        records[4].omics["rna"] = np.full(12, np.inf, dtype=np.float32)

    with pytest.raises(DataError, match="infinite value for G0") as raised:
        fit_preprocessing(make_cohort(change=explode), ROWS)
    assert "P0004" in raised.value.where
