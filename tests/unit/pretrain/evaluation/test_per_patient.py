"""Several records of a patient become one row, their mean."""

from __future__ import annotations

import numpy as np

from pretrain.evaluation.per_patient import gather


def test_several_records_of_a_patient_are_one_row(make):
    side = make(20, "t", records=3, absent=0.3)
    gathered = gather(side, "mri", side.endpoints["subtype"])
    keep = side.present["mri"] & (side.endpoints["subtype"]["code"] >= 0)
    names = np.unique(side.patients[keep])
    expected = [side.views["mri"][keep & (side.patients == name)].astype(float).mean(axis=0) for name in names]
    np.testing.assert_allclose(gathered.x_ND, expected)
