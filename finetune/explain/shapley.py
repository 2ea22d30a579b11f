"""What each modality contributes to a patient's scores: exact Shapley values over subsets of what the patient has.

A subset's value is the score where only its modalities may be seen, which the model knows how to read, as patients
lack modalities anyway; nothing has to be imputed. So each modality's share is the mean, over all orders in which
modalities could have become known, of what it changed; together they are the score less that of a patient of whom
nothing is known.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from finetune.explain.attribution import Explainer, StackRecords
from foundation.progress import Progress, Silent

MOST_MODALITIES = 10
"""Of a patient: more would take more than a thousand subsets."""

NOTHING_KNOWN = "nothing known"


def subsets_of(modalities: Sequence[str]) -> list[tuple[str, ...]]:
    """All, from none to everything."""
    return [s for size in range(len(modalities) + 1) for s in itertools.combinations(modalities, size)]


def shapley_values(of_subsets_BVS: np.ndarray, modalities: Sequence[str]) -> np.ndarray:
    """[B, M, S] Shapley values of modalities.

    Args:
        of_subsets_BVS: Scores of `subsets_of` these modalities, in its order.
        modalities: M names.
    """
    subsets = subsets_of(modalities)
    at = {frozenset(subset): v for v, subset in enumerate(subsets)}
    count = len(modalities)
    found = np.zeros((len(of_subsets_BVS), count, of_subsets_BVS.shape[2]))
    for m, name in enumerate(modalities):
        for subset in subsets:
            if name not in subset:
                # The share of orders in which exactly this subset came before.
                weight = math.factorial(len(subset)) * math.factorial(count - len(subset) - 1) / math.factorial(count)
                gain_BS = of_subsets_BVS[:, at[frozenset((*subset, name))]] - of_subsets_BVS[:, at[frozenset(subset)]]
                found[:, m] += weight * gain_BS
    return found


def modality_shares(
    explainer: Explainer,
    modalities: Sequence[str],
    rows: np.ndarray,
    labels: Sequence[str],
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Shapley values of records.

    Args:
        explainer: Of the cohort.
        modalities: That may be read.
        rows: Records; those with more than `MOST_MODALITIES` modalities are left out.
        labels: [N] what each is called.
        progress: Told of records.

    Returns:
        A row for each record, score and modality that the record has, and one of `NOTHING_KNOWN`; its ``share``.
    """
    progress = progress or Silent()
    progress.start("asking what modalities contribute", len(rows), "records")
    cohort = explainer.columns.cohort
    here = [name for name in modalities if name in cohort.modalities]
    present_NM = cohort.present_NM[rows][:, [cohort.modalities.index(name) for name in here]]
    frames = []
    for pattern in np.unique(present_NM, axis=0):
        alike = np.flatnonzero((present_NM == pattern).all(axis=1))
        has = [name for name, there in zip(here, pattern, strict=True) if there]
        for part in explainer.split(alike):
            if 0 < len(has) <= MOST_MODALITIES:
                called = [labels[int(n)] for n in part]
                frames.append(_shares(explainer, explainer.read(rows[part]), has, rows[part], called))
            progress.advance(len(part))
    progress.finish()
    if not frames:
        return pd.DataFrame({name: [] for name in ("patient", "row", "task", "score", "modality", "share")})
    return pd.concat(frames, ignore_index=True).sort_values(["row", "task", "score"], kind="stable", ignore_index=True)


def _shares(
    explainer: Explainer, records: StackRecords, has: Sequence[str], rows: np.ndarray, labels: Sequence[str]
) -> pd.DataFrame:
    of_subsets_BVS = records.of_subsets(subsets_of(has)).numpy()
    shares_BMS = np.concatenate([of_subsets_BVS[:, :1], shapley_values(of_subsets_BVS, has)], axis=1)
    names, scores = [NOTHING_KNOWN, *has], explainer.scores
    b, m, s = (axis.reshape(-1) for axis in np.indices(shares_BMS.shape))
    return pd.DataFrame(
        {
            "patient": np.asarray(labels, dtype=object)[b],
            "row": rows[b],
            "task": np.array([score.task for score in scores], dtype=object)[s],
            "score": np.array([score.name for score in scores], dtype=object)[s],
            "modality": np.array(names, dtype=object)[m],
            "share": shares_BMS.reshape(-1),
        }
    )
