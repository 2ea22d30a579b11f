"""The search of penalties: what it finds of a known surface, how cautious it is, and what a block is worth."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.methods.penalties import COMMON, FIRST, OFF, ROUNDS, choose_penalties
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


def one_fold(value):
    """The values of a single inner fold."""
    return lambda penalties: iter([value(penalties)])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-5, 1), min_size=3, max_size=3), st.lists(st.floats(0, 9), min_size=3, max_size=3))
def test_it_never_does_worse_than_one_penalty_for_all_and_finds_the_best_of_a_step(best, off):
    value = bowl(dict(zip(NAMES, best, strict=True)), dict(zip(NAMES, off, strict=True)))
    found = choose_penalties(BLOCKS, one_fold(value))
    assert found.cv_log_likelihood == value(found.of_block)
    assert found.cv_log_likelihood >= max(value(dict.fromkeys(NAMES, penalty)) for penalty in COMMON)
    for name, worth in found.without.items():
        assert worth == value({**found.of_block, name: OFF}) <= found.cv_log_likelihood


def test_blocks_that_want_different_penalties_get_them_and_one_that_only_harms_is_off():
    found = choose_penalties(BLOCKS, one_fold(bowl({"a": 0, "b": -2, "c": -1}, {"a": 50, "b": 50, "c": -1})))
    assert math.isinf(found.of_block["c"])
    assert abs(math.log10(found.of_block["a"])) < 0.6 and abs(math.log10(found.of_block["b"]) + 2) < 0.6
    assert set(found.without) == {"a", "b"}


def test_something_is_always_read_and_one_block_alone_is_searched_on_the_common_grid():
    harm = bowl(dict.fromkeys(NAMES, 0.0), dict.fromkeys(NAMES, -9.0))
    assert any(map(math.isfinite, choose_penalties(BLOCKS, one_fold(harm)).of_block.values()))
    asked = []

    def value(penalties):
        asked.append(penalties["a"])
        return -abs(math.log10(penalties["a"]) + 1)

    assert choose_penalties(BLOCKS[:1], one_fold(value)).of_block == {"a": 0.1}
    assert asked == [*COMMON[::2], 0.3, 0.03]


def test_of_equals_the_more_cautious_is_taken():
    assert set(choose_penalties(BLOCKS, one_fold(lambda _: 0.0)).of_block.values()) == {COMMON[0]}


def test_it_asks_a_number_of_times_that_grows_with_the_blocks_and_not_with_their_combinations():
    asked = []

    def value(penalties):
        asked.append(tuple(penalties.values()))
        return float(np.sin(sum(hash(p) % 97 for p in penalties.values())))

    many = [Block(str(number), 1) for number in range(10)]
    choose_penalties(many, one_fold(value))
    assert len(asked) <= 2 * len(COMMON) + 3 * ROUNDS * len(many) + len(many)


def lucky(name, penalty, gain_K):
    """Alike under all penalties but one of a block, under which inner folds gain something."""

    def values(penalties):
        at = math.isclose(penalties[name], penalty) and sum(p != COMMON[0] for p in penalties.values()) == 1
        return iter(-1.0 + np.array(gain_K) * at)

    return values


def test_a_smaller_penalty_has_to_gain_more_than_a_standard_error_and_a_larger_one_anything():
    smaller, larger, noise, steady = (
        COMMON[0] / 10,
        COMMON[0] * 10,
        [0.9, -0.5, 0.1, -0.3, 0.0],
        [0.1, 0.0, 0.1, 0.0, 0.1],
    )
    assert choose_penalties(BLOCKS, lucky("b", smaller, noise)).of_block["b"] == COMMON[0]
    assert choose_penalties(BLOCKS, lucky("b", smaller, steady)).of_block["b"] == smaller
    assert choose_penalties(BLOCKS, lucky("b", larger, noise)).of_block["b"] == larger
    assert choose_penalties(BLOCKS, lucky("b", OFF, noise)).of_block["b"] == OFF


def test_what_is_worse_on_each_of_the_first_folds_is_given_up_and_what_a_block_is_worth_is_asked_of_all():
    asked = []

    def values(penalties):
        for fold in range(5):
            asked.append((fold, tuple(penalties.values())))
            yield -sum(9.0 if math.isinf(p) else math.log10(p) ** 2 for p in penalties.values()) + fold

    found = choose_penalties(BLOCKS, values)
    assert found.of_block == dict.fromkeys(NAMES, 1.0) and set(found.without) == set(NAMES)
    assert len(set(asked)) == len(asked)
    of_all = {key for fold, key in asked if fold == 4}
    given_up = {key for fold, key in asked if fold == FIRST - 1} - of_all
    ascended = {(p,) * 3 for p in (100.0, 10.0, 1.0)}
    assert of_all == ascended | {tuple({**found.of_block, name: OFF}.values()) for name in NAMES}
    fallen = {(p,) * 3 for p in COMMON if p < 1} - {(p,) * 3 for p in COMMON[7::2]} | {(3.0,) * 3}
    assert fallen < given_up and len(given_up - fallen) == len(COMMON[::2]) + 2 * len(NAMES)


def test_the_first_block_alone_is_tried_under_any_penalty_which_a_common_one_for_all_would_hide():
    def value(penalties):
        others = [p for name, p in penalties.items() if name != "a"]
        return -abs(math.log10(penalties["a"]) + 2) - sum(5 / (1 + p) for p in others)

    assert choose_penalties(BLOCKS, one_fold(value)).of_block == {"a": 0.01, "b": OFF, "c": OFF}


def test_a_block_that_gains_by_a_larger_penalty_is_not_asked_under_a_smaller_one():
    asked = []

    def value(penalties):
        asked.append(dict(penalties))
        return bowl({"a": 0, "b": 1.5, "c": 0}, dict.fromkeys(NAMES, 50))(penalties)

    assert choose_penalties(BLOCKS, one_fold(value)).of_block == {"a": 3.0, "b": 30.0, "c": 3.0}
    under = [penalties["b"] for penalties in asked if len(set(penalties.values()) - {OFF}) == 2]
    assert 30.0 in under and 300.0 in under and 0.3 not in under


def test_where_nothing_can_be_told_the_most_cautious_is_taken():
    assert set(choose_penalties(BLOCKS, one_fold(lambda _: math.nan)).of_block.values()) == {COMMON[0]}
