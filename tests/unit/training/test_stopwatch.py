"""Seconds of what ran meanwhile, and of nothing else."""

from __future__ import annotations

import time

import pytest
import torch

from foundation.training.stopwatch import Stopwatch


def test_it_adds_up_what_runs(monkeypatch):
    clock = iter([1.0, 3.0, 10.0, 10.5])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    watch = Stopwatch()
    for _ in range(2):
        with watch.running(torch.device("cpu")):
            pass
    assert watch.seconds() == pytest.approx(2.5) and watch.seconds() == pytest.approx(2.5)
