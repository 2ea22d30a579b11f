"""Words: which are the same, which say that nothing is known, and which may not mean two things."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundation.cohort.words import (
    Meanings,
    add_distinct,
    as_words,
    count_values,
    refuse_two_meanings,
    same,
    same_in_any_case,
    without,
)
from foundation.yaml_text import parse


@pytest.mark.parametrize(
    ("one", "other"),
    [("1", "1.0"), ("2", "2.00"), ("1", "1e0"), ("10", "1E1"), ("-9", "-9.0"), (" 3", "3."), ("TRUE", "true")],
)
def test_spellings_of_one_word(one, other):
    assert same(one) == same(other)


@pytest.mark.parametrize(
    ("one", "other"), [("1", "2"), ("01", "1"), ("I", "i"), ("Yes", "yes"), ("G1", "1"), ("1.5", "1"), ("1_0", "10")]
)
def test_words_that_differ(one, other):
    assert same(one) != same(other)


@given(st.integers(-(10**25), 10**25), st.integers(0, 4))
def test_a_number_is_the_same_with_any_zeros_behind_it_and_no_other_is(number, zeros):
    assert same(str(number)) == same(f"{number}.{'0' * zeros}")
    assert same(str(number)) != same(str(number + 1))


def test_what_yaml_makes_of_plain_values_are_words():
    assert as_words(parse("[1, 1.0, true, No, Yes, on, off, 01]")) == [
        "1",
        "1.0",
        "True",
        "No",
        "Yes",
        "on",
        "off",
        "01",
    ]
    assert as_words(2) == ["2"]
    for nothing in ("[a, null]", "[~]", "[{a: b}]"):
        with pytest.raises(ValueError, match="put it in quotes"):
            as_words(parse(nothing))


def test_meanings_of_a_column():
    found = Meanings({"1": 0, "2": 1, "None": 2, "True": 3}).of(pd.Series(["1.0", "2", "None", "TRUE", "3", ""]))
    assert found[:4].tolist() == [0, 1, 2, 3]
    assert pd.isna(found[4:]).all()


def test_words_for_nothing_known_become_empty_in_whatever_case():
    column = pd.Series(["NE", "ne", "999.0", "999", "Never", ""])
    assert without(column, ["NE", "999"]).tolist() == ["", "", "", "", "Never", ""]
    assert without(column, []) is column


def test_distinct_words_of_two_tables_are_spelled_alike():
    found = {}
    for table in (["2.0", "1.0", "NA", "II"], ["1", "3", "1.50", "II "], ["01"]):
        add_distinct(found, pd.Series(table))
    assert sorted(found.values()) == ["01", "1", "1.50", "2", "3", "II"]


def test_one_word_with_two_meanings_is_refused():
    refuse_two_meanings({"`a`": ["1", "1.0"], "`b`": ["2"]})
    refuse_two_meanings({"`a`": ["WT"], "`b`": ["wt"]}, any_case=False)
    for first, second in (("1", "1.0"), ("NE", "ne")):
        with pytest.raises(ValueError, match=f"'{second}' is listed under both `a` and `b`"):
            refuse_two_meanings({"`a`": [first], "`b`": [second]})
    assert same_in_any_case("NE") == same_in_any_case(" ne")


def test_values_are_counted_the_most_frequent_first():
    assert count_values(["y", "x", "x", "x"], ["P1", "P2", "P3", "P4"]) == "'x' for P2 and 2 more, 'y' for P1"
    many = [str(number) for number in range(40)]
    assert count_values(many, many).endswith("'29' for 29 and 10 other values for 10")
