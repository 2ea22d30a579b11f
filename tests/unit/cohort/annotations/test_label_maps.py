"""Masks in files: regions by value and by file, missing and empty told apart, what does not fit set aside."""

from __future__ import annotations

import numpy as np
import pytest

from foundation.errors import ConfigError, DataError
from tests.unit.cohort.annotations.conftest import AFFINE, SHAPE, save
from tests.unit.cohort.test_imaging import turned

SOURCE = {"format": "nifti", "files": "{patient}/mask.nii.gz"}


def labels(*values: int, dtype: type = np.uint8) -> np.ndarray:
    """A mask with a voxel or more of each value."""
    mask = np.zeros(SHAPE, dtype=dtype)
    for number, value in enumerate(values):
        mask[2 + number, 1 : 3 + number, 2] = value
    return mask


def test_regions_by_value_may_overlap_and_are_read_back(tmp_path, images, prepared):
    save(tmp_path / "P1" / "mask.nii.gz", labels(1, 2, 4))
    save(tmp_path / "P2" / "mask.nii.gz", labels(4, dtype=np.float32))
    save(tmp_path / "P3" / "mask.nii.gz", labels())
    cohort = prepared({"tumour": {"image": "mri", "source": SOURCE, "regions": {"core": [1, 4], "whole": [1, 2, 4]}}})
    for row, drawn in enumerate([labels(1, 2, 4), labels(4), labels()]):
        annotation = cohort.annotation("tumour", row)
        np.testing.assert_array_equal(cohort.voxels("mri", row)[0], np.flip(images[f"P{row + 1}"], (0, 1)))
        for region, values in zip(annotation.regions, ([1, 4], [1, 2, 4]), strict=True):
            np.testing.assert_array_equal(region, np.flip(np.isin(drawn, values), (0, 1)))
    assert cohort.annotated_NR("tumour", [0, 1, 2]).all()
    np.testing.assert_array_equal(cohort.kept_NR("tumour", [0, 1, 2]), [[1, 1], [1, 1], [np.nan, np.nan]])
    entry = cohort.manifest.annotations["tumour"]
    assert (entry.patients, entry.drawn, list(entry.regions)) == (3, "masks", ["core", "whole"])
    assert cohort.manifest.sources["other_channels"] == {"mri": {}}
    assert entry.regions["core"].model_dump() == {
        "annotated": 3,
        "patients": 2,
        "cut": 0,
        "lost": 0,
        "least_kept": 1.0,
    }


def test_a_missing_mask_is_missing_and_an_empty_one_empty(tmp_path, images, prepared):
    save(tmp_path / "P1" / "core.nii.gz", labels(1))
    save(tmp_path / "P1" / "oedema.nii.gz", labels())
    save(tmp_path / "P2" / "oedema.nii.gz", labels(255))
    source = SOURCE | {"files": "{patient}/{region}.nii.gz"}
    cohort = prepared({"tumour": {"image": "mri", "source": source, "regions": ["core", "oedema"]}})
    np.testing.assert_array_equal(cohort.annotated_NR("tumour", [0, 1, 2]), [[1, 1], [0, 1], [0, 0]])
    np.testing.assert_array_equal(np.isnan(cohort.kept_NR("tumour", [0, 1, 2])), [[0, 1], [1, 0], [1, 1]])
    assert cohort.annotation("tumour", 2) is None
    assert cohort.annotation("tumour", 1).regions.reshape(2, -1).any(axis=1).tolist() == [False, True]
    entry = cohort.manifest.annotations["tumour"]
    assert entry.patients == 2
    assert [(r.annotated, r.patients) for r in entry.regions.values()] == [(1, 1), (2, 1)]
    assert entry.regions["oedema"].least_kept == 1


