"""What the values of an omics table seem to be, from some of them: ordinal, binary, counts, logarithms, z-scores."""

from __future__ import annotations

from typing import Any

import numpy as np

LARGE = 50
"""Above this, expression is not on a logarithmic scale."""


def judge(values: np.ndarray) -> tuple[dict[str, Any], list[str]]:
    """Keys of a recipe that fit these values, and what a person should check.

    Args:
        values: Some values of the table, without those that are missing.
    """
    if not len(values):
        return {}, ["The first rows hold no value: say what they are in `values`, `unit` and `transform`."]
    low, high = float(values.min()), float(values.max())
    whole = bool((values == np.round(values)).all())
    span = f"The first rows run from {low:g} to {high:g}"
    if whole and low >= 0 and high <= 1:
        return {"values": "binary"}, [f"{span}: taken as yes or no."]
    if whole and low >= -2 and high <= 2:
        return {"values": "ordinal", "unit": "GISTIC -2 to 2"}, [f"{span}: taken as levels of copy number."]
    if low >= 0 and high > LARGE:
        kind = "whole numbers: counts?" if whole else "no logarithms yet: TPM, RPKM or normalised counts?"
        advice = "Raw counts depend on the depth of sequencing; TPM or normalised counts compare better." * whole
        return (
            {"transform": ["log2p1"], "unit": "log2(value + 1)"},
            [f"{span}, {kind} Hence log2p1; say in `unit` what the value is. {advice}".rstrip()],
        )
    if low >= 0 and high <= 1:
        return {}, [f"{span}: shares such as methylation beta? Say so in `unit`."]
    if low < 0:
        return {}, [f"{span}: logarithms, ratios or z-scores? Say so in `unit`; no transform is set."]
    return {}, [f"{span}: logarithms already? Then no transform; set `transform: [log2p1]` if not."]
