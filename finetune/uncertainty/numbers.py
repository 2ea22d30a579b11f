"""Of a number: the interval that holds it (Lei et al. 2018, Distribution-free predictive inference for regression)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from finetune.uncertainty.base import EVERYBODY, LEVEL, Known, State, Uncertain, bound_of, bounds
from foundation.metrics.score import Score, mean, of_rows


class OfNumber(Uncertain):
    """A number, in its own unit.

    Args:
        endpoint: That it is.
    """

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self._bounds: State = {EVERYBODY: np.zeros(0)}

    def learn(self, known: Known) -> None:
        """How far predictions were off; see `Uncertain.learn`."""
        known = known.only(np.isfinite(known.truth[self.endpoint]["value"]))
        off_N = np.abs(known.predicted["value"] - known.truth[self.endpoint]["value"])
        self._bounds = bounds(off_N, known.patterns)

    def tell(
        self, predicted: Mapping[str, np.ndarray], patterns: np.ndarray, level: float = LEVEL
    ) -> dict[str, np.ndarray]:
        """``low`` and ``high``; see `Uncertain.tell`."""
        off_N = bound_of(self._bounds, patterns, level)
        return {"low": predicted["value"] - off_N, "high": predicted["value"] + off_N}

    def coverage(self, told: Mapping[str, np.ndarray], truth: Mapping[str, Mapping[str, np.ndarray]]) -> Score | None:
        """Whether the value is between both; see `Uncertain.coverage`."""
        value_N = truth[self.endpoint]["value"]
        known = np.isfinite(value_N)
        if "low" not in told or not known.any():
            return None
        within_N = (told["low"] <= value_N) & (value_N <= told["high"])
        return of_rows(mean(within_N[known].astype(float)), known)

    def state(self) -> State:
        """See `Uncertain.state`."""
        return dict(self._bounds)

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """See `Uncertain.restore`."""
        self._bounds = dict(state)
