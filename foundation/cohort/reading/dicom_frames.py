"""DICOM files below a folder, none passed over in silence: read as frames, left aside with a reason, or refused."""

from __future__ import annotations

import hashlib
import os
import struct
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foundation.errors import DataError

if TYPE_CHECKING:
    from pydicom import Dataset

HEADER_TAGS = [
    "ImageType",
    "SOPClassUID",
    "SOPInstanceUID",
    "Modality",
    "SeriesDescription",
    "PatientID",
    "SeriesInstanceUID",
    "SeriesNumber",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "ImagerPixelSpacing",
    "SliceThickness",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "RescaleSlope",
    "RescaleIntercept",
    "ModalityLUTSequence",
    "ConcatenationUID",
    "InConcatenationTotalNumber",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
]
GREY = {"MONOCHROME1", "MONOCHROME2"}
"""Photometric interpretations whose numbers are intensities; those of a palette are places in a table of colours."""

NO_SCANS = {"RTDOSE", "SEG"}
"""Modalities whose objects have rows and columns but are computed, not acquired."""

MEDIA_DIRECTORY = "1.2.840.10008.1.3.10"
"""SOP class of a DICOMDIR, the table of contents of a disc."""

DAMAGED = (ValueError, TypeError, AttributeError, KeyError, IndexError, RuntimeError, OSError, EOFError, struct.error)
"""What pydicom and the conversion of its values raise on bytes that break the standard."""

SUFFIXES = {".dcm", ".dicom", ".dic", ".ima"}
"""Names that promise DICOM, whatever is inside."""

FIRST_GROUPS = (b"\x02\x00", b"\x08\x00", b"\x00\x02", b"\x00\x08")
"""How a data set begins that has no preamble: the group of its first element, in either byte order."""

OTHER_KINDS = {
    b"%PDF": "PDF",
    b"\x89PNG": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"GIF8": "GIF",
    b"II*\x00": "TIFF",
    b"MM\x00*": "TIFF",
    b"PK\x03\x04": "ZIP",
    b"MZ": "program",
    b"7z\xbc\xaf": "7z",
    b"BZh": "bzip2",
    b"\x89HDF": "HDF5",
    b"\xff\xfe": "text",
    b"\xfe\xff": "text",
    b"\xd0\xcf\x11\xe0": "Office document",
}
"""How files begin that lie beside scans on discs and in archives, and are no DICOM."""

BESIDE = {".ds_store", "thumbs.db", "desktop.ini", "autorun.inf"}
"""Files that operating systems leave in folders."""


@dataclass(frozen=True)
class Frame:
    """One frame of one file: its place in space and what its numbers mean.

    Attributes:
        frame: Its number in the file, from 0.
        frames: Number of frames that the file says it has.
        wrong: What makes the file unreadable as a scan, or empty; said only where its series is chosen.
        grey: Whether its numbers are intensities.
        shape: Rows and columns.
        pixel_spacing: Millimetres from row to row and from column to column.
        position, orientation: As in the header, LPS millimetres; empty where it does not say.
        marked: The words of ImageType for which it is left aside; such a frame is no part of the scan.
        patient: PatientID of the header, which is compared and never told.
        whole: Name of the object of which the file is one part, and of how many; empty and 1 where it is all of it.
    """

    path: Path
    frame: int
    frames: int
    wrong: str
    instance: str
    series: str
    series_number: float
    modality: str
    description: str
    grey: bool
    shape: tuple[int, int]
    pixel_spacing: tuple[float, ...]
    thickness: float
    position: tuple[float, ...]
    orientation: tuple[float, ...]
    slope: float
    intercept: float
    whole: tuple[str, int] = ("", 1)
    marked: str = ""
    patient: str = ""


def files_below(folder: Path, closed: Callable[[OSError], None] | None = None) -> list[Path]:
    """Every file below a folder, sorted, and every link to nothing; linked folders are entered, each once.

    Args:
        folder: Holds the files.
        closed: Called with what forbids to list a folder, which is else taken for empty.
    """
    found: list[Path] = []
    entered = {os.path.realpath(folder)}
    for place, folders, names in os.walk(folder, onerror=closed, followlinks=True):
        once = {os.path.realpath(Path(place, name)): name for name in sorted(folders, reverse=True)}
        folders[:] = sorted(once[real] for real in once.keys() - entered)
        entered |= once.keys()
        paths = (Path(place, name) for name in names)
        found += [path for path in paths if path.is_file() or path.is_symlink()]
    return sorted(found)


def _refuse_closed_folder(error: OSError) -> None:
    raise DataError(
        f"the folder cannot be listed: {error.strerror}", where=str(error.filename), fix="check its permissions"
    )


