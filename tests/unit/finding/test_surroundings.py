"""What surrounds a voxel, against sums written out, and what must not be in it."""

from __future__ import annotations

import numpy as np
import pytest

from foundation.finding import surroundings as module
from foundation.finding.surroundings import SCALES, count, surroundings

WIDTH = [1.0, 1.0, 0.5]


@pytest.fixture
def image():
    """Two channels, of which tissue is a box of random intensities."""
    random = np.random.default_rng(0)
    x_CXYZ = np.zeros((2, 14, 12, 8), dtype=np.float32)
    x_CXYZ[:, 2:12, 2:10, 1:7] = random.uniform(0.2, 1, (2, 10, 8, 6))
    return x_CXYZ


def gaussian(size, middle, scale):
    """[size] weights of a Gaussian cut off at three standard deviations, of which all add up to 1."""
    reach = int(3 * scale + 0.5)
    steps = np.arange(-reach, reach + 1)
    weights = np.exp(-(steps**2) / (2 * scale**2))
    found = np.zeros(size)
    for step, weight in zip(steps, weights / weights.sum(), strict=True):
        if 0 <= middle + step < size:
            found[middle + step] += weight
    return found


def test_means_are_those_of_the_tissue_around(image):
    found = surroundings(image, np.array([True, True]), WIDTH, [])
    tissue = found.tissue_XYZ
    assert tissue[3:11, 3:9, 2:6].all() and not tissue[(image == 0).all(axis=0)].any()
    at = (5, 5, 3)
    row = np.flatnonzero((np.argwhere(tissue) == at).all(axis=1))[0]
    x_XYZ = image[0].astype(np.float64)
    z_XYZ = np.where(tissue, (x_XYZ - np.median(x_XYZ[tissue])) / x_XYZ[tissue].std(), 0)
    assert found.x_VF[row, 0] == pytest.approx(z_XYZ[at], abs=1e-4)
    for place, scale in enumerate(SCALES, start=1):
        axes = [gaussian(n, m, scale * w) for n, m, w in zip(x_XYZ.shape, at, WIDTH, strict=True)]
        weight_XYZ = np.einsum("x,y,z->xyz", *axes)
        mean = (weight_XYZ * z_XYZ).sum() / ((weight_XYZ * tissue).sum() + 1e-3)
        assert found.x_VF[row, place] == pytest.approx(mean, abs=2e-3), scale


@pytest.mark.parametrize("axes", [2, 3])
def test_there_are_as_many_numbers_as_are_counted_and_a_channel_that_is_absent_is_nothing(image, axes):
    x_CXYZ = image if axes == 3 else image[..., 3]
    found = surroundings(x_CXYZ, np.array([True, False]), WIDTH[:axes], [0])
    assert found.x_VF.shape == (found.tissue_XYZ.sum(), count(2, axes, [0]))
    per_channel = count(1, 0, [0]) - 1
    assert not found.x_VF[:, per_channel : 2 * per_channel].any() and (found.x_VF[:, per_channel - 1] == 1).all()
    other = x_CXYZ.copy()
    other[1] = np.random.default_rng(1).uniform(0, 1, other[1].shape)
    again = surroundings(other, np.array([True, False]), WIDTH[:axes], [0])
    np.testing.assert_array_equal(found.x_VF, again.x_VF)


def test_a_symmetric_image_has_no_other_side(image):
    image[:, 7:] = np.flip(image, axis=1)[:, 7:]
    columns = surroundings(image, np.array([True, True]), WIDTH, [0]).x_VF
    per_channel = count(1, 0, [0]) - 1
    sides = columns[:, [per_channel - 2, 2 * per_channel - 2]]
    assert np.abs(sides).max() < 1e-5
    image[0, 2:5, 3:6, 2:5] += 2
    assert np.abs(surroundings(image, np.array([True, True]), WIDTH, [0]).x_VF[:, per_channel - 2]).max() > 0.1


def test_brightness_and_contrast_of_a_scanner_change_nothing(image):
    brighter = np.where(image > 0, 0.3 + 0.5 * image, 0).astype(np.float32)
    both = [surroundings(x, np.array([True, True]), WIDTH, [0]).x_VF for x in (image, brighter)]
    np.testing.assert_allclose(*both, atol=1e-3)


def test_an_image_of_nothing_has_no_tissue():
    found = surroundings(np.zeros((1, 6, 6, 4), np.float32), np.array([True]), WIDTH, [0])
    assert not found.tissue_XYZ.any() and found.x_VF.shape == (0, count(1, 3, [0]))


def test_what_tissue_encloses_slice_by_slice_is_tissue(image):
    image[:, 6, 6, :] = 0
    assert module._tissue(image)[6, 6, 3] and not module._tissue(image)[6, 6, 0]
