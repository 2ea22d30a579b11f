"""What an explanation has to stand before it is believed: completeness, random weights, deletion and insertion.

Random weights (Adebayo et al. 2018, Sanity checks for saliency maps): a map that stays when what was learned is in
disorder shows the data, not the model. Compared are slopes, a value's attribution over its distance from the baseline:
the attribution itself follows that distance whatever the weights, and would pass for agreement.

Deletion and insertion (Petsiuk et al. 2018): values brought to the baseline, or back from it, in the order of their
attributions, must move the score faster than in random order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from scipy import stats

from finetune.explain.attribution import TOLERANCE, Attributed, Explainer, StackRecords
from finetune.explain.methods import Score
from foundation.progress import Progress, Silent
from foundation.wording import counted, p_text

MOST_PATIENTS = 64
"""For random weights, deletion and insertion; spread evenly over all."""

MOST_CORRELATION = 0.3
"""Of slopes with those under random weights."""

RANDOM_WEIGHTS, RANDOM_ORDERS = 2, 3

STEPS = 12
"""Of integrated gradients under random weights."""

SHARES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0)
"""Of values that are brought to the baseline, or back."""

P_VALUE = 0.05
MOST_INCOMPLETE = 0.05
"""Share of patients whose completeness error may be above the tolerance."""


@dataclass(frozen=True)
class Guard:
    """One check of the explanation of one score.

    Attributes:
        name: Of the check.
        score: That is explained.
        value: What was found.
        passed: Whether it holds.
        sentence: What it means.
    """

    name: str
    score: Score
    value: float
    passed: bool
    sentence: str


@dataclass(frozen=True)
class Guards:
    """All checks.

    Attributes:
        guards: Of every score.
        curves: Name, such as ``deletion``, to [S, len(SHARES)] mean scores in spreads of the score.
    """

    guards: list[Guard]
    curves: dict[str, np.ndarray] = field(default_factory=dict)

    def failed(self, score: Score) -> list[Guard]:
        """Those that a score's explanation does not stand."""
        return [guard for guard in self.guards if guard.score == score and not guard.passed]


def completeness(batches: Sequence[np.ndarray], scores: Sequence[Score]) -> list[Guard]:
    """Whether attributions add up.

    Args:
        batches: [B, S] completeness errors of each.
        scores: S of them.
    """
    error_NS = np.concatenate(batches)
    found = []
    for s, score in enumerate(scores):
        above = float((error_NS[:, s] > TOLERANCE).mean())
        sentence = (
            f"attributions miss the score's distance from its baseline by {np.median(error_NS[:, s]):.2g} spreads in "
            f"the median and {error_NS[:, s].max():.2g} at most"
        )
        found.append(Guard("completeness", score, float(error_NS[:, s].max()), above <= MOST_INCOMPLETE, sentence))
    return found


def sample(rows: np.ndarray, most: int = MOST_PATIENTS) -> np.ndarray:
    """At most so many rows, spread evenly."""
    return rows[np.unique(np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(int))]


