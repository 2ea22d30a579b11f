"""DICOM series: a folder per patient, or a tree of mixed files from which the series of a channel is chosen."""

import re
import struct
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field, field_validator

from foundation.cohort.reading.scans import find_scans, only_file, refuse_non_finite
from foundation.cohort.sources.base import ImageSource, Scan, SourceConfig, Volume, image_sources
from foundation.config import Config
from foundation.errors import ConfigError, DataError, nearest

if TYPE_CHECKING:
    from pydicom import Dataset

HEADER_TAGS = [
    "ImageType",
    "SOPInstanceUID",
    "Modality",
    "SeriesDescription",
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
    "RescaleSlope",
    "RescaleIntercept",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
]
NO_SCANS = {"RTDOSE", "SEG"}
"""Modalities whose objects have rows and columns but are computed, not acquired."""

DAMAGED = (ValueError, TypeError, AttributeError, KeyError, IndexError, RuntimeError, OSError, EOFError, struct.error)
"""What pydicom and the conversion of its values raise on bytes that break the standard."""

MEDIA_DIRECTORY = "1.2.840.10008.1.3.10"
"""SOP class of a DICOMDIR, the table of contents of a disc."""

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


class SeriesRule(Config):
    """Which series of a patient's folder is a channel."""

    modality: str | None = Field(default=None, description="Such as CT or MR.")
    description: str | None = Field(
        default=None, description="Regular expression, in any case, sought in SeriesDescription."
    )
    prefer: Literal["most_slices", "thinnest", "first"] = Field(
        default="most_slices", description="Which of several; `first` is the lowest SeriesNumber. Ties: the lowest UID."
    )

    @field_validator("description")
    @classmethod
    def _is_an_expression(cls, description: str | None) -> str | None:
        try:
            re.compile(description or "")
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from None
        return description

    def allows(self, slices: Sequence["_Slice"]) -> bool:
        """Whether a series is of the stated modality and description."""
        first = slices[0]
        return (self.modality is None or first.modality == self.modality.upper()) and (
            self.description is None or re.search(self.description, first.description, re.IGNORECASE) is not None
        )

    def rank(self, slices: Sequence["_Slice"]) -> tuple[float, str]:
        """The lowest is preferred."""
        first = slices[0]
        by = {"most_slices": -len(slices), "thinnest": _slice_distance(slices), "first": first.series_number}
        return by[self.prefer], first.series


@dataclass(frozen=True)
class _Slice:
    """One frame of one file: its place in space and what its numbers mean."""

    path: Path
    frame: int
    frames: int
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


