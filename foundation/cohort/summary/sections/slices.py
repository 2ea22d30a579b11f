"""Central slices of a cohort's images on a wall, the way a radiologist expects them, with the sides named."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from foundation.cohort.manifest import ImageEntry
from foundation.cohort.people import People
from foundation.cohort.store import PreparedCohort
from foundation.report.page import Page, Picture, Tile, TileRow
from foundation.wording import counted

WALL_PATIENTS = 24

TILE = 192
"""Pixels of a tile's side; it is shown at about half of that, sharp on a phone too."""

GROUND = 0x26
"""Grey around a picture that is not square, so that it is not mistaken for black voxels."""


class Plane(NamedTuple):
    """A plane through a volume: the axis that is fixed, the ones shown across and up, and its edges in RAS."""

    name: str
    fixed: int
    across: int
    up: int
    edges: tuple[str, str, str, str]


PLANES = (
    Plane("axial", 2, 0, 1, ("R", "L", "A", "P")),
    Plane("coronal", 1, 0, 2, ("R", "L", "S", "I")),
    Plane("sagittal", 0, 1, 2, ("A", "P", "S", "I")),
)


def add_slices(page: Page, people: People) -> None:
    """Add a section of central slices per image modality."""
    for name, entry in people.manifest.modalities.items():
        if isinstance(entry, ImageEntry) and entry.patients:
            rows = people.sample_of_sites(name, WALL_PATIENTS)
            page.section(f"Central slices: {name}", _how_to_read(entry, len(rows)))
            page.wall(_wall_rows(people.cohort, name, entry, rows))


def _how_to_read(entry: ImageEntry, shown: int) -> str:
    words = f"{shown:,} of {counted(entry.patients, 'patient')}, from as many sites as possible. "
    if len(entry.shape) == 2:
        words += "Each picture is shown as it lies in its file."
    elif entry.orientation == "RAS":
        words += (
            "The central slice in each plane, in radiological display: the patient's right (R) is on the left of the "
            "picture; A anterior, P posterior, S superior, I inferior. If the anatomy disagrees with the letters, the "
            "orientation in the source file is wrong. Left for right shows only where the anatomy is not symmetric."
        )
    else:
        words += (
            "The central slice across each stored axis. The orientation is taken from the files as it is, so the "
            "letters name only the ends of the stored axes."
        )
    if isinstance(entry.spacing, str) and len(entry.shape) == 3:
        why = "is not true" if entry.spacing == "untrue" else "differs from file to file and is not kept"
        words += f" The spacing {why}: every plane is drawn as a square, so proportions mean nothing."
    return words + " Black and white are the bounds of the intensity rule."


def _wall_rows(cohort: PreparedCohort, name: str, entry: ImageEntry, rows: np.ndarray) -> Iterator[TileRow]:
    acquired_NC = cohort.channels_NC(name, rows)
    statistics_NC4 = cohort.statistics_NC4(name, rows)
    named = " · ".join(planes(entry)) if len(entry.shape) == 3 else ""
    for number, row in enumerate(rows.tolist()):
        voxels = cohort.voxels(name, row)
        site = cohort.sites[row] or ("site not known" if cohort.manifest.sites else "")
        strips = []
        for position, channel in enumerate(entry.channels):
            low, high = statistics_NC4[number, position, :2].tolist()
            alt = f"patient {number + 1}, {channel}"
            if voxels is None or not acquired_NC[number, position]:
                drawn = gap(entry)
            else:
                drawn = tiles(voxels[position], entry, low, high, alt)
            strips.append((f"{channel}: {named}" if named else channel, drawn))
        yield TileRow(f"patient {number + 1}" + (f" · {site}" if site else ""), strips)


def planes(entry: ImageEntry) -> list[str]:
    """Names of the pictures that one channel of a modality gives."""
    if len(entry.shape) == 2:
        return ["image"]
    if entry.orientation == "RAS":
        return [plane.name for plane in PLANES]
    return [f"{'xyz'[plane.across]}{'xyz'[plane.up]}" for plane in PLANES]


