import pytest

from foundation.wording import counted, file_size, listed, percent, shortened


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
