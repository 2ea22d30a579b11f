"""Words for numbers: shares, counts, sizes, durations, p values and intervals."""

import pytest

from foundation.wording import (
    counted,
    decimal,
    duration,
    file_size,
    interval,
    listed,
    p_number,
    p_text,
    percent,
    shortened,
)


@pytest.mark.parametrize(
    ("part", "whole", "words"),
    [(0, 10, "0 %"), (1, 1000, "< 1 %"), (1, 3, "33 %"), (999, 1000, "> 99 %"), (10, 10, "100 %"), (0, 0, "–")],
)
def test_percent_never_rounds_to_none_or_all(part, whole, words):
    assert percent(part, whole).replace("\u00a0", " ") == words


def test_counts_and_lists():
    assert counted(1, "patient") == "1 patient"
    assert counted(2000, "patient") == "2,000 patients"
    assert counted(2, "series", "series") == "2 series"
    assert [listed(words) for words in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == ["", "a", "a and b", "a, b and c"]


def test_shortened_keeps_to_its_length():
    assert shortened("a" * 22) == "a" * 22
    assert shortened("a" * 23) == "a" * 21 + "…"


@pytest.mark.parametrize(("size", "words"), [(0, "0 bytes"), (1500, "1.5 kB"), (2e6, "2.0 MB"), (3.21e9, "3.2 GB")])
def test_file_sizes(size, words):
    assert file_size(size) == words


@pytest.mark.parametrize(("seconds", "words"), [(12.4, "12 s"), (212.3, "3 min 32 s"), (7500, "2 h 5 min")])
def test_durations(seconds, words):
    assert duration(seconds) == words


def test_p_values_in_a_table_and_in_a_sentence():
    assert [p_number(p).replace("\u00a0", " ") for p in (0.0004, 0.0123)] == ["< 0.001", "0.012"]
    assert [p_text(p).replace("\u00a0", " ") for p in (0.0004, 0.0123)] == ["p < 0.001", "p = 0.012"]


def test_decimals_have_a_true_minus_and_no_negative_zero():
    assert [decimal(value) for value in (0.7, -0.0125, -0.0001, None)] == ["0.700", "−0.013", "0.000", "–"]
    assert [decimal(value, signed=True) for value in (0.7, -0.02, 0.0)] == ["+0.700", "−0.020", "+0.000"]


def test_intervals_may_be_missing():
    assert interval([0.651, 0.77]) == "0.651 to 0.770"
    assert interval((-0.1, 0.2), signed=True) == "−0.100 to +0.200"
    assert [interval(bounds) for bounds in (None, [], [None, None])] == ["–"] * 3