@image_sources.register("dicom")
class DicomSource(ImageSource):
    """DICOM files; `files` names a folder, whose tree may hold several series and other things.

    Files that are no DICOM are passed over. Slices are ordered by their position along the slice normal and scaled
    by their own rescale slope and intercept; MONOCHROME1 is inverted. Nothing but geometry leaves a header.
    Enhanced multi-frame files are read through their functional groups.
    """

    class Config(SourceConfig):
        """`files` names one folder per patient, channel or time point, such as ``scans/{patient}``."""

        format: Literal["dicom"]
        series: dict[str, SeriesRule] = Field({}, description="Channel to the rule that picks its series.")
        leave_out: list[str] = Field(
            ["LOCALIZER", "SCOUT", "DERIVED", "SECONDARY"], description="Images with such a word in ImageType."
        )

    config: "DicomSource.Config"

    def __init__(self, config: SourceConfig, root: Path, channels: Sequence[str], groups: Sequence[str] = ()) -> None:
        super().__init__(config, root, channels, groups)
        self._read_last: tuple[Path, dict[str, list[_Slice]]] | None = None
        self._in_one_folder = "{channel}" not in self.config.files
        for channel in self.config.series:
            if channel not in self.channels:
                raise ConfigError(
                    f"`series` has a rule for '{channel}', which is no channel",
                    where=f"files: {self.config.files}",
                    fix=nearest(channel, self.channels),
                )
        if self._in_one_folder and len(self.channels) > 1 and not self.config.series:
            raise ConfigError(
                f"several channels ({', '.join(self.channels)}) share a folder and nothing tells them apart",
                where=f"files: {self.config.files}",
                fix="add `series: {CHANNEL: {description: …}}`, or put {channel} into `files`",
            )

    def list_scans(self) -> list[Scan]:
        """One scan per folder and channel, sorted; no file is opened, so a channel may prove absent when read.

        Raises:
            ConfigError: A placeholder is missing.
            DataError: Nothing matches, no folder does, or a scan is there twice.
        """
        shared = self._in_one_folder and len(self.channels) > 1
        found = find_scans(
            self.config.files, self.root, ["*"] if shared else self.channels, self.groups, self.other_channels
        )
        folders = {key: [path for path in paths if path.is_dir()] for key, paths in found.items()}
        folders = {key: only_file(key, paths) for key, paths in folders.items() if paths}
        if not folders:
            raise DataError(
                f"'{self.config.files}' matches files but no folder",
                where=str(self.root),
                fix="let `files` name the folder that holds a patient's series",
            )
        scans = []
        for (patient, time_point, channel), folder in folders.items():
            for name in self._rules() if shared else [channel]:
                scans.append(Scan(patient, time_point, name, (folder,)))
        return sorted(scans)

    def files(self, scan: Scan) -> list[Path]:
        """Every file below the scan's folder, sorted: any of them may change what is chosen."""
        return _files_below(scan.paths[0])

    def read(self, scan: Scan) -> Volume | None:
        """Choose the channel's series and read it; None where the patient has other channels but not this one.

        Raises:
            DataError: No series fits any rule, a slice is missing or damaged, or a plugin is needed to unpack it.
        """
        folder = scan.paths[0]
        series = self._series(folder)
        chosen = _choose(series, self._rules()[scan.channel])
        others = {name: rule for name, rule in self._rules().items() if name != scan.channel and self._in_one_folder}
        picks = {name: _choose(series, rule) for name, rule in others.items()}
        if chosen is None:
            if any(picks.values()):
                return None
            raise _nothing_fits(folder, series)
        for name, pick in picks.items():
            if pick is not None and pick[0].series == chosen[0].series:
                raise DataError(
                    f"the rules of channels '{scan.channel}' and '{name}' pick the same series",
                    where=str(folder),
                    fix="make the `description` of one exclude the other, such as '^(?!.*gd).*t1'",
                )
        volume = _read_volume(chosen, folder)
        refuse_non_finite(volume.voxels, folder)
        return volume

    def _rules(self) -> dict[str, SeriesRule]:
        rules = self.config.series
        if self._in_one_folder and len(self.channels) > 1:
            return {name: rules[name] for name in self.channels if name in rules}
        return {name: rules.get(name, SeriesRule()) for name in self.channels}

    def _series(self, folder: Path) -> dict[str, list[_Slice]]:
        """The acquired images below a folder by series; the last folder is kept, for its next channel."""
        if self._read_last is None or self._read_last[0] != folder:
            series: dict[str, list[_Slice]] = {}
            seen = set()
            for item in _slices_below(folder, {word.upper() for word in self.config.leave_out}):
                if (item.instance, item.frame) not in seen:
                    seen.add((item.instance, item.frame))
                    series.setdefault(item.series, []).append(item)
            self._read_last = folder, series
        return self._read_last[1]


def _choose(series: dict[str, list[_Slice]], rule: SeriesRule) -> list[_Slice] | None:
    return min((slices for slices in series.values() if rule.allows(slices)), key=rule.rank, default=None)


def _nothing_fits(folder: Path, series: dict[str, list[_Slice]]) -> DataError:
    kinds = Counter(slices[0].modality or "unknown" for slices in series.values())
    found = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    return DataError(
        f"no series fits a rule; acquired series: {found}" if found else "holds no acquired DICOM image",
        where=str(folder),
        fix="correct `series`, or `leave_out` where images marked as derived are wanted",
    )


def _files_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))


def _slices_below(folder: Path, leave_out: set[str]) -> Iterator[_Slice]:
    for path in _files_below(folder):
        try:
            # Breaches of the standard that do no harm here are none of the user's concern.
            with warnings.catch_warnings(action="ignore"):
                header = _read_header(path)
                slices = [] if header is None else list(_to_slices(header, path, leave_out))
        except DAMAGED as error:
            raise DataError(
                f"the DICOM header is truncated or damaged ({type(error).__name__})",
                where=str(path),
                fix="copy the file again",
            ) from None
        yield from slices


def _read_header(path: Path) -> "Dataset | None":
    """The tags that are needed; None for a file that is no DICOM."""
    from pydicom import dcmread

    with path.open("rb") as file:
        start = file.read(132)
        if len(start) < 132 and path.suffix.lower() == ".dcm":
            raise DataError(f"is cut short to {len(start)} bytes", where=str(path), fix="copy the file again")
        if start[128:] != b"DICM":
            return None
        file.seek(0)
        return dcmread(file, stop_before_pixels=True, specific_tags=HEADER_TAGS)  # type: ignore[arg-type]


def _is_acquired(header: "Dataset", leave_out: set[str]) -> bool:
    """Whether the file is an image and none of those left out.

    Raises:
        EOFError: It ends before it says what it is; to pass it over could lose the last slice unseen.
    """
    if "Rows" not in header:
        kind = header.file_meta.MediaStorageSOPClassUID
        if kind == MEDIA_DIRECTORY or ("SeriesInstanceUID" in header and not kind.name.endswith("Image Storage")):
            return False
        raise EOFError
    words = {str(word).upper() for word in _several(header, "ImageType")}
    return not words & leave_out and header.get("Modality") not in NO_SCANS


