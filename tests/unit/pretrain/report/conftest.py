"""Rows of metrics.jsonl for the tests of the pretraining report."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def training_rows():
    """Makes the rows that a run of some steps logs: its losses, one evaluation, one step that was not finite."""

    def build(steps=30):
        rows = []
        for step in range(1, steps + 1):
            row = {"step": step, "epoch": step / 5, "samples_seen": 64 * step, "split": "train", "loss": 5 / step}
            rows.append(
                row | {"infonce": 4 / step, "learning_rate": 1e-3, "samples_per_second": 321.0, "waiting": 0.01}
            )
        rows.append({"step": steps, "split": "held_out", "loss": 2.0, "retrieval": {"mri->rna": {"recall@10": 0.5}}})
        rows.append({"step": steps, "split": "non-finite", "rows": [17, 18]})
        return rows

    return build
