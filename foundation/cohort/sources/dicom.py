"""DICOM series: a folder per patient, or a tree of mixed files from which the series of a channel is chosen."""

import re
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from foundation.cohort.reading.dicom_frames import Frame, files_below, frames_below
from foundation.cohort.reading.dicom_pixels import read_voxels
from foundation.cohort.reading.scans import find_scans, only_file, refuse_non_finite
from foundation.cohort.reading.stacks import has_spacing, refuse_left_out_ends, slice_distance, stack
from foundation.cohort.sources.base import ImageSource, Scan, SourceConfig, Volume, image_sources
from foundation.config import Config
from foundation.errors import ConfigError, DataError, nearest


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

    def allows(self, slices: Sequence[Frame]) -> bool:
        """Whether a series is of the stated modality and description."""
        first = slices[0]
        return (self.modality is None or first.modality == self.modality.upper()) and (
            self.description is None or re.search(self.description, first.description, re.IGNORECASE) is not None
        )

    def rank(self, slices: Sequence[Frame]) -> tuple[float, str]:
        """The lowest is preferred."""
        first = slices[0]
        # Frames that cannot be used count too: a scan that has to be refused must not give way to a lesser series.
        by = {
            "most_slices": -sum({item.path: item.frames for item in slices}.values()),
            "thinnest": slice_distance(slices),
            "first": first.series_number,
        }
        return by[self.prefer], first.series


@image_sources.register("dicom")
class DicomSource(ImageSource):
    """DICOM files; `files` names a folder, whose tree may hold several series and other things.

    Every file is read, counted as left aside for a stated reason, or the patient's scan is refused because of it.
    Slices are ordered by their position along the slice normal and scaled by their own rescale slope and intercept;
    MONOCHROME1 is inverted. Nothing but geometry leaves a header. Enhanced multi-frame files are read through their
    functional groups.
    """

    class Config(SourceConfig):
        """`files` names one folder per patient, channel or time point, such as ``scans/{patient}``."""

        format: Literal["dicom"]
        series: dict[str, SeriesRule] = Field({}, description="Channel to the rule that picks its series.")
        leave_out: list[str] = Field(
            ["LOCALIZER", "SCOUT", "DERIVED", "SECONDARY"], description="Images with such a word in ImageType."
        )
        slice_tolerance: float = Field(
            0.15,
            gt=0,
            description="Millimetres that a slice may lie off the regular grid fitted to all, such as where positions "
            "were rounded to tenths; along the normal never more than a fifth of the distance between slices.",
        )

    config: "DicomSource.Config"

    def __init__(self, config: SourceConfig, root: Path, channels: Sequence[str], groups: Sequence[str] = ()) -> None:
        super().__init__(config, root, channels, groups)
        self._read_last: tuple[Path, dict[str, list[Frame]]] | None = None
        self._left_out: dict[str, list[Frame]] = {}
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
        return files_below(scan.paths[0])

    def read(self, scan: Scan) -> Volume | None:
        """Choose the channel's series and read it; None where the patient has other channels but not this one.

        Raises:
            DataError: No series fits any rule, a slice is missing or damaged, or a plugin is needed to unpack it.
        """
        chosen, folder = self._chosen(scan), scan.paths[0]
        if chosen is None:
            return None
        ordered, affine, placed = stack(chosen, self.config.slice_tolerance, folder)
        if placed:
            left_out = self._left_out.get(ordered[0].series, [])
            refuse_left_out_ends(ordered, left_out, self.config.slice_tolerance, folder)
        if not placed and not has_spacing(ordered[0]):
            self.remarks["DICOM images that do not say how far apart pixels are: taken to be 1 mm"] += 1
        voxels = read_voxels(ordered)
        refuse_non_finite(voxels, folder)
        return Volume(voxels if placed else voxels[:, :, 0], affine, placed)

    def series_files(self, scan: Scan) -> list[Path]:
        """The files of the series that `read` reads, sorted; none where the channel was not acquired.

        Raises:
            DataError: No series fits any rule, or a header is damaged.
        """
        return sorted({frame.path for frame in self._chosen(scan) or []})

    def _chosen(self, scan: Scan) -> list[Frame] | None:
        """The series of a channel; None where the patient has other channels but not this one."""
        folder = scan.paths[0]
        series = self._series(folder)
        self._refuse_others(scan, {frame.patient for frames in series.values() for frame in frames} - {""})
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
        return chosen

    def _refuse_others(self, scan: Scan, named: set[str]) -> None:
        """Refuse images of somebody else: of two patients, or of one whose folder is another.

        Which name a header has may differ from the folder's, as after making patients anonymous.
        """
        fix = "move them to the folder of their own patient"
        if len(named) > 1:
            raise DataError(
                f"holds images of {len(named)} patients, by the PatientID of their headers",
                where=str(scan.paths[0]),
                fix=fix,
            )
        if named - {scan.patient} and named <= self._patients:
            raise DataError(
                "holds images whose PatientID is the name of another patient's folder",
                where=str(scan.paths[0]),
                fix=fix,
            )

    @cached_property
    def _patients(self) -> set[str]:
        return {scan.patient for scan in self.list_scans()}

    def _rules(self) -> dict[str, SeriesRule]:
        rules = self.config.series
        if self._in_one_folder and len(self.channels) > 1:
            return {name: rules[name] for name in self.channels if name in rules}
        return {name: rules.get(name, SeriesRule()) for name in self.channels}

    def _series(self, folder: Path) -> dict[str, list[Frame]]:
        """The acquired images below a folder by series; the last folder is kept, for its next channel."""
        if self._read_last is None or self._read_last[0] != folder:
            series: dict[str, list[Frame]] = {}
            aside: Counter[str] = Counter()
            self._left_out = {}
            for frame in frames_below(folder, {word.upper() for word in self.config.leave_out}, aside):
                (self._left_out if frame.marked else series).setdefault(frame.series, []).append(frame)
            self._read_last = folder, series
            picked = [_choose(series, rule) for rule in self._rules().values()]
            chosen = {frames[0].series for frames in picked if frames}
            aside["images of series that no rule picks"] = sum(len(series[name]) for name in series.keys() - chosen)
            self.remarks.update({f"left aside beside DICOM scans: {what}": n for what, n in aside.items() if n})
        return self._read_last[1]


def _choose(series: dict[str, list[Frame]], rule: SeriesRule) -> list[Frame] | None:
    return min((slices for slices in series.values() if rule.allows(slices)), key=rule.rank, default=None)


def _nothing_fits(folder: Path, series: dict[str, list[Frame]]) -> DataError:
    kinds = Counter(slices[0].modality or "unknown" for slices in series.values())
    found = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    return DataError(
        f"no series fits a rule; acquired series: {found}" if found else "holds no acquired DICOM image",
        where=str(folder),
        fix="correct `series`, or `leave_out` where images marked as derived are wanted",
    )
