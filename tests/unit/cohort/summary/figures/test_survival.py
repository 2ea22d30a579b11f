"""The figure of survival, of one patient and of many."""

from __future__ import annotations

import numpy as np
import pytest

from foundation.cohort.summary.figures.survival import survival_plot


@pytest.mark.parametrize("event", [[1.0], [0.0]])
@pytest.mark.parametrize("time", [[0.0], [5.0]])
def test_one_patient_can_be_drawn(time, event):
    picture = survival_plot(np.array(time), np.array(event), horizon=1.0, unit="days", alt="a", title="t", caption="c")
    assert picture.data.startswith(b"<?xml")


def test_numbers_of_steps_do_not_grow_with_patients():
    generator = np.random.default_rng(0)
    sizes = []
    for count in (3_000, 30_000):
        time = generator.exponential(10, count)
        sizes.append(len(survival_plot(time, np.ones(count), horizon=40, unit="", alt="", title="", caption="").data))
    assert sizes[1] < 1.1 * sizes[0]
