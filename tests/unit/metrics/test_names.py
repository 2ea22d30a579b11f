"""Names of metrics: names that end in a time, a kind of event or an endpoint, and unknown ones."""

from __future__ import annotations

import pytest

from foundation.metrics.names import plain_name


@pytest.mark.parametrize(
    ("measure", "name"),
    [
        ("c_index", "C-index (Harrell)"),
        ("brier/365.25", "Brier score at 365.25"),
        ("uno_c/relapse", "C-index (Uno), relapse"),
        ("auroc/idh", "AUROC, idh"),
        ("calibration_slope/idh", "calibration slope, idh"),
        ("observed_by_expected/365", "observed by expected events at 365"),
        ("net_gain", "net gain"),
    ],
)
def test_plain_names(measure, name):
    assert plain_name(measure) == name
