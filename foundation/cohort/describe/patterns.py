"""Names of image files to patterns: which part of a path is the patient, the time point and the channel."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from foundation.cohort.describe.recognise import share_of

SEPARATORS = "_-."

FEW = 8
"""Names in one place of a path up to which they may be channels."""


@dataclass
class Series:
    """Files of one pattern.

    Attributes:
        pattern: With {patient}, and {time_point} and {channel} where they are told apart.
        channels: Text at {channel} to its files; one key, empty, where the pattern has no {channel}.
        patients: Text at {patient}, each once.
    """

    pattern: str
    channels: dict[str, list[str]] = field(default_factory=dict)
    patients: set[str] = field(default_factory=set)


def find_series(names: Sequence[str], ending: str, patients: Collection[str]) -> list[Series]:
    """Sort files of one ending into patterns.

    Args:
        names: Paths below the folder, in which `ending` is the end of each.
        ending: Such as ``.nii.gz``.
        patients: Names of patients that are known from a table; may be empty.
    """
    series: dict[str, Series] = {}
    for depth, group in _by_depth(names).items():
        level = patient_level(group, patients)
        if level == depth:
            _add_flat(series, group, ending)
            continue
        for name in group:
            pattern, patient, channel = _placed(PurePosixPath(name).parts, level, ending, group, depth)
            found = series.setdefault(pattern, Series(pattern))
            found.channels.setdefault(channel, []).append(name)
            found.patients.add(patient)
    return list(series.values())


def patient_level(names: Sequence[str], patients: Collection[str]) -> int:
    """Which part of these paths, all of one depth, is the patient; the last is the file itself.

    It is the part that known patients are found in, else the first folder that has more names than channels have,
    else the first folder that varies.
    """
    parts = [PurePosixPath(name).parts for name in names]
    depth = len(parts[0]) - 1
    levels = [sorted({part[level] for part in parts}) for level in range(depth)]
    known = [share_of(level, patients) for level in levels]
    if known and max(known) > 0.5:
        return known.index(max(known))
    varied = [level for level, found in enumerate(levels) if len(found) > 1]
    many = [level for level in varied if len(levels[level]) > FEW]
    if many or varied:
        return (many or varied)[0]
    files = {part[-1] for part in parts}
    return depth if len(files) > FEW or depth == 0 else depth - 1


def _by_depth(names: Sequence[str]) -> dict[int, list[str]]:
    depths: dict[int, list[str]] = {}
    for name in names:
        depths.setdefault(name.count("/"), []).append(name)
    return depths


def _placed(parts: tuple[str, ...], level: int, ending: str, group: Sequence[str], depth: int) -> tuple[str, str, str]:
    """The pattern of one path, and the texts at {patient} and {channel}."""
    patient = parts[level]
    written = [*parts[:level], "{patient}"]
    for place in range(level + 1, depth):
        inside = parts[place].replace(patient, "{patient}")
        varies = (
            len({PurePosixPath(name).parts[place].replace(PurePosixPath(name).parts[level], "") for name in group}) > 1
        )
        if varies and "{time_point}" not in "".join(written):
            inside = "{patient}".join(["{time_point}"] if "{patient}" not in inside else ["", "{time_point}"])
        written.append(inside)
    stem = parts[-1][: len(parts[-1]) - len(ending)]
    time_point = next((parts[place] for place in range(level + 1, depth) if written[place] == "{time_point}"), "")
    before = ""
    if stem.startswith(patient):
        before, stem = "{patient}", stem[len(patient) :]
    if time_point and (place := stem.find(time_point)) >= 0:
        before, stem = before + stem[:place] + "{time_point}", stem[place + len(time_point) :]
    apart = re.match(rf"[{re.escape(SEPARATORS)}]*", stem)
    cut = apart.end() if apart else 0
    before, channel = before + stem[:cut], stem[cut:]
    if not channel:
        return "/".join([*written, f"{before}{ending}"]), patient, ""
    return "/".join([*written, f"{before}{{channel}}{ending}"]), patient, channel


def _add_flat(series: dict[str, Series], group: Sequence[str], ending: str) -> None:
    """Files that all lie in one folder: the end of a name is its channel where few ends repeat over many patients."""
    stems = {name: PurePosixPath(name).name[: -len(ending)] for name in group}
    cuts = {name: re.match(r"(.+?)[_-]([^_-]+)$", stem) for name, stem in stems.items()}
    ends = Counter(cut[2] if cut else "" for cut in cuts.values())
    starts = {cut[1] for cut in cuts.values() if cut}
    inner = any("_" in start for start in starts)
    repeated = "" not in ends and len(ends) <= FEW and len(starts) * 2 <= len(group) + 1 and not inner
    for name, stem in stems.items():
        cut = cuts[name] if repeated else None
        folder = str(PurePosixPath(name).parent)
        inside = "" if folder == "." else f"{folder}/"
        mark = name.removeprefix(inside)[len(cut[1])] if cut else ""
        pattern = f"{inside}{{patient}}{mark}{{channel}}{ending}" if cut else f"{inside}{{patient}}{ending}"
        found = series.setdefault(pattern, Series(pattern))
        found.channels.setdefault(cut[2] if cut else "", []).append(name)
        found.patients.add(cut[1] if cut else stem)
