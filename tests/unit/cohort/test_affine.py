"""From a voxel of a prepared cohort back to where it was in the patient."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
import yaml
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage
from scipy.spatial.transform import Rotation

from foundation.cohort.prepare import prepare
from foundation.cohort.store import PreparedCohort
from foundation.progress import Silent

SHAPE = (40, 36, 24)
ZOOMS = (1.2, 0.9, 2.0)
POINTS = [(-52.0, 31.0, 14.0), (-44.0, 24.0, 8.0), (-49.0, 37.0, 20.0), (-41.0, 34.0, 17.0)]
"""Millimetres (RAS+), of which no three lie on one line, and all four in no plane."""
FORMS = {
    "as it is": {"size": [*SHAPE]},
    "padded": {"size": [45, 50, 33]},
    "cropped": {"size": [35, 33, 21]},
    "resampled finer": {"size": [60, 60, 60], "spacing": [0.8, 0.8, 0.8]},
    "resampled coarser": {"size": [24, 24, 24], "spacing": [2.1, 1.9, 2.9]},
    "stretched": {"size": [40, 36, 60], "stretch": ["z"]},
    "squeezed": {"size": [20, 36, 24], "stretch": ["x"]},
    "foreground": {"size": [30, 30, 30], "spacing": [1, 1, 1], "crop_foreground": True, "foreground_above": 20},
    "everything": {"size": [30, 26, 40], "spacing": [1, 1, 1.5], "stretch": ["z"], "crop_foreground": True},
}


def oblique(shape):
    """A scanner's affine, turned about three axes, whose grid has the middle of POINTS near its own."""
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", [20, -14, 31], degrees=True).as_matrix() * ZOOMS
    affine[:3, 3] = np.mean(POINTS, axis=0) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def other_axes(shape, affine, codes):
    """The shape and affine of the same grid stored with other axes."""
    wanted = nibabel.orientations.axcodes2ornt(codes)
    change = nibabel.orientations.ornt_transform(nibabel.io_orientation(affine), wanted)
    turned = nibabel.orientations.apply_orientation(np.empty(shape), change).shape
    return turned, affine @ nibabel.orientations.inv_ornt_aff(change, shape)


def blob(shape, affine, point):
    """A bright spot of 2.5 mm about a point, on zeros."""
    places = np.moveaxis(np.indices(shape), 0, -1) @ affine[:3, :3].T + affine[:3, 3]
    spot = 1000 * np.exp(-((places - point) ** 2).sum(axis=-1) / (2 * 2.5**2))
    return np.where(spot > 5, spot, 0).astype(np.int16)


def write_nifti(path: Path, voxels, affine):
    path.mkdir(parents=True)
    nibabel.save(nibabel.Nifti1Image(voxels, affine), path / "t1.nii.gz")


def write_dicom(path: Path, voxels, affine):
    """An MR series, one file a slice, by the standard's own equation (LPS)."""
    folder = path / "t1"
    folder.mkdir(parents=True)
    lps = np.diag([-1, -1, 1, 1]) @ affine
    for number in range(voxels.shape[2]):
        meta, item = FileMetaDataset(), Dataset()
        meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, MRImageStorage
        meta.MediaStorageSOPInstanceUID = f"1.2.{number + 1}"
        item.file_meta = meta
        item.SOPClassUID, item.SOPInstanceUID, item.SeriesInstanceUID = MRImageStorage, f"1.2.{number + 1}", "1.2"
        item.Modality, item.ImageType, item.InstanceNumber = "MR", ["ORIGINAL", "PRIMARY"], number + 1
        item.Columns, item.Rows = voxels.shape[:2]
        zooms = np.linalg.norm(lps[:3, :2], axis=0)
        item.PixelSpacing = [f"{zooms[1]:.6g}", f"{zooms[0]:.6g}"]
        item.ImageOrientationPatient = [f"{v:.8f}" for v in (lps[:3, :2] / zooms).T.ravel()]
        item.ImagePositionPatient = [f"{v:.6f}" for v in (lps @ [0, 0, number, 1])[:3]]
        item.SliceThickness = ZOOMS[2]
        item.SamplesPerPixel, item.PhotometricInterpretation, item.PixelRepresentation = 1, "MONOCHROME2", 1
        item.BitsAllocated, item.BitsStored, item.HighBit = 16, 16, 15
        item.PixelData = voxels[:, :, number].T.astype("<i2").tobytes()
        item.save_as(folder / f"{number:02d}.dcm", enforce_file_format=True)


