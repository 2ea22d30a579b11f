"""The process that others wait for is named once, and not when it hardly matters."""

from __future__ import annotations

from pretrain import stragglers
from pretrain.stragglers import Stragglers, slowest


def test_it_is_the_one_that_takes_longest_where_others_wait_for_it():
    assert slowest([10.0, 10.1, 16.0, 9.0], past=60) == 2
    assert slowest([10.0, 10.1, 12.0, 9.0], past=60) is None
    # Much longer, of next to nothing.
    assert slowest([0.1, 0.1, 0.9, 0.1], past=60) is None
    assert slowest([4.0, 20.0], past=60) == 1
    assert slowest([20.0], past=60) is None


def test_it_is_named_once_with_its_host(monkeypatch):
    monkeypatch.setattr(stragglers, "everyones", lambda host: ["node-a", "node-b", "node-c"])
    monkeypatch.setattr(stragglers, "EVERY", 0.0)
    names = Stragglers()
    names.since -= 100
    told = names.hear([10.0, 25.0, 10.0])
    assert told is not None and told.startswith("process 1 takes 2.5 times as long") and "node-b" in told
    names.since -= 100
    assert names.hear([10.0, 25.0, 10.0]) is None
    names.since -= 100
    told = names.hear([30.0, 10.0, 10.0])
    assert told is not None and told.startswith("process 0 takes 3.0 times") and "node-a" in told


def test_it_waits_for_a_minute(monkeypatch):
    names = Stragglers()
    assert names.hear([10.0]) is None and names.alone == [10.0]
