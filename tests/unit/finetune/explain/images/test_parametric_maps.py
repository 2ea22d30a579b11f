"""A map as a DICOM parametric map: of the patient and study of the scan, and where the NIfTI map is."""

from __future__ import annotations

import re

import nibabel
import numpy as np
import pydicom
import pytest
import torch
import yaml
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from finetune.explain.images.cells import Cells
from finetune.explain.images.overlays import write_overlay
from finetune.explain.images.parametric_maps import headers_of, write_parametric_maps
from finetune.explain.images.show import Shown
from finetune.explain.methods import Score
from foundation.cohort.prepare import prepare
from foundation.cohort.source_series import SourceSeries
from foundation.cohort.store import PreparedCohort
from foundation.errors import ConfigError, DataError
from foundation.model.towers.base import towers
from foundation.progress import Silent

hd = pytest.importorskip("highdicom", reason="the extra dicom-maps is not installed")

SPACING, SLICES, LESION = (0.9, 1.2), 20, (4, 13, 21)
SCORE = Score("os", "risk")
TURN = np.array([0.96, 0.28, 0.0, -0.28, 0.96, 0.0])
FRAME, STUDY, SERIES = "1.2.3.9", "1.2.3.7", "1.2.3.8"


def write_series(folder):
    """A bright lesion in a dim block, as slices of a turned series; returns where it is in RAS millimetres."""
    folder.mkdir(parents=True)
    across, down = TURN[:3], TURN[3:]
    normal = np.cross(across, down)
    for k in range(SLICES):
        stored = np.zeros((32, 36), dtype=np.uint16)
        stored[4:28, 5:31] = 100
        if k == LESION[0]:
            stored[LESION[1] - 1 : LESION[1] + 2, LESION[2] - 1 : LESION[2] + 2] = 1000
        meta = FileMetaDataset()
        meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, CTImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[SERIES, str(k)])
        item = pydicom.Dataset()
        item.file_meta, item.SOPClassUID = meta, CTImageStorage
        item.SOPInstanceUID, item.StudyInstanceUID, item.SeriesInstanceUID = (
            meta.MediaStorageSOPInstanceUID,
            STUDY,
            SERIES,
        )
        item.FrameOfReferenceUID, item.Modality, item.ImageType = FRAME, "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
        item.PatientName, item.PatientID, item.SeriesNumber, item.InstanceNumber = "A^B", "P0", 3, k + 1
        item.Rows, item.Columns = stored.shape
        item.PixelSpacing, item.SliceThickness = [*SPACING], 3.0
        item.ImageOrientationPatient = [*TURN]
        item.ImagePositionPatient = [round(float(v), 6) for v in np.array([-12.0, 8.0, 40.0]) + 3.0 * k * normal]
        item.RescaleSlope, item.RescaleIntercept = 1, 0
        item.SamplesPerPixel, item.PhotometricInterpretation = 1, "MONOCHROME2"
        item.BitsAllocated, item.BitsStored, item.HighBit, item.PixelRepresentation = 16, 12, 11, 0
        item.PixelData = stored.tobytes()
        item.save_as(folder / f"{k:02d}.dcm", enforce_file_format=True)
    k, row, column = LESION
    place = np.array([-12.0, 8.0, 40.0]) + 3.0 * k * normal + across * SPACING[1] * column + down * SPACING[0] * row
    return place * [-1, -1, 1]


@pytest.fixture
def made(tmp_path):
    """A cohort of one scan, its YAML, its map, and where the lesion is."""
    lesion = write_series(tmp_path / "source" / "P0")
    mri = {"kind": "image", "channels": ["ct"], "size": [36, 36, 20]}
    mri["source"] = {"format": "dicom", "files": "{patient}"}
    document = {"name": "lesion", "root": str(tmp_path / "source"), "modalities": {"ct": mri}}
    (tmp_path / "cohort.yaml").write_text(yaml.safe_dump(document))
    prepare(tmp_path / "cohort.yaml", out=tmp_path / "out", workers=1, progress=Silent())
    cohort = PreparedCohort(tmp_path / "out")
    shape, affine = cohort.image("ct").shape, cohort.affine_N44("ct", [0])[0]
    cells = Cells.of(towers["vit3d"](towers["vit3d"].tiny().model_copy(update={"patch": (2, 2, 2)}), 1, shape), shape)
    voxels_CXYZ = np.asarray(cohort.voxels("ct", 0), dtype=np.float32)
    one = Shown("ct", voxels_CXYZ, ["ct"], np.array([True]), affine, [1.0] * 3, cells, label="P0")
    one.maps = {SCORE: cells.sums(torch.tensor(voxels_CXYZ[0], dtype=torch.float64)).numpy() - 500.0}
    one.likeliest = [SCORE]
    one.place(tmp_path / "maps").mkdir(parents=True)
    return cohort, tmp_path / "cohort.yaml", one, lesion


