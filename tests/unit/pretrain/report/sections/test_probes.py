"""The section on probes says what training did not improve and what fusing made worse."""

from __future__ import annotations

from pretrain.report.sections.probes import losses


def test_what_training_did_not_improve_and_what_fusing_made_worse_is_said():
    probes = {
        "os": {"clinical": {"value": 0.7}, "fused": {"value": 0.6, "before_training": 0.61}},
        "subtype": {"mri": {"value": 0.7}, "fused": {"value": 0.9, "before_training": 0.7}},
        "grade": {"fused": {"skipped": "too few"}},
    }
    assert losses(probes) == [
        "The fused view predicts no better than before training: os (0.61 before, 0.60 after).",
        (
            "One view alone predicts better than the fused one: os (clinical 0.70, fused 0.60). A view that some "
            "patients lack is scored on fewer patients."
        ),
    ]
    assert losses({"subtype": probes["subtype"]}) == []
