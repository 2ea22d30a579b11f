"""Transforms of single values: each, in order, and what they refuse."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from foundation.cohort.transforms import apply, parse
from foundation.errors import ConfigError, DataError

VALUES = np.array([[0.0, 1.0, 3.5], [np.nan, 1e6, 0.25]], dtype=np.float32)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("log2p1", lambda x: np.log2(x.astype(float) + 1)),
        ("log1p", lambda x: np.log(x.astype(float) + 1)),
        ("sqrt", lambda x: x.astype(float) ** 0.5),
        ("clip(0.5, 3)", lambda x: np.where(np.isnan(x), np.nan, np.minimum(np.maximum(x, 0.5), 3))),
    ],
)
def test_each(name, expected):
    before = VALUES.copy()
    found = apply([name], VALUES)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected(VALUES), rtol=1e-6)
    np.testing.assert_array_equal(VALUES, before)


def test_in_order():
    np.testing.assert_allclose(apply(["clip(0, 3)", "log2p1"], np.float32([7, 1])), [2, 1])
    np.testing.assert_allclose(apply(["log2p1", "clip(0, 1.5)"], np.float32([7, 1])), [1.5, 1])
    assert apply([], VALUES) is VALUES


@given(
    st_numpy.arrays(np.float32, (4, 3), elements=st.floats(0, 2**20, width=32)),
    st_numpy.arrays(np.bool_, (4, 3)),
    st.sampled_from(["log2p1", "log1p", "sqrt", "clip(-1, 2)"]),
)
def test_what_is_missing_stays_missing_and_values_do_not_mix(values, missing, name):
    with_gaps = np.where(missing, np.nan, values)
    found = apply([name], with_gaps)
    np.testing.assert_array_equal(np.isnan(found), missing)
    np.testing.assert_allclose(found[~missing], apply([name], values)[~missing], rtol=1e-6)


@pytest.mark.parametrize("name", ["log2p1", "log1p", "sqrt"])
def test_negative_values_are_refused(name):
    with pytest.raises(DataError, match=r"negative values: found -2, the lowest is -3(.|\n)*clip\(0, inf\)"):
        apply([name], np.float32([1, -2, np.nan, -3]))
    np.testing.assert_array_equal(apply(["clip(0, inf)", name], np.float32([-2])), [0])


@pytest.mark.parametrize("name", ["log2p1", "log1p", "sqrt"])
def test_a_slightly_negative_value_is_negative(name):
    with pytest.raises(DataError, match=r"found -0\.001"):
        apply([name], np.float32([0, -0.001]))
    assert apply([name], np.float32([-0.0])) == 0


@pytest.mark.parametrize("text", ["clip(-5,5)", " clip( -5 , 5.0 ) "])
def test_spaces_do_not_matter(text):
    assert parse(text) == parse("clip(-5, 5)")
    assert parse(text).arguments == (-5.0, 5.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("log2p", "did you mean 'log2p1'"),
        ("", "is no transform"),
        ("clip(1, 2", "is no transform"),
        ("clip", r"takes 2 numbers(.|\n)*clip\(low, high\)"),
        ("clip(1)", "takes 2 numbers"),
        ("clip(nan, 1)", "takes 2 numbers"),
        ("clip(low, 1)", "are not numbers"),
        ("clip(5, -5)", "must be below"),
        ("log2p1(3)", "takes 0 numbers"),
    ],
)
def test_bad_names_and_arguments(text, message):
    with pytest.raises(ConfigError, match=message):
        parse(text)