def write(made, folder):
    cohort, document, one, _ = made
    return write_parametric_maps([one], [0], SourceSeries(document, cohort), folder, "occlusion")


def highest(values, affine):
    return affine[:3] @ [*np.unravel_index(values.argmax(), values.shape), 1]


def test_it_lies_where_the_nifti_map_and_the_lesion_lie(made, tmp_path):
    _, _, one, lesion = made
    assert write(made, tmp_path / "maps") == "maps of 1 of 1 scan are written as DICOM parametric maps too."
    [path] = (tmp_path / "maps").rglob("*.dcm")
    volume = hd.imread(path).get_volume()
    world = np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.affine
    write_overlay(tmp_path / "map.nii.gz", one.smooth(SCORE), one.affine, "lesion")
    nifti = nibabel.load(tmp_path / "map.nii.gz")
    theirs = np.asarray(nifti.dataobj)
    assert volume.frame_of_reference_uid == FRAME
    apart = highest(volume.array, world) - highest(theirs, nifti.affine)
    assert np.abs(np.linalg.solve(one.affine[:3, :3], apart)).max() <= 1
    from_lesion = np.linalg.solve(one.affine[:3, :3], highest(volume.array, world) - lesion)
    assert np.abs(from_lesion).max() <= 1.5
    voxels = np.argwhere(np.ones(theirs.shape))
    places = (np.linalg.inv(world) @ nifti.affine @ np.c_[voxels, np.ones(len(voxels))].T)[:3].T
    assert np.abs(places - places.round()).max() < 1e-3
    ours = volume.array[tuple(places.round().astype(int).T)]
    np.testing.assert_allclose(ours, theirs[tuple(voxels.T)], rtol=1e-6)


def test_it_belongs_to_the_patient_and_refers_to_the_series(made, tmp_path):
    write(made, tmp_path / "maps")
    [path] = (tmp_path / "maps").rglob("*.dcm")
    first = pydicom.dcmread(path)
    assert (first.PatientID, first.StudyInstanceUID, first.FrameOfReferenceUID) == ("P0", STUDY, FRAME)
    assert first.SOPClassUID == "1.2.840.10008.5.1.4.1.1.30" and first.SeriesInstanceUID != SERIES
    assert first.ContentDescription == "os: risk, occlusion" and SERIES in str(first.ReferencedSeriesSequence)
    path.unlink()
    write(made, tmp_path / "maps")
    assert pydicom.dcmread(path).SOPInstanceUID == first.SOPInstanceUID, "the same map has another name"


@pytest.mark.parametrize("fault", ["changed", "gone", "nifti"])
def test_one_sentence_says_why_nifti_alone_was_written(made, tmp_path, fault):
    _, document, _, _ = made
    folder = tmp_path / "source" / "P0"
    expected = {
        "changed": "P0/05.dcm is not the one",
        "gone": "no folder|no file",
        "nifti": "no DICOM|no file",
    }[fault]
    if fault == "changed":
        item = pydicom.dcmread(folder / "05.dcm")
        item.PatientName = "C^D"
        item.save_as(folder / "05.dcm")
    elif fault == "gone":
        folder.rename(tmp_path / "elsewhere")
    else:
        text = yaml.safe_load(document.read_text())
        text["modalities"]["ct"]["source"] = {"format": "nifti", "files": "{patient}.nii.gz"}
        document.write_text(yaml.safe_dump(text))
    told = write(made, tmp_path / "maps")
    assert told.startswith("maps of 0 of 1 scan") and "NIfTI alone" in told
    assert re.search(expected, told), told
    assert not list((tmp_path / "maps").rglob("*.dcm"))


def test_headers_that_do_not_say_where_they_are_are_refused_and_empty_ones_are_filled(made, tmp_path):
    path = tmp_path / "source" / "P0" / "05.dcm"
    [header] = headers_of([path])
    assert header.StudyDate == "" and header.PatientID == "P0"
    item = pydicom.dcmread(path)
    del item.FrameOfReferenceUID
    item.save_as(path)
    with pytest.raises(DataError, match="no FrameOfReferenceUID"):
        headers_of([path])


def test_the_yaml_of_another_cohort_is_refused(made, tmp_path):
    cohort, document, _, _ = made
    text = yaml.safe_load(document.read_text()) | {"name": "another"}
    document.write_text(yaml.safe_dump(text))
    with pytest.raises(ConfigError, match="'another', not 'lesion'"):
        SourceSeries(document, cohort)
