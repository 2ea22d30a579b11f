"""Columns of a clinical table as features: numbers, categories and scales."""

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from foundation.cohort.reading import tables
from foundation.errors import DataError

TEXT = (
    "patient\tage\tsex\tgrade\n"
    "P1\t44.5\tFEMALE\tG2\n"
    "P2\tNA\tMALE\tG3\n"
    "P3\t61\t[Not Available]\t\n"
    "P4\t\t\t\n"
    "P5\t70\t FEMALE \tG4\n"
)
COLUMNS = {
    "age": "number",
    "gender": {"kind": "category", "column": "sex", "categories": ["MALE", "FEMALE"]},
    "grade": {"kind": "scale", "map": {"G2": 2, "G3": 3, "G4": 4}},
}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "clinical.tsv"
    path.write_text(TEXT)
    return path


@pytest.mark.parametrize("small", [False, True])
def test_numbers_categories_and_scales(path, open_source, assemble, monkeypatch, small):
    if small:
        monkeypatch.setattr(tables, "PIECE_BYTES", 24)
    source = open_source(path, format="clinical", columns=COLUMNS)
    assert source.list_samples() == ["P1", "P2", "P3", "P4", "P5"]
    features, values = assemble(source)
    assert features == ["age", "gender=MALE", "gender=FEMALE", "grade"]
    nan = np.nan
    expected = [[44.5, 0, 1, 2], [nan, 1, 0, 3], [61, nan, nan, nan], [nan] * 4, [70, 0, 1, 4]]
    np.testing.assert_array_equal(values, np.array(expected, dtype=np.float32))


def test_features_left_out(path, open_source, assemble):
    source = open_source(path, format="clinical", columns=COLUMNS, leave_out_features=["gender=M*", "age"])
    features, values = assemble(source)
    assert features == ["gender=FEMALE", "grade"]
    nan = np.nan
    np.testing.assert_array_equal(values, [[1, 2], [0, 3], [nan, nan], [nan, nan], [1, 4]])


def test_the_first_column_with_a_value_counts(tmp_path, open_source, assemble):
    path = tmp_path / "clinical.tsv"
    path.write_text("patient\tpathologic\tclinical\nP1\tII\tI\nP2\tNA\tI\nP3\t \tII\nP4\t[Not Available]\t\n")
    stage = {"kind": "scale", "column": ["pathologic", "clinical"], "map": {"I": 1, "II": 2}}
    _, values = assemble(open_source(path, format="clinical", columns={"stage": stage}))
    np.testing.assert_array_equal(values[:, 0], [2, 1, 2, np.nan])


def test_patients_in_another_order(path, open_source, assemble):
    _, values = assemble(open_source(path, format="clinical", columns={"age": "number"}), ["P5", "P1", "P2"])
    np.testing.assert_array_equal(values[:, 0], [70, 44.5, np.nan])


def test_categories_are_found_where_none_are_listed(path, open_source, assemble):
    columns = {"sex": "category", "grade": "category"}
    features, values = assemble(open_source(path, format="clinical", columns=columns))
    assert features == ["sex=FEMALE", "sex=MALE", "grade=G2", "grade=G3", "grade=G4"]
    frame = pd.read_csv(path, sep="\t", na_values=["[Not Available]"])
    for column in ("sex", "grade"):
        text = frame[column].str.strip()
        dummies = pd.get_dummies(text, prefix=column, prefix_sep="=", dtype=float).where(text.notna(), np.nan, axis=0)
        here = [features.index(name) for name in dummies.columns]
        np.testing.assert_array_equal(values[:, here], dummies.to_numpy())


def test_a_listed_word_is_never_missing(tmp_path, open_source, assemble):
    path = tmp_path / "t.csv"
    path.write_text("patient,residual\nP1,None\nP2,R1\nP3,NA\n")
    columns = {"residual": {"kind": "category", "categories": ["None", "R1"]}}
    _, values = assemble(open_source(path, format="clinical", columns=columns))
    np.testing.assert_array_equal(values, [[1, 0], [0, 1], [np.nan, np.nan]])


def test_a_category_that_is_not_listed(path, open_source, assemble):
    columns = {"sex": {"kind": "category", "categories": ["Male", "FEMALE"]}}
    with pytest.raises(DataError, match=r"column 'sex': 'MALE' for P2 \(line 3\) is no category of 'sex'(.|\n)*'Male'"):
        assemble(open_source(path, format="clinical", columns=columns))
    columns = {"grade": {"kind": "scale", "map": {"G2": 2, "G3": 3}}}
    columns["grade"]["map"]["G4"] = None
    _, values = assemble(open_source(path, format="clinical", columns=columns))
    assert np.isnan(values[4, 0])
    del columns["grade"]["map"]["G4"]
    with pytest.raises(DataError, match=r"column 'grade': 'G4' for P5 \(line 6\)"):
        assemble(open_source(path, format="clinical", columns=columns))


def test_a_number_that_is_none(tmp_path, open_source, assemble):
    path = tmp_path / "t.csv"
    path.write_text("patient,age\nP1,44\nP2,>89\n")
    with pytest.raises(DataError, match=r"column 'age': '>89' for P2 \(line 3\) is not a finite number"):
        assemble(open_source(path, format="clinical", columns={"age": "number"}))


def test_what_does_not_exist(path, open_source, assemble):
    with pytest.raises(DataError, match=r"no column 'agee'(.|\n)*did you mean 'age'"):
        assemble(open_source(path, format="clinical", columns={"agee": "number"}))
    with pytest.raises(DataError, match=r"no column 'patientt'(.|\n)*did you mean 'patient'"):
        open_source(path, format="clinical", patient="patientt", columns={"age": "number"}).list_samples()
    with pytest.raises(DataError, match="no sample 'P9'"):
        open_source(path, format="clinical", columns={"age": "number"}).read(["P9"])