def _to_slices(header: "Dataset", path: Path, leave_out: set[str]) -> Iterator[_Slice]:
    if not _is_acquired(header, leave_out):
        return
    frames = int(header.get("NumberOfFrames") or 1)
    groups = header.get("PerFrameFunctionalGroupsSequence") or []
    number = header.get("SeriesNumber")
    for frame, group in enumerate(groups or [None]):
        places = [header] if group is None else [group, *(header.get("SharedFunctionalGroupsSequence") or [])]
        yield _Slice(
            path=path,
            frame=frame,
            frames=frames,
            instance=str(header.get("SOPInstanceUID") or path),
            series=str(header.get("SeriesInstanceUID") or ""),
            series_number=float("inf") if number is None else int(number),
            modality=str(header.get("Modality") or "").upper(),
            description=str(header.get("SeriesDescription") or ""),
            grey=int(header.get("SamplesPerPixel") or 1) == 1,
            shape=(int(header["Rows"].value), int(header["Columns"].value)),
            pixel_spacing=_numbers(places, "PixelMeasuresSequence", "PixelSpacing")
            or _numbers(places, "", "ImagerPixelSpacing"),
            thickness=(_numbers(places, "PixelMeasuresSequence", "SliceThickness") or (0.0,))[0],
            position=_numbers(places, "PlanePositionSequence", "ImagePositionPatient"),
            orientation=_numbers(places, "PlaneOrientationSequence", "ImageOrientationPatient"),
            slope=(_numbers(places, "PixelValueTransformationSequence", "RescaleSlope") or (1.0,))[0],
            intercept=(_numbers(places, "PixelValueTransformationSequence", "RescaleIntercept") or (0.0,))[0],
        )


def _several(dataset: "Dataset", tag: str) -> list[Any]:
    value = dataset.get(tag)
    if value is None or value == "":
        return []
    return [value] if isinstance(value, str | int | float) else list(value)


def _numbers(places: Sequence["Dataset"], group: str, tag: str) -> tuple[float, ...]:
    """The numbers of a tag, at the top of a place or in its functional group; empty where there are none."""
    for place in places:
        inner = place.get(group) if group else None
        values = _several(inner[0] if inner else place, tag)
        if values:
            return tuple(float(value) for value in values)
    return ()


def _slice_distance(slices: Sequence[_Slice]) -> float:
    """Millimetres between slices; infinite where there is one, or none has a place."""
    if len(slices) < 2 or not all(len(s.position) == 3 and len(s.orientation) == 6 for s in slices):
        return float("inf")
    heights = np.sort([np.dot(s.position, _normal(slices[0])) for s in slices])
    return round(float(np.median(np.diff(heights))), 3)


def _normal(item: _Slice) -> np.ndarray:
    return np.cross(item.orientation[:3], item.orientation[3:])


def _read_volume(slices: list[_Slice], folder: Path) -> Volume:
    _refuse_what_is_no_stack(slices, folder)
    if not slices[0].position:
        down, across = slices[0].pixel_spacing or (1.0, 1.0)
        affine = LPS_TO_RAS @ np.diag([across, down, 1.0, 1.0])
        return Volume(_read_voxels(slices)[:, :, 0], affine, placed=False)
    normal = _normal(slices[0])
    ordered = sorted(slices, key=lambda s: (float(np.dot(s.position, normal)), s.path, s.frame))
    step = _step(ordered, normal, folder)
    down, across = ordered[0].pixel_spacing
    affine = np.eye(4)
    affine[:3, 0] = np.array(ordered[0].orientation[:3]) * across
    affine[:3, 1] = np.array(ordered[0].orientation[3:]) * down
    affine[:3, 2] = step
    affine[:3, 3] = ordered[0].position
    return Volume(_read_voxels(ordered), LPS_TO_RAS @ affine)


def _refuse_what_is_no_stack(slices: list[_Slice], folder: Path) -> None:
    """What can be said before positions are compared."""
    first = slices[0]
    shapes = sorted({s.shape for s in slices})
    if not all(s.grey for s in slices):
        raise _no_stack("is in colour", folder)
    if len(shapes) > 1:
        raise _no_stack(f"has slices of {' and '.join(f'{r} x {c}' for r, c in shapes[:2])}", folder)
    if first.frames > 1 and not first.position:
        raise _no_stack("is a multi-frame file that does not say where its frames lie", folder)
    if len(slices) > 1 or first.position:
        _refuse_impossible_geometry(slices, folder)


