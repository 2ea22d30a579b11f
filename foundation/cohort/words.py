"""Words of a clinical table and of cohort.yaml: which say that nothing is known, and which are the same word."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Annotated, Any

import numpy as np
from pydantic import BeforeValidator, Field

from foundation.cohort.reading.cells import Column, mark_missing

NUMBER = re.compile(r"[+-]?(?:(?:0|[1-9]\d*)(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,3})?")
"""A number as tables write it; 01 is none, since codes may begin with a nought."""


def as_words(value: Any) -> list[str]:
    """One or several values of a YAML as words.

    Raises:
        ValueError: One of them is nothing.
    """
    values = value if isinstance(value, list | tuple) else [value]
    if any(one is None or isinstance(one, dict | list) for one in values):
        raise ValueError("each word needs to be text or a number: put it in quotes")
    return [str(one) for one in values]


MOST_VALUES = 30
"""Values that a message lists; the rest are counted."""

Words = Annotated[list[str], BeforeValidator(as_words)]
"""A list of words; a single one is enough, and numbers and true and false are words here."""

Missing = Annotated[
    Words,
    Field(
        description="Words, in whatever case, that say that nothing is known, beside those that always do, such as NA."
    ),
]


def same(word: str) -> str | Fraction:
    """What two spellings of one word share: 1, 1.0 and 1e0 are one number, true and TRUE one truth value."""
    word = word.strip()
    if NUMBER.fullmatch(word):
        return Fraction(word)
    return word.lower() if word.lower() in ("true", "false") else word


def same_in_any_case(word: str) -> str | Fraction:
    """As `same`, of words for which upper and lower case make no difference."""
    return same(word.strip().casefold())


class Meanings:
    """What words mean, as they stand or as the same number or truth value otherwise written.

    Args:
        meant: Word to its meaning, a number.
    """

    def __init__(self, meant: Mapping[str, float]) -> None:
        self._alike = {same(word): meaning for word, meaning in meant.items()}

    def of(self, text: Column) -> np.ndarray:
        """The meaning of each cell [N] float64, NaN where it has none."""
        found = {word: self._alike.get(same(word), np.nan) for word in text.unique()}
        return text.map(found).to_numpy(np.float64)


def without(text: Column, words: Sequence[str]) -> Column:
    """A column of text, empty where a cell is one of some words for nothing known."""
    if not words:
        return text
    nothing = {same_in_any_case(word) for word in words}
    return text.mask(text.map({cell: same_in_any_case(cell) in nothing for cell in text.unique()}).astype(bool), "")


def add_distinct(found: dict[str | Fraction, str], text: Column) -> None:
    """Add the words of a column that are not missing: what spellings of one share, to the shortest of them.

    A whole number is spelled without a decimal point, so that two tables that differ in it have the same words.
    """
    for word in map(str.strip, text[~mark_missing(text)].unique()):
        spelled = re.sub(r"\.0*$", "", word) if NUMBER.fullmatch(word) else word
        found[same(word)] = min(spelled, found.get(same(word), spelled), key=lambda one: (len(one), one))


def count_values(values: Sequence[str], who: Sequence[str]) -> str:
    """Each distinct value with who has it, such as ``'x' for P2 and 3 more, 'y' for P7``; the most frequent first."""
    of_value: dict[str, list[str]] = {}
    for value, one in zip(values, who, strict=True):
        of_value.setdefault(value, []).append(one)
    ranked = sorted(of_value.items(), key=lambda item: -len(item[1]))
    told = [
        f"'{value}' for {first}" + (f" and {len(others):,} more" if others else "")
        for value, (first, *others) in ranked[:MOST_VALUES]
    ]
    rest = sum(len(all_of_it) for _, all_of_it in ranked[MOST_VALUES:])
    return ", ".join(told) + (f" and {len(ranked) - MOST_VALUES:,} other values for {rest:,}" if rest else "")


def refuse_two_meanings(lists: Mapping[str, Iterable[str]], *, any_case: bool = True) -> None:
    """Refuse a word that stands in two lists.

    Args:
        lists: What a list is called in a message, to its words.
        any_case: Whether upper and lower case make no difference.

    Raises:
        ValueError: There is one; it names the word and both lists.
    """
    key = same_in_any_case if any_case else same
    meant: dict[str | Fraction, str] = {}
    for name, words in lists.items():
        for word in words:
            other = meant.setdefault(key(word), name)
            if other != name:
                raise ValueError(f"'{word}' is listed under both {other} and {name}")
