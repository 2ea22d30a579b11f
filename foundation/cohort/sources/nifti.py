"""NIfTI volumes: one ``.nii`` or ``.nii.gz`` file per patient, time point and channel."""

import gzip
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from foundation.cohort.reading.scans import find_scans, only_file, refuse_non_finite
from foundation.cohort.sources.base import ImageSource, Scan, SourceConfig, Volume, image_sources
from foundation.errors import DataError

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Header

GZIP_MAGIC = b"\x1f\x8b"

UNITS = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
"""Code of the header's unit of space (none, metre, millimetre, micrometre) to millimetres."""

SMALLEST_VOLUME = 1e-6
"""Of the box between three axes of length one, below which they lie in a plane."""


FAR = 0.5
"""Voxels between two places that are not taken for one."""


@image_sources.register("nifti")
class NiftiSource(ImageSource):
    """NIfTI-1 and NIfTI-2 files, gzipped or not, of two or three dimensions."""

    class Config(SourceConfig):
        """`files` names one file per scan, such as ``{patient}/{channel}.nii.gz``."""

        format: Literal["nifti"]

    def list_scans(self) -> list[Scan]:
        """Every scan there is, sorted.

        Raises:
            ConfigError: A placeholder is missing.
            DataError: Nothing matches, or a scan is there twice.
        """
        found = find_scans(self.config.files, self.root, self.channels, self.groups, self.other_channels)
        return [Scan(*key, paths=(only_file(key, paths),)) for key, paths in found.items()]

    def read(self, scan: Scan) -> Volume:
        """Read one file, the header's scale applied.

        Raises:
            DataError: The file is truncated, is no NIfTI, has a time axis, or has voxels that are no numbers.
        """
        path = scan.paths[0]
        data = _unpacked(path)
        header = _header(data, path)
        voxels = _scaled(data, header)
        while voxels.ndim > 3 and voxels.shape[-1] == 1:
            voxels = voxels[..., 0]
        if voxels.ndim not in (2, 3):
            raise DataError(
                f"has {voxels.ndim} dimensions: {' x '.join(map(str, voxels.shape))}",
                where=str(path),
                fix="split it into one file per channel or time point",
            )
        refuse_non_finite(voxels, path)
        affine = _affine(data, header, path)
        if _disagrees_with_qform(header, affine):
            self.remarks["NIfTI files whose sform and qform place voxels differently: the sform was taken"] += 1
        if not np.isfinite(affine).all() or not _is_invertible(affine[:3, :3]):
            raise DataError("the header's affine has no inverse", where=str(path), fix="export the scan again")
        affine = np.diag([*[_millimetres(header, path)] * 3, 1.0]) @ affine
        placed = any(int(header[code]) > 0 for code in ("sform_code", "qform_code"))
        return Volume(voxels, affine, placed)


def _affine(data: bytes, header: "Nifti1Header", path: Path) -> np.ndarray:
    """The affine of the sform, else of the qform, else of the voxel sizes alone, in the header's unit."""
    raw = type(header)(data[: header.sizeof_hdr], check=False)
    sizes = raw["pixdim"][1 : 1 + min(len(header.get_data_shape()), 3)]
    # nibabel takes a size of 0 for 1.
    if int(header["sform_code"]) <= 0 and not (np.abs(sizes) > 0).all():
        raise DataError(
            f"the header says that voxels measure {' x '.join(f'{size:g}' for size in sizes)}",
            where=str(path),
            fix="write the true size of a voxel into pixdim, for example with nibabel's `header.set_zooms`",
        )
    try:
        return np.asarray(header.get_best_affine(), dtype=np.float64)
    except ValueError as error:
        raise DataError(
            f"the header's qform is damaged: {error}", where=str(path), fix="export the scan again"
        ) from None


def _disagrees_with_qform(header: "Nifti1Header", affine: np.ndarray) -> bool:
    """Whether a header has both forms, and its qform would place a corner half a voxel or more from `affine`'s.

    Only forms that speak of one space are compared.
    """
    if not int(header["sform_code"]) == int(header["qform_code"]) > 0 or not _is_invertible(affine[:3, :3]):
        return False
    shape = (*header.get_data_shape(), 1, 1)[:3]
    corners = np.array([[*place, 1] for place in np.ndindex(2, 2, 2)], dtype=float) * [*np.subtract(shape, 1), 1]
    try:
        there = np.linalg.solve(affine, header.get_qform() @ corners.T)
    except ValueError:
        return False
    return bool(np.abs(there - corners.T).max() >= FAR)


def _is_invertible(axes: np.ndarray) -> bool:
    """Whether three axes span space, whatever their unit."""
    lengths = np.linalg.norm(axes, axis=0)
    return bool(lengths.min() > 0 and abs(np.linalg.det(axes / lengths)) > SMALLEST_VOLUME)


