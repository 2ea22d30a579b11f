"""Errors say what, where and what to do, cross processes, name the nearest word, and tell refusals of the system."""

from __future__ import annotations

import errno
import os
import pickle
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundation.errors import (
    REFUSALS,
    CheckpointError,
    ChiasmaError,
    ConfigError,
    DataError,
    WriteError,
    nearest,
    writing,
)


def test_message_says_what_where_and_what_to_do():
    assert str(DataError("no header", where="rna.tsv", fix="add one")) == "rna.tsv: no header\n  what to do: add one"
    assert str(DataError("no header")) == "no header"


@pytest.mark.parametrize(
    ("kind", "code"), [(ConfigError, 2), (DataError, 2), (CheckpointError, 2), (WriteError, 1), (ChiasmaError, 1)]
)
def test_errors_cross_processes_whole(kind, code):
    error = kind("what", where="where", fix="fix")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert (copy.what, copy.where, copy.fix, str(copy)) == ("what", "where", "fix", str(error))
    assert copy.exit_code == code


@pytest.mark.parametrize(
    ("name", "known", "phrase"),
    [
        ("spacng", ["spacing", "size"], "did you mean 'spacing'?"),
        ("RNA", ["rna", "cna"], "did you mean 'rna'?"),
        ("zzz", ["b", "a"], "known: a, b"),
        ("zzz", [], "nothing is known here"),
        ("zzz", [f"k{i:02d}" for i in range(14)], f"known: {', '.join(f'k{i:02d}' for i in range(12))} and 2 more"),
    ],
)
def test_nearest(name, known, phrase):
    assert nearest(name, known) == phrase


@given(st.sets(st.text("abcdef", min_size=1, max_size=8), min_size=1), st.randoms(use_true_random=False))
def test_nearest_knows_a_known_word_whatever_the_order(known, random):
    words = sorted(known)
    name = random.choice(words)
    random.shuffle(words)
    assert nearest(name, words) == f"did you mean '{name}'?"


@pytest.mark.parametrize("number", list(REFUSALS), ids=errno.errorcode.get)
def test_a_refusal_of_the_system_says_what_where_and_what_to_do(number):
    place = Path("out")
    with pytest.raises(WriteError) as caught, writing(place, then="go on"):
        raise OSError(number, os.strerror(number), "out/part")
    assert (caught.value.what, caught.value.where) == (REFUSALS[number].what, "out/part")
    assert caught.value.fix == f"{REFUSALS[number].fix}, then go on"
    with pytest.raises(WriteError) as caught, writing(place):
        raise OSError(number, os.strerror(number))
    assert caught.value.where == "out"


@pytest.mark.parametrize(
    "error", [FileNotFoundError(errno.ENOENT, "No such file", "x"), OSError("libcudart.so.13: cannot open")]
)
def test_what_is_no_refusal_goes_on_as_it_is(error):
    assert WriteError.of(error) is None
    with pytest.raises(type(error), match=re.escape(str(error))) as caught, writing(Path("out")):
        raise error
    assert caught.value is error
