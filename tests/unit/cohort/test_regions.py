"""Regions onto the stored grid: as their image in every step, nearest neighbour, losses in numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

from foundation.cohort.annotations.base import Drawing, Grid
from foundation.cohort.imaging import standardise
from foundation.cohort.regions import annotate
from foundation.cohort.sources.base import Volume
from tests.unit.cohort.test_imaging import modality, turned

SHAPE = (9, 8, 7)


def blobs(seed: int, shape=SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).random(shape) < 0.3


def both(mask: np.ndarray, affine: np.ndarray, size, **more):
    """An image that is its own mask, and the mask, both as stored."""
    volume = Volume(mask.astype(np.uint8), affine)
    image = standardise({"t1": volume}, modality(size, stored_as="float32", background=0, **more))
    return image, annotate([Drawing(Grid.of(volume), {"r": mask.reshape(Grid.of(volume).shape)})], ["r"], image)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR", "SLA"])
@pytest.mark.parametrize(
    "more",
    [
        {"size": [9, 8, 7]},
        {"size": [12, 5, 7]},
        {"size": [6, 13, 4], "orientation": "native"},
        {"size": [5, 5, 5], "crop_foreground": True, "foreground_above": 0.5},
        {"size": [5, 9, 8], "spacing": "untrue"},
    ],
)
def test_where_nothing_is_resampled_an_image_stays_its_own_mask(codes, more):
    stored, affine = turned(blobs(1), np.array([[1.0, 0, 0, 5], [0, 2, 0, -3], [0, 0, 3, 8], [0, 0, 0, 1]]), codes)
    image, annotation = both(stored, affine, **more)
    np.testing.assert_array_equal(annotation.regions[0], image.voxels[0] > 0.5)
    assert 0 < annotation.kept[0] <= 1


@settings(max_examples=40)
@given(
    seed=st.integers(0, 99),
    spacing=st.tuples(*[st.floats(0.6, 3.1)] * 3),
    size=st.tuples(*[st.integers(3, 14)] * 3),
    codes=st.sampled_from(["RAS", "LPS", "ASR"]),
)
def test_each_stored_voxel_takes_the_source_voxel_nearest_in_space(seed, spacing, size, codes):
    stored, affine = turned(blobs(seed), np.diag([1.0, 1.3, 2.0, 1.0]), codes)
    image, annotation = both(stored, affine, list(size), spacing=spacing)
    world = np.einsum("ij,j...->i...", image.affine, np.stack([*np.indices(size), np.ones(size)]))
    places = np.einsum("ij,j...->i...", np.linalg.inv(affine), world)[:3]
    reach = np.maximum(1, np.abs(np.linalg.solve(affine, image.affine))[:3, :3].max(axis=1)) / 2
    limit = np.array(stored.shape) - 1
    # Ties and edges are another test's: places within a hundredth of a boundary are left out.
    away = (np.abs(places - np.floor(places) - 0.5) > 0.02).all(axis=0)
    for axis in range(3):
        for edge in (-reach[axis], limit[axis] + reach[axis]):
            away &= np.abs(places[axis] - edge) > 0.02
    inside = np.logical_and.reduce([(places[a] > -reach[a]) & (places[a] < limit[a] + reach[a]) for a in range(3)])
    for axis, part in enumerate(image.inside):
        at = np.arange(size[axis])
        unpadded = (at >= part.start) & (at < part.stop)
        inside &= np.moveaxis(np.broadcast_to(unpadded, (*np.delete(size, axis), size[axis])), -1, axis)
    expected = map_coordinates(stored.astype(np.uint8), np.rint(places), order=0, mode="nearest").astype(bool) & inside
    np.testing.assert_array_equal(annotation.regions[0][away], expected[away])


def test_what_a_tilted_scan_does_not_cover_has_no_region():
    tilted = np.array([[1.0, 0, 0, 0], [0, 1, 0.4, 0], [0, 0, 2, 0], [0, 0, 0, 1]])
    image, annotation = both(np.ones((20, 20, 12), dtype=bool), tilted, [20, 25, 12])
    uncovered = image.voxels[0] == 0
    assert uncovered.any() and not annotation.regions[0][uncovered].all()
    assert annotation.regions[0].sum() == pytest.approx(20 * 20 * 12, rel=0.05)


def test_a_tilted_scan_takes_its_mask_along():
    mask = np.zeros((20, 20, 12), dtype=bool)
    mask[6:14, 5:15, 3:9] = True
    tilted = np.array([[1.0, 0, 0, 0], [0, 1, 0.4, 0], [0, 0, 2, 0], [0, 0, 0, 1]])
    image, annotation = both(mask, tilted, [24, 26, 12])
    assert image.remarks
    np.testing.assert_array_equal(annotation.regions[0][image.voxels[0] > 0.99], True)
    np.testing.assert_array_equal(annotation.regions[0][image.voxels[0] < 0.01], False)
    assert annotation.regions[0].sum() == pytest.approx(mask.sum(), rel=0.05)


@pytest.mark.parametrize("codes", ["RAS", "LPS"])
def test_a_flat_image_takes_its_mask_along(codes):
    mask = blobs(4, (9, 8))
    stored, affine = turned(mask[:, :, None], np.diag([1.0, 1, 1, 1]), codes)
    image, annotation = both(stored, affine, [12, 6])
    assert annotation.regions.shape == (1, 12, 6)
    np.testing.assert_array_equal(annotation.regions[0], image.voxels[0] > 0.5)
    stretched, annotation = both(stored, affine, [18, 16], stretch=["x", "y"])
    np.testing.assert_array_equal(annotation.regions[0], np.kron(mask, np.ones((2, 2))))
    assert stretched.voxels.shape == (1, 18, 16)


def test_of_two_source_voxels_equally_near_the_lower_counts_everywhere():
    mask = np.zeros((4, 4, 64), dtype=bool)
    mask[:, :, ::2] = True
    _, annotation = both(mask, np.diag([1.0001, 0.9999, 1.00003, 1]), [4, 4, 32], stretch=["z"], spacing="untrue")
    assert annotation.regions.all()


def test_what_the_crop_takes_is_told_in_numbers():
    mask = np.zeros((20, 20, 20), dtype=bool)
    mask[2:8, 9:11, 9:11] = True
    far = np.zeros_like(mask)
    far[0, 0, 0] = True
    volume = Volume(np.ones(mask.shape, np.uint8))
    image = standardise({"t1": volume}, modality([10, 10, 10], stored_as="uint8"))
    regions = {"cut": mask, "lost": far, "none": np.zeros_like(mask), "whole": np.ones_like(mask)}
    annotation = annotate([Drawing(Grid.of(volume), regions)], [*regions, "unasked"], image)
    np.testing.assert_allclose(annotation.kept, [0.5, 0, np.nan, 1 / 8, np.nan])
    assert annotation.annotated.tolist() == [True, True, True, True, False]
    assert annotation.regions.reshape(5, -1).sum(axis=1).tolist() == [12, 0, 0, 1000, 0]


def test_a_region_that_falls_between_the_voxels_of_a_coarser_grid_is_lost():
    mask = np.zeros((20, 20, 20), dtype=bool)
    mask[10, 11, 12] = True
    image, annotation = both(mask, np.eye(4), [5, 5, 5], spacing=(4, 4, 4))
    assert image.voxels.max() < 0.1
    assert annotation.kept.tolist() == [0] and not annotation.regions.any()


def test_a_mask_on_the_grid_of_another_channel_lies_where_that_channel_does():
    fine = np.zeros((12, 12, 12), dtype=bool)
    fine[4:8, 2:6, 6:10] = True
    coarse = fine[::2, ::2, ::2]
    volumes = {
        "t1": Volume(fine.astype(np.uint8)),
        "t2": Volume(coarse.astype(np.uint8), np.array([[2, 0, 0, 0.5], [0, 2, 0, 0.5], [0, 0, 2, 0.5], [0, 0, 0, 1]])),
    }
    image = standardise(volumes, modality([12, 12, 12], ["t1", "t2"], background=0))
    annotation = annotate([Drawing(Grid.of(volumes["t2"]), {"r": coarse})], ["r"], image)
    np.testing.assert_array_equal(annotation.regions[0], fine)
