"""The time and traffic of collectives, against a ring that is played through, and against the speeds of its links."""

from __future__ import annotations

import pytest

from pretrain.planning.hardware import ROUNDS, Hardware, passed_on

FAST = Hardware(gpus_per_node=4, inside_node=100, between_nodes=10)


def sent_in_a_ring(size: int, gpus: int, rounds: int) -> list[int]:
    """Bytes that each GPU sends until all have had every piece, one piece at a time to its neighbour; twice or once."""
    sent = [0] * gpus
    for _ in range(rounds):
        has = [{gpu} for gpu in range(gpus)]
        for turn in range(gpus - 1):
            for gpu in range(gpus):
                piece = (gpu - turn) % gpus
                assert piece in has[gpu]
                has[(gpu + 1) % gpus].add(piece)
                sent[gpu] += size // gpus
        assert all(len(pieces) == gpus for pieces in has)
    return sent


@pytest.mark.parametrize("gpus", [1, 2, 3, 8, 12])
@pytest.mark.parametrize("collective", ROUNDS)
def test_each_gpu_sends_what_a_ring_has_it_send(gpus, collective):
    size = 24 * 1000
    expected = sent_in_a_ring(size, gpus, ROUNDS[collective])
    assert expected == [pytest.approx(ROUNDS[collective] * passed_on(size, gpus))] * gpus


def test_a_ring_goes_as_fast_as_its_slowest_link():
    assert FAST.ring_speed(4) == 100e9
    # Four cards of 10 GB/s between nodes.
    assert FAST.ring_speed(5) == 40e9
    large = 10**12
    assert FAST.seconds("all_gather", large, 1, 4) == pytest.approx(0.75 * large / 100e9, rel=1e-3)
    assert FAST.seconds("all_reduce", large, 1, 8) == pytest.approx(2 * 0.875 * large / 40e9, rel=1e-3)


def test_small_tensors_take_as_long_as_their_way_around():
    alone = FAST.seconds("all_reduce", 4, 1, 8)
    assert alone == pytest.approx(2 * (6 * 0.6e-6 + 1 * 2.7e-6), rel=1e-3)
    assert FAST.seconds("all_reduce", 40, 10, 8) == pytest.approx(10 * alone)
    assert FAST.seconds("all_reduce", 4, 1, 1) == 0


def test_storage_is_shared_by_nodes():
    machines = Hardware(gpus_per_node=8, storage=40, storage_per_node=5)
    assert [machines.storage_speed(gpus) for gpus in (1, 8, 9, 512)] == [5e9, 5e9, 10e9, 40e9]
