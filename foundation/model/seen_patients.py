"""patients.json of a model folder, written, read and asked: whom the model was trained on, as salted hashes.

Nobody can read a name from it, but whoever has a patient's name can ask whether it is there: that is its purpose, and
why names that can be guessed, such as public barcodes, are not made secret by it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import ValidationError

from foundation.config import Config
from foundation.errors import CheckpointError

FILE = "patients.json"


class SeenPatients(Config):
    """The whole of patients.json; the same patients give the same file.

    Attributes:
        format_version: Of the file.
        salt: Differs from one set of patients to another, so that two models' hashes cannot be compared.
        hashes: SHA-256 of the salt and a patient, sorted; one per patient.
    """

    format_version: Literal[1] = 1
    salt: str
    hashes: list[str]

    @classmethod
    def of(cls, patients: Iterable[str]) -> SeenPatients:
        """Hash patients, each once, in any order."""
        names = sorted({str(patient) for patient in patients})
        salt = hashlib.sha256("\n".join(names).encode()).hexdigest()
        return cls(salt=salt, hashes=sorted(_hashed(salt, name) for name in names))

    def among(self, patients: Iterable[str]) -> np.ndarray:
        """[N] bool: which of N patients the model was trained on."""
        known = set(self.hashes)
        return np.array([_hashed(self.salt, str(patient)) in known for patient in patients], dtype=bool)

    def write(self, folder: Path) -> None:
        """Write patients.json into a folder."""
        (folder / FILE).write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> SeenPatients | None:
        """Read patients.json from a model folder; None where the folder has none.

        Raises:
            CheckpointError: It is damaged.
        """
        path = folder / FILE
        if not path.exists():
            return None
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, ValidationError):
            what = "does not say whom the model has seen, as it should"
            raise CheckpointError(what, where=str(path), fix="take the model folder from its source again") from None


def _hashed(salt: str, patient: str) -> str:
    return hashlib.sha256(f"{salt}\x1f{patient}".encode()).hexdigest()
