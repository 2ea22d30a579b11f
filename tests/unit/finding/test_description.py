"""Numbers of a region, against those of the voxels that it holds."""

from __future__ import annotations

import numpy as np
import pytest

from foundation.finding.description import QUANTILES, describe, features_of

SHAPE = (9, 8, 6)


@pytest.fixture
def parts():
    random = np.random.default_rng(0)
    tissue = np.zeros(SHAPE, dtype=bool)
    tissue[1:8, 1:7, 1:5] = True
    region = np.zeros(SHAPE, dtype=np.float32)
    region[2:5, 3:6, 2:4] = 1
    return region, random.standard_normal((int(tissue.sum()), 2)).astype(np.float32), tissue


def test_of_a_region_of_whole_voxels_they_are_what_numpy_says(parts):
    region, z_VC, tissue = parts
    names = features_of(["a", "b"], ["t1", "flair"], 3)
    said = dict(zip(names, describe(np.stack([region, 1 - region]), z_VC, np.array([True, True]), tissue), strict=True))
    inside = region[tissue] > 0
    for c, channel in enumerate(["t1", "flair"]):
        z_V = z_VC[inside, c]
        assert said[f"a: {channel} mean"] == pytest.approx(z_V.mean(), abs=1e-5)
        assert said[f"a: {channel} spread"] == pytest.approx(z_V.std(), abs=1e-5)
        assert said[f"a: {channel} above the rest"] == pytest.approx(z_V.mean() - z_VC[~inside, c].mean(), abs=1e-5)
        assert said[f"b: {channel} mean"] == pytest.approx(z_VC[~inside, c].mean(), abs=1e-5)
        expected = np.quantile(z_V, QUANTILES, method="inverted_cdf")
        found = [said[f"a: {channel} {100 * q:g} % quantile"] for q in QUANTILES]
        np.testing.assert_allclose(found, expected, atol=1e-6)
    places = (np.argwhere(tissue)[inside] - [1, 1, 1]) / [7, 6, 4]
    assert said["a: size"] == pytest.approx(np.log(inside.mean() + 1e-4), abs=1e-5)
    for a, axis in enumerate("xyz"):
        assert said[f"a: place on {axis}"] == pytest.approx(places[:, a].mean(), abs=1e-5)
        assert said[f"a: extent on {axis}"] == pytest.approx(places[:, a].std(), abs=1e-5)


def test_what_is_half_sure_counts_half(parts):
    region, z_VC, tissue = parts
    channels = np.array([True, True])
    once, half = (describe(np.stack([m]), z_VC, channels, tissue) for m in (region, region / 2))
    names = features_of(["a"], ["t1", "flair"], 3)
    same = [n for n, name in enumerate(names) if "above the rest" not in name and "size" not in name]
    np.testing.assert_allclose(once[same], half[same], atol=1e-5)


def test_a_channel_that_was_not_acquired_is_not_known_and_the_rest_is(parts):
    region, z_VC, tissue = parts
    names = features_of(["a"], ["t1", "flair"], 3)
    found = describe(np.stack([region]), z_VC, np.array([False, True]), tissue)
    assert [name for name, value in zip(names, found, strict=True) if np.isnan(value)] == names[:8]


def test_of_nothing_found_every_number_is_finite(parts):
    region, z_VC, tissue = parts
    assert np.isfinite(describe(np.stack([0 * region]), z_VC, np.array([True, True]), tissue)).all()
    assert np.isfinite(describe(np.stack([0 * region + 1]), z_VC, np.array([True, True]), tissue)).all()
