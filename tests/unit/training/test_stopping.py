"""A request to stop is noted once; what follows at once is the same request, and a later one ends the process."""

from __future__ import annotations

import signal

import pytest

from foundation.training import stopping
from foundation.training.stopping import StopRequests


class _EndedError(Exception):
    pass


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(stopping.time, "monotonic", lambda: now[0])

    def end(number, frame):
        raise _EndedError

    before = {number: signal.signal(number, end) for number in stopping.EXIT_CODES}
    yield now
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("second", [signal.SIGUSR1, signal.SIGTERM])
def test_the_first_request_counts_and_only_a_later_one_ends_the_process(clock, second):
    with StopRequests() as requests:
        assert requests.of_all() == 0
        signal.raise_signal(signal.SIGUSR1)
        clock[0] += stopping.REPEATED
        signal.raise_signal(second)
        assert requests.of_all() == signal.SIGUSR1
        clock[0] += 0.1
        with pytest.raises(_EndedError):
            signal.raise_signal(second)
    with pytest.raises(_EndedError):
        signal.raise_signal(signal.SIGTERM)
