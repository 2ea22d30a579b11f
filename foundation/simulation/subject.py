"""One simulated patient in full: who it is, what is there of it, and what becomes of it."""

from __future__ import annotations

from dataclasses import dataclass

from foundation.simulation.latent import Patient, draw_patient
from foundation.simulation.outcomes import Outcome, draw_outcome
from foundation.simulation.presence import Presence, draw_presence


@dataclass(frozen=True)
class Subject:
    """A patient, what was measured, and the outcome."""

    patient: Patient
    presence: Presence
    outcome: Outcome

    def barcode(self, sample: str) -> str:
        """The barcode of one of the patient's samples, such as ``SIM-01-0001-01A``."""
        return f"{self.patient.name}-{sample}"


def draw_subject(seed: int, index: int) -> Subject:
    """Draw the subject at a position of the cohort: the same whatever the number of patients."""
    patient = draw_patient(seed, index)
    return Subject(patient, draw_presence(seed, patient), draw_outcome(seed, patient))
