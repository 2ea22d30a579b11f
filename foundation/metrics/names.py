"""Names of metrics in reports."""

from __future__ import annotations

NAMES = {
    "absolute_error": "mean absolute error",
    "auc": "time-dependent AUC",
    "auprc": "AUPRC",
    "auroc": "AUROC",
    "auroc_responder": "AUROC of responder",
    "balanced_accuracy": "balanced accuracy",
    "brier": "Brier score",
    "c_index": "C-index (Harrell)",
    "calibration_error": "calibration error (ECE)",
    "calibration_intercept": "calibration intercept",
    "calibration_slope": "calibration slope",
    "coverage": "coverage of sets and bounds",
    "d_calibration": "D-calibration",
    "integrated_brier": "integrated Brier score",
    "macro_auroc": "macro AUROC",
    "macro_f1": "macro F1",
    "observed_by_expected": "observed by expected events",
    "one_calibration": "1-calibration",
    "pearson": "Pearson correlation",
    "quadratic_kappa": "quadratic kappa",
    "r_squared": "R²",
    "spearman": "Spearman correlation",
    "uno_c": "C-index (Uno)",
}


def plain_name(measure: str) -> str:
    """The name of a metric for a person: ``Brier score at 365`` of ``brier/365``, ``AUROC, idh`` of ``auroc/idh``."""
    stem, _, of = measure.partition("/")
    name = NAMES.get(stem, stem.replace("_", " "))
    if not of:
        return name
    return f"{name} at {of}" if of.replace(".", "", 1).isdigit() else f"{name}, {of}"