@pytest.mark.parametrize(
    ("voxels", "affine", "reason"),
    [
        (labels(1, 3), AFFINE, "holds 3, which no region has"),
        (labels(1).astype(np.float32) * 0.4, AFFINE, "holds 0.4, which no region has"),
        (labels(1)[:-1], AFFINE, "lies on another grid than its image: 9 x 9 x 6 voxels"),
        (labels(1), AFFINE + np.outer([1, 0, 0, 0], [0, 0, 0, 1]), "another grid"),
        (
            labels(1),
            np.diag([1.0, -1, 2, 1]),
            "2 mm in RPS from (0, 0, 0), not 10 x 9 x 6 voxels of 1 x 1 x 2 mm in LPS",
        ),
        (labels(1), np.diag([-1.0, -1, 2.2, 1]), "another grid"),
        (labels(1), AFFINE + np.outer([0.2, 0, 0, 0], [0, 0, 0, 1]), "another grid"),
    ],
)
def test_a_mask_that_does_not_fit_is_set_aside(tmp_path, images, prepared, faults, voxels, affine, reason):
    save(tmp_path / "P1" / "mask.nii.gz", voxels, affine)
    save(tmp_path / "P2" / "mask.nii.gz", labels(1))
    cohort = prepared({"tumour": {"image": "mri", "source": SOURCE, "regions": {"core": 1}}})
    assert cohort.annotation("tumour", 0) is None and cohort.present_NM[0, 0]
    assert cohort.manifest.annotations["tumour"].patients == 1
    assert reason in faults()["P1"] and list(faults()) == ["P1"]


def test_what_a_header_rounds_makes_no_other_grid(tmp_path, images, prepared):
    save(tmp_path / "P1" / "mask.nii.gz", labels(1))
    save(tmp_path / "P2" / "mask.nii.gz", labels(1), AFFINE + 0.02 * np.outer([1, -1, -5, 0], [0, 0, 0, 1]))
    halved = {"size": [10, 9, 3], "stretch": ["z"]}  # each place is halfway between two voxels
    cohort = prepared({"tumour": {"image": "mri", "source": SOURCE, "regions": {"core": 1}}}, **halved)
    np.testing.assert_array_equal(*(cohort.annotation("tumour", row).regions for row in (0, 1)))
    assert cohort.annotation("tumour", 0).regions.any()


@pytest.mark.parametrize("codes", ["RAS", "LAI", "SPL"])
def test_the_same_voxels_in_another_order_are_the_same_mask(tmp_path, images, prepared, codes):
    save(tmp_path / "P1" / "mask.nii.gz", labels(1))
    save(tmp_path / "P2" / "mask.nii.gz", *turned(labels(1), AFFINE, codes))
    cohort = prepared({"tumour": {"image": "mri", "source": SOURCE, "regions": {"core": 1}}}, size=[8, 12, 6])
    one, other = (cohort.annotation("tumour", row) for row in (0, 1))
    np.testing.assert_array_equal(other.regions, one.regions)
    assert one.regions.any()


def test_values_left_out_are_no_region_and_no_fault(tmp_path, images, prepared):
    save(tmp_path / "P1" / "mask.nii.gz", labels(1, 3))
    recipe = {"image": "mri", "source": SOURCE, "regions": {"core": 1}, "leave_out": [3]}
    [core] = prepared({"tumour": recipe}).annotation("tumour", 0).regions
    np.testing.assert_array_equal(np.flip(core, (0, 1)), labels(1) == 1)


def test_too_many_unfit_masks_stop_the_run(tmp_path, images, prepared):
    for patient in images:
        save(tmp_path / patient / "mask.nii.gz", labels(7))
    with pytest.raises(DataError, match="of 'annotation tumour' cannot be used"):
        prepared({"tumour": {"image": "mri", "source": SOURCE, "regions": {"core": 1}}}, stop_above=0.5)