def _refuse_impossible_geometry(slices: list[_Slice], folder: Path) -> None:
    for name, count in (("position", 3), ("orientation", 6), ("pixel_spacing", 2)):
        values = [getattr(s, name) for s in slices]
        words = name.replace("_", " ")
        lacking = sum(len(value) != count for value in values)
        if lacking:
            raise _no_stack(f"has {lacking} of {len(slices)} slices without {words} in the header", folder)
        if not np.isfinite(values).all():
            raise _no_stack(f"has a {words} that is no number", folder)
        if name != "position" and np.ptp(values, axis=0).max() > 1e-3:
            raise _no_stack(f"has slices that differ in {words}", folder)
    if min(slices[0].pixel_spacing) <= 0 or not np.isclose(np.linalg.norm(_normal(slices[0])), 1, atol=1e-2):
        raise _no_stack("has an impossible pixel spacing or orientation in the header", folder)


def _no_stack(what: str, folder: Path) -> DataError:
    return DataError(
        f"the chosen series {what}",
        where=str(folder),
        fix="correct `series` so that it picks one stack of grey slices, or export the series again",
    )


def _step(ordered: list[_Slice], normal: np.ndarray, folder: Path) -> np.ndarray:
    """[3] from one slice to the next, LPS millimetres; checks that it is the same everywhere."""
    if len(ordered) == 1:
        return normal * (ordered[0].thickness or 1.0)
    positions = np.array([s.position for s in ordered])
    heights = positions @ normal
    steps = np.diff(positions, axis=0)
    usual = np.median(steps, axis=0)
    distance = float(usual @ normal)
    allowed = max(0.01, 0.01 * distance)
    closest = int(np.argmin(np.diff(heights)))
    if heights[closest + 1] - heights[closest] <= 0.01:
        raise DataError(
            f"two slices lie at {heights[closest]:.2f} mm",
            where=str(folder),
            fix="keep one; a series of several phases or echoes needs one `series` rule and one folder for each",
        )
    deviations = np.linalg.norm(steps - usual, axis=1)
    worst = int(np.argmax(deviations))
    if deviations[worst] > allowed:
        gap = heights[worst + 1] - heights[worst]
        what = "missing slice between" if gap > distance + allowed else "slices are out of line between"
        raise DataError(
            f"{what} {heights[worst]:.2f} mm and {heights[worst + 1]:.2f} mm: {gap:.2f} mm apart, "
            f"others {distance:.2f} mm",
            where=str(folder),
            fix="fetch the whole series from the archive again",
        )
    return (positions[-1] - positions[0]) / (len(positions) - 1)


def _read_voxels(ordered: list[_Slice]) -> np.ndarray:
    """[X, Y, Z] float32, in the order of the slices; every file is opened once."""
    rows, columns = ordered[0].shape
    voxels_ZYX = np.empty((len(ordered), rows, columns), dtype=np.float32)
    by_path: dict[Path, list[int]] = {}
    for index, item in enumerate(ordered):
        by_path.setdefault(item.path, []).append(index)
    for path, indices in by_path.items():
        frames = _decode(path).reshape(-1, rows, columns)
        for index in indices:
            item = ordered[index]
            voxels_ZYX[index] = frames[item.frame] * np.float64(item.slope) + np.float64(item.intercept)
    return voxels_ZYX.transpose(2, 1, 0)


def _decode(path: Path) -> np.ndarray:
    """The stored numbers of one file, MONOCHROME1 inverted."""
    from pydicom import dcmread

    try:
        with warnings.catch_warnings(action="ignore"):
            dataset = dcmread(path)
            _refuse_without_plugin(dataset, path)
            stored = dataset.pixel_array
            if dataset.PhotometricInterpretation == "MONOCHROME1":
                lowest = -(2 ** (dataset.BitsStored - 1)) if dataset.PixelRepresentation else 0
                stored = 2 * lowest + 2**dataset.BitsStored - 1 - stored.astype(np.int64)
            return stored
    except DAMAGED as error:
        reason = " ".join(str(error).split())[:160]
        raise DataError(
            f"the pixels are truncated or damaged: {reason}", where=str(path), fix="copy the file again"
        ) from None


def _refuse_without_plugin(dataset: "Dataset", path: Path) -> None:
    from pydicom.pixels.decoders.base import get_decoder

    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_compressed:
        return
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise DataError(
            f"is compressed as {syntax.name}, which cannot be unpacked",
            where=str(path),
            fix="export it uncompressed, for example with `gdcmconv --raw`",
        ) from None
    if not decoder.is_available:
        needs = "; or ".join(item.partition(" - requires ")[2] or item for item in decoder.missing_dependencies)
        raise DataError(
            f"is compressed as {syntax.name}, and no plugin that unpacks it is installed",
            where=str(path),
            fix=f"pip install one of: {needs.replace('gdcm>=', 'python-gdcm>=')}",
        )
