"""Of the time to an event: the interval of the survival curve, the median time, and a time that is hardly undercut.

A patient's cumulative hazard at the time of the event is the same for everybody where curves are right, and can be
compared between patients where they are not. Its distribution among held-out patients, censored ones included, is
estimated by Kaplan and Meier; the time by which a patient's own curve comes to its lower quantile is the bound. It is
conformal prediction of Candès, Lei and Ren (2023, Conformalized survival analysis) on the scale of Qi et al. (2024,
Conformalized survival distributions), for censoring that depends on nothing but group and risk.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from finetune.uncertainty.base import EVERYBODY, FEWEST, LEVEL, Known, State, Uncertain, joined, of_patterns, parted
from foundation.metrics.score import Score, of_rows
from foundation.metrics.survival_calibration import hazard_slope

DRAWS = 200
"""Of held-out patients with replacement, for the interval of the curve."""

LEAST = 1e-9
"""Of a survival probability, in logarithms."""


class OfTime(Uncertain):
    """The time until any event.

    Args:
        endpoint: That it is.
        times: Ascending, at which ``survival_probability/TIME`` is predicted.
    """

    def __init__(self, endpoint: str, times: Sequence[float] | np.ndarray) -> None:
        self.endpoint = endpoint
        self.times_T = np.asarray(times, dtype=np.float64)
        self._hazards: State = {}
        self._draws: State = {}

    def learn(self, known: Known) -> None:
        """Cumulative hazards at events, and how much curves could be off; see `Uncertain.learn`."""
        known = known.only(np.isfinite(known.truth[self.endpoint]["time"]))
        time_N = known.truth[self.endpoint]["time"]
        # Nothing is predicted after the last time: who was watched longer was free of the event until then.
        happened_N = (known.truth[self.endpoint]["event"] > 0) & (time_N <= self.times_T[-1])
        hazard_NT = self._hazard(known.predicted)
        own_N = self._until(hazard_NT, time_N)
        self._hazards = {EVERYBODY: _sorted(own_N, happened_N)}
        for pattern, count in zip(*np.unique(known.patterns, return_counts=True), strict=True):
            here = known.patterns == pattern
            if count >= FEWEST and happened_N[here].any():
                self._hazards[str(pattern)] = _sorted(own_N[here], happened_N[here])
        self._draws = self._drawn(hazard_NT, time_N, happened_N)

    def _drawn(self, hazard_NT: np.ndarray, time_N: np.ndarray, happened_N: np.ndarray) -> State:
        """Of resampled patients, the slope of the log hazard, and events by those expected up to each time [R, T]."""
        patients = len(time_N)
        drawn_RN = np.random.default_rng(0).multinomial(patients, np.full(patients, 1 / patients), size=DRAWS)
        drawn_RN = drawn_RN.astype(np.float64)
        log_N = np.log(np.maximum(hazard_NT[:, -1], LEAST))
        centre = log_N.mean()
        slope_R = hazard_slope(log_N, time_N, happened_N.astype(float), np.zeros(patients))(drawn_RN)
        slope_R = np.where(np.isfinite(slope_R), slope_R, 1.0)
        expected_RN = drawn_RN * np.exp((slope_R[:, None] - 1) * (log_N - centre))
        until_NT = np.stack([self._until(hazard_NT, np.minimum(time_N, at)) for at in self.times_T], axis=1)
        observed_RT = drawn_RN @ (happened_N[:, None] & (time_N[:, None] <= self.times_T))
        # As though one event more had been seen, and one more expected: before the first a ratio would be 0.
        ratio_RT = (observed_RT + 1) / (expected_RN @ until_NT + 1)
        return {"slope": slope_R, "ratio": ratio_RT, "centre": np.array([centre])}

    def tell(
        self, predicted: Mapping[str, np.ndarray], patterns: np.ndarray, level: float = LEVEL
    ) -> dict[str, np.ndarray]:
        """``survival_low/TIME``, ``survival_high/TIME``, ``median_time`` and ``earliest``; see `Uncertain.tell`.

        The median is NaN where the curve does not come down to a half. `earliest` is the time that a share of `level`
        of patients reach without the event; at most the last time of the curve.
        """
        if not self._hazards:
            return {}
        hazard_NT = self._hazard(predicted)
        bounds = {pattern: _lower(sorted_2S, level) for pattern, sorted_2S in self._hazards.items()}
        bound_N = of_patterns(bounds, patterns)
        low_NT, high_NT = self._interval(hazard_NT, level)
        columns = {
            "median_time": self._reached(hazard_NT, np.full(len(hazard_NT), np.log(2)), np.nan),
            "earliest": self._reached(hazard_NT, bound_N, self.times_T[-1]),
        }
        for t, at in enumerate(self.times_T):
            columns |= {f"survival_low/{at:g}": low_NT[:, t], f"survival_high/{at:g}": high_NT[:, t]}
        return columns

    def _interval(self, hazard_NT: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
        """[N, T] between which the curve itself is, not the patient's time."""
        log_N = np.log(np.maximum(hazard_NT[:, -1], LEAST)) - self._draws["centre"][0]
        tails = ((1 - level) / 2, (1 + level) / 2)
        low_NT, high_NT = np.empty_like(hazard_NT), np.empty_like(hazard_NT)
        relative_RN = np.exp((self._draws["slope"][:, None] - 1) * log_N)
        for t in range(hazard_NT.shape[1]):
            drawn_RN = np.exp(-hazard_NT[:, t] * relative_RN * self._draws["ratio"][:, t, None])
            low_NT[:, t], high_NT[:, t] = np.quantile(drawn_RN, tails, axis=0)
        # Curves fall; what is told of them does so too, and holds the curve that is predicted.
        told_NT = np.exp(-hazard_NT)
        low_NT = np.minimum(np.minimum.accumulate(low_NT, axis=1), told_NT)
        return low_NT, np.maximum(np.maximum.accumulate(high_NT[:, ::-1], axis=1)[:, ::-1], told_NT)

    def coverage(self, told: Mapping[str, np.ndarray], truth: Mapping[str, Mapping[str, np.ndarray]]) -> Score | None:
        """Share of patients free of the event at their `earliest`, by Kaplan and Meier; see `Uncertain.coverage`."""
        known = np.isfinite(truth[self.endpoint]["time"])
        if "earliest" not in told or not known.any():
            return None
        with np.errstate(divide="ignore"):
            relative_N = truth[self.endpoint]["time"][known] / told["earliest"][known]
        return of_rows(_free_at_one(relative_N, truth[self.endpoint]["event"][known] > 0), known)

    def state(self) -> State:
        """See `Uncertain.state`."""
        return joined({"hazards": self._hazards, "draws": self._draws})

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """See `Uncertain.restore`."""
        self._hazards, self._draws = parted(state, "hazards"), parted(state, "draws")

    def _hazard(self, predicted: Mapping[str, np.ndarray]) -> np.ndarray:
        """[N, T] cumulative hazards at the times."""
        free_NT = np.stack([predicted[f"survival_probability/{at:g}"] for at in self.times_T], axis=1)
        return -np.log(np.clip(free_NT, LEAST, 1))

    def _until(self, hazard_NT: np.ndarray, time_N: np.ndarray) -> np.ndarray:
        """[N] of each curve the cumulative hazard at one time; hazards are constant between times, 0 after the last."""
        times_T, hazard_NT = np.append(0.0, self.times_T), np.pad(hazard_NT, ((0, 0), (1, 0)))
        time_N = np.clip(time_N, 0, times_T[-1])
        after = np.clip(np.searchsorted(times_T, time_N), 1, len(times_T) - 1)
        share = (time_N - times_T[after - 1]) / (times_T[after] - times_T[after - 1])
        rows = np.arange(len(hazard_NT))
        return (1 - share) * hazard_NT[rows, after - 1] + share * hazard_NT[rows, after]

    def _reached(self, hazard_NT: np.ndarray, wanted_N: np.ndarray, never: float) -> np.ndarray:
        """[N] time at which each curve first has a cumulative hazard; `never` where it has not."""
        padded_NT = np.pad(hazard_NT, ((0, 0), (1, 0)))
        times_T = np.append(0.0, self.times_T)
        after_N = (padded_NT < wanted_N[:, None]).sum(axis=1)
        reached = after_N < len(times_T)
        after = np.clip(after_N, 1, len(times_T) - 1)
        rows = np.arange(len(hazard_NT))
        lower, upper = padded_NT[rows, after - 1], padded_NT[rows, after]
        share = np.clip((wanted_N - lower) / np.maximum(upper - lower, LEAST), 0, 1)
        found = times_T[after - 1] + share * (times_T[after] - times_T[after - 1])
        return np.where(reached, found, never)