def prepared(folder: Path, formats, **form) -> PreparedCohort:
    """The scans below `folder` as a cohort of one channel."""
    files = {"nifti": "nifti/{patient}/{channel}.nii.gz", "dicom": "dicom/{patient}/{channel}"}
    sources = [{"format": name, "files": files[name]} for name in formats]
    mri = {"kind": "image", "channels": ["t1"], "source": sources, **form}
    document = {"name": "blobs", "root": str(folder), "modalities": {"mri": mri}, "quarantine": {"stop_above": 0}}
    (folder / "cohort.yaml").write_text(yaml.safe_dump(document))
    prepare(folder / "cohort.yaml", out=folder / "out", workers=1, progress=Silent())
    return PreparedCohort(folder / "out")


def distances(cohort: PreparedCohort, points) -> np.ndarray:
    """[N, axes] voxels from where the affine says that the blob is to where it is, patient by patient."""
    found = []
    for row, affine in enumerate(cohort.affine_N44("mri", np.arange(len(cohort)))):
        voxels = cohort.voxels("mri", row)[0].astype(np.float64)
        centre = (np.indices(voxels.shape) * voxels).reshape(voxels.ndim, -1).sum(axis=1) / voxels.sum()
        expected = np.linalg.solve(affine, [*points[int(cohort.patients[row][1:])], 1])[:3]
        assert voxels.ndim == 3 or abs(expected[2]) < 0.01, "the plane itself does not lie where the affine says"
        found.append(centre - expected[: voxels.ndim])
    return np.array(found)


@pytest.mark.parametrize("form", FORMS)
def test_what_is_bright_is_where_it_was_in_the_patient(tmp_path, form):
    """Two hospitals, two formats, other axes: the blob of each patient lies at its own point of the world."""
    for number, (point, codes) in enumerate(zip(POINTS, ("RAS", "LPS", "SLA", "PIR"), strict=True)):
        shape, affine = other_axes(SHAPE, oblique(SHAPE), codes)
        write = write_dicom if codes == "LPS" else write_nifti
        write(tmp_path / write.__name__.removeprefix("write_") / f"P{number}", blob(shape, affine, point), affine)
    cohort = prepared(tmp_path, ["nifti", "dicom"], **FORMS[form])
    assert len(cohort) == len(POINTS)
    assert np.abs(distances(cohort, POINTS)).max() < 0.2


def test_axes_that_are_left_as_they_are(tmp_path):
    shape, affine = other_axes(SHAPE, oblique(SHAPE), "PIR")
    write_nifti(tmp_path / "nifti/P0", blob(shape, affine, POINTS[0]), affine)
    cohort = prepared(tmp_path, ["nifti"], size=[36, 30, 44], orientation="native")
    assert np.abs(distances(cohort, POINTS)).max() < 0.2


@pytest.mark.parametrize("codes", ["RAS", "SAR", "PSR"])
def test_a_slice_lies_in_the_patient_too(tmp_path, codes):
    """One oblique slice as a 2D image, in both formats: axial, coronal and sagittal."""
    shape, affine = other_axes(SHAPE, oblique(SHAPE), codes)
    middle = shape[2] // 2
    affine[:3, 3] += affine[:3, 2] * middle
    shape = (*shape[:2], 1)
    points = [affine[:3] @ [10, 12, 0, 1], affine[:3] @ [14.5, 8.25, 0, 1]]
    write_nifti(tmp_path / "nifti/P0", blob(shape, affine, points[0]), affine)
    write_dicom(tmp_path / "dicom/P1", blob(shape, affine, points[1]), affine)
    cohort = prepared(tmp_path, ["nifti", "dicom"], size=[34, 42], spacing=[1.0, 1.1], stretch=["y"])
    assert np.abs(distances(cohort, points)).max() < 0.2


def test_a_place_that_nobody_knows_is_not_made_up(tmp_path):
    affine = oblique(SHAPE)
    write_nifti(tmp_path / "nifti/P0", blob(SHAPE, affine, POINTS[0]), affine)
    placeless = nibabel.Nifti1Image(blob(SHAPE, affine, POINTS[0]), None)
    placeless.header.set_zooms(ZOOMS)
    (tmp_path / "nifti/P1").mkdir()
    nibabel.save(placeless, tmp_path / "nifti/P1/t1.nii.gz")
    cohort = prepared(tmp_path, ["nifti"], size=[30, 30, 30])
    assert np.isfinite(cohort.affine_N44("mri", [0, 1])).all(axis=(1, 2)).tolist() == [True, False]
    assert np.isnan(cohort.affine_N44("mri", [1])).all()
