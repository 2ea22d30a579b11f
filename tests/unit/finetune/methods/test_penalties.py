"""The search of penalties: what it finds of a known surface, and what a block is worth."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.methods.penalties import COMMON, OFF, ROUNDS, choose_penalties
from finetune.methods.reading import Block

NAMES = "abc"
BLOCKS = [Block(name, 1) for name in NAMES]


def bowl(best, cost_of_off):
    """Highest where the logarithm of each penalty is at `best`; being off costs something of its own."""

    def value(penalties):
        return -sum(
            cost_of_off[name] if math.isinf(penalty) else (math.log10(penalty) - best[name]) ** 2
            for name, penalty in penalties.items()
        )

    return value


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-5, 1), min_size=3, max_size=3), st.lists(st.floats(0, 9), min_size=3, max_size=3))
def test_it_never_does_worse_than_one_penalty_for_all_and_finds_the_best_of_a_step(best, off):
    value = bowl(dict(zip(NAMES, best, strict=True)), dict(zip(NAMES, off, strict=True)))
    found = choose_penalties(BLOCKS, value)
    assert found.cv_log_likelihood == value(found.of_block)
    assert found.cv_log_likelihood >= max(value(dict.fromkeys(NAMES, penalty)) for penalty in COMMON)
    for name, worth in found.without.items():
        assert worth == value({**found.of_block, name: OFF}) <= found.cv_log_likelihood


def test_blocks_that_want_different_penalties_get_them_and_one_that_only_harms_is_off():
    found = choose_penalties(BLOCKS, bowl({"a": 0, "b": -2, "c": -1}, {"a": 50, "b": 50, "c": -1}))
    assert math.isinf(found.of_block["c"])
    assert abs(math.log10(found.of_block["a"])) < 0.6 and abs(math.log10(found.of_block["b"]) + 2) < 0.6
    assert set(found.without) == {"a", "b"}


def test_something_is_always_read_and_one_block_alone_is_searched_on_the_common_grid():
    harm = bowl(dict.fromkeys(NAMES, 0.0), dict.fromkeys(NAMES, -9.0))
    assert any(map(math.isfinite, choose_penalties(BLOCKS, harm).of_block.values()))
    asked = []

    def value(penalties):
        asked.append(penalties["a"])
        return -abs(math.log10(penalties["a"]) + 1)

    assert choose_penalties(BLOCKS[:1], value).of_block == {"a": 0.1}
    assert sorted(asked, reverse=True) == list(COMMON)


def test_of_equals_the_more_cautious_is_taken():
    assert set(choose_penalties(BLOCKS, lambda _: 0.0).of_block.values()) == {COMMON[0]}


def test_it_asks_a_number_of_times_that_grows_with_the_blocks_and_not_with_their_combinations():
    asked = []

    def value(penalties):
        asked.append(tuple(penalties.values()))
        return float(np.sin(sum(hash(p) % 97 for p in penalties.values())))

    many = [Block(str(number), 1) for number in range(10)]
    choose_penalties(many, value)
    assert len(asked) <= len(COMMON) + 3 * ROUNDS * len(many) + len(many)