def tiles(voxels: np.ndarray, entry: ImageEntry, low: float, high: float, alt: str) -> list[Tile]:
    """Draw the central slices of one channel.

    Args:
        voxels: [X, Y, Z], or [X, Y] for a 2D image.
        entry: The modality: orientation and spacing decide how it is shown.
        low: Intensity shown black.
        high: Intensity shown white; where the two leave no range, the slice's own is used.
        alt: What the channel is, for the alternative text.
    """
    extent = _extent(entry)
    radiological = entry.orientation == "RAS"
    # The high ends of RAS axes (right, anterior, superior) go to the left and the top, as radiologists look at them.
    turn = slice(None, None, -1 if radiological else 1)
    if voxels.ndim == 2:
        return [Tile(_draw(voxels[turn, turn], (extent[0], extent[1]), max(extent), low, high, alt))]
    drawn = []
    for plane, name in zip(PLANES, planes(entry), strict=True):
        slice_AU = np.take(voxels, voxels.shape[plane.fixed] // 2, axis=plane.fixed)[turn, turn]
        size = (extent[plane.across], extent[plane.up])
        picture = _draw(slice_AU, size, max(extent), low, high, f"{alt}, {name}")
        drawn.append(Tile(picture, plane.edges if radiological else _axis_ends(plane)))
    return drawn


def outlined(
    voxels: np.ndarray,
    regions: np.ndarray,
    entry: ImageEntry,
    low: float,
    high: float,
    colours: Sequence[str],
    alt: str,
) -> Tile:
    """Draw the slice of one channel that shows most of some regions, with their outlines.

    Args:
        voxels: [X, Y, Z], or [X, Y] for a 2D image.
        regions: [R, *shape] bool.
        entry: As for `tiles`.
        low: Intensity shown black.
        high: Intensity shown white.
        colours: Of the regions, in turn.
        alt: What it is, for the alternative text.
    """
    if voxels.ndim == 3:
        most = int(regions.any(axis=0).sum(axis=(0, 1)).argmax())
        voxels, regions = voxels[:, :, most], regions[:, :, :, most]
    extent, turn = _extent(entry), slice(None, None, -1 if entry.orientation == "RAS" else 1)
    edges = PLANES[0].edges if entry.orientation == "RAS" else _axis_ends(PLANES[0])
    lines = [(region[turn, turn], colours[at % len(colours)]) for at, region in enumerate(regions)]
    picture = _draw(voxels[turn, turn], (extent[0], extent[1]), max(extent), low, high, alt, lines)
    return Tile(picture, edges if len(entry.shape) == 3 else ("", "", "", ""))


def gap(entry: ImageEntry) -> list[Tile]:
    """Tiles for a channel that was not acquired."""
    return [Tile(None, gap="not acquired") for _ in planes(entry)]


def _outline(filled: np.ndarray) -> np.ndarray:
    """The pixels of a [rows, columns] bool picture with a neighbour, or the edge, outside of it."""
    wide = np.pad(filled, 1)
    return filled & ~(wide[:-2, 1:-1] & wide[2:, 1:-1] & wide[1:-1, :-2] & wide[1:-1, 2:])


def _axis_ends(plane: Plane) -> tuple[str, str, str, str]:
    across, up = "xyz"[plane.across], "xyz"[plane.up]
    return f"{across}−", f"{across}+", f"{up}−", f"{up}+"


def _extent(entry: ImageEntry) -> list[float]:
    """Size of the volume per axis in millimetres; equal where the spacing is not known."""
    if isinstance(entry.spacing, tuple):
        return [count * step for count, step in zip(entry.shape, entry.spacing, strict=True)]
    if len(entry.shape) == 2:
        return [float(count) for count in entry.shape]
    return [1.0] * len(entry.shape)


def _draw(
    slice_AU: np.ndarray,
    size: tuple[float, float],
    largest: float,
    low: float,
    high: float,
    alt: str,
    lines: Sequence[tuple[np.ndarray, str]] = (),
) -> Picture:
    """Draw [across, up] with its first index at the left and the top, all tiles of a volume to one scale.

    Around what is True in the first of each of `lines` goes a line of the colour that is its second.
    """
    from PIL import Image

    step = max(1, min(slice_AU.shape) // (4 * TILE))
    values = np.nan_to_num(slice_AU[::step, ::step].T.astype(np.float32))
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        low, high = float(values.min()), float(values.max())
    grey = np.clip((values - low) / (high - low or 1.0), 0, 1) * 255
    shown = Image.fromarray(np.ascontiguousarray(grey.round().astype(np.uint8)))
    width, height = (max(1, round(TILE * length / largest)) for length in size)
    canvas = Image.new("L", (TILE, TILE), GROUND)
    canvas.paste(shown.resize((width, height), Image.Resampling.BICUBIC), ((TILE - width) // 2, (TILE - height) // 2))
    if lines:
        canvas = canvas.convert("RGB")
    for region_AU, colour in lines:
        filled = Image.fromarray(np.ascontiguousarray(region_AU.T).astype(np.uint8) * 255).resize(
            (width, height), Image.Resampling.NEAREST
        )
        line = Image.fromarray(_outline(np.asarray(filled) > 0).astype(np.uint8) * 255)
        canvas.paste(colour, ((TILE - width) // 2, (TILE - height) // 2), line)
    stream = io.BytesIO()
    # Lines of one pixel would lose their colour to its usual coarser grid.
    canvas.save(stream, format="JPEG", quality=80, optimize=True, **({"subsampling": 0} if lines else {}))
    return Picture(stream.getvalue(), "image/jpeg", TILE, alt)