def test_a_row_without_a_patient_and_no_rows(tmp_path, open_source):
    path = tmp_path / "t.csv"
    path.write_text("patient,age\nP1,44\n,45\n")
    with pytest.raises(DataError, match="line 3 has no 'patient'"):
        open_source(path, format="clinical", columns={"age": "number"}).list_samples()
    path.write_text("patient,age\n")
    with pytest.raises(DataError, match="holds no patient"):
        open_source(path, format="clinical", columns={"age": "number"}).list_samples()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({}, "at least 1"),
        ({"age": "numbr"}, "numbr"),
        ({"age": {"kind": "number", "colum": "Age"}}, "did you mean 'column'"),
        ({"sex": {"kind": "category", "categories": ["M"], "map": {"M": 1}}}, "unknown key 'map'"),
        ({"sex": {"kind": "scale"}}, "map"),
        ({"sex": {"kind": "category", "categories": ["M", "M"]}}, "twice"),
    ],
)
def test_bad_configs(path, open_source, columns, message):
    with pytest.raises(ValidationError, match=message):
        open_source(path, format="clinical", columns=columns)


def test_numbers_in_yaml_are_words_here(tmp_path, open_source, assemble):
    path = tmp_path / "t.csv"
    path.write_text("patient,stage\nP1,1\nP2,2\n")
    columns = {"stage": {"kind": "category", "categories": [1, 2]}, "s": {"kind": "scale", "column": "stage"}}
    columns["s"]["map"] = {1: 0.5, 2: 1}
    features, values = assemble(open_source(path, format="clinical", columns=columns))
    assert features == ["stage=1", "stage=2", "s"]
    np.testing.assert_array_equal(values, [[1, 0, 0.5], [0, 1, 1]])


def test_words_for_nothing_known(tmp_path, open_source, assemble):
    path = tmp_path / "t.csv"
    path.write_text("patient,age,sex,grade\nP1,44,M,2.0\nP2,-9,unknown,?\nP3,Unknown,F,1\n")
    columns = {
        "age": {"kind": "number", "missing": [-9]},
        "sex": {"kind": "category"},
        "grade": {"kind": "scale", "map": {1: 0.5, 2: 1}, "missing": "?"},
    }
    features, values = assemble(open_source(path, format="clinical", columns=columns, missing=["unknown"]))
    assert features == ["age", "sex=F", "sex=M", "grade"]
    nan = np.nan
    np.testing.assert_array_equal(values, [[44, 0, 1, 1], [nan, nan, nan, nan], [nan, 1, 0, 0.5]])


@pytest.mark.parametrize("words", [("1", "2"), ("1.0", "2.0"), ("1", "2.0")])
def test_tables_that_differ_in_a_decimal_point_have_the_same_features(tmp_path, open_source, assemble, words):
    path = tmp_path / "t.csv"
    path.write_text("patient,stage\nP1,{}\nP2,{}\nP3,1.0\n".format(*words))
    features, values = assemble(open_source(path, format="clinical", columns={"stage": "category"}))
    assert features == ["stage=1", "stage=2"]
    np.testing.assert_array_equal(values, [[1, 0], [0, 1], [1, 0]])


def test_truth_values_of_the_yaml_are_those_of_the_table(tmp_path, open_source, assemble):
    path = tmp_path / "t.csv"
    path.write_text("patient,smoker\nP1,TRUE\nP2,false\n")
    columns = {"smoker": {"kind": "category", "categories": [False, True]}, "s": {"kind": "scale", "column": "smoker"}}
    columns["s"]["map"] = {True: 1, False: 0}
    _, values = assemble(open_source(path, format="clinical", columns=columns))
    np.testing.assert_array_equal(values, [[0, 1, 1], [1, 0, 0]])


def test_all_that_cannot_be_read_is_said_at_once(tmp_path, open_source, assemble, monkeypatch):
    monkeypatch.setattr(tables, "PIECE_BYTES", 24)
    path = tmp_path / "t.csv"
    path.write_text("patient,age,sex\nP1,44,W\nP2,>89,M\n\nP3,90+,W\nP4,50,W\n")
    columns = {"age": "number", "sex": {"kind": "category", "categories": ["M", "F"]}}
    with pytest.raises(DataError) as caught:
        assemble(open_source(path, format="clinical", columns=columns))
    assert "column 'age': '>89' for P2 (line 3), '90+' for P3 (line 5) is not a finite number" in str(caught.value)
    assert "column 'sex': 'W' for P1 (line 2) and 2 more is no category of 'sex'" in str(caught.value)


@pytest.mark.parametrize(
    ("columns", "missing", "message"),
    [
        ({"sex": {"kind": "category", "categories": ["M", "U"], "missing": ["u"]}}, [], "`categories` and `missing`"),
        ({"g": {"kind": "scale", "map": {1: 1}, "missing": [1.0]}}, [], "`map` and `missing`"),
        ({"sex": {"kind": "category", "categories": ["M", "U"]}}, ["U"], "the column 'sex' and `missing`"),
        ({"g": {"kind": "scale", "map": {"1": 1, "1.0": 2}}}, [], "two numbers"),
        ({"sex": {"kind": "category", "categories": [1, "1.0"]}}, [], "twice"),
    ],
)
def test_words_with_two_meanings(path, open_source, columns, missing, message):
    with pytest.raises(ValidationError, match=message):
        open_source(path, format="clinical", columns=columns, missing=missing)