def frames_below(folder: Path, leave_out: set[str], aside: Counter[str]) -> list[Frame]:
    """The frames of all images below a folder, those left aside for their ImageType marked; a copy is left aside.

    Args:
        folder: Holds the files of a patient.
        leave_out: Words of ImageType, in capitals, whose images are left aside.
        aside: Counts what is left aside, by reason.

    Raises:
        DataError: A file may be a scan and cannot be read: to pass it over could lose a slice unseen.
    """
    found: dict[tuple, Frame] = {}
    doubtful: list[Path] = []
    endings: set[str] = set()
    copies: set[tuple[Path, Path]] = set()
    for path in files_below(folder, _refuse_closed_folder):
        kind = _kind(path)
        if kind is None:
            doubtful.append(path)
        elif kind:
            aside[kind] += 1
        else:
            endings.add(path.suffix.lower())
            for frame in _frames_of(path, leave_out, aside):
                # Archives repeat instance numbers; a copy lies at the same place of the same series too.
                key = frame.series, frame.instance, frame.frame, frame.position, frame.marked
                if found.setdefault(key, frame) is not frame:
                    copies.add((found[key].path, path))
                    aside["second copies of an image"] += not frame.marked
    for first, second in sorted(copies):
        _refuse_another_image(first, second)
    for path in doubtful:
        _refuse_lost_slice(path, endings)
        aside[f"files that are no DICOM ({path.suffix.lower()})"] += 1
    return list(found.values())


def _kind(path: Path) -> str | None:
    """Why a file is plainly no DICOM; empty where it begins as DICOM does, None where nobody can tell."""
    if path.name.startswith("._") or path.name.lower() in BESIDE:
        return "files of an operating system, such as ._ or Thumbs.db"
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except OSError as error:
        raise DataError(
            f"cannot be opened, and may be a slice: {error.strerror}",
            where=str(path),
            fix="check its permissions; if it is a link, fetch what it links to",
        ) from None
    if start[128:132] == b"DICM" or start.startswith(FIRST_GROUPS):
        return ""
    for magic, kind in OTHER_KINDS.items():
        if start.startswith(magic):
            return f"files that are no DICOM ({kind})"
    text = start.decode("utf-8", errors="replace").rstrip("\ufffd")
    plain = text and all(letter.isprintable() or letter in "\r\n\t\ufeff" for letter in text)
    return "files that are no DICOM (text)" if plain and path.suffix.lower() not in SUFFIXES else None


def _refuse_lost_slice(path: Path, endings: set[str]) -> None:
    """Refuse a file that is no DICOM but is named as slices are: as those beside it, or without a telling ending."""
    ending = path.suffix.lower()
    within = {suffix.lower() for suffix in path.suffixes}
    if within & SUFFIXES or ending in endings or not ending.strip(".0123456789"):
        size = path.stat().st_size
        what = f"is cut short to {size} bytes" if size < 132 else "does not begin as DICOM does"
        raise DataError(
            f"{what}, and may be a slice", where=str(path), fix="copy it again, or take it out of the folder"
        )


def _refuse_another_image(first: Path, second: Path) -> None:
    """Refuse two files that bear the same number and place and hold different pixels: one would be lost."""
    if first != second and _pixels(first) != _pixels(second):
        raise DataError(
            f"bears the instance number, series and place of {first.name}, and holds other pixels",
            where=str(second),
            fix="take the one that is not wanted out of the folder, or give each echo or phase a series of its own",
        )


def _pixels(path: Path) -> str:
    """A hash of the stored pixels."""
    from pydicom import dcmread

    names = ["PixelData", "FloatPixelData", "DoubleFloatPixelData"]
    with damage_named(path):
        dataset = dcmread(path, force=True, specific_tags=names)  # type: ignore[arg-type]
        return hashlib.sha256(b"".join(dataset[name].value for name in names if name in dataset)).hexdigest()


def _frames_of(path: Path, leave_out: set[str], aside: Counter[str]) -> list[Frame]:
    with damage_named(path):
        header = _read_header(path)
        reason = _why_aside(header)
        marked = " and ".join(sorted({str(word).upper() for word in _several(header, "ImageType")} & leave_out))
        if reason or marked:
            aside[reason or f"images marked {marked}"] += 1
            return _marked_frames(header, path, marked)
        return _to_frames(header, path)


@contextmanager
def damage_named(path: Path) -> Iterator[None]:
    """Name the file whose bytes break the standard; breaches that do no harm are none of the user's concern."""
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    except DAMAGED as error:
        words = ": ".join(filter(None, [type(error).__name__, " ".join(str(error).split())[:120]]))
        raise DataError(
            f"the DICOM header is truncated or damaged ({words})", where=str(path), fix="copy the file again"
        ) from None


