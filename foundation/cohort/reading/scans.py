"""What the image sources share: files found by a pattern become scans, and voxels that are no numbers are refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from foundation.cohort.sources.base import find_files, refuse_unknown_placeholders
from foundation.errors import ConfigError, DataError, nearest

ScanKey = tuple[str, str, str]
"""Patient, time point (or empty), channel."""


def find_scans(
    pattern: str, root: Path, channels: Sequence[str], groups: Sequence[str], others: Counter[str] | None = None
) -> dict[ScanKey, list[Path]]:
    """Find the files of every scan; files of channels that are not listed are no part of the modality.

    Args:
        pattern: With ``{patient}``, and ``{channel}`` unless there is one channel only.
        root: The cohort's root folder.
        channels: The modality's channels.
        groups: Values of ``{group}``.
        others: Counts the files of channels that are not listed, so that a misspelt one can be seen.

    Returns:
        Files by patient, time point and channel; keys and files sorted.

    Raises:
        ConfigError: The pattern lacks ``{patient}``, or ``{channel}`` where there are several.
        DataError: Nothing matches, or no file is of a listed channel.
    """
    _check_placeholders(pattern, channels)
    scans: dict[ScanKey, list[Path]] = {}
    others = Counter() if others is None else others
    for path, named in find_files(pattern, root, groups):
        channel = named.get("channel", channels[0])
        if channel in channels:
            scans.setdefault((named["patient"], named.get("time_point", ""), channel), []).append(path)
        else:
            others[channel] += 1
    if not scans:
        raise DataError(
            f"no file is of channel {' or '.join(map(repr, channels))}; {nearest(channels[0], others)}",
            where=f"{root}: {pattern}",
            fix="write `channels` as in the names of the files",
        )
    return dict(sorted(scans.items()))


def _check_placeholders(pattern: str, channels: Sequence[str]) -> None:
    refuse_unknown_placeholders(pattern)
    if "{patient}" not in pattern:
        raise ConfigError(
            "the pattern of images has no {patient}", where=f"files: {pattern}", fix="put {patient} where its name is"
        )
    if "{channel}" not in pattern and len(channels) > 1:
        raise ConfigError(
            f"the pattern has no {{channel}}, but there are {len(channels)} channels",
            where=f"files: {pattern}",
            fix="put {channel} where its name is, or list one channel",
        )


def only_file(key: ScanKey, paths: Sequence[Path]) -> Path:
    """The one path of a scan that must not have two.

    Raises:
        DataError: There are several.
    """
    if len(paths) > 1:
        patient, time_point, channel = key
        at = f" at '{time_point}'" if time_point else ""
        raise DataError(
            f"channel '{channel}' of patient '{patient}'{at} has {len(paths)} files: also {paths[1]}",
            where=str(paths[0]),
            fix="remove one, or tell them apart with {time_point} in `files`",
        )
    return paths[0]


def refuse_non_finite(voxels: np.ndarray, where: Path) -> None:
    """Refuse NaN and infinite voxels.

    Raises:
        DataError: There are some; says how many.
    """
    if voxels.dtype.kind != "f":
        return
    finite = np.isfinite(voxels)
    if not finite.all():
        raise DataError(
            f"{voxels.size - np.count_nonzero(finite)} of {voxels.size} voxels are NaN or infinite",
            where=str(where),
            fix="export the scan again, or write the value of the background there",
        )
