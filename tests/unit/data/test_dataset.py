"""Batches: consistent, the same for any worker or company, and without damaged records."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from foundation.data.alignment import Aligned, align
from foundation.data.augment import Augmentation
from foundation.data.dataset import CohortDataset, whole
from foundation.data.modality_dropout import ModalityDropout
from foundation.data.sampler import BatchKey, OnePass, PatientOrder
from foundation.data.scaling import fit_preprocessing
from foundation.errors import ConfigError, DataError

DROPOUT = ModalityDropout(default=0.4, modalities={"mri": 0.7}, channels=0.5)
AUGMENTATION = Augmentation(translate=1)
TRAINING = np.arange(0, 40, 2)


@pytest.fixture(scope="session")
def aligned(cohort) -> Aligned:
    return align(fit_preprocessing(cohort, TRAINING), cohort)


def key(rows, epoch=0):
    return BatchKey(np.array(rows, dtype=np.int64), np.full(len(rows), epoch, dtype=np.int64))


def leaves(batch):
    """Every tensor and list of a batch by name, nested dictionaries flattened."""
    for field in (field for field in dataclasses.fields(batch) if field.name != "host"):
        waiting = [(field.name, getattr(batch, field.name))]
        while waiting:
            name, value = waiting.pop()
            if isinstance(value, dict) and field.name != "quarantined":
                waiting += [(f"{name}/{k}", v) for k, v in value.items()]
            else:
                yield name, value


def assert_same(first, second, rows=slice(None)):
    """`second` is `first`, or the part of it at `rows`, to the bit."""
    ours, theirs = dict(leaves(first)), dict(leaves(second))
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(torch.nan_to_num(value[rows], nan=-99.5), torch.nan_to_num(theirs[name], nan=-99.5)), (
                name
            )
        elif name not in ("modalities", "quarantined"):
            assert np.array(value, dtype=object)[rows].tolist() == theirs[name], name


@settings(deadline=None, max_examples=40)
@given(
    rows=st.lists(st.integers(0, 39), max_size=7),
    epoch=st.integers(0, 50),
    dropped=st.booleans(),
    augmented=st.booleans(),
)
def test_what_is_absent_is_zero_everywhere(aligned, rows, epoch, dropped, augmented):
    dataset = CohortDataset(
        aligned, dropout=DROPOUT if dropped else None, augmentation=AUGMENTATION if augmented else None
    )
    batch = dataset.__getitems__(key(rows, epoch))
    assert len(batch) == len(rows)
    assert batch.present_BM.shape == (len(rows), 4)
    for m, name in enumerate(batch.modalities):
        present = batch.present_BM[:, m]
        if name in batch.images:
            x, channels = batch.images[name], batch.channels[name]
            assert x.dtype == torch.float32
            assert torch.equal(channels.any(dim=1), present)
            assert not x[~channels].any()
            assert x[channels].flatten(1).any(dim=1).all()
            assert torch.isfinite(x).all()
        else:
            x, observed = batch.omics[name], batch.observed[name]
            assert x.dtype == torch.float32
            assert torch.equal(observed.any(dim=1), present)
            assert not x[~observed].any()
            assert torch.isfinite(x).all()


def test_absent_not_measured_and_measured_zero_are_three_things(cohort, aligned):
    batch = CohortDataset(aligned).__getitems__(key(range(40)))
    stored = cohort.values_NF("mut", range(40))
    assert np.array_equal(batch.observed["mut"].numpy(), ~np.isnan(stored))
    measured_zero = (stored == 0) & batch.observed["mut"].numpy()
    assert measured_zero.any()
    assert not batch.present_BM[:, 3].all()
    rna = batch.observed["rna"][batch.present_BM[:, 2]]
    assert rna.any()
    assert not rna.all()


def test_a_modality_with_nothing_measured_is_absent_and_never_the_one_that_is_kept(aligned, make_cohort):
    def harm(record):
        record.omics["rna"] = np.full(12, np.nan, dtype=np.float32)
        record.omics["mut"] = np.ones(5, dtype=np.float32)
        record.images.clear()

    other = align(aligned.preprocessing, damaged_cohort(make_cohort, range(40), harm))
    batch = CohortDataset(other, dropout=ModalityDropout(default=1)).__getitems__(key(range(40)))
    assert batch.present_BM.tolist() == [[False, False, False, True]] * 40


def test_who_and_what_became_of_them(cohort, aligned):
    rows = [3, 7, 6, 38]
    batch = CohortDataset(aligned).__getitems__(key(rows))
    assert batch.patients == ["P0003", "P0006", "P0006", "P0038"]
    assert batch.records == ["P0003", "P0006/2", "P0006/1", "P0038/1"]
    assert batch.sites == cohort.sites[rows].tolist()
    assert batch.groups == [""] * 4
    assert batch.rows.tolist() == rows
    for name, parts in batch.endpoints.items():
        for part, values in parts.items():
            expected = cohort.endpoint(name)[part][rows]
            np.testing.assert_array_equal(values.numpy(), expected.astype(values.numpy().dtype))
    assert batch.endpoints["subtype"]["code"].dtype == torch.int64
    assert batch.endpoints["os"]["time"].dtype == torch.float32
    everyone = CohortDataset(aligned).__getitems__(key(range(40))).endpoints
    assert (everyone["subtype"]["code"] == -1).any()
    assert torch.isnan(everyone["os"]["event"]).any()


@settings(deadline=None, max_examples=20)
@given(data=st.data(), epoch=st.integers(0, 5))
def test_company_changes_no_bit_of_a_record(aligned, data, epoch):
    dataset = CohortDataset(aligned, dropout=DROPOUT, augmentation=AUGMENTATION, seed=3)
    rows = data.draw(st.lists(st.integers(0, 39), min_size=1, max_size=8, unique=True))
    part = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=4))
    everyone = dataset.__getitems__(key(rows, epoch))
    assert_same(everyone, dataset.__getitems__(key([rows[i] for i in part], epoch)), part)


def batches(aligned, workers, world_size, rank, count=6):
    """Batches from a real loader, as a training run would ask for them."""
    dataset = CohortDataset(aligned, TRAINING, dropout=DROPOUT, augmentation=AUGMENTATION, seed=1)
    order = PatientOrder(TRAINING, 8, seed=1, rank=rank, world_size=world_size)
    loader = DataLoader(dataset, batch_sampler=order, collate_fn=whole, num_workers=workers)
    return list(itertools.islice(loader, count))


@pytest.fixture(scope="session")
def single(aligned):
    return batches(aligned, workers=0, world_size=1, rank=0)


@pytest.mark.parametrize(("workers", "world_size"), [(0, 2), (0, 4), (2, 1), (2, 2)])
def test_workers_and_ranks_change_neither_order_nor_content(aligned, single, workers, world_size):
    share = 8 // world_size
    for rank in range(world_size):
        for whole_batch, piece in zip(single, batches(aligned, workers, world_size, rank), strict=True):
            assert_same(whole_batch, piece, slice(rank * share, (rank + 1) * share))
    assert len({epoch for batch in single for epoch in batch.epochs.tolist()}) > 1


def test_images_in_huge_pages_come_through_workers_whole(aligned, single, monkeypatch):
    monkeypatch.setattr("foundation.data.memory.HUGE_PAGE", 1)
    for whole_batch, again in zip(single, batches(aligned, workers=2, world_size=1, rank=0), strict=True):
        assert_same(whole_batch, again)


def test_lasting_workers_know_the_epoch(aligned):
    dataset = CohortDataset(aligned, dropout=DROPOUT, seed=1)
    order = PatientOrder(range(40), 20, seed=1, batches=2)
    loader = DataLoader(dataset, batch_sampler=order, collate_fn=whole, num_workers=1, persistent_workers=True)
    first = list(loader)
    order.samples_seen = 40
    second = list(loader)
    presence = []
    for epoch, pass_ in enumerate((first, second)):
        assert {e for batch in pass_ for e in batch.epochs.tolist()} == {epoch}
        by_row = {r: p for b in pass_ for r, p in zip(b.rows.tolist(), b.present_BM.tolist(), strict=True)}
        presence.append([by_row[r] for r in range(40)])
    assert presence[0] != presence[1]


def test_a_pass_for_evaluation_hides_nothing(cohort, aligned):
    dataset = CohortDataset(aligned)
    loader = DataLoader(dataset, batch_sampler=OnePass(range(40), 16), collate_fn=whole)
    present = torch.cat([batch.present_BM for batch in loader])
    assert np.array_equal(present.numpy(), cohort.present_NM)


def test_dropped_images_are_not_read(aligned, monkeypatch):
    read = []
    monkeypatch.setattr(Aligned, "read_image", lambda self, name, *rest: read.append(name))
    CohortDataset(aligned, dropout=ModalityDropout(modalities={"mri": 1})).__getitems__(key(range(40)))
    with_mri_only = aligned.presence(np.arange(40))[0]
    only = (with_mri_only == [True, False, False, False]).all(axis=1).sum()
    assert read.count("mri") == only


def test_a_batch_moves_as_a_whole(aligned):
    batch = CohortDataset(aligned).__getitems__(key([0, 1]))
    moved = batch.to("meta")
    assert {v.device.type for _, v in leaves(moved) if isinstance(v, torch.Tensor)} == {"meta"}
    assert moved.records == batch.records
    assert {v.device.type for _, v in leaves(batch) if isinstance(v, torch.Tensor)} == {"cpu"}


def damaged_cohort(make_cohort, rows, harm):
    return make_cohort(change=lambda records, modalities, features: [harm(records[row]) for row in rows])


def spoil_voxel(value):
    def harm(record):
        record.images["mri"].voxels[np.flatnonzero(record.images["mri"].channels)[-1], 1, 2, 3] = value

    return harm


def cut_voxels(record):
    record.images["mri"].voxels = record.images["mri"].voxels[:, :-1]


def spoil_statistics(record):
    record.images["mri"].statistics[:] = np.nan


def spoil_rna(record):
    record.omics["rna"][3] = np.inf


HARMS = {
    "nan voxel": (spoil_voxel(np.nan), "not finite"),
    "infinite voxel": (spoil_voxel(np.inf), "not finite"),
    "cut voxels": (cut_voxels, "bytes instead of 960"),
    "statistics": (spoil_statistics, "not finite"),
    "infinite gene": (spoil_rna, "infinite value"),
}


@pytest.mark.parametrize("kind", HARMS)
@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_a_damaged_record_is_replaced_by_the_next_good_one(cohort, aligned, make_cohort, kind):
    harm, reason = HARMS[kind]
    has_both = np.flatnonzero(cohort.present_NM[:, 0] & cohort.present_NM[:, 2])
    bad = [int(r) for r in has_both if r in TRAINING][:1]
    bad.append(int(TRAINING[np.searchsorted(TRAINING, bad[0]) + 1]))  # the one after it, where it can be harmed
    bad = [r for r in bad if r in has_both]
    other = align(aligned.preprocessing, damaged_cohort(make_cohort, bad, harm))
    dataset = CohortDataset(other, TRAINING, stop_above=0.2)
    last = int(TRAINING[np.searchsorted(TRAINING, bad[-1]) + 1])
    batch = dataset.__getitems__(key([bad[0], 1, bad[-1]]))
    assert batch.rows.tolist() == [last, 1, last]
    assert_same(CohortDataset(aligned).__getitems__(key([last, 1, last])), batch)
    names = CohortDataset(aligned).__getitems__(key(bad)).records
    assert sorted(batch.quarantined) == sorted(dataset.quarantined) == sorted(names)
    assert all(reason in text for text in batch.quarantined.values())
    assert not dataset.__getitems__(key([1])).quarantined


def test_the_last_row_is_replaced_by_the_first(cohort, aligned, make_cohort):
    rows = np.flatnonzero(cohort.present_NM[:, 0])[-3:]
    other = align(aligned.preprocessing, damaged_cohort(make_cohort, rows[-1:], cut_voxels))
    batch = CohortDataset(other, rows, stop_above=0.5).__getitems__(key(rows[-1:]))
    assert batch.rows.tolist() == [rows[0]]


def test_too_many_damaged_records_stop_the_run(cohort, aligned, make_cohort):
    rows = np.flatnonzero(cohort.present_NM[:, 0])[:10]
    other = align(aligned.preprocessing, damaged_cohort(make_cohort, rows[:2], spoil_voxel(np.nan)))
    CohortDataset(other, rows, stop_above=0.2).__getitems__(key(rows))
    with pytest.raises(DataError, match=r"2 of 10 records are damaged, more than 15.0%; P\d+.*not finite"):
        CohortDataset(other, rows, stop_above=0.15).__getitems__(key(rows))
    everything = align(aligned.preprocessing, damaged_cohort(make_cohort, rows, cut_voxels))
    with pytest.raises(DataError, match="10 of 10"):
        CohortDataset(everything, rows, stop_above=0.99).__getitems__(key(rows[:1]))


def test_the_main_process_counts_what_its_workers_find(cohort, aligned, make_cohort):
    rows = np.flatnonzero(cohort.present_NM[:, 0])[:10]
    other = align(aligned.preprocessing, damaged_cohort(make_cohort, rows[[0, 5]], cut_voxels))
    dataset = CohortDataset(other, rows, stop_above=0.15)
    loader = DataLoader(dataset, batch_sampler=OnePass(rows, 1), collate_fn=whole, num_workers=2)
    found = [batch.quarantined for batch in loader]
    dataset.note(found[0])
    with pytest.raises(DataError, match="2 of 10"):
        dataset.note(found[5])


def test_dropout_of_an_unknown_modality_is_refused(aligned):
    with pytest.raises(ConfigError, match="did you mean 'mri'"):
        CohortDataset(aligned, dropout=ModalityDropout(modalities={"mrj": 0.5}))