def _read_header(path: Path) -> Dataset:
    """The tags that are needed, with or without the preamble and the meta header that a file should begin with."""
    from pydicom import dcmread

    header = dcmread(path, force=True, stop_before_pixels=True, specific_tags=HEADER_TAGS)  # type: ignore[arg-type]
    table_of_contents = header.file_meta.get("MediaStorageSOPClassUID") == MEDIA_DIRECTORY
    if "SOPClassUID" not in header and not table_of_contents and not {"Rows", "Modality"} <= set(header.dir()):
        raise EOFError
    return header


def _marked_frames(header: Dataset, path: Path, marked: str) -> list[Frame]:
    """The frames of an image that is left aside; none where its header does not say enough."""
    try:
        return [replace(frame, marked=marked) for frame in _to_frames(header, path)] if marked else []
    except DAMAGED:
        return []


def _why_aside(header: Dataset) -> str:
    """Why an object is no acquired image; empty where it is one.

    Raises:
        EOFError: It ends before it says what it is; to pass it over could lose the last slice unseen.
    """
    if "Rows" not in header:
        kind = header.file_meta.get("MediaStorageSOPClassUID") or header.get("SOPClassUID")
        if kind == MEDIA_DIRECTORY:
            return "DICOMDIR"
        if kind and "SeriesInstanceUID" in header and not kind.name.endswith("Image Storage"):
            return f"objects that are no images ({kind.name})"
        raise EOFError
    modality = header.get("Modality")
    return f"computed objects ({modality})" if modality in NO_SCANS else ""


def _to_frames(header: Dataset, path: Path) -> list[Frame]:
    frames = int(header.get("NumberOfFrames") or 1)
    shape = int(header["Rows"].value), int(header["Columns"].value)
    if min(shape) < 1:
        raise ValueError(f"{shape[0]} rows and {shape[1]} columns")
    groups = header.get("PerFrameFunctionalGroupsSequence") or []
    shared = list(header.get("SharedFunctionalGroupsSequence") or [])
    wrong = ""
    if groups and len(groups) != frames:
        wrong = f"says that it has {frames} frames and describes {len(groups)}"
    elif frames > 1 and not groups:
        wrong = f"is one file of {frames} frames that does not say where each of them lies"
    number = header.get("SeriesNumber")
    photometric = str(header.get("PhotometricInterpretation") or "").strip().upper()
    grey = photometric in GREY | {""} and int(header.get("SamplesPerPixel") or 1) == 1
    found = []
    for frame, group in enumerate(groups or [None]):
        # What stands once at the top holds for every frame that does not say otherwise.
        places = [*filter(None, [group]), *shared, header]
        # A table of values is applied with the pixels, and leaves nothing to scale.
        scales = [] if header.get("ModalityLUTSequence") else places
        found.append(
            Frame(
                path=path,
                frame=frame,
                frames=frames,
                wrong=wrong,
                instance=str(header.get("SOPInstanceUID") or path),
                series=str(header.get("SeriesInstanceUID") or ""),
                patient=str(header.get("PatientID") or "").strip(),
                series_number=float("inf") if number is None else int(number),
                modality=str(header.get("Modality") or "").upper(),
                description=str(header.get("SeriesDescription") or ""),
                grey=grey,
                shape=shape,
                pixel_spacing=_numbers(places, "PixelMeasuresSequence", "PixelSpacing")
                or _numbers(places, "", "ImagerPixelSpacing"),
                thickness=(_numbers(places, "PixelMeasuresSequence", "SliceThickness") or (0.0,))[0],
                position=_numbers(places, "PlanePositionSequence", "ImagePositionPatient"),
                orientation=_numbers(places, "PlaneOrientationSequence", "ImageOrientationPatient"),
                slope=(_numbers(scales, "PixelValueTransformationSequence", "RescaleSlope") or (1.0,))[0],
                intercept=(_numbers(scales, "PixelValueTransformationSequence", "RescaleIntercept") or (0.0,))[0],
                whole=(str(header.get("ConcatenationUID") or ""), int(header.get("InConcatenationTotalNumber") or 1)),
            )
        )
    return found


def _several(dataset: Dataset, tag: str) -> list[Any]:
    value = dataset.get(tag)
    if value is None or value == "":
        return []
    return [value] if isinstance(value, str | int | float) else list(value)


def _numbers(places: Sequence[Dataset], group: str, tag: str) -> tuple[float, ...]:
    """The numbers of a tag, in its functional group or at the top of a place; empty where there are none."""
    for place in places:
        inner = place.get(group) if group else None
        values = _several(inner[0] if inner else place, tag)
        if values:
            return tuple(float(value) for value in values)
    return ()
