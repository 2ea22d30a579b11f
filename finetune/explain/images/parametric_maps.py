"""Maps as DICOM parametric maps that refer to the series that the scan came from, for whoever reads scans in a PACS.

Patient, study and frame of reference are those of the source's headers, so that a map hangs beside its scan and on it.
By that it carries the patient's identity, as every object of a study does.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune.explain.images.explainers import called
from finetune.explain.images.show import Shown
from finetune.explain.parts import name_of
from foundation.cohort.source_series import SourceSeries
from foundation.errors import ConfigError, DataError
from foundation.wording import counted, listed

if TYPE_CHECKING:
    from pydicom import Dataset

NEEDED = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID", "FrameOfReferenceUID")
"""Of a source's header."""

MAY_BE_EMPTY = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
)
"""Elements that every object has, if without a value, and that tools which make headers anonymous leave out."""

FIRST_SERIES = 1000
"""Added to the source's series number, so that maps stand behind what was acquired."""

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""From this project's world, RAS+, to that of DICOM."""


def refuse_without_highdicom() -> None:
    """Refuse to begin what could not be written.

    Raises:
        ConfigError: highdicom is not installed.
    """
    if importlib.util.find_spec("highdicom") is None:
        raise ConfigError(
            "DICOM parametric maps need highdicom, which is not installed",
            where="--sources",
            fix="python -m pip install 'chiasma[dicom-maps]', or leave --sources out",
        )


def write_parametric_maps(
    shown: Sequence[Shown], rows: Sequence[int] | np.ndarray, sources: SourceSeries, folder: Path, explainer: str
) -> str:
    """Write the maps of scans whose sources were DICOM beside those in NIfTI.

    Args:
        shown: Scans with their maps.
        rows: Of the cohort, of each.
        sources: Of the cohort.
        folder: Of maps.
        explainer: That made them.

    Returns:
        What was written, and why not more.
    """
    reasons: Counter[str] = Counter()
    for one, row in zip(shown, rows, strict=True):
        try:
            if one.affine is None or one.voxels_CXYZ.ndim != 4:
                raise DataError("it is not known where in a volume it lies")
            headers = headers_of(sources.files(one.modality, int(row)))
            for score in one.likeliest:
                path = one.place(folder) / f"{name_of(score)}.dcm"
                write_parametric_map(path, one.smooth(score), one.affine, headers, f"{score}, {called(explainer)}")
        except DataError as error:
            reasons[error.what] += 1
    count = len(shown) - sum(reasons.values())
    told = f"maps of {count:,} of {counted(len(shown), 'scan')} are written as DICOM parametric maps too"
    return f"{told}." if not reasons else f"{told}; of others in NIfTI alone, as {listed([*reasons])}."


def headers_of(files: Sequence[Path]) -> Sequence[Dataset]:
    """Headers of a series, complete enough for an object that refers to it.

    Raises:
        DataError: They do not say of which study or frame of reference they are.
    """
    from pydicom import dcmread

    with warnings.catch_warnings(action="ignore"):
        headers = [dcmread(path, force=True, stop_before_pixels=True) for path in files]
    for header in headers:
        if missing := [name for name in NEEDED if not header.get(name)]:
            raise DataError(f"its headers have no {missing[0]}")
        for name in MAY_BE_EMPTY:
            if name not in header:
                setattr(header, name, "")
    return headers


def write_parametric_map(
    path: Path, map_XYZ: np.ndarray, affine: np.ndarray, headers: Sequence[Dataset], description: str
) -> None:
    """Write a map.

    Args:
        path: Ends with ``.dcm``.
        map_XYZ: On the prepared grid.
        affine: [4, 4] of the prepared grid into the scan's world (RAS+).
        headers: Of the series that the scan came from.
        description: What the map is of: at most 64 letters are kept.

    Raises:
        DataError: The headers do not allow it.
    """
    import highdicom as hd
    from pydicom.sr.codedict import codes
    from pydicom.uid import generate_uid

    values_ZYX = np.ascontiguousarray(map_XYZ.transpose(2, 1, 0), dtype=np.float32)
    # highdicom counts frames, rows and columns; the prepared grid columns, rows and frames.
    turned = LPS @ affine @ np.eye(4)[[2, 1, 0, 3]]
    source, limit = headers[0], max(float(np.abs(values_ZYX).max(initial=0)), 1e-12)
    # The same map has the same names, so that an archive knows it again.
    made = [source.SeriesInstanceUID, description, hashlib.sha256(values_ZYX.tobytes()).hexdigest()]
    volume = hd.Volume(
        values_ZYX,
        turned,
        coordinate_system=hd.CoordinateSystemNames.PATIENT,
        frame_of_reference_uid=source.FrameOfReferenceUID,
    )
    mapping = hd.pm.RealWorldValueMapping(
        lut_label="attribution",
        lut_explanation="what a place contributes to a score",
        unit=codes.UCUM.NoUnits,
        value_range=(-limit, limit),
        slope=1.0,
        intercept=0.0,
        quantity_definition=hd.sr.CodedConcept("attribution", "99CHIASMA", "Attribution to a predicted score"),
    )
    known: dict[str, Any] = {} if source.get("SpecificCharacterSet") else {"specific_character_set": None}
    try:
        with warnings.catch_warnings(action="ignore"):
            found = hd.pm.ParametricMap(
                headers,
                volume,
                series_instance_uid=generate_uid(entropy_srcs=["series", *made]),
                series_number=FIRST_SERIES + int(source.get("SeriesNumber") or 0),
                sop_instance_uid=generate_uid(entropy_srcs=["instance", *made]),
                instance_number=1,
                manufacturer="chiasma",
                manufacturer_model_name="chiasma explain",
                software_versions=importlib.metadata.version("chiasma"),
                device_serial_number="0",
                contains_recognizable_visual_features=False,
                real_world_value_mappings=[mapping],
                voi_lut_transformations=[hd.VOILUTTransformation(window_center=0.0, window_width=2 * limit)],
                content_label="ATTRIBUTION",
                content_description=description[:64],
                series_description=description[:64],
                **known,
            )
            found.save_as(path)
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise DataError(f"its headers do not allow it ({' '.join(str(error).split())[:120]})") from None
