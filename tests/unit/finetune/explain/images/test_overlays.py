"""A map opens over the scan that it is of: what is highest in it lies where the lesion lies in the source file."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
import torch
import yaml
from scipy.spatial.transform import Rotation

from finetune.explain.images.cells import Cells
from finetune.explain.images.overlays import write_overlay
from finetune.explain.images.planes import planes_of
from foundation.cohort.prepare import prepare
from foundation.cohort.store import PreparedCohort
from foundation.model.towers.base import towers
from foundation.progress import Silent

SHAPE, ZOOMS = (40, 36, 24), (1.2, 0.9, 2.0)
LESION = (23, 11, 14)
FORMS = {
    "padded": {"size": [45, 50, 33]},
    "cropped to its foreground": {"size": [36, 36, 36], "spacing": [1, 1, 1], "crop_foreground": True},
    "resampled": {"size": [24, 24, 24], "spacing": [2.1, 1.9, 2.9]},
}


def write_scan(folder, codes):
    """A small bright lesion in a dim block, on a turned grid stored with these axes; returns where it is in mm."""
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", [20, -14, 31], degrees=True).as_matrix() * ZOOMS
    affine[:3, 3] = -40, 25, 10
    voxels = np.zeros(SHAPE, dtype=np.float32)
    voxels[6:34, 5:31, 4:20] = 100
    distance = np.moveaxis(np.indices(SHAPE), 0, -1) - np.array(LESION)
    voxels += 900 * np.exp(-((distance * ZOOMS) ** 2).sum(axis=-1) / (2 * 3.0**2))
    image = nibabel.Nifti1Image(voxels.astype(np.int16), affine)
    turn = nibabel.orientations.ornt_transform(nibabel.io_orientation(affine), nibabel.orientations.axcodes2ornt(codes))
    folder.mkdir(parents=True)
    nibabel.save(image.as_reoriented(turn), folder / "t1.nii.gz")


def highest(path):
    """Millimetres of the highest voxel of a file."""
    image = nibabel.load(path)
    values = np.asarray(image.dataobj)
    return image.affine[:3] @ [*np.unravel_index(values.argmax(), values.shape), 1]


@pytest.mark.parametrize("codes", ["RAS", "LPI", "SAL"])
@pytest.mark.parametrize("form", FORMS)
def test_the_maximum_is_where_the_lesion_is_in_the_source_file(tmp_path, codes, form):
    write_scan(tmp_path / "P0", codes)
    mri = {"kind": "image", "channels": ["t1"], **FORMS[form]}
    mri["source"] = {"format": "nifti", "files": "{patient}/{channel}.nii.gz"}
    document = {"name": "lesion", "root": str(tmp_path), "modalities": {"mri": mri}}
    (tmp_path / "cohort.yaml").write_text(yaml.safe_dump(document))
    prepare(tmp_path / "cohort.yaml", out=tmp_path / "out", workers=1, progress=Silent())
    cohort = PreparedCohort(tmp_path / "out")
    shape, affine = cohort.image("mri").shape, cohort.affine_N44("mri", [0])[0]
    config = towers["vit3d"].tiny().model_copy(update={"patch": (1, 1, 1)})
    cells = Cells.of(towers["vit3d"](config, 1, shape), shape)
    found = cells.sums(torch.tensor(cohort.voxels("mri", 0)[0], dtype=torch.float64))
    write_overlay(tmp_path / "map.nii.gz", cells.smooth(found).numpy(), affine, "lesion")
    overlay = nibabel.load(tmp_path / "map.nii.gz")
    np.testing.assert_allclose(overlay.affine, affine, atol=1e-4)
    assert int(overlay.header["sform_code"]) == 1 and overlay.header.get_xyzt_units()[0] == "mm"
    apart = highest(tmp_path / "map.nii.gz") - highest(tmp_path / "P0" / "t1.nii.gz")
    voxel = np.linalg.solve(affine[:3, :3], apart)
    assert np.abs(voxel).max() <= 1, f"{voxel} voxels apart"


def test_planes_hang_as_radiologists_hang_them():
    volume = np.zeros((4, 5, 6))
    volume[0, 4, 5] = 1
    for affine in (np.diag([1, 1, 1, 1]), np.diag([-1, -1, 1, 1])):
        axial, coronal, sagittal = planes_of(volume.shape, affine)
        assert [p.name for p in (axial, coronal, sagittal)] == ["axial", "coronal", "sagittal"]
        assert axial.edges == ("R", "L", "A", "P") and sagittal.edges == ("A", "P", "S", "I")
        right, front = affine[0, 0] < 0, affine[1, 1] > 0
        row, column = np.argwhere(axial.picture(volume, 5))[0]
        assert (row, column) == (0 if front else 4, 0 if right else 3)
        row, column = np.argwhere(coronal.picture(volume, 4))[0]
        assert (row, column) == (0, 0 if right else 3)
        row, column = np.argwhere(sagittal.picture(volume, 0))[0]
        assert (row, column) == (0, 0 if front else 4)
    [alone] = planes_of((4, 5, 1), np.eye(4))
    assert alone.name == "axial" and alone.picture(volume[:, :, :1], 0).shape == (5, 4)
