"""Evaluation refuses overlap and what is not finite, and reads nothing of what is absent."""

from __future__ import annotations

import json

import numpy as np
import pytest

from foundation.errors import DataError
from pretrain.evaluation.evaluate import evaluate

PAIRS = [("mri", "rna")]


def test_what_is_absent_may_hold_anything(make, kinds):
    train, held_out = make(60, "t", absent=0.3), make(40, "h", absent=0.3)
    call = {"pairs": PAIRS, "endpoint_kinds": kinds, "seed": 3, "permutations": 20}
    clean = evaluate(train, held_out, **call)
    for side in (train, held_out):
        for view, values in side.views.items():
            values[~side.present[view]] = np.nan
    assert evaluate(train, held_out, **call) == clean
    json.dumps(clean, allow_nan=False)


def test_a_patient_on_both_sides_is_refused_without_being_named(make, kinds):
    train, held_out = make(30, "t"), make(30, "h")
    held_out.patients[7] = train.patients[3]
    with pytest.raises(DataError, match="1 patients are among both") as caught:
        evaluate(train, held_out, pairs=PAIRS, endpoint_kinds=kinds, seed=0)
    assert "SECRET" not in str(caught.value)


def test_training_embeddings_that_are_not_finite_are_refused(make, kinds):
    train = make(30, "t")
    train.views["mri"][3] = np.inf
    with pytest.raises(DataError, match="'mri' of 1 records"):
        evaluate(train, make(30, "h"), pairs=PAIRS, endpoint_kinds=kinds, seed=0)
