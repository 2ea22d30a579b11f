"""The section on annotations: counts of each region, and outlines where the regions are."""

from __future__ import annotations

import io

import numpy as np
import PIL.Image

from foundation.cohort.manifest import ImageEntry
from foundation.cohort.summary.sections.slices import outlined
from foundation.modality import Percentile
from foundation.report.drawing import ORANGE
from tests.unit.cohort.annotations.conftest import SHAPE, save
from tests.unit.cohort.annotations.test_label_maps import SOURCE, labels
from tests.unit.cohort.summary.test_page import Reader


def image(shape, **more):
    given = {"spacing": (1.0, 1.0, 1.0), "intensity": Percentile(rule="percentile"), "stored_as": "uint8", "mirror": []}
    return ImageEntry(patients=1, shape=list(shape), channels={"t1": 1}, **given | more)


def drawn(voxels, regions, entry):
    picture = outlined(voxels, regions, entry, 0, 200, [ORANGE], "alt").picture
    assert picture is not None
    return np.asarray(PIL.Image.open(io.BytesIO(picture.data)).convert("RGB")).astype(int)


def coloured(pixels):
    """Bounds of what is in colour: rows from and to, columns from and to."""
    rows, columns = np.nonzero(pixels.max(axis=2) - pixels.min(axis=2) > 80)
    return rows.min(), rows.max(), columns.min(), columns.max()


def test_the_outline_goes_around_the_region_on_the_slice_that_has_most_of_it():
    voxels = np.full((96, 96, 4), 50, dtype=np.uint8)
    regions = np.zeros((1, 96, 96, 4), dtype=bool)
    regions[0, 10:40, 60:80, 2] = True
    regions[0, :2, :2, 3] = True
    pixels = drawn(voxels, regions, image(voxels.shape))
    # Radiological display, two pixels a voxel: x and y run from the right and from the bottom.
    np.testing.assert_allclose(coloured(pixels), (192 - 160, 192 - 121, 192 - 80, 192 - 21), atol=1)
    assert abs(pixels[52, 142] - pixels[5, 5]).max() < 5


def test_a_flat_image_is_drawn_as_it_lies():
    voxels = np.full((96, 96), 50, dtype=np.uint8)
    regions = np.zeros((1, 96, 96), dtype=bool)
    regions[0, 10:40, 60:80] = True
    pixels = drawn(voxels, regions, image(voxels.shape, orientation="native", spacing="native"))
    np.testing.assert_allclose(coloured(pixels), (120, 159, 20, 79), atol=1)


def test_the_page_counts_regions_and_names_nobody(tmp_path, images, prepared):
    save(tmp_path / "P1" / "mask.nii.gz", labels(1, 2))
    save(tmp_path / "P2" / "mask.nii.gz", labels(1))
    prepared(
        {"tumour": {"image": "mri", "source": SOURCE, "regions": {"core": 1, "rim": 2}}}, size=[SHAPE[0], 5, SHAPE[2]]
    )
    page = Reader((tmp_path / "out" / "summary.html").read_text())
    assert page.table("region")[1:] == [["core", "2", "2", "2", "0", "0.5"], ["rim", "2", "1", "1", "0", "0.667"]]
    assert sum("tumour of patient" in alt for alt, _ in page.images) == 2
    named = [page.text, *(alt for alt, _ in page.images)]
    assert not any(name in text for text in named for name in ("P1", "P2", "P3"))
