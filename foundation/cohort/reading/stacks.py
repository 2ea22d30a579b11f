"""Frames with positions stacked into a volume: ordered, held against a fitted regular grid, missing slices refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from foundation.cohort.reading.dicom_frames import Frame
from foundation.errors import DataError

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

CLOSEST = 0.01
"""Millimetres below which two slices lie in one place."""

LARGEST_SHARE = 0.2
"""Of the distance between slices, how much one may lie off the grid along the normal, whatever the tolerance: where one
of several is missing, some slice lies further off than this."""

WIDEST_GAP = 1.5
"""Distances between slices, in units of the usual one, from which a slice is missing."""


def stack(frames: Sequence[Frame], tolerance: float, folder: Path) -> tuple[list[Frame], np.ndarray, bool]:
    """Order frames along their normal and find the grid that they lie on.

    Args:
        frames: Of one series.
        tolerance: Millimetres that a slice may lie off the regular grid fitted to all: positions may be rounded.
        folder: For messages.

    Returns:
        The frames in order; [4, 4] voxel indices to RAS+ millimetres; whether the header says where they lie.

    Raises:
        DataError: They are no stack of grey slices, a slice is missing, or two lie in one place.
    """
    _refuse_what_is_no_stack(frames, folder)
    if not frames[0].position:
        down, across = frames[0].pixel_spacing if has_spacing(frames[0]) else (1.0, 1.0)
        return list(frames), LPS_TO_RAS @ np.diag([across, down, 1.0, 1.0]), False
    normal = _normal(frames[0])
    ordered = sorted(frames, key=lambda s: (float(np.dot(s.position, normal)), s.path, s.frame))
    origin, step = _fitted(ordered, normal, tolerance, folder)
    down, across = ordered[0].pixel_spacing
    affine = np.eye(4)
    affine[:3, 0] = np.array(ordered[0].orientation[:3]) * across
    affine[:3, 1] = np.array(ordered[0].orientation[3:]) * down
    affine[:3, 2] = step
    affine[:3, 3] = origin
    return ordered, LPS_TO_RAS @ affine, True


def refuse_left_out_ends(ordered: Sequence[Frame], left_out: Sequence[Frame], tolerance: float, folder: Path) -> None:
    """Refuse a stack that goes on in images of its series which were left out for their ImageType: its ends are lost.

    Args:
        ordered: The stack, as `stack` gives it.
        left_out: Marked frames of the same series.
        tolerance: Millimetres.
        folder: For messages.

    Raises:
        DataError: One lies where the next slice would.
    """
    if len(ordered) < 2:
        return
    first, last = np.array(ordered[0].position), np.array(ordered[-1].position)
    step = (last - first) / (len(ordered) - 1)
    plane = ordered[0].shape, *np.round(ordered[0].orientation + ordered[0].pixel_spacing, 3)
    for item in left_out:
        if (item.shape, *np.round(item.orientation + item.pixel_spacing, 3)) != plane or len(item.position) != 3:
            continue
        if min(np.linalg.norm(first - step - item.position), np.linalg.norm(last + step - item.position)) <= tolerance:
            raise DataError(
                f"the chosen series goes on in {item.path.name}, which `leave_out` leaves out as {item.marked}",
                where=str(folder),
                fix=f"take {item.marked} out of `leave_out` if that image is a slice, else take it out of the folder",
            )


def has_spacing(item: Frame) -> bool:
    """Whether the header says how far apart pixels are."""
    return len(item.pixel_spacing) == 2 and min(item.pixel_spacing) > 0


def slice_distance(frames: Sequence[Frame]) -> float:
    """Millimetres between slices; infinite where there is one, or none has a place."""
    if len(frames) < 2 or not all(len(s.position) == 3 and len(s.orientation) == 6 for s in frames):
        return float("inf")
    heights = np.sort([np.dot(s.position, _normal(frames[0])) for s in frames])
    return round(float(np.median(np.diff(heights))), 3)


def _normal(item: Frame) -> np.ndarray:
    return np.cross(item.orientation[:3], item.orientation[3:])


def _refuse_what_is_no_stack(frames: Sequence[Frame], folder: Path) -> None:
    """What can be said before positions are compared."""
    first = frames[0]
    shapes = sorted({s.shape for s in frames})
    wrong = next((s for s in frames if s.wrong), None)
    if wrong is not None:
        raise DataError(
            f"{wrong.path.name} {wrong.wrong}",
            where=str(folder),
            fix="export the series again as single slices, or correct `series` so that it picks another",
        )
    _refuse_lost_part(frames, folder)
    if not all(s.grey for s in frames):
        raise _no_stack("is in colour", folder)
    if not all(s.slope for s in frames):
        raise _no_stack("has a rescale slope of 0, which makes all its values one", folder)
    if len(shapes) > 1:
        raise _no_stack(f"has slices of {' and '.join(f'{r} x {c}' for r, c in shapes[:2])}", folder)
    if len(frames) > 1 or first.position:
        _refuse_impossible_geometry(frames, folder)


def _refuse_lost_part(frames: Sequence[Frame], folder: Path) -> None:
    """Refuse an object that was written in several files, of which some are not there."""
    for name, parts in {s.whole for s in frames if s.whole[0]}:
        found = len({s.instance for s in frames if s.whole[0] == name})
        if found < parts:
            raise DataError(
                f"holds {found} of the {parts} files that make up one object of the chosen series",
                where=str(folder),
                fix="fetch the whole series from the archive again",
            )


def _refuse_impossible_geometry(frames: Sequence[Frame], folder: Path) -> None:
    for name, count in (("position", 3), ("orientation", 6), ("pixel_spacing", 2)):
        values = [getattr(s, name) for s in frames]
        words = name.replace("_", " ")
        lacking = sum(len(value) != count for value in values)
        if lacking:
            raise _no_stack(f"has {lacking} of {len(frames)} slices without {words} in the header", folder)
        if not np.isfinite(values).all():
            raise _no_stack(f"has a {words} that is no number", folder)
        if name != "position" and np.ptp(values, axis=0).max() > 1e-3:
            raise _no_stack(f"has slices that differ in {words}", folder)
    if min(frames[0].pixel_spacing) <= 0 or not np.isclose(np.linalg.norm(_normal(frames[0])), 1, atol=1e-2):
        raise _no_stack("has an impossible pixel spacing or orientation in the header", folder)


def _no_stack(what: str, folder: Path) -> DataError:
    return DataError(
        f"the chosen series {what}",
        where=str(folder),
        fix="correct `series` so that it picks one stack of grey slices, or export the series again",
    )


def _fitted(
    ordered: Sequence[Frame], normal: np.ndarray, tolerance: float, folder: Path
) -> tuple[np.ndarray, np.ndarray]:
    """[3] place of the first slice and [3] the way to the next, LPS millimetres, by least squares over all."""
    places_N3 = np.array([s.position for s in ordered], dtype=np.float64)
    if len(ordered) == 1:
        return places_N3[0], normal * (ordered[0].thickness or 1.0)
    heights_N = places_N3 @ normal
    gaps = np.diff(heights_N)
    if gaps.min() <= CLOSEST:
        raise DataError(
            f"two slices lie at {heights_N[int(np.argmin(gaps))]:.2f} mm",
            where=str(folder),
            fix="keep one; a series of several phases or echoes needs one `series` rule and one folder for each",
        )
    number_N = np.arange(len(ordered)) - (len(ordered) - 1) / 2
    step = number_N @ places_N3 / (number_N @ number_N)
    origin = places_N3.mean(axis=0) + number_N[0] * step
    off_N3 = places_N3 - origin - np.arange(len(ordered))[:, None] * step
    off_N, usual = np.linalg.norm(off_N3, axis=1), float(np.median(gaps))
    uneven = np.abs(off_N3 @ normal).max() > LARGEST_SHARE * (step @ normal) or gaps.max() > WIDEST_GAP * usual
    if uneven or off_N.max() > tolerance:
        raise _off_the_grid(heights_N, off_N, usual, tolerance, folder)
    return origin, step


def _off_the_grid(heights_N: np.ndarray, off_N: np.ndarray, usual: float, tolerance: float, folder: Path) -> DataError:
    gaps = np.diff(heights_N)
    widest = int(np.argmax(np.abs(gaps - usual)))
    found = f"{heights_N[widest]:.2f} mm and {heights_N[widest + 1]:.2f} mm: {gaps[widest]:.2f} mm apart"
    if gaps[widest] > usual + CLOSEST:
        what = f"missing slice between {found}, others {usual:.2f} mm"
    elif gaps[widest] < usual - CLOSEST:
        what = f"slices are out of line between {found}, others {usual:.2f} mm"
    else:
        worst = int(np.argmax(off_N))
        what = (
            f"slices are out of line: that at {heights_N[worst]:.2f} mm lies {off_N[worst]:.2f} mm off a regular grid"
        )
    return DataError(
        f"{what} (allowed: {tolerance:g} mm off the grid fitted to all)",
        where=str(folder),
        fix="fetch the whole series from the archive again; where positions are rounded more coarsely than that, raise "
        "`slice_tolerance`",
    )