def _sorted(own_N: np.ndarray, happened_N: np.ndarray) -> np.ndarray:
    """[2, N] hazards, ascending, and whether the event happened; of equal ones the events first."""
    order = np.lexsort((~happened_N, own_N))
    return np.stack([own_N[order], happened_N[order].astype(np.float64)])


def _lower(sorted_2S: np.ndarray, level: float) -> float:
    """The largest hazard before which at most 1 - level of patients have the event, a new one among them included."""
    own_S, happened_S = sorted_2S
    at_risk_S = np.arange(len(own_S), 0, -1)
    free_S = np.cumprod(1 - happened_S / at_risk_S) * len(own_S) / (len(own_S) + 1)
    below = np.flatnonzero((free_S < level) & (happened_S > 0))
    return float(own_S[below[0]]) if len(below) else np.inf


def _free_at_one(relative_N: np.ndarray, happened_N: np.ndarray) -> Score:
    """Kaplan-Meier just before 1, over weights of patients."""
    order = np.lexsort((~happened_N, relative_N))
    before = (relative_N[order] < 1) & happened_N[order]

    def score(weights_RN: np.ndarray) -> np.ndarray:
        own_RN = weights_RN[:, order]
        at_risk_RN = own_RN[:, ::-1].cumsum(axis=1)[:, ::-1]
        gone_RN = np.divide(own_RN, at_risk_RN, out=np.zeros_like(own_RN, dtype=float), where=at_risk_RN > 0)
        return np.prod(1 - gone_RN * before, axis=1)

    return score
