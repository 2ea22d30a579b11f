"""Attributions over a cohort: how much each feature matters, in which direction, and how stable that is over patients.

Everything is summed batch by batch, so that memory follows features, not patients. The bootstrap is Poisson's: each
patient counts as often as a draw of mean 1 says, which needs no number of patients in advance; the draw is a function
of the seed and the patient's place, and all records of a patient share it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy import sparse, stats

from finetune.explain.attribution import Attributed
from finetune.explain.methods import Columns
from foundation.randomness import draw

BOOTSTRAPS = 200
TOP = 20
"""Features of which stability is told: how often one is among so many."""

RAISES, LOWERS, NEITHER = "raises", "lowers", "–"


@dataclass
class CohortSums:
    """Sums over patients of what is needed of each feature.

    Args:
        scores: S.
        width: P features.
        seed: Of the bootstrap.
    """

    scores: int
    width: int
    seed: int = 0
    _sums: dict[str, np.ndarray] = field(default_factory=dict)

    def add(self, patients: np.ndarray, a_BSP: np.ndarray, values_BP: np.ndarray) -> None:
        """Add a batch.

        Args:
            patients: [B] numbers of patients.
            a_BSP: Attributions, 0 where not observed.
            values_BP: NaN where not observed.
        """
        observed_BP = ~np.isnan(values_BP)
        x_BP = np.nan_to_num(values_BP).astype(np.float64)
        a_BSP = a_BSP.astype(np.float64)
        uniform_BR = draw(self.seed, "explanation bootstrap", patients.astype(str), np.zeros(len(patients)), BOOTSTRAPS)
        times_BR = stats.poisson.ppf(uniform_BR, 1.0).astype(np.float32)
        self._add("records", observed_BP.sum(axis=0))
        self._add("x", x_BP.sum(axis=0))
        self._add("xx", (x_BP**2).sum(axis=0))
        self._add("a", a_BSP.sum(axis=0))
        self._add("aa", (a_BSP**2).sum(axis=0))
        self._add("size", np.abs(a_BSP).sum(axis=0))
        self._add("xa", (x_BP[:, None] * a_BSP).sum(axis=0))
        self._add("drawn", times_BR.T @ observed_BP.astype(np.float32))
        sizes = np.abs(a_BSP).astype(np.float32).reshape(len(a_BSP), -1)
        self._add("drawn_size", (times_BR.T @ sizes).reshape(BOOTSTRAPS, self.scores, self.width))

    def _add(self, name: str, values: np.ndarray) -> None:
        if name in self._sums:
            self._sums[name] += values
        else:
            self._sums[name] = values

    @property
    def records_P(self) -> np.ndarray:
        """[P] in how many each was observed."""
        return self._sums["records"]

    def mean(self) -> np.ndarray:
        """[S, P] over those in whom each was observed."""
        return self._sums["a"] / np.maximum(self.records_P, 1)

    def importance(self) -> np.ndarray:
        """[S, P] mean of absolute attributions over those in whom each was observed."""
        return self._sums["size"] / np.maximum(self.records_P, 1)

    def association(self) -> np.ndarray:
        """[S, P] correlation of value and attribution; 0 where either never varies."""
        n_P, s = np.maximum(self.records_P, 1), self._sums
        together = s["xa"] / n_P - s["x"] / n_P * s["a"] / n_P
        # Sums of squares lose digits; what is left of a constant is less than this.
        spread = [
            np.where((v := square / n_P - (mean / n_P) ** 2) > 1e-9 * (square / n_P + 1e-30), v, np.inf)
            for square, mean in ((s["xx"], s["x"]), (s["aa"], s["a"]))
        ]
        return np.clip(together / np.sqrt(spread[0] * spread[1]), -1, 1)

    def stability(self, score: int, among: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """[P] share of bootstraps in which each is in the top, and the 2.5th and 97.5th percentile of its rank.

        Args:
            score: Which.
            among: Positions of the features that are ranked; all by default. What comes back is of these.
        """
        among = np.arange(self.width) if among is None else among
        size_RP = self._sums["drawn_size"][:, score, among] / np.maximum(self._sums["drawn"][:, among], 1)
        rank_RP = stats.rankdata(-size_RP, axis=1, method="average")
        low, high = np.percentile(rank_RP, [2.5, 97.5], axis=0)
        return (rank_RP <= TOP).mean(axis=0), low, high


def directions(association: np.ndarray) -> np.ndarray:
    """What more of each does to the score."""
    return np.select([association > 0, association < 0], [RAISES, LOWERS], NEITHER)


def feature_table(sums: CohortSums, columns: Columns, score: int) -> pd.DataFrame:
    """A row for each feature, ranked within its modality and among all; the most important first."""
    found = pd.DataFrame({"modality": columns.modalities, "feature": columns.names, "records": sums.records_P})
    found["mean_attribution"] = sums.mean()[score]
    found["mean_absolute"] = sums.importance()[score]
    found["direction"] = directions(sums.association()[score])
    found["association"] = sums.association()[score]
    found["rank"] = stats.rankdata(-found["mean_absolute"], method="min").astype(int)
    found[f"share_in_top_{TOP}"], found["rank_low"], found["rank_high"] = sums.stability(score)
    for at in columns.slices().values():
        own = np.arange(at.start, at.stop)
        share, low, high = sums.stability(score, own)
        of_modality = stats.rankdata(-found["mean_absolute"].to_numpy()[own], method="min")
        found.loc[own, "rank_in_modality"] = of_modality
        found.loc[own, f"share_in_top_{TOP}_of_modality"] = share
        found.loc[own, "rank_in_modality_low"], found.loc[own, "rank_in_modality_high"] = low, high
    return found.sort_values(["rank", "modality", "feature"]).reset_index(drop=True)


class Genes:
    """Features of one name in several modalities, joined: what all that was measured of a gene contributes together.

    Args:
        columns: The features.
    """

    def __init__(self, columns: Columns) -> None:
        self.names, gene_P = np.unique(columns.names, return_inverse=True)
        one_P, place_P = np.ones(len(gene_P), dtype=np.float32), np.arange(len(gene_P))
        self._of_columns = sparse.csr_array((one_P, (gene_P, place_P)))

    def __len__(self) -> int:
        """Number of genes."""
        return len(self.names)

    def join(self, a_BSP: np.ndarray, values_BP: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Attributions [B, S, G] summed over modalities; and [B, G] 0 where any was observed, else NaN."""
        a_BSG = (self._of_columns @ a_BSP.reshape(-1, a_BSP.shape[2]).T).T.reshape(*a_BSP.shape[:2], len(self))
        seen_BG = (self._of_columns @ (~np.isnan(values_BP)).astype(np.float32).T).T > 0
        return a_BSG, np.where(seen_BG, 0.0, np.nan)

    def table(self, sums: CohortSums, of_features: pd.DataFrame, score: int) -> pd.DataFrame:
        """A row for each gene, the most important first; its direction is that of its most important feature."""
        found = pd.DataFrame({"gene": self.names, "records": sums.records_P})
        found["mean_attribution"] = sums.mean()[score]
        found["mean_absolute"] = sums.importance()[score]
        leading = of_features.drop_duplicates("feature").set_index("feature")
        found["mostly_by"] = leading.loc[found["gene"], "modality"].to_numpy()
        found["direction"] = leading.loc[found["gene"], "direction"].to_numpy()
        measured = of_features.groupby("feature")["modality"].agg("+".join)
        found["modalities"] = measured.loc[found["gene"]].to_numpy()
        found["rank"] = stats.rankdata(-found["mean_absolute"], method="min").astype(int)
        found[f"share_in_top_{TOP}"], found["rank_low"], found["rank_high"] = sums.stability(score)
        return found.sort_values(["rank", "gene"]).reset_index(drop=True)


@dataclass(frozen=True)
class CohortGenes:
    """What a cohort says of features and genes, [S] tables each."""

    features: list[pd.DataFrame]
    genes: list[pd.DataFrame]


def over_cohort(batches: Iterable[Attributed], columns: Columns, scores: int, seed: int) -> CohortGenes:
    """Tables of features and genes over all batches.

    Args:
        batches: An iterable of attributions.
        columns: Of these.
        scores: S.
        seed: Of the bootstrap.
    """
    genes = Genes(columns)
    of_features, of_genes = CohortSums(scores, len(columns), seed), CohortSums(scores, len(genes), seed)
    numbers = columns.cohort.patient_numbers
    for attributed in batches:
        values_BP = columns.values(attributed.rows)
        of_features.add(numbers[attributed.rows], attributed.attribution_BSP, values_BP)
        of_genes.add(numbers[attributed.rows], *genes.join(attributed.attribution_BSP, values_BP))
    tables = [feature_table(of_features, columns, s) for s in range(scores)]
    return CohortGenes(tables, [genes.table(of_genes, table, s) for s, table in enumerate(tables)])
