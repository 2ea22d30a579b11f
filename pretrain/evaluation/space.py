"""The embedding space of held-out patients: retrieval both ways, alignment and uniformity, and a map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from foundation.randomness import generator
from pretrain.evaluation.embedded import Embedded

RECALL_AT = (1, 5, 10)

MOST_PATIENTS = 5000
"""Retrieval, alignment and uniformity are measured on this many patients at most, so that memory stays within 1 GB."""

FEWEST_PATIENTS = 10
"""With fewer patients there is nothing to find."""

DECIMALS = 6
"""Similarities nearer than this are ties: float32 cannot tell them apart."""

ROWS = 256
"""Rows of a similarity matrix that are computed at a time."""


def measure_space(
    held_out: Embedded, *, pairs: Sequence[tuple[str, str]], seed: int, permutations: int
) -> dict[str, Any]:
    """Measure how views of the same patients lie to each other; quick enough for now and then during training.

    Args:
        held_out: Records to measure.
        pairs: Views to find from each other.
        seed: Of permutations.
        permutations: Behind each p-value.

    Returns:
        ``retrieval`` ("a->b" to scores), ``alignment`` ("a~b" to the mean squared distance of a record's two views)
        and ``uniformity`` (view to the logarithm of the mean of exp(-2 squared distance) over records of different
        patients): Wang and Isola 2020. Lower is better for both.

    Raises:
        DataError: An embedding is not finite.
    """
    held_out.refuse_non_finite()
    retrieval: dict[str, Any] = {}
    alignment: dict[str, Any] = {}
    for one, other in pairs:
        rows = _rows_with(held_out, (one, other), seed)
        of_patient = held_out.patients[rows].astype(str)
        for query, answer in ((one, other), (other, one)):
            views = (held_out.views[query][rows], held_out.views[answer][rows]) if len(rows) else None
            name = f"{query}->{answer}"
            retrieval[name] = _retrieval(views, of_patient, generator(seed, "retrieval", name, 0), permutations)
        alignment[f"{one}~{other}"] = _alignment(held_out, one, other, rows)
    uniformity = {name: _uniformity(held_out, name, seed) for name in held_out.views}
    return {"retrieval": retrieval, "alignment": alignment, "uniformity": uniformity}


def embedding_map(
    held_out: Embedded, view: str, classes: Mapping[str, Sequence[str]] | None = None, most: int = 2000
) -> dict[str, Any]:
    """Lay a view out in the plane of its two directions of largest variance; no patient is named.

    Args:
        held_out: Records to draw.
        view: Which of its views.
        classes: Endpoint to the names of its classes, for colours.
        most: Records that are drawn; more are thinned out evenly.

    Returns:
        ``view``, ``x`` and ``y``, ``share`` of the variance on each axis, ``sites``, ``groups``, ``classes`` (as given)
        and ``codes`` (endpoint to class per record, -1 unknown); lists are empty where fewer than three records are.
    """
    rows = np.flatnonzero(held_out.present[view])
    rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), most)).round().astype(np.int64)]
    xy_N2, share = _plane(held_out.views[view][rows].astype(np.float64))
    rows = rows if len(xy_N2) else rows[:0]
    codes = {name: held_out.endpoints[name]["code"][rows].tolist() for name in classes or {}}
    return {
        "view": view,
        "x": xy_N2[:, 0].round(5).tolist(),
        "y": xy_N2[:, 1].round(5).tolist(),
        "share": share,
        "sites": held_out.sites[rows].astype(str).tolist(),
        "groups": held_out.groups[rows].astype(str).tolist(),
        "classes": {name: list(names) for name, names in (classes or {}).items()},
        "codes": codes,
    }


def _plane(x_ND: np.ndarray) -> tuple[np.ndarray, list[float]]:
    """Coordinates [N, 2] on the first two principal axes, and the share of the variance on each."""
    if len(x_ND) < 3 or x_ND.shape[1] < 2:
        return np.zeros((0, 2)), []
    centred_ND = x_ND - x_ND.mean(axis=0)
    _, spread_K, axes_KD = np.linalg.svd(centred_ND, full_matrices=False)
    # An axis may point either way; its largest weight is made positive, so that the picture does not flip.
    axes_2D = axes_KD[:2]
    axes_2D = axes_2D * np.where(np.take_along_axis(axes_2D, np.abs(axes_2D).argmax(1)[:, None], 1) < 0, -1.0, 1.0)
    total = float(np.sum(spread_K**2))
    share = [round(float(s**2) / total, 4) if total > 0 else 0.0 for s in spread_K[:2]]
    return centred_ND @ axes_2D.T, share


def _rows_with(embedded: Embedded, views: Sequence[str], seed: int) -> np.ndarray:
    """Rows that have all these views, of MOST_PATIENTS patients drawn with the seed where there are more."""
    here = np.ones(len(embedded.patients), dtype=bool)
    for name in views:
        here = here & embedded.present.get(name, np.zeros_like(here))
    patients = np.unique(embedded.patients[here].astype(str))
    if len(patients) > MOST_PATIENTS:
        chosen = generator(seed, "patients to measure", "", 0).permutation(len(patients))[:MOST_PATIENTS]
        here = here & np.isin(embedded.patients.astype(str), patients[chosen])
    return np.flatnonzero(here)


def _retrieval(
    views: tuple[np.ndarray, np.ndarray] | None, patients_N: np.ndarray, random: np.random.Generator, permutations: int
) -> dict[str, Any]:
    """Rank every record's own patient among all records by the other view."""
    names, of_patient = np.unique(patients_N, return_inverse=True)
    if views is None or len(names) < FEWEST_PATIENTS:
        return {"n": len(patients_N), "skipped": f"only {len(names)} held-out patients have both"}
    rank_NP = rank_patients(*views, of_patient)
    own_N = rank_NP[np.arange(len(patients_N)), of_patient]
    records_P = np.bincount(of_patient)
    result: dict[str, Any] = {"n": len(patients_N), "patients": len(names)}
    result |= {f"recall@{k}": float(np.mean(own_N <= k)) for k in RECALL_AT}
    result["median_rank"] = float(np.median(own_N))
    result |= {f"chance@{k}": chance_of_recall(records_P, k) for k in RECALL_AT}
    # With ten candidates or fewer everything is among the first ten: the reciprocal rank still tells.
    telling = len(patients_N) > RECALL_AT[-1]
    credit_NP = (rank_NP <= RECALL_AT[-1]).astype(np.float32) if telling else 1 / rank_NP
    result["p_statistic"] = f"recall@{RECALL_AT[-1]}" if telling else "mean reciprocal rank"
    result["p_value"] = _p_value(credit_NP, of_patient, random, permutations)
    return result


def rank_patients(query_ND: np.ndarray, answer_ND: np.ndarray, of_patient: np.ndarray) -> np.ndarray:
    """The rank that each patient would have as the answer to each record.

    Args:
        query_ND: [N, D] one view of N records.
        answer_ND: [N, D] the other view of the same records, the candidates.
        of_patient: [N] number of each record's patient, from 0 to P - 1, all of which occur.

    Returns:
        [N, P] int32: 1 + the candidates of other patients that are at least as similar to the record as the most
        similar candidate of this patient. Ties count against the patient.
    """
    from scipy.stats import rankdata

    order = np.argsort(of_patient, kind="stable")
    records_P = np.bincount(of_patient)
    starts_P = np.cumsum(records_P) - records_P
    answer_DN = answer_ND[order].astype(np.float64).T
    ranks = []
    for start in range(0, len(query_ND), ROWS):
        similar_RN = (query_ND[start : start + ROWS].astype(np.float64) @ answer_DN).round(DECIMALS)
        at_least_RN = rankdata(-similar_RN, method="max", axis=1)
        best_RP = np.minimum.reduceat(at_least_RN, starts_P, axis=1)
        equals_RP = np.add.reduceat(at_least_RN == np.repeat(best_RP, records_P, axis=1), starts_P, axis=1)
        ranks.append((best_RP - equals_RP + 1).astype(np.int32))
    return np.concatenate(ranks)


def chance_of_recall(records_P: np.ndarray, k: int) -> float:
    """The recall@k expected of a random order of all records, averaged over the records.

    A record of a patient with m of the n records is found when one of the m is among the first k:
    ``1 - C(n - m, k) / C(n, k)``, which is ``min(k / n, 1)`` where each patient has one.

    Args:
        records_P: [P] records of each patient.
        k: How many of the first count.
    """
    total = int(records_P.sum())
    steps = np.arange(min(k, total))
    missed_P = np.prod(np.clip(total - records_P[:, None] - steps, 0, None) / (total - steps), axis=1)
    return float(np.average(1 - missed_P, weights=records_P))


def _p_value(
    credit_NP: np.ndarray, of_patient: np.ndarray, random: np.random.Generator, permutations: int, batch: int = 64
) -> float:
    """How often patients whose answers are exchanged do at least as well: (1 + times) / (1 + permutations).

    Patients are exchanged with those who have as many records, which leaves the law of the statistic as it is where
    the views have nothing to do with each other. A patient whose number of records nobody shares stays.
    """
    records_P = np.bincount(of_patient)
    own = np.arange(len(of_patient))
    observed = credit_NP[own, of_patient].sum()
    reached = 0
    for start in range(0, permutations, batch):
        size = min(batch, permutations - start)
        exchanged_BP = np.tile(np.arange(len(records_P)), (size, 1))
        for records in np.unique(records_P):
            same = np.flatnonzero(records_P == records)
            exchanged_BP[:, same] = random.permuted(exchanged_BP[:, same], axis=1)
        credit_B = credit_NP[own, exchanged_BP[:, of_patient]].sum(axis=1)
        # The order of a sum may change its last bits; an equal permutation must count.
        reached += int(np.sum(credit_B >= observed - 1e-6))
    return (1 + reached) / (1 + permutations)


def _alignment(embedded: Embedded, one: str, other: str, rows: np.ndarray) -> float | None:
    if not len(rows):
        return None
    apart_ND = embedded.views[one][rows].astype(np.float64) - embedded.views[other][rows]
    return float(np.mean(np.sum(apart_ND**2, axis=1)))


def _uniformity(embedded: Embedded, name: str, seed: int) -> float | None:
    rows = _rows_with(embedded, (name,), seed)
    x_ND = embedded.views[name][rows].astype(np.float64)
    _, of_patient = np.unique(embedded.patients[rows].astype(str), return_inverse=True)
    total, pairs = 0.0, 0
    length_N = np.sum(x_ND**2, axis=1)
    for start in range(0, len(rows), ROWS):
        part = slice(start, start + ROWS)
        squared_RN = length_N[part, None] + length_N - 2 * x_ND[part] @ x_ND.T
        others_RN = of_patient[part, None] != of_patient
        total += float(np.exp(-2 * np.maximum(squared_RN, 0))[others_RN].sum())
        pairs += int(others_RN.sum())
    return float(np.log(total / pairs)) if pairs else None
