"""What a map of a scan has to stand before it is believed: random weights, deletion and insertion of cells.

Random weights (Adebayo et al. 2018): a map that stays when what was learned is in disorder shows the scan, not the
model. Deletion and insertion (Petsiuk et al. 2018): cells taken away, or given back, in the order of the map must move
the score faster than in random order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from finetune.explain.guards import MOST_CORRELATION, P_VALUE, RANDOM_ORDERS, RANDOM_WEIGHTS, SHARES, p_of_gain
from finetune.explain.images.scan import Scan
from finetune.explain.methods import Score
from foundation.wording import counted, p_text

Explain = Callable[[Scan], Tensor]
"""A scan to [S, *grid]."""

FEWEST_PATIENTS = 5
"""Of fewer no order can be told from chance: Wilcoxon's smallest p is 1 in 2 to their number."""


@dataclass(frozen=True)
class ScanGuard:
    """One check of the maps of one score.

    Attributes:
        name: Of the check, with the modality and the score.
        value: What was found.
        passed: Whether it holds.
        sentence: What it means.
        modality: Of the scans.
        score: That is explained.
    """

    name: str
    value: float
    passed: bool
    sentence: str
    modality: str
    score: Score


def changed_by_weights(scans: Sequence[Scan], maps: Sequence[Tensor], explain: Explain) -> np.ndarray:
    """[N, S] absolute rank correlation of a record's map with maps under random weights, the mean; NaN where level.

    Args:
        scans: N of them.
        maps: [S, *grid] each.
        explain: That made the maps.
    """
    found: list[list[list[float]]] = []
    for seed in range(RANDOM_WEIGHTS):
        networks = {key: network.randomised(seed) for key, network in scans[0].networks.items()}
        others = [explain(Scan(networks, scan.name, scan.row)) for scan in scans]
        found.append([_agreements(s, a, b) for s, a, b in zip(scans, maps, others, strict=True)])
    return np.abs(np.array(found)).mean(axis=0)


def _agreements(scan: Scan, one: Tensor, other: Tensor) -> list[float]:
    """[S] rank correlations over cells with tissue."""
    return [agreement(a[scan.tissue_G].numpy(), b[scan.tissue_G].numpy()) for a, b in zip(one, other, strict=True)]


def agreement(a_T: np.ndarray, b_T: np.ndarray) -> float:
    """Rank correlation; NaN where either is level."""
    if min(np.ptp(a_T), np.ptp(b_T)) <= 0:
        return np.nan
    return float(np.corrcoef(stats.rankdata(a_T), stats.rankdata(b_T))[0, 1])


def gains_of_orders(scan: Scan, map_SG: Tensor, random: torch.Generator) -> np.ndarray:
    """[S] area between insertion and deletion in the order of a map, less that in random order; in units of scores."""
    tissue_T = scan.tissue_G.flatten()
    keeps = [_keeps(of_score.flatten(), tissue_T) for of_score in map_SG]
    keeps += [_keeps(torch.rand(len(tissue_T), generator=random), tissue_T) for _ in range(RANDOM_ORDERS)]
    scores = scan.taken(torch.cat(keeps).unflatten(1, scan.cells.grid)).numpy()
    scores = scores.reshape(len(keeps), 2, len(SHARES), -1)
    area: np.ndarray = np.asarray(np.trapezoid(scores, SHARES, axis=2))
    between = area[:, 1] - area[:, 0]
    own_SS, chance_S = between[: len(map_SG)], between[len(map_SG) :].mean(axis=0)
    return np.diagonal(own_SS) - chance_S


def _keeps(order_T: Tensor, tissue_T: Tensor) -> Tensor:
    """[2 * shares, T] what is kept: of each of `SHARES` all but the first, then the first only."""
    place_T = order_T.double().masked_fill(~tissue_T, -torch.inf).argsort(descending=True).argsort() / tissue_T.sum()
    first = torch.stack([place_T < share for share in SHARES])
    return torch.cat([~first, first])


def judge(
    modality: str, scores: Sequence[Score], correlation_NS: np.ndarray, gain_NS: np.ndarray, spread_S: np.ndarray
) -> list[ScanGuard]:
    """Both checks of every score; gains are told in spreads of the score over these records."""
    found = []
    for s, score in enumerate(scores):
        known = correlation_NS[~np.isnan(correlation_NS[:, s]), s]
        value = float(known.mean()) if len(known) else np.nan
        stands = bool(len(known)) and value <= MOST_CORRELATION
        sentence = (
            f"with weights in disorder, cells rank alike with a correlation of {value:.2f} on average, sign aside "
            f"(at most {MOST_CORRELATION})"
            if len(known)
            else "the map is level: the networks read nothing there that moves this score"
        )
        found.append(ScanGuard(f"random weights, {score} ({modality})", value, stands, sentence, modality, score))
        gain_N = gain_NS[:, s] / spread_S[s]
        p_value = p_of_gain(gain_N)
        mean, better = float(gain_N.mean()), int((gain_N > 0).sum())
        sentence = (
            f"between insertion and deletion in the order of the map lie {mean:.2f} spreads more than in random "
            f"order; more in {better:,} of {counted(len(gain_N), 'record')} ({p_text(p_value)})"
        )
        if len(gain_N) < FEWEST_PATIENTS:
            sentence += f"; fewer than {FEWEST_PATIENTS} records can pass no test"
        name = f"deletion and insertion, {score} ({modality})"
        found.append(ScanGuard(name, mean, mean > 0 and p_value < P_VALUE, sentence, modality, score))
    return found
