"""Linear probes: for each kind of endpoint, and for the site, a linear model fitted on training patients and scored.

Penalties are chosen on inner folds of the training patients, by the rule of `foundation.linear.selection`. Classes with
too few patients are left out, and what cannot be measured says why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from foundation.linear.learners import CoxLearner, Learner, LogisticLearner, Predict, RidgeLearner
from foundation.linear.selection import fit_chosen, stratified_folds
from foundation.metrics.class_scores import auroc, balanced_accuracy, macro_auroc
from foundation.metrics.number_scores import r_squared
from foundation.metrics.score import Score, with_interval
from foundation.metrics.survival_scores import concordance
from foundation.randomness import generator
from pretrain.evaluation.embedded import Embedded
from pretrain.evaluation.per_patient import Patients, gather

FEWEST_TRAINING = 10
"""Training patients per class, or events."""

FEWEST_HELD_OUT = 10
"""Held-out patients altogether, and in a group that is scored by itself."""

FEWEST_PER_CLASS = 3
"""Held-out patients per class."""

FOLDS = 5
"""Inner folds of the training patients, to choose a penalty on."""

MOST_SITES = 20
"""Sites that are told apart, those with the most training records: of hundreds a linear model would take minutes."""

OfGroup = tuple[np.ndarray, Score, float]
"""Rows of a group that are scored, their score, and what chance would reach."""


class _TooFewError(Exception):
    """There is too little to fit or to score; says of what."""


def probe_endpoints(
    train: Embedded, held_out: Embedded, endpoint_kinds: Mapping[str, str], seed: int
) -> dict[str, dict[str, Any]]:
    """Probe every view for every endpoint.

    Args:
        train: Records to fit on.
        held_out: Records of other patients, to score on.
        endpoint_kinds: Endpoint to its kind.
        seed: Of inner folds and bootstrap.

    Returns:
        Endpoint to view to ``metric, value, chance, n_train, n_test, ci95``, to ``also`` (further metrics) and
        ``by_group`` where there are several groups; or to ``skipped`` and the reason.
    """
    measures: dict[str, Callable[..., dict[str, Any]]] = {
        "subtype": _classes,
        "response": _response,
        "survival": _survival,
        "regression": _number,
    }
    with _one_thread():
        return {
            endpoint: {
                view: _measured(measures[kind], train, held_out, view, endpoint, seed)
                for view in held_out.views
                if view in train.views
            }
            for endpoint, kind in endpoint_kinds.items()
        }


def probe_sites(train: Embedded, held_out: Embedded, seed: int) -> dict[str, Any]:
    """Probe every view for the site: how well a linear model tells the hospital from the embedding.

    Returns:
        View to what `probe_endpoints` gives, with the number of ``sites`` that have enough patients to be told apart.
    """
    names, code = np.unique(np.concatenate([train.sites, held_out.sites]).astype(str), return_inverse=True)
    code = np.where(names[code] == "", -1, code)
    of_train = code[: len(train.sites)]
    records_S = np.bincount(of_train[of_train >= 0], minlength=len(names))
    code = np.where(np.isin(code, np.argsort(-records_S, kind="stable")[:MOST_SITES]), code, -1)
    of_train, of_held_out = code[: len(train.sites)], code[len(train.sites) :]
    results = {}
    for view in held_out.views:
        if view not in train.views:
            continue
        codes = ({"code": of_train}, {"code": of_held_out})
        with _one_thread():
            result = _measured(_classes, train, held_out, view, "site", seed, codes)
        if "classes" in result:
            result["sites"] = len(result.pop("classes"))
            result.pop("left_out", None)
            result.pop("by_group", None)
        results[view] = result
    return results


def _measured(
    measure: Callable[..., dict[str, Any]],
    train: Embedded,
    held_out: Embedded,
    view: str,
    endpoint: str,
    seed: int,
    parts: tuple[dict[str, np.ndarray], dict[str, np.ndarray]] | None = None,
) -> dict[str, Any]:
    """One probe, or why there is none."""
    of_train, of_held_out = parts or (train.endpoints[endpoint], held_out.endpoints[endpoint])
    fit_on, score_on = (gather(*side) for side in ((train, view, of_train), (held_out, view, of_held_out)))
    try:
        if len(score_on) < FEWEST_HELD_OUT:
            raise _TooFewError(f"only {len(score_on)} held-out patients have both; {FEWEST_HELD_OUT} are needed")
        return measure(fit_on, score_on, generator(seed, f"probe of {endpoint}", view, 0))
    except _TooFewError as reason:
        return {"skipped": str(reason), "n_train": len(fit_on), "n_test": len(score_on)}


def _classes(train: Patients, held_out: Patients, random: np.random.Generator) -> dict[str, Any]:
    """Classes by multinomial logistic regression."""
    train, held_out, classes, left_out = _enough_of_each(train, held_out)
    column_of = [np.searchsorted(classes, side.parts["code"]) for side in (train, held_out)]
    predict = _fit(LogisticLearner({"code": column_of[0]}, train.groups), train.x_ND, column_of[0], random)
    probability_NK = predict(held_out.x_ND)["probability"]
    truth_N, guess_N = held_out.parts["code"], classes[probability_NK.argmax(axis=1)]
    result = _scored(
        "balanced_accuracy", balanced_accuracy(truth_N, guess_N), 1 / len(classes), train, held_out, random
    )
    value, ci95 = with_interval(macro_auroc(column_of[1], probability_NK), len(held_out), random)
    result["also"] = {"macro_auroc": {"value": value, "chance": 0.5, "ci95": ci95}}
    result["classes"] = classes.tolist()
    if left_out:
        result["left_out"] = left_out

    def of_group(here: np.ndarray) -> OfGroup | None:
        inside, count = np.unique(truth_N[here], return_counts=True)
        inside = inside[count >= FEWEST_PER_CLASS]
        here = here[np.isin(truth_N[here], inside)]
        score = balanced_accuracy(truth_N[here], guess_N[here])
        return (here, score, 1 / len(inside)) if len(inside) > 1 else None

    return result | _by_group(held_out, of_group, random)


def _response(train: Patients, held_out: Patients, random: np.random.Generator) -> dict[str, Any]:
    """Ordered classes: responders (the upper half of the classes) against the others, and the classes themselves."""
    classes = 1 + max(int(side.parts["code"].max(initial=0)) for side in (train, held_out))
    responds = [2 * side.parts["code"] >= classes for side in (train, held_out)]
    for mask_N, fewest, who in zip(
        responds, (FEWEST_TRAINING, FEWEST_PER_CLASS), ("training", "held-out"), strict=True
    ):
        fewer = int(min(mask_N.sum(), (~mask_N).sum()))
        if fewer < fewest:
            raise _TooFewError(f"only {fewer} {who} patients on one side of responder; {fewest} are needed")
    learner = LogisticLearner({"code": responds[0].astype(np.int64)}, train.groups)
    score_N = _fit(learner, train.x_ND, responds[0], random)(held_out.x_ND)["probability"][:, 1]
    result = _scored("auroc_responder", auroc(responds[1], score_N), 0.5, train, held_out, random)
    try:
        each = _classes(train, held_out, random)
        again = {key: each[key] for key in ("value", "chance", "ci95")}
        result["also"] = {"balanced_accuracy": again, **each["also"]}
    except _TooFewError as reason:
        result["also"] = {"balanced_accuracy": {"skipped": str(reason)}}

    def of_group(here: np.ndarray) -> OfGroup | None:
        inside = responds[1][here]
        enough = min(inside.sum(), (~inside).sum()) >= FEWEST_PER_CLASS
        return (here, auroc(inside, score_N[here]), 0.5) if enough else None

    return result | _by_group(held_out, of_group, random)


def _survival(train: Patients, held_out: Patients, random: np.random.Generator) -> dict[str, Any]:
    """Survival by ridge Cox with a baseline per group; Harrell's C within groups. Any of competing events counts."""
    for side, fewest, who in ((train, FEWEST_TRAINING, "training"), (held_out, FEWEST_PER_CLASS, "held-out")):
        events = int(np.sum(side.parts["event"] > 0))
        if events < fewest:
            raise _TooFewError(f"only {events} {who} patients had the event; {fewest} are needed")
    event_N, ended_N = ((side.parts["event"] > 0).astype(np.float64) for side in (train, held_out))
    learner = CoxLearner({"time": train.parts["time"], "event": event_N}, train.groups)
    risk_N = _fit(learner, train.x_ND, event_N, random)(held_out.x_ND)["risk"]
    late_N = held_out.parts["time"]
    score = concordance(risk_N, late_N, ended_N, held_out.groups)
    if not np.isfinite(score(np.ones((1, len(held_out))))[0]):
        raise _TooFewError("no two held-out patients of a group have a known order")
    result = _scored("c_index", score, 0.5, train, held_out, random)
    result |= {"events_train": int(event_N.sum()), "events_test": int(ended_N.sum())}

    def of_group(here: np.ndarray) -> OfGroup | None:
        score = concordance(risk_N[here], late_N[here], ended_N[here], held_out.groups[here])
        enough = ended_N[here].sum() >= FEWEST_PER_CLASS and np.isfinite(score(np.ones((1, len(here)))))
        return (here, score, 0.5) if enough else None

    return result | _by_group(held_out, of_group, random)