def run_guards(
    explainer: Explainer,
    attributed: Sequence[Attributed],
    spread_S: np.ndarray,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> Guards:
    """Put random weights, deletion and insertion to the test on some records.

    Args:
        explainer: Of the cohort.
        attributed: Records and their attributions, in batches.
        spread_S: Of each score over patients.
        seed: Of weights and orders.
        progress: Told of records.
    """
    progress = progress or Silent()
    disordered = [explainer.randomised(seed + number) for number in range(RANDOM_WEIGHTS)]
    correlation, curves = [], {name: [] for name in ("deletion", "insertion", "deletion, random", "insertion, random")}
    progress.start("putting the explanation to the test", sum(len(of.rows) for of in attributed), "records")
    for number, of in enumerate(attributed):
        records = explainer.read(of.rows)
        random = torch.Generator().manual_seed(seed + number)
        for other in disordered:
            theirs_BSP = other.read(of.rows).attributions(STEPS).numpy()
            correlation.append(_agreement(explainer, of, theirs_BSP, records.moved_BP.numpy()))
        for name, values in _curves(records, of, random).items():
            curves[name].append(values / spread_S[:, None])
        progress.advance(len(of.rows))
    progress.finish()
    whole = {name: np.concatenate(parts) for name, parts in curves.items()}
    guards = _of_weights(np.concatenate(correlation), explainer.scores) + _of_orders(whole, explainer.scores)
    return Guards(guards, {name: values.mean(axis=0) for name, values in whole.items()})


def _agreement(explainer: Explainer, of: Attributed, theirs_BSP: np.ndarray, moved_BP: np.ndarray) -> np.ndarray:
    """[B, S] rank correlations of a record's slopes with those under random weights, of values off the baseline."""
    found = np.full(theirs_BSP.shape[:2], np.nan)
    side_BP = _side(explainer, of.rows)
    for b, moved_P in enumerate(moved_BP):
        at = np.flatnonzero(moved_P & (side_BP[b] != 0))
        for s in range(theirs_BSP.shape[1]) if len(at) > 2 else ():
            # A value's side of the baseline gives both attributions their sign: it is taken off both.
            pair = [a[b, s, at] * side_BP[b, at] for a in (of.attribution_BSP, theirs_BSP)]
            if min(np.ptp(a) for a in pair) > 0:
                found[b, s] = np.corrcoef(*(stats.rankdata(a) for a in pair))[0, 1]
    return found


def _side(explainer: Explainer, rows: np.ndarray) -> np.ndarray:
    """[B, P] on which side of the baseline values are, by the first method that reads each."""
    found = np.zeros((len(rows), len(explainer.columns)))
    values_BP = explainer.columns.values(rows)
    for aligned in (one for method in reversed(explainer.methods) for one in reversed(method.aligned)):
        for name, scaling in aligned.preprocessing.omics().items():
            if name in aligned.positions:
                places = explainer.columns.places(aligned, name)
                known = places >= 0
                center = np.asarray(scaling.center, dtype=np.float32)[known]
                found[:, places[known]] = np.sign(np.nan_to_num(values_BP[:, places[known]] - center))
    return found


def _of_weights(correlation_NS: np.ndarray, scores: Sequence[Score]) -> list[Guard]:
    found = []
    for s, score in enumerate(scores):
        known = correlation_NS[~np.isnan(correlation_NS[:, s]), s]
        value = float(known.mean()) if len(known) else 0.0
        sentence = f"with weights in disorder the map correlates {value:.2f} with this one (at most {MOST_CORRELATION})"
        found.append(Guard("random weights", score, value, abs(value) <= MOST_CORRELATION, sentence))
    return found


def _curves(records: StackRecords, of: Attributed, random: torch.Generator) -> dict[str, np.ndarray]:
    """Name to [B, S, len(SHARES)] scores, beyond those at the baseline."""
    moved_BP = records.moved_BP
    base_BS = torch.from_numpy(of.baseline_BS)
    found = {}
    for name, keeps in (("deletion", False), ("insertion", True)):
        by_score = []
        for s in range(of.attribution_BSP.shape[1]):
            place_BP = _places(torch.from_numpy(of.attribution_BSP[:, s]).double(), moved_BP)
            by_score.append(torch.stack([records.scores(k)[:, s] for k in _kept(place_BP, moved_BP, keeps)], dim=1))
        found[name] = (torch.stack(by_score, dim=1) - base_BS[..., None]).numpy()
        total = torch.zeros(*base_BS.shape, len(SHARES), dtype=torch.float64)
        for _ in range(RANDOM_ORDERS):
            place_BP = _places(torch.rand(moved_BP.shape, generator=random, dtype=torch.float64), moved_BP)
            total += torch.stack([records.scores(k) for k in _kept(place_BP, moved_BP, keeps)], dim=2)
        found[f"{name}, random"] = (total / RANDOM_ORDERS - base_BS[..., None]).numpy()
    return found


def _places(order_BP: torch.Tensor, moved_BP: torch.Tensor) -> torch.Tensor:
    """[B, P] place of each value that is off the baseline, the highest first, as a share of all these."""
    ordered_BP = order_BP.masked_fill(~moved_BP, -torch.inf).argsort(dim=1, descending=True).argsort(dim=1)
    return ordered_BP / moved_BP.sum(dim=1, keepdim=True).clamp(min=1)


def _kept(place_BP: torch.Tensor, moved_BP: torch.Tensor, keeps: bool) -> list[torch.Tensor]:
    """Of each of `SHARES`, bool [B, P]: the first places, or all but them."""
    return [(place_BP < share) == keeps if share < 1 else torch.full_like(moved_BP, keeps) for share in SHARES]


def p_of_gain(gain_N: np.ndarray) -> float:
    """Of Wilcoxon's signed ranks, that gains are above 0."""
    if not gain_N.any():
        return 1.0
    found: Any = stats.wilcoxon(gain_N, alternative="greater")
    return float(found.pvalue)


def _of_orders(curves: dict[str, np.ndarray], scores: Sequence[Score]) -> list[Guard]:
    found = []
    area = {name: np.trapezoid(values, SHARES, axis=2) for name, values in curves.items()}
    for s, score in enumerate(scores):
        gain_N = area["insertion"][:, s] - area["deletion"][:, s]
        gain_N = gain_N - (area["insertion, random"][:, s] - area["deletion, random"][:, s])
        gain_N = gain_N[np.abs(curves["insertion"][:, s]).max(axis=1) > 0]
        p_value = p_of_gain(gain_N)
        mean = float(gain_N.mean()) if len(gain_N) else 0.0
        better = int((gain_N > 0).sum())
        sentence = (
            f"between insertion and deletion in the order of attributions lie {mean:.2f} spreads more than in random "
            f"order; more in {better:,} of {counted(len(gain_N), 'record')} ({p_text(p_value)})"
        )
        found.append(Guard("deletion and insertion", score, mean, mean > 0 and p_value < P_VALUE, sentence))
    return found
