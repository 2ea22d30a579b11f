"""The index of small columns says what the shards say, is found damaged, and changes no answer."""

import json
import shutil

import numpy as np
import pytest

from foundation.cohort.store import PreparedCohort
from foundation.data.presence import observed_N
from foundation.errors import DataError


@pytest.fixture
def without(simulated, tmp_path):
    """The simulated cohort as an earlier version prepared it: no index."""
    folder = tmp_path / "earlier"
    shutil.copytree(simulated / "cohort", folder)
    (folder / "index.arrow").unlink()
    document = json.loads((folder / "cohort.json").read_text())
    document.pop("files")
    (folder / "cohort.json").write_text(json.dumps(document))
    return PreparedCohort(folder)


def test_the_index_says_what_the_shards_say(simulated, without):
    cohort, rows = PreparedCohort(simulated / "cohort"), np.arange(60)
    for name in ("patients", "time_points", "sites", "groups", "present_NM"):
        assert getattr(cohort, name).tolist() == getattr(without, name).tolist()
    for name in cohort.manifest.endpoints:
        for part, values in cohort.endpoint(name).items():
            np.testing.assert_array_equal(values, without.endpoint(name)[part])
    np.testing.assert_array_equal(cohort.channels_NC("mri", rows), without.channels_NC("mri", rows))
    np.testing.assert_array_equal(cohort.statistics_NC4("mri", rows), without.statistics_NC4("mri", rows))
    for name in cohort.features:
        counts = cohort.observed_counts(name, rows)
        assert counts.tolist() == (~np.isnan(cohort.values_NF(name, rows))).sum(axis=1).tolist()
        assert without.observed_counts(name, rows) is None


def test_presence_is_the_same_with_counts_and_without(simulated, without):
    cohort, rows = PreparedCohort(simulated / "cohort"), np.arange(60)
    for name, names in cohort.features.items():
        for features in (np.arange(len(names)), np.arange(0, len(names), 3), np.array([1]), np.array([], dtype=int)):
            np.testing.assert_array_equal(
                observed_N(cohort, name, rows, features), observed_N(without, name, rows, features)
            )


def test_opening_reads_no_shard(simulated, monkeypatch):
    def refuse(*arguments):
        raise AssertionError("a shard was opened")

    monkeypatch.setattr("foundation.cohort.open_shards.OpenShard.__init__", refuse)
    cohort = PreparedCohort(simulated / "cohort")
    assert cohort.present_NM.any()
    assert observed_N(cohort, "rna", np.arange(60), np.arange(600)).any()


@pytest.mark.parametrize("harm", ["cut", "remove", "swap"])
def test_a_damaged_index_is_refused(simulated, tmp_path, harm):
    shutil.copytree(simulated / "cohort", tmp_path / "cohort")
    path = tmp_path / "cohort" / "index.arrow"
    if harm == "cut":
        path.write_bytes(path.read_bytes()[:500])
    elif harm == "remove":
        path.unlink()
    else:
        path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(DataError, match=r"index\.arrow: "):
        PreparedCohort(tmp_path / "cohort")