def test_a_mask_without_an_image_or_of_another_channel_is_set_aside(tmp_path, images, prepared, faults):
    for patient in ("P1", "P4"):
        save(tmp_path / patient / "mask.nii.gz", labels(1))
    save(tmp_path / "P2" / "mask.nii.gz", np.ones((5, 5, 3), np.uint8), np.diag([-2.0, -2, 4, 1]))
    save(tmp_path / "P2" / "t2.nii.gz", np.ones((5, 5, 3), np.uint8), np.diag([-2.0, -2, 4, 1]))
    recipe = {"image": "mri", "channel": "t2", "source": SOURCE, "regions": {"core": 1}}
    cohort = prepared({"tumour": recipe}, channels=["t1", "t2"])
    assert cohort.patients.tolist() == ["P1", "P2", "P3"]
    assert "the patient has no such image" in faults()["P4"]
    assert "channel 't2', on which it was drawn, is not there" in faults()["P1"]
    assert cohort.annotation("tumour", 1).regions.all()


def test_a_mask_belongs_to_the_time_point_of_its_image(tmp_path, images, prepared, faults):
    for patient in images:
        for when in ("a", "b")[: 1 + (patient != "P3")]:
            save(tmp_path / patient / when / "t1.nii.gz", images[patient])
    save(tmp_path / "masks" / "P1_b.nii.gz", labels(1))
    save(tmp_path / "masks" / "P1_c.nii.gz", labels(1))
    save(tmp_path / "any" / "P2.nii.gz", labels(1))
    save(tmp_path / "any" / "P3.nii.gz", labels(1))
    sources = [SOURCE | {"files": "masks/{patient}_{time_point}.nii.gz"}, SOURCE | {"files": "any/{patient}.nii.gz"}]
    cohort = prepared(
        {"tumour": {"image": "mri", "source": sources, "regions": {"core": 1}}},
        source={"format": "nifti", "files": "{patient}/{time_point}/{channel}.nii.gz"},
    )
    keys = [f"{patient}{when}" for patient, when in zip(cohort.patients, cohort.time_points, strict=True)]
    drawn = [key for row, key in enumerate(keys) if cohort.annotation("tumour", row) is not None]
    assert keys == ["P1a", "P1b", "P2a", "P2b", "P3a"] and drawn == ["P1b", "P3a"]
    assert "none at 'c'" in faults()["P1"] and "none without a time point" in faults()["P2"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": "ct"}, "no image modality is called 'ct'"),
        ({"channel": "t2"}, "'t2' is no channel"),
        ({"regions": {"core": 0}}, "value 0"),
        ({"regions": {}}, "1 or more"),
        ({"regions": {"a b": 1}}, "letters, digits"),
        ({"regions": {"core": 1}, "leave_out": [1]}, "leave_out too"),
        ({"regions": ["core"]}, "called by a word"),
        ({"source": SOURCE | {"files": "{patient}/{channel}.nii.gz"}}, "no {channel}"),
        ({"source": SOURCE | {"files": "{patient}/{region}.nii.gz"}, "regions": {"core": ["a", "b"]}}, "several words"),
    ],
)
def test_a_yaml_that_cannot_be_meant_is_refused(tmp_path, images, prepared, change, message):
    save(tmp_path / "P1" / "mask.nii.gz", labels(1))
    recipe = {"image": "mri", "source": SOURCE, "regions": {"core": 1}} | change
    with pytest.raises(ConfigError, match=message):
        prepared({"tumour": recipe})


def test_two_masks_of_one_image_are_not_mixed(tmp_path, images, prepared, faults):
    for name in ("mask", "again"):
        save(tmp_path / "P1" / f"{name}.nii.gz", labels(1))
    sources = [SOURCE, SOURCE | {"files": "{patient}/again.nii.gz"}]
    prepared({"tumour": {"image": "mri", "source": sources, "regions": {"core": 1}}})
    assert "is in P1/mask.nii.gz too" in faults()["P1"]


def test_without_annotations_cohort_json_does_not_name_them(images, prepared, tmp_path):
    prepared({})
    assert "annotation" not in (tmp_path / "out" / "cohort.json").read_text()
