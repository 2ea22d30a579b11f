"""The planes in which a scan is shown: axial, coronal and sagittal, as radiologists hang them.

The patient's right is at the left of the picture, front and head are up, and the front is at the left from the side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import nibabel as nib
import numpy as np

NAMES = {"S": "axial", "I": "axial", "A": "coronal", "P": "coronal", "R": "sagittal", "L": "sagittal"}
OPPOSITE = dict(zip("LRAPIS", "RLPASI", strict=True))


@dataclass(frozen=True)
class Plane:
    """A plane through a volume.

    Attributes:
        name: Such as ``axial``.
        through: Axis that it is perpendicular to.
        across, down: Axes from left to right and from above to below.
        flip_across, flip_down: Whether their voxels run the other way.
        edges: Letters at the left, right, top and bottom; empty where directions are not known.
    """

    name: str
    through: int
    across: int
    down: int
    flip_across: bool
    flip_down: bool
    edges: tuple[str, str, str, str] = ("", "", "", "")

    def picture(self, volume_XYZ: np.ndarray, at: int) -> np.ndarray:
        """[rows, columns, ...] the slice at a voxel index."""
        rest = [axis for axis in range(3) if axis != self.through]
        found = volume_XYZ.take(at, axis=self.through)
        found = found if rest == [self.down, self.across] else found.swapaxes(0, 1)
        return found[:: -1 if self.flip_down else 1, :: -1 if self.flip_across else 1]


def planes_of(shape: Sequence[int], affine: np.ndarray | None) -> list[Plane]:
    """The planes of a volume; of a 2D image, a volume of one slice, only that slice.

    Args:
        shape: Three numbers.
        affine: [4, 4] into the world (RAS+); None where it is not known.
    """
    if affine is None:
        return [Plane("slice", 2, 0, 1, False, False)] if shape[2] == 1 else _unknown()
    codes: list[str] = list(nib.aff2axcodes(affine))  # type: ignore[attr-defined]
    through = (
        [2] if shape[2] == 1 else sorted(range(3), key=lambda axis: "axial coronal sagittal".find(NAMES[codes[axis]]))
    )
    return [_plane(codes, axis) for axis in through]


def _unknown() -> list[Plane]:
    rest = ((0, 1), (0, 2), (1, 2))
    return [Plane(f"across axis {'xyz'[a]}", a, *rest[2 - a], False, True) for a in (2, 1, 0)]


def _plane(codes: Sequence[str], through: int) -> Plane:
    name = NAMES[codes[through]]
    rest = [axis for axis in range(3) if axis != through]
    kinds = [NAMES[codes[axis]] for axis in rest]
    # Right and left lie across where there are any; from the side front and back do.
    first = rest[kinds.index("sagittal" if name != "sagittal" else "coronal")]
    down = next(axis for axis in rest if axis != first)
    left = "R" if name != "sagittal" else "A"
    top = "A" if name == "axial" else "S"
    return Plane(
        name,
        through,
        first,
        down,
        flip_across=codes[first] == left,
        flip_down=codes[down] == top,
        edges=(left, OPPOSITE[left], top, OPPOSITE[top]),
    )
