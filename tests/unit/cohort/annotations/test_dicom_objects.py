"""SEG written by highdicom and RTSTRUCT written here: where they lie on the image, and what does not fit set aside."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pydicom
import pytest
from matplotlib.path import Path as Polygon
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, RTStructureSetStorage, generate_uid

from foundation.cohort.annotations.base import Grid
from foundation.cohort.annotations.dicom_objects import to_indices
from foundation.cohort.annotations.rtstruct import inside

SHAPE = (14, 12, 8)
ACROSS, DOWN = np.array([0.96, 0.28, 0.0]), np.array([-0.28, 0.96, 0.0])
FIRST, SPACING = np.array([-12.0, 8.0, 40.0]), (1.2, 0.9, 3.0)
STUDY, SERIES, FRAME = "1.2.3.7", "1.2.3.8", "1.2.3.9"
DICOM = {"source": {"format": "dicom", "files": "series/{patient}"}, "stored_as": "int16", "size": list(SHAPE)}


def place(voxels: np.ndarray) -> np.ndarray:
    """[n, 3] LPS millimetres of fractional voxel indices (column, row, slice)."""
    axes = np.stack([ACROSS * SPACING[0], DOWN * SPACING[1], [0, 0, SPACING[2]]], axis=1)
    return FIRST + np.asarray(voxels, dtype=float) @ axes.T


def dataset(kind: str, modality: str, *names: object) -> pydicom.Dataset:
    made, meta = pydicom.Dataset(), FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, kind
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[modality, *map(str, names)])
    made.file_meta, made.SOPClassUID, made.SOPInstanceUID = meta, kind, meta.MediaStorageSOPInstanceUID
    made.Modality, made.StudyInstanceUID, made.FrameOfReferenceUID = modality, STUDY, FRAME
    made.PatientID, made.PatientName, made.PatientBirthDate, made.PatientSex = "P", "A^B", "", ""
    made.StudyDate = made.StudyTime = made.StudyID = made.AccessionNumber = made.ReferringPhysicianName = ""
    return made


def write_series(folder: Path) -> tuple[np.ndarray, list[pydicom.Dataset]]:
    """Voxels [X, Y, Z] of a turned series, and its slices."""
    folder.mkdir(parents=True)
    voxels = np.random.default_rng(1).permutation(np.prod(SHAPE)).reshape(SHAPE).astype(np.uint16)
    slices = []
    for k in range(SHAPE[2]):
        item = dataset(CTImageStorage, "CT", folder.name, k)
        item.SeriesInstanceUID, item.SeriesNumber, item.InstanceNumber = f"{SERIES}.{len(folder.name)}", 3, k + 1
        item.ImageType, item.Rows, item.Columns = ["ORIGINAL", "PRIMARY", "AXIAL"], SHAPE[1], SHAPE[0]
        item.PixelSpacing, item.SliceThickness = [SPACING[1], SPACING[0]], SPACING[2]
        item.ImageOrientationPatient = [*ACROSS, *DOWN]
        item.ImagePositionPatient = [round(float(v), 6) for v in place([[0, 0, k]])[0]]
        item.RescaleSlope, item.RescaleIntercept, item.RescaleType = 1, 0, "HU"
        item.SamplesPerPixel, item.PhotometricInterpretation = 1, "MONOCHROME2"
        item.BitsAllocated, item.BitsStored, item.HighBit, item.PixelRepresentation = 16, 12, 11, 0
        item.PixelData = voxels[:, :, k].T.tobytes()
        item.save_as(folder / f"{k:02d}.dcm", enforce_file_format=True)
        slices.append(item)
    return voxels, slices


def recipe(kind: str, regions: object) -> dict:
    source = {"format": kind, "files": "drawn/{patient}.dcm"}
    return {"tumour": {"image": "mri", "source": source, "regions": regions}}


def where(voxels: np.ndarray, mask: np.ndarray, cohort, row: int = 0, region: int = 0) -> None:
    """A region as stored holds the same voxels of the image, no two of which have one value."""
    stored, drawn = cohort.voxels("mri", row)[0], cohort.annotation("tumour", row).regions[region]
    assert mask.any() and drawn.sum() == mask.sum()
    np.testing.assert_array_equal(np.sort(stored[drawn]), np.sort(voxels[mask]))


def ball(middle: tuple[float, ...], radius: float) -> np.ndarray:
    grid = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), axis=-1)
    return (((grid - np.array(middle)) ** 2).sum(axis=-1)) <= radius**2


def write_seg(path: Path, slices: list[pydicom.Dataset], masks: dict[str, np.ndarray], kind: str = "BINARY", **more):
    hd = pytest.importorskip("highdicom", reason="the extra dicom-maps is not installed")
    from pydicom.sr.codedict import codes

    described = [
        hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=name,
            segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
            segmented_property_type=codes.SCT.Neoplasm,
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for number, name in enumerate(masks, 1)
    ]
    pixels = np.stack([mask.transpose(2, 1, 0) for mask in masks.values()], axis=-1)
    seg = hd.seg.Segmentation(
        source_images=slices,
        pixel_array=pixels.astype(np.float64 if kind == "FRACTIONAL" else np.uint8) * more.pop("scale", 1),
        segmentation_type=kind,
        segment_descriptions=described,
        series_instance_uid=generate_uid(),
        series_number=9,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="-",
        manufacturer_model_name="-",
        software_versions="1",
        device_serial_number="1",
        **more,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    seg.save_as(path)


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
def test_segments_lie_where_highdicom_wrote_them(tmp_path, prepared, kind):
    voxels, slices = write_series(tmp_path / "series" / "P1")
    core, rest = ball((5, 6, 3), 2.2), ball((9, 3, 5), 2)
    rest &= ~core
    write_seg(tmp_path / "drawn" / "P1.dcm", slices, {"core": core, "oedema": rest, "other": ball((2, 2, 1), 1)}, kind)
    cohort = prepared(recipe("dicom_seg", {"whole": [1, "oedema"], "core": "core"}), **DICOM)
    where(voxels, core | rest, cohort)
    where(voxels, core, cohort, region=1)
    assert cohort.manifest.remarks["annotation tumour"] == {"structures that no region names, left out": 1}


def test_a_segmentation_of_one_slice_and_one_on_a_nifti_image(tmp_path, prepared):
    from tests.unit.cohort.annotations.conftest import save

    voxels, slices = write_series(tmp_path / "series" / "P1")
    mask = ball((5, 6, 3), 2.2)
    mask[:, :, :3] = mask[:, :, 4:] = False
    write_seg(tmp_path / "drawn" / "P1.dcm", slices, {"core": mask})
    where(voxels, mask, prepared(recipe("dicom_seg", ["core"]), **DICOM))
    corners = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, 3], affine[:3, :3] = place(corners)[0], (place(corners)[1:] - place(corners)[0]).T
    turned = voxels.transpose(2, 0, 1)[::-1].astype(np.int16)
    flip = np.array([[0, 1, 0, 0], [0, 0, 1, 0], [-1, 0, 0, SHAPE[2] - 1], [0, 0, 0, 1]])
    save(tmp_path / "nifti" / "P1.nii.gz", turned, np.diag([-1.0, -1, 1, 1]) @ affine @ flip)
    image = {"source": {"format": "nifti", "files": "nifti/{patient}.nii.gz"}, "stored_as": "int16"}
    where(voxels, mask, prepared(recipe("dicom_seg", ["core"]), out="other", size=list(SHAPE), **image))


def test_fractions_and_other_grids_are_set_aside(tmp_path, prepared, faults):
    names = ("P1", "P22", "P333", "P4444")
    series = {name: write_series(tmp_path / "series" / name)[1] for name in names}
    core = {"core": ball((5, 6, 3), 2.2)}
    write_seg(tmp_path / "drawn" / "P1.dcm", series["P1"], core, "FRACTIONAL", scale=0.5)
    write_seg(tmp_path / "drawn" / "P22.dcm", series["P22"], {"else": core["core"]})
    write_seg(tmp_path / "drawn" / "P4444.dcm", series["P4444"], core)
    write_seg(tmp_path / "moved.dcm", series["P333"], core)
    moved = pydicom.dcmread(tmp_path / "moved.dcm")
    for frame in moved.PerFrameFunctionalGroupsSequence:
        position = frame.PlanePositionSequence[0]
        position.ImagePositionPatient = [*position.ImagePositionPatient[:2], position.ImagePositionPatient[2] + 1.5]
    moved.save_as(tmp_path / "drawn" / "P333.dcm")
    cohort = prepared(recipe("dicom_seg", ["core"]), **DICOM)
    assert [cohort.annotation("tumour", row) is None for row in range(4)] == [True, True, True, False]
    said = faults()
    assert "fractions of voxels" in said["P1"] and "holds none of the regions, but 1 'else'" in said["P22"]
    assert "do not lie on voxels" in said["P333"] and len(said) == 3


def write_rtstruct(path: Path, structures: dict[str, list[np.ndarray]], kind: str = "CLOSED_PLANAR") -> None:
    made = dataset(RTStructureSetStorage, "RTSTRUCT", path.name)
    made.StructureSetLabel, made.SeriesInstanceUID = "drawn", generate_uid()
    made.StructureSetROISequence, made.ROIContourSequence = [], []
    for number, (name, contours) in enumerate(structures.items(), 1):
        structure, drawn = pydicom.Dataset(), pydicom.Dataset()
        structure.ROINumber, structure.ROIName, structure.ReferencedFrameOfReferenceUID = number, name, FRAME
        drawn.ReferencedROINumber, drawn.ContourSequence = number, []
        for corners in contours:
            contour = pydicom.Dataset()
            contour.ContourGeometricType, contour.NumberOfContourPoints = kind, len(corners)
            contour.ContourData = [f"{value:.4f}" for value in place(corners).ravel()]
            drawn.ContourSequence.append(contour)
        made.StructureSetROISequence.append(structure)
        made.ROIContourSequence.append(drawn)
    path.parent.mkdir(parents=True, exist_ok=True)
    made.save_as(path, enforce_file_format=True)


def circle(middle: tuple[float, float], radius: float, height: float, corners: int = 40) -> np.ndarray:
    angles = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    flat = np.array(middle) + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return np.concatenate([flat, np.full((corners, 1), height)], axis=1)


def expected(contours: list[np.ndarray]) -> np.ndarray:
    """What matplotlib says is inside an odd number of contours of a slice."""
    points = np.stack(np.meshgrid(*map(np.arange, SHAPE[:2]), indexing="ij"), axis=-1).reshape(-1, 2)
    mask = np.zeros(SHAPE, dtype=bool)
    for contour in contours:
        mask[:, :, round(contour[0, 2])] ^= Polygon(contour[:, :2]).contains_points(points).reshape(SHAPE[:2])
    return mask


def test_contours_are_filled_where_they_lie_with_their_holes(tmp_path, prepared):
    voxels, _ = write_series(tmp_path / "series" / "P1")
    ring = [circle((6.1, 5.3), radius, height) for height in (2, 3) for radius in (4.2, 1.7)]
    others = [circle((9.2, 8.1), 2.2, height) for height in (1, 2, 4)]
    body = [circle((6, 5), 2, 0)]
    write_rtstruct(tmp_path / "drawn" / "P1.dcm", {"GTV": ring, "GTV 2": others, "Body": body})
    cohort = prepared(recipe("rtstruct", {"tumour": ["GTV", "GTV 2"], "first": "GTV", "node": "GTVn"}), **DICOM)
    where(voxels, expected(ring) | expected(others), cohort)
    where(voxels, expected(ring), cohort, region=1)
    assert cohort.annotation("tumour", 0).annotated.tolist() == [True, True, False]
    assert cohort.manifest.remarks["annotation tumour"] == {
        "structures that no region names, left out": 1,
        "structures without a contour on a slice between others": 1,
    }


def test_contours_between_slices_or_outside_and_other_objects_are_set_aside(tmp_path, prepared, faults):
    names = ("P1", "P22", "P333", "P4444")
    for name in names:
        write_series(tmp_path / "series" / name)
    contours = ([circle((6, 5), 3, 2.5)], [circle((6, 5), 3, 11)], [circle((6, 5), 9, 2)])
    for name, drawn in zip(names, contours, strict=False):
        write_rtstruct(tmp_path / "drawn" / f"{name}.dcm", {"GTV": drawn})
    (tmp_path / "drawn" / "P4444.dcm").write_bytes((tmp_path / "series" / "P1" / "00.dcm").read_bytes())
    cohort = prepared(recipe("rtstruct", ["GTV"]), **DICOM)
    assert all(cohort.annotation("tumour", row) is None for row in range(4))
    for name, reason in zip(names, ("at 2.50", "reaches out", "reaches out", "of modality 'CT'"), strict=True):
        assert reason in faults()[name]


@pytest.mark.parametrize("seed", range(5))
def test_inside_agrees_with_matplotlib_on_stars(seed):
    random = np.random.default_rng(seed)
    angles = np.sort(random.uniform(0, 2 * np.pi, 30))
    corners = np.array([9.3, 8.7]) + random.uniform(1, 7, (30, 1)) * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    points = np.array(list(itertools.product(range(20), range(18))))
    theirs = Polygon(corners).contains_points(points).reshape(20, 18)
    np.testing.assert_array_equal(inside(corners, (20, 18)), theirs)


def test_squares_on_the_middles_of_voxels_tile_without_gap_or_overlap():
    corners = np.array([[0, 0], [4, 0], [4, 4], [0, 4]], dtype=float)
    pieces = [inside(corners + shift, (9, 9)) for shift in itertools.product((0, 4), (0, 4))]
    assert np.sum(pieces, axis=0).max() == 1 and np.sum(pieces) == 64


def test_places_become_indices():
    grid = Grid(np.array([[-1.0, 0, 0, 10], [0, -2, 0, 20], [0, 0, 3, 30], [0, 0, 0, 1]]), (5, 5, 5), True)
    np.testing.assert_allclose(to_indices(np.array([[-8.0, -16, 36]]), grid), [[2, 2, 2]])