def _number(train: Patients, held_out: Patients, random: np.random.Generator) -> dict[str, Any]:
    """A number by ridge regression."""
    if len(train) < FEWEST_TRAINING:
        raise _TooFewError(f"only {len(train)} training patients have both; {FEWEST_TRAINING} are needed")
    learner = RidgeLearner({"value": train.parts["value"]}, train.groups)
    guess_N = _fit(learner, train.x_ND, np.zeros(len(train)), random)(held_out.x_ND)["value"]
    truth_N = held_out.parts["value"]
    if np.ptp(truth_N) == 0:
        raise _TooFewError("all held-out patients have the same value")
    return _scored("r_squared", r_squared(truth_N, guess_N), 0.0, train, held_out, random)


def _enough_of_each(train: Patients, held_out: Patients) -> tuple[Patients, Patients, np.ndarray, dict[str, Any]]:
    """Both sides without the classes that have too few patients, the classes that stay, and those left out."""
    codes = np.unique(np.concatenate([train.parts["code"], held_out.parts["code"]]))
    have = [[int(np.sum(side.parts["code"] == code)) for side in (train, held_out)] for code in codes]
    stays = np.array([a >= FEWEST_TRAINING and b >= FEWEST_PER_CLASS for a, b in have], dtype=bool)
    classes = codes[stays]
    if len(classes) < 2:
        raise _TooFewError(
            f"{len(classes)} classes have {FEWEST_TRAINING} training and {FEWEST_PER_CLASS} held-out patients; "
            "2 are needed"
        )
    left_out = {
        str(code): {"n_train": a, "n_test": b}
        for code, (a, b), stay in zip(codes.tolist(), have, stays, strict=True)
        if not stay
    }
    kept = [side.where(np.isin(side.parts["code"], classes)) for side in (train, held_out)]
    if len(kept[1]) < FEWEST_HELD_OUT:
        raise _TooFewError(f"only {len(kept[1])} held-out patients in classes of enough; {FEWEST_HELD_OUT} are needed")
    return kept[0], kept[1], classes, left_out


