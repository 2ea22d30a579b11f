"""Pixels of DICOM files decoded to physical values, and which package decodes what the installed ones cannot."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from foundation.cohort.reading.dicom_frames import DAMAGED, Frame
from foundation.errors import DataError

if TYPE_CHECKING:
    from pydicom import Dataset


PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")

FRAME_STARTS = (b"\xff\xd8\xff", b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP")
"""How a frame begins in JPEG and JPEG-LS, and in JPEG 2000 bare and in its file format."""


def read_voxels(ordered: Sequence[Frame]) -> np.ndarray:
    """[X, Y, Z] float32, in the order of the frames; every file is opened once.

    Raises:
        DataError: A file is damaged, holds another number of frames than it says, or a package is wanted to unpack it.
    """
    rows, columns = ordered[0].shape
    voxels_ZYX = np.empty((len(ordered), rows, columns), dtype=np.float32)
    by_path: dict[Path, list[int]] = {}
    for index, item in enumerate(ordered):
        by_path.setdefault(item.path, []).append(index)
    for path, indices in by_path.items():
        stored = _decode(path, ordered[indices[0]])
        for index in indices:
            item = ordered[index]
            # What becomes endless is refused by name later.
            with np.errstate(over="ignore"):
                voxels_ZYX[index] = stored[item.frame] * np.float64(item.slope) + np.float64(item.intercept)
    return voxels_ZYX.transpose(2, 1, 0)


def _decode(path: Path, item: Frame) -> np.ndarray:
    """[frames, rows, columns] of one file as stored, MONOCHROME1 inverted; a table of values in the header applied."""
    from pydicom import dcmread
    from pydicom.pixels.processing import apply_modality_lut

    try:
        with warnings.catch_warnings(action="ignore"):
            dataset = dcmread(path, force=True)
            _state_syntax(dataset)
            _refuse_unclear_pixels(dataset, path)
            _refuse_without_plugin(dataset, path)
            _refuse_more_frames(dataset, item, path)
            stored = _in_stored_bits(dataset, path)
            if dataset.get("PhotometricInterpretation") == "MONOCHROME1":
                lowest = -(2 ** (dataset.BitsStored - 1)) if dataset.PixelRepresentation else 0
                stored = 2 * lowest + 2**dataset.BitsStored - 1 - stored.astype(np.int64)
            if dataset.get("ModalityLUTSequence"):
                stored = apply_modality_lut(stored, dataset)
    except DAMAGED as error:
        raise _damaged(error, path) from None
    if stored.size != item.frames * item.shape[0] * item.shape[1]:
        shape = " x ".join(map(str, stored.shape))
        raise DataError(
            f"says {item.frames} frames of {item.shape[0]} x {item.shape[1]}, and its pixels are {shape}",
            where=str(path),
            fix="export the series again",
        )
    return stored.reshape(item.frames, *item.shape)


def _damaged(error: Exception, path: Path) -> DataError:
    return DataError(
        f"the pixels are truncated or damaged: {_short(error)}", where=str(path), fix="copy the file again"
    )


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:160]


def _state_syntax(dataset: Dataset) -> None:
    """Say how numbers are written where the file has no meta header that would."""
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    if "TransferSyntaxUID" in dataset.file_meta:
        return
    implicit, little = dataset.original_encoding
    explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit


def _in_stored_bits(dataset: Dataset, path: Path) -> np.ndarray:
    """The stored numbers, wherever in their bits the header says that they lie.

    Raises:
        DataError: The numbers of plain pixels go beyond the bits that they are said to have.
    """
    bits, allocated = int(dataset.get("BitsStored") or 0), int(dataset.BitsAllocated)
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated or "PixelData" not in dataset or not 0 < bits < allocated:
        return _unpacked(dataset, path)
    low = int(dataset.get("HighBit") or bits - 1) + 1 - bits
    # pydicom would take the lowest bits, whatever the others hold.
    dataset.BitsStored, dataset.HighBit = allocated, allocated - 1
    raw = _unpacked(dataset, path)
    dataset.BitsStored, dataset.HighBit = bits, bits - 1
    if low > 0 and low + bits == allocated and not (raw & ((1 << low) - 1)).any():
        return raw >> low
    signed, widest = raw.dtype.kind == "i", (1 << bits) - 1
    highest = widest >> 1 if signed else widest
    lowest = -highest - 1 if signed else 0
    fits = raw.min() >= lowest and raw.max() <= highest
    # A negative number may be written without the upper bits of its sign; old overlays lie in upper bits.
    if low == 0 and not fits and ((raw.min() >= lowest and raw.max() <= widest) or _has_overlay_in_pixels(dataset)):
        kept = raw.astype(np.int64) & widest
        return np.where(kept > highest, kept - widest - 1, kept).astype(raw.dtype)
    if low == 0 and fits:
        return raw
    raise DataError(
        f"says that its values have {bits} bits, the highest at bit {low + bits - 1}; they do not lie there",
        where=str(path),
        fix="export the series again with BitsStored and HighBit as its values are",
    )


def _has_overlay_in_pixels(dataset: Dataset) -> bool:
    return any(element.value for element in dataset if element.tag.element == 0x0102 and element.tag.group >> 8 == 0x60)


def _unpacked(dataset: Dataset, path: Path) -> np.ndarray:
    """The stored numbers. What no installed plugin can unpack need not be damaged: another package may read it."""
    try:
        return dataset.pixel_array
    except RuntimeError as error:
        decoder = _decoder(dataset)
        if decoder is None or not decoder.missing_dependencies:
            raise
        syntax = dataset.file_meta.TransferSyntaxUID.name
        reason = _short(error).rpartition("plugins: ")[2]
        raise DataError(
            f"is compressed as {syntax}, {dataset.get('BitsStored')} bits a value, and no installed plugin "
            f"unpacks it ({reason})",
            where=str(path),
            fix=f"pip install one of: {_packages(decoder)}; if it still fails, copy the file again",
        ) from None


def _decoder(dataset: Dataset) -> Any | None:
    """The decoder in pydicom of the compressed pixels; None where they are not compressed.

    Raises:
        NotImplementedError: pydicom knows no decoder.
    """
    from pydicom.pixels.decoders.base import get_decoder

    syntax = dataset.file_meta.TransferSyntaxUID
    return get_decoder(syntax) if syntax.is_compressed else None


def _packages(decoder: Any) -> str:
    needs = "; or ".join(item.partition(" - requires ")[2] or item for item in decoder.missing_dependencies)
    return needs.replace("gdcm>=", "python-gdcm>=")


def _refuse_without_plugin(dataset: Dataset, path: Path) -> None:
    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        decoder = _decoder(dataset)
    except NotImplementedError:
        raise DataError(
            f"is compressed as {syntax.name}, which cannot be unpacked",
            where=str(path),
            fix="export it uncompressed, for example with `gdcmconv --raw`",
        ) from None
    if decoder is not None and not decoder.is_available:
        raise DataError(
            f"is compressed as {syntax.name}, and no plugin that unpacks it is installed",
            where=str(path),
            fix=f"pip install one of: {_packages(decoder)}",
        )


def _refuse_unclear_pixels(dataset: Dataset, path: Path) -> None:
    """Refuse a file without pixels, and compressed ones that are said to be plain: they would be read as noise."""
    pixels = next((dataset[name] for name in PIXELS if name in dataset), None)
    if pixels is None:
        raise DataError("has a header and no pixels", where=str(path), fix="fetch the file from the archive again")
    if pixels.is_undefined_length and not dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        raise DataError(
            "holds compressed pixels, and its header does not say how they are compressed",
            where=str(path),
            fix="export the series again, with a transfer syntax in each file",
        )


def _refuse_more_frames(dataset: Dataset, item: Frame, path: Path) -> None:
    """Refuse pixels of more frames than the header says: a decoder would read the first of them and stop."""
    frames = item.frames
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        found = _packed_frames(dataset, frames)
    else:
        length = next(len(dataset[name].value) for name in PIXELS if name in dataset)
        bits = int(dataset.BitsAllocated) * int(dataset.get("SamplesPerPixel") or 1)
        found = length * 8 // (item.shape[0] * item.shape[1] * bits)
    if found > frames:
        raise DataError(
            f"says that it has {frames} {'frame' if frames == 1 else 'frames'} and holds {found}",
            where=str(path),
            fix="export the series again",
        )


def _packed_frames(dataset: Dataset, said: int) -> int:
    """How many frames compressed pixels hold: by their table of offsets, else by how their fragments begin."""
    from pydicom.encaps import generate_fragments, parse_basic_offsets
    from pydicom.uid import RLELossless

    listed = len(parse_basic_offsets(dataset.PixelData))
    if listed:
        return listed
    # The first item is the table.
    fragments = itertools.islice(generate_fragments(dataset.PixelData), 1, None)
    if dataset.file_meta.TransferSyntaxUID == RLELossless:
        return sum(1 for _ in fragments)
    return max(said, sum(fragment.startswith(FRAME_STARTS) for fragment in fragments))
