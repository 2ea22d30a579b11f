"""Modality dropout: what a patient has is hidden at random, never all of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import Field, field_validator

from foundation.config import Config
from foundation.errors import ConfigError, nearest
from foundation.randomness import draw


class ModalityDropout(Config):
    """How often something that a patient has is hidden from the model in training.

    Each present modality `m` is dropped with its own probability `p_m`, independently. When that would drop
    all that a record has, one of them is kept, each with the same probability; so of `n` present modalities `m`
    is kept with probability `1 - p_m + (product of all n probabilities) / n`. The acquired channels of an
    image that is kept follow the same rule, with the one probability `channels`.
    """

    default: float = Field(
        default=0.0, ge=0, le=1, description="Probability for a modality that `modalities` leaves out."
    )
    modalities: dict[str, float] = Field(default={}, description="Probability per modality.")
    channels: float = Field(default=0.0, ge=0, le=1, description="Probability per acquired channel of an image.")

    @field_validator("modalities")
    @classmethod
    def _probabilities(cls, modalities: dict[str, float]) -> dict[str, float]:
        for name, probability in modalities.items():
            if not 0 <= probability <= 1:
                raise ValueError(f"the probability of '{name}' must lie between 0 and 1, not {probability}")
        return modalities

    def check(self, known: Sequence[str]) -> None:
        """Refuse a probability for a modality that there is not.

        Raises:
            ConfigError: `modalities` names one that is not in `known`.
        """
        for name in self.modalities:
            if name not in known:
                raise ConfigError(
                    f"no modality is called '{name}'", where="dropout.modalities", fix=nearest(name, known)
                )

    def drop(
        self,
        present_BM: np.ndarray,
        channels: Mapping[str, np.ndarray],
        *,
        modalities: Sequence[str],
        records: Sequence[str],
        epochs: Sequence[int] | np.ndarray,
        seed: int,
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Draw what stays.

        Args:
            present_BM: Bool, what each record has.
            channels: Image modality to bool [B, C], the channels each record has.
            modalities: Names of the axis M.
            records: [B] keys of the records.
            epochs: [B] epoch of each record.
            seed: Of the run.

        Returns:
            Presence [B, M], and channels [B, C] per image modality, all False where the image is absent.
        """
        probabilities = np.array([self.modalities.get(name, self.default) for name in modalities])
        kept_BM = present_BM
        if probabilities.any():
            draws = draw(seed, "modality dropout", records, epochs, len(modalities) + 1)
            kept_BM = _keep(present_BM, probabilities, draws)
        kept_channels = {}
        for name, present_BC in channels.items():
            present_BC = present_BC & kept_BM[:, [list(modalities).index(name)]]
            if self.channels:
                draws = draw(seed, f"channel dropout of {name}", records, epochs, present_BC.shape[1] + 1)
                present_BC = _keep(present_BC, np.full(present_BC.shape[1], self.channels), draws)
            kept_channels[name] = present_BC
        return kept_BM, kept_channels


def _keep(present: np.ndarray, probabilities: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Drop each of the last axis where its draw is below its probability; the last draw picks who is rescued."""
    kept = present & (draws[:, :-1] >= probabilities)
    counts = present.sum(axis=1)
    chosen = np.minimum((draws[:, -1] * counts).astype(np.int64), counts - 1)
    rank_of_each = np.cumsum(present, axis=1) - 1
    rescued = present & (rank_of_each == chosen[:, None])
    return np.where(kept.any(axis=1, keepdims=True), kept, rescued)
