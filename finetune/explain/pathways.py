"""Which gene sets a score comes from: whether a set's genes rank higher by attribution than as many others.

The ranks of genes, by mean absolute attribution, are summed over a set and compared with those of random sets of the
same size among the genes that were measured; p-values are adjusted by Benjamini and Hochberg. As in every test that
draws genes, genes of a set that rise and fall together make it look surer than it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from finetune.explain.genes import LOWERS, RAISES
from foundation.errors import DataError, nearest
from foundation.model.multimodal import MultimodalModel

PERMUTATIONS = 9999
SMALLEST, LARGEST = 3, 500
"""Genes of a set that were measured."""


def known_sets(models: Sequence[MultimodalModel]) -> dict[str, list[str]]:
    """The gene sets that tokenizers of models know."""
    found: dict[str, list[str]] = {}
    for model in models:
        for _, tower in model.config.towers:
            found |= (tower.get("tokenizer") or {}).get("sets") or {}
    return found


def refuse_strangers(sets: Mapping[str, Sequence[str]], genes: Sequence[str], where: str) -> None:
    """Refuse gene sets that name nothing that was measured.

    Raises:
        DataError: So it is.
    """
    if not set().union(*sets.values()) & set(genes):
        example = next(iter(sets.values()))[0]
        what = f"none of its genes, such as '{example}', is a feature that the predictor reads"
        raise DataError(what, where=where, fix=f"use gene sets with the names of the cohort; {nearest(example, genes)}")


def enrichment(genes: pd.DataFrame, sets: Mapping[str, Sequence[str]], seed: int) -> pd.DataFrame:
    """Test gene sets.

    Args:
        genes: ``gene``, ``mean_absolute``, ``direction`` and ``modalities`` of each, as ``protein+rna``; of modalities
            without any gene of a set, such as clinical, none is compared with.
        sets: Name to genes.
        seed: Of the random sets.

    Returns:
        A row for each set with enough genes, the surest first: ``pathway``, ``genes`` of it that were measured,
        ``mean_rank`` (0 the last, 1 the first), ``p_value``, ``fdr``, ``direction``, the share of its attribution that
        ``raises``, and its ``leading`` genes.
    """
    genes = _comparable(genes, set().union(*sets.values()))
    position = {gene: at for at, gene in enumerate(genes["gene"])}
    members = {name: np.array([position[g] for g in dict.fromkeys(of) if g in position]) for name, of in sets.items()}
    members = {name: at for name, at in members.items() if SMALLEST <= len(at) <= LARGEST and len(at) < len(genes)}
    columns = ["pathway", "genes", "mean_rank", "p_value", "fdr", "direction", "raises", "leading"]
    if not members:
        return pd.DataFrame({column: [] for column in columns})
    size = genes["mean_absolute"].to_numpy()
    rank = (stats.rankdata(size) - 1) / (len(size) - 1)
    random_sums = _random_sums(rank, max(map(len, members.values())), seed)
    raising, lowering = ((genes["direction"] == name).to_numpy() * size for name in (RAISES, LOWERS))
    rows: list[dict[str, Any]] = []
    for name, at in members.items():
        above = (random_sums[:, len(at) - 1] >= rank[at].sum() - 1e-9).sum()
        up, down = raising[at].sum(), lowering[at].sum()
        leading = ", ".join(genes["gene"].to_numpy()[at[np.argsort(-size[at], kind="stable")[:5]]])
        share = up / (up + down) if up + down else 0.5
        direction = RAISES if share > 0.5 else LOWERS
        p_value = (1 + above) / (1 + PERMUTATIONS)
        entry = [name, len(at), rank[at].mean(), p_value, 0.0, direction, share, leading]
        rows.append(dict(zip(columns, entry, strict=True)))
    found = pd.DataFrame(rows)
    found["fdr"] = stats.false_discovery_control(found["p_value"])
    return found.sort_values(["p_value", "mean_rank"], ascending=[True, False]).reset_index(drop=True)


def _comparable(genes: pd.DataFrame, in_sets: set[str]) -> pd.DataFrame:
    measured = genes["modalities"].str.split("+")
    inside = {name for gene, of in zip(genes["gene"], measured, strict=True) if gene in in_sets for name in of}
    return genes.loc[[bool(inside.intersection(of)) for of in measured]]


def _random_sums(rank_G: np.ndarray, most: int, seed: int) -> np.ndarray:
    """[R, L] sums of the ranks of 1, 2, … L random genes."""
    random = np.random.default_rng(seed)
    found = np.empty((PERMUTATIONS, most))
    for draw in range(PERMUTATIONS):
        found[draw] = rank_G[random.choice(len(rank_G), most, replace=False, shuffle=True)].cumsum()
    return found