def _millimetres(header: "Nifti1Header", path: Path) -> float:
    """Millimetres in the header's unit of space; where it states none, millimetres are meant."""
    code = int(header["xyzt_units"]) & 7
    if code not in UNITS:
        raise DataError(
            f"the header's unit of space has the unknown code {code}", where=str(path), fix="export the scan again"
        )
    return UNITS[code]


def _unpacked(path: Path) -> bytes:
    """The bytes of the file; a gzipped one is unpacked whole, so that its checksum is checked."""
    from isal import igzip, isal_zlib

    damaged: Any = (EOFError, isal_zlib.error, gzip.BadGzipFile)
    try:
        data = path.read_bytes()
        return igzip.decompress(data) if data.startswith(GZIP_MAGIC) else data
    except damaged as error:
        raise DataError(
            f"the gzip stream is truncated or damaged: {error}", where=str(path), fix="copy the file again"
        ) from None
    except OSError as error:
        raise DataError(
            f"cannot be read: {error.strerror}", where=str(path), fix="check the file and its permissions"
        ) from None


def _header(data: bytes, path: Path) -> "Nifti1Header":
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header
    from nibabel.spatialimages import HeaderDataError
    from nibabel.wrapstruct import WrapStructError

    kind = Nifti2Header if data[4:8] == b"n+2\0" else Nifti1Header
    if not data:
        raise DataError("is empty", where=str(path), fix="copy the file again")
    if kind is Nifti1Header and data[344:348] != b"n+1\0":
        raise _no_single_file(data, path)
    try:
        header = kind(data[: kind.template_dtype.itemsize])
        # Some programs write a 0 for an axis after the third that the scan does not have.
        header["dim"][4:] = np.where(header["dim"][4:] == 0, 1, header["dim"][4:])
        start, shape, dtype = header.get_data_offset(), header.get_data_shape(), header.get_data_dtype()
        header.get_slope_inter()
    except (HeaderDataError, WrapStructError, ValueError, OverflowError) as error:
        raise DataError(f"the header is damaged: {error}", where=str(path), fix="copy the file again") from None
    if not shape or min(shape) < 1 or dtype.kind not in "iufb":
        raise DataError(
            f"holds no grey values: shape {list(shape)}, type {dtype}", where=str(path), fix="export grey values"
        )
    if start < header.sizeof_hdr:
        # nibabel takes 0 at its word, and hands the header over as voxels.
        what = f"the header is damaged: voxels are said to begin at byte {start}, within it"
        raise DataError(what, where=str(path), fix="export the scan again")
    needed = start + int(np.prod(shape, dtype=object)) * dtype.itemsize
    if len(data) < needed:
        raise DataError(f"is truncated: {len(data)} of {needed} bytes", where=str(path), fix="copy the file again")
    return header


def _no_single_file(data: bytes, path: Path) -> DataError:
    """Why a file is no NIfTI in one piece, and what makes one of it."""
    join = "python -c \"import nibabel as n; n.save(n.Nifti1Image.from_image(n.load('SCAN.hdr')), 'SCAN.nii.gz')\""
    header, voxels = path.with_suffix(".hdr"), path.with_suffix(".img")
    if path.suffix in (".img", ".hdr") and header.is_file() and voxels.is_file():
        pair = header.read_bytes()[344:348] == b"ni1\0"
        what = (
            "is half of a NIfTI pair" if pair else "is half of an Analyze 7.5 pair, which does not say left from right"
        )
        care = "" if pair else "; Analyze does not say which side is left, so check it on a scan whose sides are known"
        return DataError(what, where=str(path), fix=f"write both as one file: {join}{care}")
    if data.startswith(b"version https://git-lfs"):
        return DataError("stands for a file that was not fetched", where=str(path), fix="git lfs pull")
    if data[128:132] == b"DICM":
        return DataError("is DICOM", where=str(path), fix="set `format: dicom` and let `files` name its folder")
    return DataError("is no NIfTI in one file", where=str(path), fix=f"if nibabel opens it, write it as NIfTI: {join}")


def _scaled(data: bytes, header: "Nifti1Header") -> np.ndarray:
    """Physical values: as stored where the header has no scale, else float32."""
    shape, dtype = header.get_data_shape(), header.get_data_dtype()
    count = int(np.prod(shape, dtype=np.int64))
    stored = np.frombuffer(data, dtype, count, header.get_data_offset()).reshape(shape, order="F")
    slope, intercept = header.get_slope_inter()
    if slope is None or (slope, intercept) == (1.0, 0.0):
        return stored.astype(stored.dtype.newbyteorder("="), copy=False)
    voxels = np.empty(stored.shape, dtype=np.float32, order="F")
    # Slice by slice: the double-precision intermediate of a whole CT would not fit beside it.
    with np.errstate(over="ignore"):
        for last in range(stored.shape[-1]):
            voxels[..., last] = stored[..., last] * np.float64(slope) + np.float64(intercept)
    return voxels
