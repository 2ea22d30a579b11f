"""The same volume written both ways: same intensities at the same places, and left stays left."""

from __future__ import annotations

import nibabel
import numpy as np
import pydicom
import pytest

from foundation.simulation.anatomy import CAPSULE_PLACE, paint
from foundation.simulation.latent import draw_patient
from foundation.simulation.scans import SLOPE, reorient, write_localizer, write_mask, write_scan


def read_dicom(folder) -> tuple[np.ndarray, np.ndarray]:
    """Stack one series by the standard's own equation; RAS affine."""
    slices = [pydicom.dcmread(path) for path in folder.iterdir()]
    first = slices[0]
    row, column = np.array(first.ImageOrientationPatient[:3]), np.array(first.ImageOrientationPatient[3:])
    slices.sort(key=lambda header: float(np.dot(np.cross(row, column), header.ImagePositionPatient)))
    values = [header.pixel_array.T * float(header.RescaleSlope) + float(header.RescaleIntercept) for header in slices]
    affine = np.eye(4)
    affine[:3, 0] = row * float(first.PixelSpacing[1])
    affine[:3, 1] = column * float(first.PixelSpacing[0])
    ends = [np.array(slices[place].ImagePositionPatient, dtype=float) for place in (0, -1)]
    affine[:3, 2] = (ends[1] - ends[0]) / (len(slices) - 1)
    affine[:3, 3] = ends[0]
    return np.stack(values, axis=-1), np.diag([-1, -1, 1, 1]) @ affine


@pytest.fixture
def volume() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    affine = np.diag([2.0, 3.0, 5.0, 1.0])
    affine[:3, 3] = [-10.5, 4.0, 7.25]
    return random.integers(-20, 900, (6, 7, 5)).astype(np.float32), affine


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "LAS", "LPI"])
def test_both_formats_give_the_same_voxels(tmp_path, volume, orientation):
    turned, affine = reorient(*volume, orientation)
    write_scan(turned, affine, tmp_path / "scan.nii.gz", "nifti")
    write_scan(turned, affine, tmp_path / "series", "dicom")
    nifti = nibabel.as_closest_canonical(nibabel.load(tmp_path / "scan.nii.gz"))
    dicom = nibabel.as_closest_canonical(nibabel.Nifti1Image(*read_dicom(tmp_path / "series")))
    np.testing.assert_array_equal(nifti.get_fdata(), volume[0])
    np.testing.assert_array_equal(dicom.get_fdata(), volume[0])
    np.testing.assert_allclose(nifti.affine, volume[1])
    np.testing.assert_allclose(dicom.affine, volume[1])


@pytest.mark.parametrize("error", [-0.2, 0.2])
def test_intensities_between_two_stored_integers_are_rounded(tmp_path, volume, error):
    write_scan(volume[0] + error, volume[1], tmp_path / "scan.nii.gz", "nifti")
    stored = nibabel.load(tmp_path / "scan.nii.gz")
    assert stored.get_data_dtype() == np.int16 and stored.dataobj.slope == SLOPE
    np.testing.assert_array_equal(stored.get_fdata(), volume[0])


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "LAS"])
def test_the_capsule_is_on_the_left_however_the_scan_is_stored(tmp_path, orientation):
    painting = paint(0, draw_patient(0, 0))
    turned, affine = reorient(painting.t1, painting.affine, orientation)
    write_scan(turned, affine, tmp_path / "scan.nii.gz", "nifti")
    scan = nibabel.load(tmp_path / "scan.nii.gz")
    assert "".join(nibabel.aff2axcodes(scan.affine)) == orientation
    values = scan.get_fdata()
    places = nibabel.affines.apply_affine(scan.affine, np.indices(values.shape).reshape(3, -1).T)
    there = np.linalg.norm(places - CAPSULE_PLACE, axis=1) < 7
    mirrored = np.linalg.norm(places - CAPSULE_PLACE * [-1, 1, 1], axis=1) < 7
    assert CAPSULE_PLACE[0] < 0
    assert values.ravel()[there].mean() > 1.4 * values.ravel()[mirrored].mean()


def test_a_mask_is_zeros_and_ones(tmp_path, volume):
    write_mask(volume[0] > 400, volume[1], tmp_path / "mask.nii.gz")
    mask = nibabel.load(tmp_path / "mask.nii.gz")
    assert mask.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(mask.get_fdata(), volume[0] > 400)


def test_a_localizer_shows_three_planes_and_says_what_it_is(tmp_path, volume):
    write_localizer(*volume, tmp_path, patient="P", seed=0)
    slices = sorted((pydicom.dcmread(path) for path in tmp_path.iterdir()), key=lambda header: header.InstanceNumber)
    assert [header.pixel_array.T.shape for header in slices] == [(6, 7), (6, 5), (7, 5)]
    assert all("LOCALIZER" in header.ImageType for header in slices)
    np.testing.assert_array_equal(slices[2].pixel_array.T * 0.5 - 20, volume[0][3])
    assert list(slices[2].ImagePositionPatient) == [4.5, -4.0, 7.25]


def test_identifiers_are_valid_and_tell_patients_cohorts_and_slices_apart(tmp_path, volume):
    for place, (patient, seed) in enumerate([("A", 0), ("B", 0), ("A", 1)]):
        write_scan(*volume, tmp_path / str(place), "dicom", patient=patient, seed=seed)
    headers = [pydicom.dcmread(path) for path in tmp_path.glob("*/*.dcm")]
    for key in ("SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID"):
        assert len({header[key].value for header in headers}) == 3
    assert len({header.SOPInstanceUID for header in headers}) == len(headers) == 15
    assert all(header.SOPInstanceUID.is_valid and len(header.SOPInstanceUID) <= 64 for header in headers)
    assert {header.file_meta.TransferSyntaxUID.name for header in headers} == {"Explicit VR Little Endian"}
