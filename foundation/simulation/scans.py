"""A volume written as a scanner's archive would hold it: one NIfTI file, or the slices of a DICOM series."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from foundation.simulation.files import write_gzip
from foundation.simulation.sites import ScanFormat

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.uid import UID

SLOPE, INTERCEPT = 0.5, -20.0
"""Intensity = stored integer x slope + intercept, in both formats: powers of two, so that nothing is rounded twice."""

DESCRIPTIONS = {"t1": "T1 axial", "flair": "AX FLAIR", "localizer": "Localizer"}

RAS_TO_LPS = np.array([-1.0, -1.0, 1.0])


def write_scan(
    volume: np.ndarray,
    affine: np.ndarray,
    path: Path,
    scan_format: ScanFormat,
    *,
    patient: str = "SIM-00-0000",
    channel: str = "t1",
    seed: int = 0,
) -> None:
    """Write one channel; read back, both formats give the same intensities at the same places.

    Args:
        volume: [X, Y, Z] intensities; kept to multiples of the slope.
        affine: [4, 4], voxel indices to millimetres, RAS; its axes at right angles.
        path: The ``.nii.gz`` file, or the folder of the series.
        scan_format: ``nifti`` or ``dicom``.
        patient: The patient's name, which goes into the DICOM headers.
        channel: The sequence, which names the DICOM series.
        seed: Tells apart the DICOM identifiers of two cohorts with the same patients' names.
    """
    stored = _stored(volume)
    if scan_format == "nifti":
        _write_nifti(stored, affine, path, rescale=(SLOPE, INTERCEPT))
    else:
        series = _series(patient, channel, seed)
        path.mkdir(parents=True, exist_ok=True)
        for number in range(stored.shape[2]):
            origin = affine @ [0, 0, number, 1]
            _write_slice(series, path, number + 1, stored[:, :, number], affine[:3, :3], origin[:3])


def write_mask(mask: np.ndarray, affine: np.ndarray, path: Path) -> None:
    """Write a mask [X, Y, Z] as a NIfTI file of 0 and 1."""
    _write_nifti(mask.astype(np.uint8), affine, path, rescale=(1.0, 0.0))


def write_localizer(volume: np.ndarray, affine: np.ndarray, path: Path, *, patient: str, seed: int) -> None:
    """Write three middle slices, one of each plane, as the series by which a radiographer aims the scan.

    Args:
        volume: [X, Y, Z] intensities.
        affine: [4, 4], as in `write_scan`.
        path: The folder of the patient's series.
        patient: The patient's name.
        seed: The cohort's seed.
    """
    stored = _stored(volume)
    series = _series(patient, "localizer", seed)
    series.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    middle = np.array(stored.shape) // 2
    for number, (first, second, across) in enumerate([(0, 1, 2), (0, 2, 1), (1, 2, 0)], start=1):
        start = np.zeros(4)
        start[across], start[3] = middle[across], 1
        plane = np.take(stored, middle[across], axis=across)
        _write_slice(series, path, number, plane, affine[:3, [first, second, across]], (affine @ start)[:3])


def reorient(volume: np.ndarray, affine: np.ndarray, orientation: str) -> tuple[np.ndarray, np.ndarray]:
    """Turn an array to another axis order and direction, such as ``LPS``; every voxel stays where it is.

    Args:
        volume: [X, Y, Z].
        affine: [4, 4], voxel indices to millimetres, RAS.
        orientation: Three letters, where each axis leads.

    Returns:
        The turned array and its affine.
    """
    from nibabel import orientations

    wanted = orientations.axcodes2ornt(tuple(orientation))
    change = orientations.ornt_transform(orientations.io_orientation(affine), wanted)
    turned = orientations.apply_orientation(volume, change)
    return turned, affine @ orientations.inv_ornt_aff(change, volume.shape)


def _stored(volume: np.ndarray) -> np.ndarray:
    limits = np.iinfo(np.int16)
    return np.clip(np.rint((volume - INTERCEPT) / SLOPE), limits.min, limits.max).astype(np.int16)


def _write_nifti(stored: np.ndarray, affine: np.ndarray, path: Path, *, rescale: tuple[float, float]) -> None:
    import nibabel

    image = nibabel.Nifti1Image(stored, affine)
    image.header.set_slope_inter(*rescale)
    image.header.set_xyzt_units("mm")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_gzip(path, image.to_bytes())


def _uid(*parts: object) -> UID:
    from pydicom.uid import UID

    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return UID(f"2.25.{int.from_bytes(digest[:16], 'big')}")


def _series(patient: str, channel: str, seed: int) -> Dataset:
    """What all slices of one series share."""
    from pydicom import Dataset
    from pydicom.uid import MRImageStorage

    series = Dataset()
    series.SOPClassUID = MRImageStorage
    series.ImageType = ["ORIGINAL", "PRIMARY", "M"]
    series.StudyDate = series.StudyTime = series.AccessionNumber = series.ReferringPhysicianName = ""
    series.Modality = "MR"
    series.Manufacturer = "chiasma simulate"
    series.SeriesDescription = DESCRIPTIONS[channel]
    series.PatientName = series.PatientID = patient
    series.PatientBirthDate = series.PatientSex = ""
    series.ScanningSequence = "SE" if channel != "flair" else ["SE", "IR"]
    series.SequenceVariant, series.ScanOptions, series.MRAcquisitionType = "NONE", "", "2D"
    series.EchoTime, series.RepetitionTime, series.EchoTrainLength = "", "", ""
    series.StudyInstanceUID = _uid(seed, patient, "study")
    series.SeriesInstanceUID = _uid(seed, patient, "series", channel)
    series.FrameOfReferenceUID = _uid(seed, patient, "frame")
    series.StudyID, series.PositionReferenceIndicator = "1", ""
    series.SeriesNumber = list(DESCRIPTIONS).index(channel) + 1
    series.SamplesPerPixel, series.PhotometricInterpretation = 1, "MONOCHROME2"
    series.BitsAllocated, series.BitsStored, series.HighBit, series.PixelRepresentation = 16, 16, 15, 1
    series.RescaleSlope, series.RescaleIntercept, series.RescaleType = SLOPE, INTERCEPT, "US"
    return series


def _write_slice(
    series: Dataset, folder: Path, number: int, plane: np.ndarray, axes: np.ndarray, origin: np.ndarray
) -> None:
    """Write one slice: `plane` [I, J], the RAS steps of its two indices and across it, and where it begins."""
    from pydicom import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage
    from pydicom.valuerep import DSfloat

    steps = np.linalg.norm(axes, axis=0)
    # Adding 0 turns a negative zero into a plain one.
    cosines = (axes / steps * RAS_TO_LPS[:, None]).T + 0.0
    series.SOPInstanceUID = _uid(series.SeriesInstanceUID, number)
    series.InstanceNumber = number
    series.ImageOrientationPatient = [DSfloat(x, auto_format=True) for x in (*cosines[0], *cosines[1])]
    series.ImagePositionPatient = [DSfloat(x, auto_format=True) for x in origin * RAS_TO_LPS]
    # DICOM counts rows first; a row runs along the first index.
    series.PixelSpacing = [DSfloat(x, auto_format=True) for x in (steps[1], steps[0])]
    series.SliceThickness = series.SpacingBetweenSlices = DSfloat(steps[2], auto_format=True)
    series.Columns, series.Rows = plane.shape
    series.PixelData = np.ascontiguousarray(plane.T).astype("<i2").tobytes()
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = MRImageStorage, series.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    series.file_meta = meta
    # Archives number their files by no order of the slices; the identifier's digits are as good as shuffled.
    name = f"IM{hashlib.sha256(series.SOPInstanceUID.encode()).hexdigest()[:10].upper()}.dcm"
    packed = io.BytesIO()
    series.save_as(packed, enforce_file_format=True)
    (folder / name).write_bytes(packed.getvalue())
