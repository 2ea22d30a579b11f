"""What a source is: images that are listed and then read, tables whose samples are listed and then read."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import Field

from foundation.cohort.reading.feature_names import left_out_by
from foundation.config import Config
from foundation.errors import ConfigError, DataError, nearest
from foundation.registry import Registry

image_sources: Registry = Registry("image source", "format")
table_sources: Registry = Registry("table source", "format")

BLOCK_VALUES = 8_000_000
"""Values read from a table at a time (32 MB of float32), whatever its size."""


class SourceConfig(Config):
    """What every source states: where its files are.

    `files` is a pattern below the cohort's root. ``{group}`` stands for one of the cohort's groups;
    for images ``{patient}``, ``{channel}`` and ``{time_point}`` stand for one path part (or a piece of one) each.
    """

    files: str


class TableConfig(SourceConfig):
    """What every table states beside its files: which of its features are not wanted."""

    leave_out_features: list[str] = Field(
        [],
        description="Patterns of names of features to leave out, such as `ERCC-*`: `*` is any text, `?` one character, "
        "`[ab]` one of these; upper and lower case differ.",
    )


@dataclass(frozen=True, order=True)
class Scan:
    """One channel of one patient at one time point, listed but not read.

    Attributes:
        patient: The text at ``{patient}``, not yet passed through the patient rule.
        time_point: The text at ``{time_point}``, or empty.
        channel: One of the modality's channels.
        paths: The files that make it up, sorted.
        note: What the format needs to find it again, such as a DICOM series UID.
    """

    patient: str
    time_point: str
    channel: str
    paths: tuple[Path, ...]
    note: str = ""


@dataclass
class Volume:
    """A scan as read: physical values on a grid.

    Attributes:
        voxels: [X, Y, Z], or [X, Y] for a single 2D image; HU for CT.
        affine: [4, 4], voxel indices to millimetres in RAS+ space.
        placed: Whether the file says where in space it lies; otherwise the affine's place is a convention.
    """

    voxels: np.ndarray
    affine: np.ndarray = field(default_factory=lambda: np.eye(4))
    placed: bool = True


class ImageSource(ABC):
    """Images of one modality in one format.

    Args:
        config: The part's own config.
        root: The cohort's root folder.
        channels: Names of the modality's channels; a single one when the pattern has no ``{channel}``.
        groups: Values of ``{group}``.

    Attributes:
        remarks: What was done beside reading that a user should know, such as files left aside, to how often.
    """

    Config: type[SourceConfig]

    def __init__(self, config: SourceConfig, root: Path, channels: Sequence[str], groups: Sequence[str] = ()) -> None:
        self.config = config
        self.root = root
        self.channels = list(channels)
        self.groups = list(groups)
        self.other_channels: Counter[str] = Counter()
        self.remarks: Counter[str] = Counter()

    @abstractmethod
    def list_scans(self) -> list[Scan]:
        """Every scan there is, sorted; reads headers at most. Files of other channels are not of this modality.

        Raises:
            DataError: No file belongs to any of the channels, or a scan is there twice.
        """

    def files(self, scan: Scan) -> list[Path]:
        """The files whose content decides what `read` gives; they are hashed."""
        return list(scan.paths)

    @abstractmethod
    def read(self, scan: Scan) -> Volume | None:
        """Read one scan; None where a listed channel turns out not to have been acquired.

        Raises:
            DataError: The scan is damaged: truncated, NaN voxels, a missing slice.
        """


@dataclass
class Table:
    """A table opened for a choice of samples.

    Attributes:
        features: Names, unique, in the order of the table.
        blocks: Pieces in any order that together cover samples x features.
    """

    features: list[str]
    blocks: Iterator[Block]


@dataclass
class Block:
    """A rectangle of a table; `values` is [S, F] float32, NaN where not measured."""

    samples: slice
    features: slice
    values: np.ndarray


class TableSource(ABC):
    """One table of one modality: samples by features, never held in memory as a whole.

    Args:
        config: The part's own config.
        path: The file, ``{group}`` already filled in.

    Attributes:
        remarks: What was done beside reading that a user should know, such as rows left out, to how often.
        long: Whether the table is a long one, with many rows of a sample, which all count whatever name they bear.
        same: In a long table other names of its samples, to the name they are read by; given before `read`.
    """

    Config: type[TableConfig]
    long: ClassVar[bool] = False

    def __init__(self, config: TableConfig, path: Path) -> None:
        self.config = config
        self.path = path
        self.remarks: Counter[str] = Counter()
        self.same: dict[str, str] = {}

    @property
    def companions(self) -> list[Path]:
        """Files read beside the table, such as a list of sequenced samples."""
        return []

    @abstractmethod
    def list_samples(self) -> list[str]:
        """Barcodes in the order of the table, as they stand (a repetition is the caller's to refuse).

        Raises:
            DataError: The file is missing, truncated or has no header.
        """

    def wanted(self, names: Sequence[str]) -> np.ndarray:
        """Positions of the features that `leave_out_features` leaves; what it leaves out is remarked.

        Raises:
            DataError: It leaves none.
        """
        kept = np.flatnonzero(~left_out_by(self.config.leave_out_features, names, self.remarks))
        if len(names) and not len(kept):
            raise DataError("no feature is left", where=str(self.path), fix="correct leave_out_features")
        return kept

    @abstractmethod
    def read(self, samples: Sequence[str]) -> Table:
        """Open the table for these samples, in this order.

        Raises:
            DataError: A value is not a number, or a feature appears twice.
        """


def find_files(pattern: str, root: Path, groups: Sequence[str] = ()) -> list[tuple[Path, dict[str, str]]]:
    """Match a pattern such as ``{patient}/{channel}.nii.gz`` below `root`.

    Returns:
        Paths, sorted, each with the text found at every placeholder.

    Raises:
        ConfigError: A placeholder is unknown, or touches another or a star.
        DataError: Nothing matches.
    """
    refuse_unknown_placeholders(pattern)
    if touching := re.search(r"(\{\w+\}|\*)(\{\w+\})+|\{\w+\}\*", pattern):
        raise ConfigError(
            f"nothing separates the placeholders in '{touching[0]}', so that where one ends is not known",
            where=f"files: {pattern}",
            fix="write what stands between them, such as `_`, or rename the files so that something does",
        )
    glob = re.sub(r"\{\w+\}", "*", pattern)
    expression = _expression(pattern, groups)
    found = []
    for path in sorted(root.glob(glob)):
        match = expression.fullmatch(path.relative_to(root).as_posix())
        if match:
            found.append((path, match.groupdict()))
    if not found:
        raise DataError(
            f"no file matches '{pattern}'", where=str(root), fix="correct `files` or `root` in the cohort's YAML"
        )
    return found


def refuse_unknown_placeholders(pattern: str) -> None:
    """Refuse ``{names}`` that stand for nothing.

    Raises:
        ConfigError: There is one; names the nearest known.
    """
    known = {"patient", "channel", "time_point", "group"}
    for name in re.findall(r"\{(\w*)\}", pattern):
        if name not in known:
            raise ConfigError(f"unknown placeholder {{{name}}}", where=f"files: {pattern}", fix=nearest(name, known))


def _expression(pattern: str, groups: Sequence[str]) -> re.Pattern[str]:
    pieces, seen = [], set()
    for piece in re.split(r"(\{\w+\}|\*\*/|\*)", pattern):
        if piece.startswith("{"):
            name = piece[1:-1]
            text = "|".join(map(re.escape, groups)) if name == "group" and groups else "[^/]+?"
            pieces.append(f"(?P={name})" if name in seen else f"(?P<{name}>{text})")
            seen.add(name)
        else:
            pieces.append({"**/": "(?:.*/)?", "*": "[^/]*"}.get(piece, re.escape(piece)))
    return re.compile("".join(pieces))
