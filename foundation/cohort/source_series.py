"""The DICOM series that an image of a prepared cohort was made of, found again through the cohort's YAML.

A prepared cohort names its source files below their root, with their hashes, and never where the root is. Whoever has
the YAML has the root, and the rules by which a series was chosen of a patient's folder.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np

from foundation.cohort.fingerprint import below_root
from foundation.cohort.inventory import build_sources
from foundation.cohort.sources.base import ImageSource, Scan
from foundation.cohort.sources.dicom import DicomSource
from foundation.cohort.spec import CohortSpec
from foundation.cohort.store import PreparedCohort
from foundation.config import load_config
from foundation.errors import ConfigError, DataError, nearest
from foundation.files.hashing import sha256_of

SOURCES = "sources.tsv"


class SourceSeries:
    """Series of a cohort's scans.

    Args:
        document: The YAML that the cohort was prepared from.
        cohort: Prepared.

    Raises:
        ConfigError: The YAML is not one of a cohort, or of one with another name.
    """

    def __init__(self, document: Path, cohort: PreparedCohort) -> None:
        self.spec, self.cohort, self.document = load_config(CohortSpec, document, []), cohort, document
        if self.spec.name != cohort.manifest.name:
            raise ConfigError(
                f"describes the cohort '{self.spec.name}', not '{cohort.manifest.name}'",
                where=str(document),
                fix="name the YAML that the cohort was prepared from",
            )
        self._listed: dict[str, dict[tuple[str, str, str], tuple[ImageSource, Scan]]] = {}

    def files(self, name: str, row: int) -> list[Path]:
        """The files of the series whose grid a record's image follows: that of its first channel.

        Raises:
            DataError: It was no DICOM series, or its files are not there, or not those that the cohort was made of.
        """
        patient, time_point = self.cohort.patients[row], self.cohort.time_points[row]
        [leader, *_] = np.flatnonzero(self.cohort.channels_NC(name, [row])[0])
        channel = list(self.cohort.image(name).channels)[int(leader)]
        listed = self._scans(name)
        found = listed.get((patient, time_point, channel)) or listed.get((patient, "", channel))
        if found is None:
            raise DataError(f"the source of channel '{channel}' is no longer where `files` looks for it")
        source, scan = found
        if not isinstance(source, DicomSource):
            raise DataError(f"it was read from {source.config.files}, which is no DICOM")
        files = source.series_files(scan)
        for path in files:
            below = below_root(path, self.spec.root)
            if self._hashes.get(below) != sha256_of(path):
                raise DataError(f"the source file {below} is not the one that the cohort was made of")
        return files

    def _scans(self, name: str) -> dict[tuple[str, str, str], tuple[ImageSource, Scan]]:
        """(patient, time point, channel) to the scan and the source that reads it."""
        if name not in self._listed:
            recipes = self.spec.images()
            if name not in recipes:
                raise DataError(f"the YAML has no image modality '{name}'", fix=nearest(name, recipes))
            found: dict[tuple[str, str, str], tuple[ImageSource, Scan]] = {}
            for source in build_sources(recipes[name], self.spec):
                for scan in source.list_scans():
                    patient = self.spec.patients.patient(scan.patient)
                    if patient is not None:
                        found.setdefault((patient, scan.time_point, scan.channel), (source, scan))
            self._listed[name] = found
        return self._listed[name]

    @cached_property
    def _hashes(self) -> dict[str, str]:
        """Path below the root to SHA-256."""
        rows = self.cohort.files.read(SOURCES).decode("utf-8").splitlines()[1:]
        return {path: sha for path, _, sha in (row.rsplit("\t", 2) for row in rows)}