def _fit(learner: Learner, x_ND: np.ndarray, strata_N: np.ndarray, random: np.random.Generator) -> Predict:
    """Fit on standardised inputs of all whom the learner knows; inner folds spread the strata evenly."""
    center_D, scale_D = x_ND.mean(axis=0), x_ND.std(axis=0)
    scale_D = np.where(scale_D > 1e-9, scale_D, 1.0)
    held_out = stratified_folds(strata_N, FOLDS, random)
    predict = fit_chosen(learner, (x_ND - center_D) / scale_D, np.arange(len(x_ND)), held_out)
    return lambda x_ND: predict((x_ND - center_D) / scale_D)


def _one_thread() -> Any:
    """The matrices are small: threads would cost more than they bring, and change the last bits of a result."""
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1)


def _scored(
    metric: str, score: Score, chance: float, train: Patients, held_out: Patients, random: np.random.Generator
) -> dict[str, Any]:
    value, ci95 = with_interval(score, len(held_out), random)
    return {
        "metric": metric,
        "value": value,
        "chance": chance,
        "n_train": len(train),
        "n_test": len(held_out),
        "ci95": ci95,
    }


def _by_group(
    held_out: Patients, of_group: Callable[[np.ndarray], OfGroup | None], random: np.random.Generator
) -> dict[str, Any]:
    """Scores of each group with enough held-out patients, where there is more than one group."""
    groups = [group for group in np.unique(held_out.groups) if group]
    if len(groups) < 2:
        return {}
    results = {}
    for group in groups:
        here = np.flatnonzero(held_out.groups == group)
        found = of_group(here) if len(here) >= FEWEST_HELD_OUT else None
        if found is None:
            results[str(group)] = {"skipped": "too few held-out patients, events or classes", "n_test": len(here)}
            continue
        rows, score, chance = found
        value, ci95 = with_interval(score, len(rows), random)
        results[str(group)] = {"value": value, "chance": chance, "n_test": len(rows), "ci95": ci95}
    return {"by_group": results}
