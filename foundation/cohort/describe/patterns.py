"""Names of image files to patterns: which part of a path is the patient, the time point and the channel."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import NamedTuple

from foundation.cohort.describe.recognise import share_of
from foundation.wording import listed

SEPARATORS = "_-. "

SEQUENCES = (
    r"t[12][a-z]*|flair|adc|dwi|dce|dsc|swi|asl|mprage|spgr|tirm|tof|ktrans|cbf|cbv|b\d{2,4}|ct|cta|cect|ncct|ldct|pet|suv|"
    r"mri?|fmri|bold"
)
"""Expression, in lower case, for words that name what a scanner acquired."""

FEW = 8
"""Names in one place of a path up to which they may be channels."""


@dataclass
class Series:
    """Files of one pattern.

    Attributes:
        pattern: With {patient}, and {time_point} and {channel} where they are told apart.
        channels: Text at {channel} to its files; one key, empty, where the pattern has no {channel}.
        patients: Text at {patient}, each once.
        note: What a person should check of the pattern; empty where the names are plain.
        aside: Why the files cannot be drafted; empty where they can.
    """

    pattern: str
    channels: dict[str, list[str]] = field(default_factory=dict)
    patients: set[str] = field(default_factory=set)
    note: str = ""
    aside: str = ""


class Cut(NamedTuple):
    """The name of a file without its ending, in parts.

    Attributes:
        start, mark, end: The patient, what separates, and the channel; an empty end where nothing separates.
        evident: Whether the end is a word for a sequence, or the start a known patient and the end a word.
    """

    start: str
    mark: str
    end: str
    evident: bool


def find_series(names: Sequence[str], ending: str, patients: Collection[str]) -> list[Series]:
    """Sort files of one ending into patterns.

    Args:
        names: Paths below the folder, in which `ending` is the end of each.
        ending: Such as ``.nii.gz``.
        patients: Names of patients that are known from a table; may be empty.
    """
    series: dict[str, Series] = {}
    patients = set(patients)
    for depth, group in _by_depth(names).items():
        level = patient_level(group, patients)
        if level == depth:
            _add_flat(series, group, ending, patients)
            continue
        varied = _varied(group, level, depth)
        for name in group:
            pattern, patient, channel = _placed(PurePosixPath(name).parts, level, ending, varied)
            found = series.setdefault(pattern, Series(pattern))
            found.channels.setdefault(channel, []).append(name)
            found.patients.add(patient)
    for found in series.values():
        if "}{" in found.pattern:
            found.aside = "nothing separates the patient from the channel in their names: rename them"
    return list(series.values())


def patient_level(names: Sequence[str], patients: Collection[str]) -> int:
    """Which part of these paths, all of one depth, is the patient; the last is the file itself.

    It is the part that known patients are found in, else the first folder that has more names than channels have,
    else the first folder that varies, unless few folders hold files that are named after their patients.
    """
    parts = [PurePosixPath(name).parts for name in names]
    depth = len(parts[0]) - 1
    levels = [sorted({part[level] for part in parts}) for level in range(depth)]
    known = [share_of(level, patients) for level in levels]
    if known and max(known) > 0.5:
        return known.index(max(known))
    varied = [level for level, found in enumerate(levels) if len(found) > 1]
    many = [level for level in varied if len(levels[level]) > FEW]
    if depth and not many and _named_after_patients(names, levels[varied[0]] if varied else [""], patients):
        return depth
    if many or varied:
        return (many or varied)[0]
    files = {part[-1] for part in parts}
    return depth if len(files) > FEW or depth == 0 else depth - 1


def _named_after_patients(names: Sequence[str], folders: Sequence[str], patients: Collection[str]) -> bool:
    """Whether files in few folders are each named after a patient: by the table, by their channels, or as many are."""
    files = [PurePosixPath(name).name for name in names]
    if share_of(files, patients) > 0.5:
        return True
    cuts = _cuts([file.split(".")[0] for file in files], patients)
    starts = {cut.start for cut in cuts if cut.evident}
    if sum(cut.evident for cut in cuts) > 0.5 * len(cuts) and len(starts) > len(folders):
        return True
    telling = (
        rf"({SEQUENCES})|(baseline|week|month|day|year|visit|ses|tp|pre|post|follow.?up)[{re.escape(SEPARATORS)}]*\d*"
    )
    return len(set(files)) > FEW and all(re.fullmatch(telling, folder.lower()) for folder in folders)


def _by_depth(names: Sequence[str]) -> dict[int, list[str]]:
    depths: dict[int, list[str]] = {}
    for name in names:
        depths.setdefault(name.count("/"), []).append(name)
    return depths


def _varied(names: Sequence[str], level: int, depth: int) -> dict[int, bool]:
    """Whether each folder below the patient's differs between paths by more than the patient's name."""
    parts = [PurePosixPath(name).parts for name in names]
    return {
        place: len({found[place].replace(found[level], "") for found in parts}) > 1 for place in range(level + 1, depth)
    }


def _placed(parts: tuple[str, ...], level: int, ending: str, varied: dict[int, bool]) -> tuple[str, str, str]:
    """The pattern of one path, and the texts at {patient} and {channel}."""
    patient = parts[level]
    written = [*parts[:level], "{patient}"]
    for place, varies in varied.items():
        inside = parts[place].replace(patient, "{patient}")
        if varies and "{time_point}" not in "".join(written):
            inside = "{patient}".join(["{time_point}"] if "{patient}" not in inside else ["", "{time_point}"])
        written.append(inside)
    stem = parts[-1][: len(parts[-1]) - len(ending)]
    time_point = next((parts[place] for place in varied if written[place] == "{time_point}"), "")
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


def _add_flat(series: dict[str, Series], group: Sequence[str], ending: str, patients: Collection[str]) -> None:
    """Files named after their patients: the end of a name is its channel where few ends repeat over many patients."""
    stems = [PurePosixPath(name).name[: -len(ending)] for name in group]
    cuts = dict(zip(group, _cuts(stems, patients), strict=True))
    channels, note = _channels_of(list(cuts.values()))
    folders = _folders_of(cuts, channels)
    inner = {cut.mark for cut in cuts.values() if cut.end in channels and cut.mark in cut.start}
    for name, cut in cuts.items():
        stem, channel = "".join(cut[:3]), cut.end if channels else ""
        pattern, said, aside = "{patient}", note, ""
        if channels and channel not in channels:
            pattern, aside = (
                "*",
                "named as no channel is that others have: rename them, or add the channel to `channels`",
            )
        elif channels and cut.mark in inner:
            pattern = f"{{patient}}{cut.mark}{channel}"
            said = (
                f"CHECK: names of patients hold '{cut.mark}' too, so that each channel is a modality of its own; "
                "rename the files for one modality of several channels."
            )
        elif channels:
            pattern = f"{{patient}}{cut.mark}{{channel}}"
        pattern = f"{folders[name]}{pattern}{ending}"
        if not channels and "{channel}" in folders[name]:
            channel = next(part for part in PurePosixPath(name).parts if re.fullmatch(SEQUENCES, part.lower()))
        found = series.setdefault(pattern, Series(pattern, note=said, aside=aside))
        found.channels.setdefault(channel, []).append(name)
        found.patients.add(cut.start if channels else stem)


def _cuts(stems: Sequence[str], patients: Collection[str]) -> list[Cut]:
    """Each name cut after a known patient, else before a word for a sequence, else at the last mark that separates."""
    lengths = sorted({len(patient) for patient in patients}, reverse=True)
    return [_cut(stem, next((stem[:n] for n in lengths if stem[:n] in patients), "")) for stem in stems]


def _cut(stem: str, known: str) -> Cut:
    """One name cut, which begins with the name of a known patient or not."""
    marks = f"[{re.escape(SEPARATORS)}]"
    if known == stem:
        return Cut(stem, "", "", False)
    if known and (found := re.match(rf"({marks}+)(.+)$", stem[len(known) :])):
        sequence = re.fullmatch(rf"({SEQUENCES})({marks}.*)?", found[2].lower())
        return Cut(known, found[1], found[2], bool(sequence) or found[2][0].isalpha())
    if found := re.match(rf"(.+?)({marks}+)((?:{SEQUENCES})(?:{marks}.*)?)$", stem, re.IGNORECASE):
        return Cut(found[1], found[2], found[3], True)
    found = re.match(rf"(.*[^{re.escape(SEPARATORS)}])({marks}+)([^{re.escape(SEPARATORS)}]+)$", stem)
    return Cut(found[1], found[2], found[3], False) if found else Cut(stem, "", "", False)


def _channels_of(cuts: Sequence[Cut]) -> tuple[set[str], str]:
    """Ends of names that are channels, none where the whole name is the patient; and what to check."""
    numbers = Counter(cut.end for cut in cuts if cut.end)
    evident = {cut.end for cut in cuts if cut.evident}
    most = max(numbers.values(), default=0)
    channels = {end for end, number in numbers.items() if number > 1 or (end in evident and most < 10)}
    covered = [cut for cut in cuts if cut.end in channels]
    if not 1 <= len(channels) <= FEW or len(covered) < 0.8 * len(cuts):
        return set(), ""
    if sum(cut.evident for cut in cuts) > 0.5 * len(cuts):
        return channels, ""
    ends_of: dict[str, set[str]] = {}
    for cut in covered:
        ends_of.setdefault(cut.start, set()).add(cut.end)
    several = sum(len(ends) > 1 for ends in ends_of.values())
    named = listed(sorted(channels))
    if several * 2 >= len(ends_of) > len(channels):
        return channels, f"CHECK: {named} at the end of names are taken for channels, not for parts of patients' names."
    if several > 1:
        return set(), f"CHECK: {named} at the end of names are taken for parts of patients' names, not for channels."
    return set(), ""


def _folders_of(cuts: dict[str, Cut], channels: Collection[str]) -> dict[str, str]:
    """The folder of each file as it stands in a pattern, with a slash behind it.

    The first folder that varies is the channel where it says so, the time point where patients repeat over folders,
    else any folder.
    """
    parts = {name: list(PurePosixPath(name).parts[:-1]) for name in cuts}
    depth = len(next(iter(parts.values())))
    varied = next((level for level in range(depth) if len({found[level] for found in parts.values()}) > 1), None)
    if varied is not None:
        over: dict[str, set[str]] = {}
        for name, cut in cuts.items():
            over.setdefault(cut.start if channels else "".join(cut[:3]), set()).add(parts[name][varied])
        named = [found[varied] for found in parts.values()]
        ends = [cut.end for cut in cuts.values()]
        if named == ends if channels else all(re.fullmatch(SEQUENCES, folder.lower()) for folder in named):
            written = "{channel}"
        else:
            repeated = sum(len(folders) > 1 for folders in over.values())
            written = "{time_point}" if repeated * 2 >= len(over) else "*"
        for found in parts.values():
            found[varied] = written
    return {name: "".join(f"{part}/" for part in found) for name, found in parts.items()}
