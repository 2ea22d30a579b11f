"""Boxes in a table: which voxels they hold, several of an image, none, and what is no box."""

from __future__ import annotations

import numpy as np
import pytest

from foundation.errors import ConfigError, DataError
from tests.unit.cohort.annotations.conftest import SHAPE

HIGH = ["x1", "y1", "z1"]
LOW = ["x0", "y0", "z0"]
CORNERS = {"format": "boxes", "files": "boxes.csv", "low": LOW, "high": HIGH, "units": "voxels"}


def write(tmp_path, *rows: str, header: str = "patient,x0,y0,z0,x1,y1,z1") -> None:
    (tmp_path / "boxes.csv").write_text("\n".join([header, *rows]) + "\n")


def recipe(source: dict, regions=("lesion",)) -> dict:
    return {"tumour": {"image": "mri", "source": source, "regions": list(regions)}}


def as_drawn(cohort, row: int, region: int = 0) -> np.ndarray:
    """A region in the order of the source's axes."""
    return np.flip(cohort.annotation("tumour", row).regions[region], (0, 1))


def test_a_box_holds_the_voxels_whose_middle_is_inside(tmp_path, images, prepared):
    write(tmp_path, "P1,1,2,3,4,5,6", "P2,1.4,2.6,3,3.5,5.4,5", "P3,0,0,0,10,9,6")
    cohort = prepared(recipe(CORNERS))
    middles = [np.arange(length) + 0.5 for length in SHAPE]
    for row, (low, high) in enumerate([((1, 2, 3), (4, 5, 6)), ((1.4, 2.6, 3), (3.5, 5.4, 5)), ((0, 0, 0), SHAPE)]):
        inside = [(m > a) & (m < b) for m, a, b in zip(middles, low, high, strict=True)]
        expected = inside[0][:, None, None] & inside[1][None, :, None] & inside[2][None, None, :]
        np.testing.assert_array_equal(as_drawn(cohort, row), expected)
    assert cohort.manifest.annotations["tumour"].drawn == "boxes"
    assert cohort.manifest.sources["tables"]["boxes.csv"]["bytes"] == (tmp_path / "boxes.csv").stat().st_size


def test_centre_and_size_relative_to_the_image_are_the_same_box(tmp_path, images, prepared):
    names = [f"{part}{axis}" for part in "cs" for axis in "xyz"]
    centre, size = (np.array([3, 4, 4]) / SHAPE).tolist(), (np.array([4, 2, 2]) / SHAPE).tolist()
    write(tmp_path, ",".join(["P1", *map(str, centre + size)]), header=",".join(["patient", *names]))
    source = {"format": "boxes", "files": "boxes.csv", "centre": names[:3], "size": names[3:], "units": "relative"}
    expected = np.zeros(SHAPE, dtype=bool)
    expected[1:5, 3:5, 3:5] = True
    np.testing.assert_array_equal(as_drawn(prepared(recipe(source)), 0), expected)


def test_several_boxes_several_regions_none_and_missing(tmp_path, images, prepared):
    rows = ["P1,a,0,0,0,1,1,1", "P1,a,4,4,4,5,5,5", "P1,b,0,0,0,2,2,2", "P2,b,,,,,,NA"]
    write(tmp_path, *rows, header="patient,what,x0,y0,z0,x1,y1,z1")
    cohort = prepared(recipe(CORNERS | {"region": "what"}, ["a", "b"]))
    assert [int(as_drawn(cohort, 0, region).sum()) for region in (0, 1)] == [2, 8]
    assert as_drawn(cohort, 0)[4, 4, 4] and as_drawn(cohort, 0)[0, 0, 0]
    assert cohort.annotated_NR("tumour", [0, 1, 2]).tolist() == [[True, True], [True, True], [False, False]]
    assert not cohort.annotation("tumour", 1).regions.any() and cohort.annotation("tumour", 2) is None


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("1,2,3,4,5,", "a coordinate is missing or no number"),
        ("1,2,3,4,5,six", "a coordinate is missing or no number"),
        ("1,2,3,14,5,6", "reaches out of its image of 10 x 9 x 6 voxels"),
        ("-1,2,3,4,5,6", "reaches out of its image"),
        ("0.1,0.2,0.3,0.4,0.5,0.6", "holds no voxel"),
        ("4,5,6,1,2,3", "holds no voxel"),
    ],
)
def test_what_is_no_box_is_set_aside(tmp_path, images, prepared, faults, row, reason):
    write(tmp_path, f"P1,{row}", "P2,1,2,3,4,5,6")
    cohort = prepared(recipe(CORNERS))
    assert cohort.annotation("tumour", 0) is None and cohort.annotation("tumour", 1) is not None
    assert reason in faults()["P1"] and list(faults()) == ["P1"]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"high": []}, ConfigError, "needs `centre` and `size`"),
        ({"high": ["x1", "y1"]}, ConfigError, "two columns each"),
        ({"low": LOW[:2], "high": HIGH[:2]}, DataError, "has two axes, but its image has three"),
        ({"low": ["x0", "y0", "z9"]}, DataError, "no column 'z9'"),
        ({"files": "others.csv"}, DataError, "no such file"),
        ({"files": "{patient}.csv"}, ConfigError, "stand in one table"),
    ],
)
def test_a_source_that_cannot_be_meant_is_refused(tmp_path, images, prepared, change, error, message):
    write(tmp_path, "P1,1,2,3,4,5,6")
    with pytest.raises(error, match=message):
        prepared(recipe(CORNERS | change), stop_above=0)


def test_two_regions_need_a_column_that_names_them(tmp_path, images, prepared):
    write(tmp_path, "P1,1,2,3,4,5,6")
    with pytest.raises(ConfigError, match="column that names the region"):
        prepared(recipe(CORNERS, ["a", "b"]))


def test_a_change_of_the_table_is_another_cohort(tmp_path, images, prepared):
    write(tmp_path, "P1,1,2,3,4,5,6")
    first = prepared(recipe(CORNERS)).manifest.fingerprint
    write(tmp_path, "P1,1,2,3,4,5,5")
    assert prepared(recipe(CORNERS), out="other").manifest.fingerprint != first
