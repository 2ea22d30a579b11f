"""What a run recorded, as short answers to the reporting checklist of a model card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from finetune.publish.facts import Facts
from finetune.report.answer import Entry, tasks_of
from foundation.data.preprocessing import ImageScaling
from foundation.licences import UNKNOWN
from foundation.wording import counted, listed


def answers(facts: Facts) -> dict[str, str]:
    """By the names that `finetune.publish.checklist.items` uses; empty where no run records it."""
    return {**_purpose(facts), **_data(facts), **_model(facts), **_results(facts)}


def _purpose(facts: Facts) -> dict[str, str]:
    endpoints = listed([entry["endpoint"] for entry in tasks_of(facts.metrics)])
    return {
        "use": "research only; see Limits",
        "aim": f"to predict {endpoints} from {listed(list(facts.preprocessing.modalities))}; development, tested "
        "out of fold beside simpler methods",
        "limits": "see Limits",
        "practice": "what a patient lacks is left out; who is unlike training patients is marked in each prediction",
        "code": f"chiasma, apache-2.0; this folder, {facts.licence}",
        "software": listed([f"{name} {version}" for name, version in (facts.metrics.get("versions") or {}).items()]),
    }


def _data(facts: Facts) -> dict[str, str]:
    manifest, images = facts.cohort, any(isinstance(m, ImageScaling) for m in facts.preprocessing.modalities.values())
    found = {
        "cohort": f"cohort `{facts.metrics.get('cohort', UNKNOWN)}`",
        "sites": "",
        "follow_up": "",
        "left_out": "see Patients for who was left out of the run",
        "preparation": "see What it reads; each step in `model/preprocessing.json`, scales of training patients alone",
        "subsets": "see What it reads and Patients",
        "identifiers": "this folder was searched for every identifier of the cohort",
        "missing": "any modality may be absent, and none is imputed; see By modalities",
        "images": "see What it reads" if images else "no images",
        "outcomes": "see What it predicts",
        "inputs": "see What it reads",
        "flow": "see Patients",
        "characteristics": "classes and events under Patients",
    }
    if manifest is not None:
        found["sites"] = counted(len(manifest.sites), "site") if manifest.sites else ""
        follow_ups = [
            f"median follow-up for {name} {told['median_follow_up']:,.0f} {told.get('unit', '')}".strip()
            for name, told in manifest.endpoints.items()
            if told.get("median_follow_up") is not None and name in facts.methods
        ]
        found["follow_up"] = ", ".join(follow_ups)
    return found


def _model(facts: Facts) -> dict[str, str]:
    splits = facts.metrics.get("splits") or {}
    folds, by = len(splits.get("folds") or []), splits.get("by", UNKNOWN)
    size = f"{counted(splits.get('patients', 0), 'patient')} took part, {splits.get('tested', 0):,} were tested"
    return {
        "partitions": f"{counted(folds, 'fold')} by {by}; all of a patient lies in one of them; {_seen(facts.metrics)}",
        "size": size,
        "handling": "see What it reads; continuous features are scaled, and each observed feature is a part of a token",
        "model": "see What it predicts; all settings and weights in `model/`, `adapter/` and `kept/`; what was chosen "
        "in each fold under `chosen` in `metrics.json`",
        "initial": "see What it stands on",
        "choice": "on inner folds of training patients alone, among the methods under Results; see What it predicts",
        "clusters": "folds are whole sites" if by == "site" else "not examined: folds are not whole sites",
        "updating": "not updated; probabilities are calibrated on predictions for held-out training patients",
        "imbalance": _imbalance(facts.settings) or "no task has classes",
        "output": "probabilities and sets of classes, survival probabilities, numbers with intervals; no threshold for "
        "acting is set",
    }


def _seen(metrics: Entry) -> str:
    tested = (metrics.get("pretrain") or {}).get("tested_though_seen")
    if tested is None:
        return f"whom pretraining has seen: {UNKNOWN}"
    return f"{tested or 'none'} of those whom pretraining has seen {'was' if tested == 1 else 'were'} tested"


def _imbalance(settings: Mapping[str, Any]) -> str:
    told = {True: "classes count alike in training", False: "patients count alike in training"}
    return "; ".join(
        f"{task['endpoint']}: {told[task['balanced']]}" for task in settings.get("tasks", []) if "balanced" in task
    )


def _results(facts: Facts) -> dict[str, str]:
    faults = any(document["auroc"] for document in facts.novelty.values())
    grouped = any(len(of_groups(entry)) > 1 for entry in tasks_of(facts.metrics))
    return {
        "metrics": "see Results; 95 % intervals by bootstrap over patients, differences paired",
        "robustness": "see By modalities" + (", and How unlike training patients somebody is" if faults else ""),
        "explanations": "`chiasma explain` makes them for any cohort; none is part of this folder",
        "fairness": "see By group" if grouped else "no groups were compared",
        "compared": "the same cohort: the same eligibility, predictors and outcomes",
        "internal": "out of fold; see Results",
        "external": "",
        "performance": "see Results, By modalities and Calibration",
        "failures": "",
    }


def of_groups(entry: Entry) -> Mapping[str, Any]:
    """Scores of a task by group of patients."""
    return (entry.get("kept") or entry).get("by_group") or {}
