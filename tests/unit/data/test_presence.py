"""Who has what: one answer for the tables that count patients, for the batch, and for what the model reads."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foundation.data import presence as module
from foundation.data.alignment import align
from foundation.data.dataset import CohortDataset
from foundation.data.preprocessing import Preprocessing
from foundation.data.presence import observed_N
from foundation.data.sampler import BatchKey
from foundation.data.scaling import fit_preprocessing

ALL = np.arange(40)
GENES = 12


@pytest.fixture(scope="session")
def preprocessing(cohort) -> Preprocessing:
    return fit_preprocessing(cohort, ALL)


def knowing(preprocessing, genes, channels):
    """A model that knows some genes and some channels of the MRI."""
    rna, mri = preprocessing.modalities["rna"], preprocessing.modalities["mri"]
    picked = {key: [getattr(rna, key)[i] for i in genes] for key in ("features", "center", "scale")}
    seen = {key: [getattr(mri, key)[i] for i in channels] for key in ("channels", "mean", "std", "patients")}
    changed = {"rna": rna.model_copy(update=picked), "mri": mri.model_copy(update=seen)}
    return preprocessing.model_copy(update={"modalities": preprocessing.modalities | changed})


def batch_of(aligned, rows):
    return CohortDataset(aligned).__getitems__(BatchKey(np.asarray(rows), np.zeros(len(rows), dtype=np.int64)))


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 999),
    genes=st.lists(st.integers(0, GENES - 1), min_size=1, unique=True),
    channels=st.sampled_from([[0], [1], [0, 1], [1, 0]]),
    observed=st.lists(st.lists(st.integers(0, GENES - 1), max_size=3), min_size=14, max_size=14),
    first=st.integers(1, 5),
)
def test_the_batch_the_tables_and_the_model_agree(
    preprocessing, small, tmp_path_factory, seed, genes, channels, observed, first
):
    records = small.records(14, seed)
    for record, measured in zip(records, observed, strict=True):
        if "rna" in record.omics:
            record.omics["rna"][np.setdiff1d(np.arange(GENES), measured)] = np.nan
    cohort = small.write(tmp_path_factory.mktemp("random") / "cohort", records)
    aligned = align(knowing(preprocessing, genes, channels), cohort)
    rows = np.arange(14)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "FIRST_FEATURES", first)
        patch.setattr(module, "WIDER", 2)
        patch.setattr(module, "BLOCK_VALUES", 3 * first)
        present_BM, acquired = aligned.presence(rows)
        batch = batch_of(aligned, rows)
    assert batch.present_BM.tolist() == present_BM.tolist()
    for m, name in enumerate(aligned.modalities):
        if name in batch.observed:
            assert batch.observed[name].numpy().any(axis=1).tolist() == present_BM[:, m].tolist()
            stored = np.array([name in r.omics and r.omics[name] for r in records], dtype=object)
            known = genes if name == "rna" else slice(None)
            truth = [values is not False and bool(np.isfinite(values[known]).any()) for values in stored]
            assert present_BM[:, m].tolist() == truth
        else:
            assert np.array_equal(batch.channels[name].numpy(), acquired[name])
            known = channels if name == "mri" else slice(None)
            truth = [name in r.images and bool(r.images[name].channels[known].any()) for r in records]
            assert present_BM[:, m].tolist() == truth
            assert batch.images[name].flatten(1).any(dim=1).tolist() == truth


def test_a_row_that_holds_nothing_is_an_absent_modality(preprocessing, make_cohort):
    def change(records, modalities, features):
        for record in records:
            record.omics["rna"] = np.full(GENES, np.nan, dtype=np.float32)
            record.omics["mut"] = np.zeros(5, dtype=np.float32)

    cohort = make_cohort(change=change)
    aligned = align(preprocessing, cohort)
    assert cohort.present_NM[:, 2].all()
    present_NM, _ = aligned.presence(ALL)
    assert not present_NM[:, 2].any()
    assert present_NM[:, 3].all(), "measured zeros are observed"
    assert batch_of(aligned, ALL).present_BM.tolist() == present_NM.tolist()


def test_features_that_only_the_cohort_knows_make_nobody_present(preprocessing, make_cohort):
    """Three patients have genes that the model does not know, and no other."""

    def change(records, modalities, features):
        features["rna"] = ["NEW1", *features["rna"], "NEW2"]
        modalities["rna"] = modalities["rna"].model_copy(update={"features": GENES + 2})
        for i, record in enumerate(records):
            values = np.full(GENES, np.nan if i in (0, 5, 39) else i, dtype=np.float32)
            record.omics["rna"] = np.array([7, *values, 8], dtype=np.float32)

    aligned = align(preprocessing, make_cohort(change=change))
    present_NM, _ = aligned.presence(ALL)
    assert np.flatnonzero(~present_NM[:, 2]).tolist() == [0, 5, 39]
    assert batch_of(aligned, ALL).present_BM.tolist() == present_NM.tolist()


def test_a_channel_that_only_the_cohort_knows_makes_nobody_present(cohort, preprocessing):
    aligned = align(knowing(preprocessing, range(GENES), [1]), cohort)
    present_NM, channels = aligned.presence(ALL)
    stored = cohort.present_NM[:, 0]
    t2 = cohort.channels_NC("mri", ALL)[:, 1]
    assert (stored & ~t2).any()
    assert np.array_equal(present_NM[:, 0], stored & t2)
    assert np.array_equal(channels["mri"][:, 0], stored & t2)
    assert batch_of(aligned, ALL).present_BM.tolist() == present_NM.tolist()


def test_an_infinite_value_is_damage_not_absence(preprocessing, make_cohort):
    def change(records, modalities, features):
        records[3].omics["rna"] = np.full(GENES, np.nan, dtype=np.float32)
        records[3].omics["rna"][7] = np.inf

    aligned = align(preprocessing, make_cohort(change=change))
    assert aligned.presence(ALL)[0][3, 2]
    dataset = CohortDataset(aligned, stop_above=0.1)
    assert "infinite" in dataset.__getitems__(BatchKey(np.array([3]), np.array([0]))).quarantined["P0003"]


def test_few_features_are_read_where_they_tell(cohort, monkeypatch):
    """What was seen in the first features is not looked for in the others."""
    widths = []
    read = type(cohort).values_NF

    def counting(self, name, rows, features=slice(None)):
        widths.append((len(rows), features.stop - features.start))
        return read(self, name, rows, features)

    monkeypatch.setattr(type(cohort), "values_NF", counting)
    monkeypatch.setattr(module, "FIRST_FEATURES", 4)
    found = observed_N(cohort, "rna", ALL, np.arange(GENES))
    assert np.array_equal(found, cohort.present_NM[:, 2])
    (first, width), *others = widths
    assert (first, width) == (found.sum(), 4)
    assert sum(rows for rows, _ in others) < 0.05 * len(ALL)
