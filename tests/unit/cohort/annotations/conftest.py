"""What the tests of annotations share: a small cohort of NIfTI images, prepared with annotations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

from foundation.cohort.prepare import prepare
from foundation.cohort.store import PreparedCohort
from foundation.progress import Silent
from foundation.yaml_text import dump

AFFINE = np.diag([-1.0, -1.0, 2.0, 1.0])
SHAPE = (10, 9, 6)


def save(path: Path, voxels: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(voxels, affine), path)


@pytest.fixture
def images(tmp_path: Path) -> dict[str, np.ndarray]:
    """Three patients' images as written to ``P1/t1.nii.gz`` and so on."""
    random = np.random.default_rng(0)
    found = {patient: random.integers(1, 200, SHAPE).astype(np.uint8) for patient in ("P1", "P2", "P3")}
    for patient, voxels in found.items():
        save(tmp_path / patient / "t1.nii.gz", voxels)
    return found


@pytest.fixture
def prepared(tmp_path: Path) -> Callable[..., PreparedCohort]:
    """Prepare what lies in the folder with these annotations; further keys change the image modality."""

    def prepare_(annotations: dict, *, out: str = "out", stop_above: float = 1.0, **image: object) -> PreparedCohort:
        source = {"format": "nifti", "files": "{patient}/{channel}.nii.gz"}
        mri = {"kind": "image", "channels": ["t1"], "source": source, "size": list(SHAPE), "stored_as": "uint8"} | image
        spec = {"name": "drawn", "modalities": {"mri": mri}, "quarantine": {"stop_above": stop_above}}
        spec |= {"annotations": annotations} if annotations else {}
        (tmp_path / "cohort.yaml").write_text(dump(spec), encoding="utf-8")
        prepare(tmp_path / "cohort.yaml", out=tmp_path / out, workers=1, progress=Silent())
        return PreparedCohort(tmp_path / out)

    return prepare_


@pytest.fixture
def faults(tmp_path: Path) -> Callable[[], dict[str, str]]:
    """Patient to the reason for which something of theirs is in quarantine.tsv."""

    def read() -> dict[str, str]:
        rows = [line.split("\t") for line in (tmp_path / "out" / "quarantine.tsv").read_text().splitlines()[1:]]
        return {patient: reason for patient, _, _, reason, _ in rows}

    return read
