"""The hospitals of a simulated cohort: how each scans, and what it tends not to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from foundation.simulation.streams import stream

ScanFormat = Literal["nifti", "dicom"]


@dataclass(frozen=True)
class Site:
    """One hospital with one scanner.

    Attributes:
        number: 1 to 5; the middle part of its patients' names.
        share: Patients out of every ten.
        scan_format: What its archive exports.
        spacing: Voxel size in millimetres, x y z.
        gain: Factor on all intensities.
        offset: Added to all intensities.
        noise: Standard deviation of the scanner's noise, before the gain.
        blur: Standard deviation of the point spread, in millimetres.
        without_scan: Fraction of patients who are not scanned.
        one_channel: Fraction of scanned patients with only one of the channels.
        without_tissue: Fraction of early-stage patients from whom no tissue is kept.
    """

    number: int
    share: int
    scan_format: ScanFormat
    spacing: tuple[float, float, float]
    gain: float
    offset: float
    noise: float
    blur: float
    without_scan: float
    one_channel: float
    without_tissue: float


SITES = (
    Site(1, 3, "nifti", (4.0, 4.0, 6.0), 1.0, 0.0, 4.0, 1.5, 0.10, 0.08, 0.10),
    Site(2, 2, "nifti", (4.0, 4.0, 6.0), 1.6, 12.0, 4.5, 1.8, 0.15, 0.15, 0.15),
    Site(3, 2, "dicom", (4.0, 4.0, 6.0), 3.2, 40.0, 4.0, 1.5, 0.10, 0.10, 0.20),
    Site(4, 2, "nifti", (5.0, 5.0, 5.0), 0.8, 5.0, 5.0, 2.0, 0.15, 0.20, 0.10),
    Site(5, 1, "nifti", (4.0, 4.0, 5.0), 2.2, 20.0, 5.5, 2.2, 0.35, 0.25, 0.30),
)

BLOCK = sum(site.share for site in SITES)


def site_of(seed: int, index: int) -> Site:
    """The site of a patient: each block of ten patients holds every site by its share, in random order."""
    block, place = divmod(index, BLOCK)
    seats = [site for site in SITES for _ in range(site.share)]
    return seats[stream(seed, "site", block).permutation(BLOCK)[place]]
