"""Maps as NIfTI files in the world of the scan: they open over the scan that they are of, whatever its own grid.

A prepared image keeps the affine from its voxels to the scan's world in millimetres. A map has a value for each cell;
it is spread linearly over the prepared voxels and written with their affine, so that a viewer which places images by
their world coordinates lays it over the source scan.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

from foundation.cohort.store import PreparedCohort
from foundation.errors import DataError


def affines_of(cohort: PreparedCohort, name: str, rows: Sequence[int] | np.ndarray) -> np.ndarray:
    """[N, 4, 4] of the prepared grids of scans, NaN where it is not known where they lie."""
    try:
        return cohort.affine_N44(name, rows)
    except DataError:
        return np.full((len(rows), 4, 4), np.nan)


def write_overlay(path: Path, map_XYZ: np.ndarray, affine: np.ndarray, name: str) -> None:
    """Write a map.

    Args:
        path: Ends with ``.nii.gz``.
        map_XYZ: On the prepared grid; of a 2D image [X, Y].
        affine: [4, 4] of the prepared grid.
        name: What the map is of, for the header: at most 80 letters are kept.
    """
    volume = map_XYZ if map_XYZ.ndim == 3 else map_XYZ[..., None]
    image = nib.Nifti1Image(volume.astype(np.float32), affine)  # type: ignore[attr-defined]
    image.header.set_xyzt_units("mm")
    # 1: coordinates of the scanner, as those that the affine of a scan leads to.
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    largest = float(np.abs(volume).max(initial=0))
    image.header["cal_max"], image.header["cal_min"] = largest, -largest
    image.header["descrip"] = name.encode("ascii", "replace")[:79]
    nib.save(image, path)  # type: ignore[attr-defined]
