"""Modality dropout: rates, at least one kept, and nothing but the key decides."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from foundation.data.modality_dropout import ModalityDropout
from foundation.errors import ConfigError

NAMES = ("mri", "rna", "mut")


def drop(dropout, present, channels=None, records=None, epochs=None, seed=0):
    records = [f"p{i}" for i in range(len(present))] if records is None else records
    epochs = np.zeros(len(present), dtype=np.int64) if epochs is None else epochs
    channels = {"mri": np.ones((len(present), 3), dtype=bool)} if channels is None else channels
    return dropout.drop(present, channels, modalities=NAMES, records=records, epochs=epochs, seed=seed)


probability = st.sampled_from([0.0, 0.3, 0.8, 1.0])


@settings(deadline=None, max_examples=100)
@given(
    present=st.lists(st.tuples(*[st.booleans()] * 3), min_size=1, max_size=8),
    acquired=st.tuples(*[st.booleans()] * 3),
    default=probability,
    mri=probability,
    channels=probability,
    seed=st.integers(0, 5),
    epoch=st.integers(0, 3),
)
def test_what_stays_is_part_of_what_was_there_and_never_nothing(present, acquired, default, mri, channels, seed, epoch):
    present = np.array(present)
    there = {"mri": np.tile(np.array(acquired), (len(present), 1))}
    present[:, 0] &= any(acquired)
    dropout = ModalityDropout(default=default, modalities={"mri": mri}, channels=channels)
    epochs = np.full(len(present), epoch)
    kept, kept_channels = drop(dropout, present, there, epochs=epochs, seed=seed)
    assert not (kept & ~present).any()
    assert (kept.any(axis=1) == present.any(axis=1)).all()
    assert not (kept_channels["mri"] & ~there["mri"]).any()
    assert (kept_channels["mri"].any(axis=1) == kept[:, 0]).all()


def test_neither_order_nor_company_changes_what_is_dropped():
    random = np.random.default_rng(0)
    present = random.random((50, 3)) < 0.8
    channels = {"mri": (random.random((50, 3)) < 0.7) & present[:, [0]]}
    records = [f"p{i}" for i in range(50)]
    epochs = random.integers(0, 4, 50)
    dropout = ModalityDropout(default=0.5, channels=0.4)
    kept, kept_channels = drop(dropout, present, channels, records, epochs)
    for order in (random.permutation(50), np.arange(7), np.array([31])):
        again, again_channels = drop(
            dropout, present[order], {"mri": channels["mri"][order]}, [records[i] for i in order], epochs[order]
        )
        assert (again == kept[order]).all()
        assert (again_channels["mri"] == kept_channels["mri"][order]).all()


def test_the_global_random_state_is_neither_read_nor_changed():
    dropout, present = ModalityDropout(default=0.5, channels=0.5), np.ones((20, 3), dtype=bool)
    np.random.seed(1)
    first, _ = drop(dropout, present)
    state = np.random.get_state()[1].tolist()
    np.random.seed(2)
    second, _ = drop(dropout, present)
    assert (first == second).all()
    np.random.seed(1)
    assert np.random.get_state()[1].tolist() == state


def test_a_new_epoch_and_a_new_seed_drop_differently():
    dropout, present = ModalityDropout(default=0.5), np.ones((100, 3), dtype=bool)
    base, _ = drop(dropout, present)
    assert not (base == drop(dropout, present, seed=1)[0]).all()
    assert not (base == drop(dropout, present, epochs=np.ones(100, dtype=np.int64))[0]).all()


def expect_rate(kept, probability):
    count = len(kept)
    assert abs(kept.mean() - probability) <= 4 * np.sqrt(probability * (1 - probability) / count)


@pytest.mark.parametrize("there", [(True, True, True), (True, False, True), (False, True, False)])
def test_rates_are_those_that_are_stated(there):
    p = {"mri": 0.6, "rna": 0.3, "mut": 0.9}
    present = np.tile(np.array(there), (20000, 1))
    kept, _ = drop(ModalityDropout(modalities=p), present, {})
    names = [n for n, t in zip(NAMES, there, strict=True) if t]
    all_dropped = np.prod([p[n] for n in names])
    for name in names:
        expect_rate(kept[:, NAMES.index(name)], 1 - p[name] + all_dropped / len(names))
    # Independent of each other: only the rescue, which never keeps two, ties them together.
    if len(names) > 1:
        columns = [NAMES.index(name) for name in names]
        expect_rate(kept[:, columns].all(axis=1), np.prod([1 - p[name] for name in names]))
        first, second = columns[:2]
        expect_rate(kept[:, first] & kept[:, second], (1 - p[names[0]]) * (1 - p[names[1]]))


def test_channel_rates_are_those_that_are_stated():
    present = np.ones((20000, 3), dtype=bool)
    channels = {"mri": np.tile([True, False, True], (20000, 1))}
    _, kept = drop(ModalityDropout(channels=0.4), present, channels)
    expect_rate(kept["mri"][:, 0], 0.6 + 0.16 / 2)
    expect_rate(kept["mri"][:, 2], 0.6 + 0.16 / 2)
    expect_rate(kept["mri"][:, 0] & kept["mri"][:, 2], 0.36)


def test_without_probabilities_nothing_changes():
    present = np.array([[True, False, True]])
    kept, channels = drop(ModalityDropout(), present)
    assert (kept == present).all()
    assert channels["mri"].all()


@pytest.mark.parametrize("bad", [{"default": 1.1}, {"modalities": {"mri": -0.1}}, {"channels": 2}, {"chanels": 0.1}])
def test_what_is_no_probability_is_refused(bad):
    with pytest.raises(ValidationError):
        ModalityDropout(**bad)


def test_a_modality_that_is_not_there_is_refused_by_name():
    with pytest.raises(ConfigError, match="did you mean 'mri'"):
        ModalityDropout(modalities={"mrri": 0.1}).check(NAMES)
