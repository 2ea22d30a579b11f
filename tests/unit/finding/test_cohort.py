"""A cohort that has what is found in its images as one more modality, and all else as it was."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from foundation.errors import ConfigError
from foundation.finding.cohort import FoundCohort


@pytest.fixture
def found(drawn, finder):
    return FoundCohort(drawn, {"tumour": finder})


def test_it_has_one_more_modality_where_there_is_an_image(found, drawn, finder, scanned, described):
    assert found.modalities == [*drawn.modalities, "found_tumour"]
    np.testing.assert_array_equal(found.present_NM[:, :-1], drawn.present_NM)
    np.testing.assert_array_equal(found.present_NM[:, -1], drawn.present_NM[:, drawn.modalities.index("mri")])
    assert found.features["found_tumour"] == finder.features
    np.testing.assert_array_equal(found.values_NF("found_tumour", scanned), described)
    np.testing.assert_array_equal(found.values_NF("found_tumour", scanned[:3], slice(2, 5)), described[:3, 2:5])
    np.testing.assert_array_equal(found.values_NF("rna", scanned), drawn.values_NF("rna", scanned))
    assert drawn.modalities == [*found.modalities][:-1], "the cohort itself was changed"


def test_each_image_is_read_once(found, scanned, monkeypatch, finder):
    asked, whole = [], type(finder).described

    def told(self, cohort, rows, progress=None):
        asked.extend(rows.tolist())
        return whole(self, cohort, rows, progress)

    monkeypatch.setattr(type(finder), "described", told)
    found.values_NF("found_tumour", scanned[:4])
    found.values_NF("found_tumour", scanned[2:6])
    assert asked == scanned[:6].tolist()


def test_it_is_the_same_in_another_process(found, scanned):
    again = pickle.loads(pickle.dumps(found))
    np.testing.assert_array_equal(
        again.values_NF("found_tumour", scanned[:2]), found.values_NF("found_tumour", scanned[:2])
    )


def test_before_it_is_learned_it_says_what_there_will_be(drawn, finder, scanned):
    later = FoundCohort(drawn, {"tumour": None})
    assert later.features["found_tumour"] == finder.features
    assert later.observed_counts("found_tumour", scanned).tolist() == [len(finder.features)] * len(scanned)
    with pytest.raises(AssertionError, match="not yet learned"):
        later.values_NF("found_tumour", scanned)


def test_a_name_that_is_taken_is_refused(drawn, finder):
    drawn = FoundCohort(drawn, {"tumour": finder})
    with pytest.raises(ConfigError, match="a modality is called 'found_tumour'"):
        FoundCohort(drawn, {"tumour": finder})
