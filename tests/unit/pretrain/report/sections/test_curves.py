"""Series of the curves: their order, their names, and gaps where a loss was not finite."""

from __future__ import annotations

from pretrain.report.sections.curves import gather_series


def test_series_are_losses_then_retrieval_then_speed(training_rows):
    series = gather_series(training_rows(3))
    names = [one.name for one in series]
    assert names[:3] == ["loss", "infonce", "recall@10, mri → rna"]
    assert names[3:] == ["learning rate", "samples per second", "share of time waiting for data"]
    assert series[0].train == [(1, 5.0), (2, 2.5), (3, 5 / 3)]
    assert series[0].held_out == [(3, 2.0)]


def test_a_loss_that_was_not_finite_leaves_a_gap(training_rows):
    rows = training_rows(3)
    rows[1]["loss"] = None
    assert gather_series(rows)[0].train == [(1, 5.0), (3, 5 / 3)]
