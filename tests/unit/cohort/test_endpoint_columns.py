"""Endpoints read from columns of a clinical table; impossible values are refused by name."""

import numpy as np
import pandas as pd
import pytest

from foundation.cohort.endpoint_columns import parse_endpoint
from foundation.cohort.endpoints import ClassEndpoint, SurvivalEndpoint
from foundation.errors import DataError

OS = SurvivalEndpoint(kind="survival", time="days", event="dead", unit="days")
SUBTYPE = ClassEndpoint(kind="subtype", column="IDH", classes={"wildtype": ["WT"], "mutant": ["Mutant", "MUT"]})


def table(**columns: list[str]) -> pd.DataFrame:
    rows = len(next(iter(columns.values())))
    return pd.DataFrame({"patient": [f"P{i + 1}" for i in range(rows)], **columns})


def test_classes():
    values = parse_endpoint("idh", SUBTYPE, table(IDH=["WT", " MUT", "", "Mutant", "NA", "[Unknown]"]), "patient")
    assert values.parts["code"].tolist() == [0, 1, -1, 1, -1, -1]
    assert values.columns() == {"idh": {"P1": 0, "P2": 1, "P4": 1}}
    assert values.summary() == {"kind": "subtype", "patients": 3, "classes": {"wildtype": 1, "mutant": 2}}


def test_a_declared_value_is_never_missing():
    endpoint = ClassEndpoint(kind="subtype", column="x", classes=["None", "Some"])
    assert parse_endpoint("x", endpoint, table(x=["None", "Some", "NA"]), "patient").parts["code"].tolist() == [
        0,
        1,
        -1,
    ]


def test_a_class_that_is_not_declared():
    rows = table(IDH=["WT", "mutant", "mutant", "mutated", "mutant"])
    with pytest.raises(DataError) as caught:
        parse_endpoint("idh", SUBTYPE, rows, "patient")
    message = str(caught.value)
    assert message.startswith(
        "endpoint 'idh': column 'IDH': 'mutant' for P2, 'mutant' for P3, 'mutated' for P4 and 1 more"
    )
    assert "'mutant': did you mean 'Mutant'?" in message


def test_survival():
    rows = table(days=["0", "10.5", "", "30", "NA", "7"], dead=["1", "0.0", "", "TRUE", "1", "[Not Available]"])
    values = parse_endpoint("os", OS, rows, "patient")
    nan = np.nan
    np.testing.assert_array_equal(values.parts["time"], [0, 10.5, nan, 30, nan, nan])
    np.testing.assert_array_equal(values.parts["event"], [1, 0, nan, 1, nan, nan])
    assert values.incomplete == [("P5", "has 'dead' but no 'days'"), ("P6", "has 'days' but no 'dead'")]
    assert values.columns() == {"os/time": {"P1": 0.0, "P2": 10.5, "P4": 30.0}, "os/event": {"P1": 1, "P2": 0, "P4": 1}}
    assert {type(value) for value in values.columns()["os/event"].values()} == {int}
    summary = values.summary()
    assert (summary["patients"], summary["events"], summary["incomplete"], summary["unit"]) == (3, 2, 2, "days")


@pytest.mark.parametrize(
    ("days", "dead", "message"),
    [
        ("-3", "1", "column 'days': '-3' for P2 is negative"),
        ("soon", "1", "column 'days': 'soon' for P2 is not a finite number"),
        ("inf", "1", "column 'days': 'inf' for P2 is not a finite number"),
        ("3", "2", "column 'dead': '2' for P2 is no event: events must be 0 or 1"),
        ("3", "Dead", "column 'dead': 'Dead' for P2 is no event"),
        ("3", "0.5", "column 'dead': '0.5' for P2 is no event"),
    ],
)
def test_impossible_survival(days, dead, message):
    with pytest.raises(DataError) as caught:
        parse_endpoint("os", OS, table(days=["1", days], dead=["0", dead]), "patient")
    assert message in str(caught.value)
    assert "endpoint 'os'" in str(caught.value)


def test_all_that_is_wrong_is_said_at_once():
    with pytest.raises(DataError) as caught:
        parse_endpoint("os", OS, table(days=["-1", "x", "-2"], dead=["2", "1", "0"]), "patient")
    for part in (
        "'-1' for P1, '-2' for P3 is negative",
        "'x' for P2 is not a finite",
        "'2' for P1 is no event",
        "recode",
    ):
        assert part in str(caught.value)


def test_columns_that_do_not_exist():
    with pytest.raises(DataError, match=r"endpoint 'os': .*no column 'days'(.|\n)*did you mean 'day'"):
        parse_endpoint("os", OS, table(day=["1"], dead=["1"]), "patient")
    with pytest.raises(DataError, match=r"no column 'IDH'"):
        parse_endpoint("idh", SUBTYPE, table(x=["1"]), "patient")


def test_nobody_has_a_value():
    with pytest.raises(DataError, match="no patient of 2 has a value"):
        parse_endpoint("idh", SUBTYPE, table(IDH=["", "NA"]), "patient")


def test_any_index_of_the_table_will_do():
    rows = table(days=["1", "-2", "3"], dead=["0", "1", "1"])
    rows.index = pd.Index(["a", "a", "b"])
    with pytest.raises(DataError, match="'-2' for P2 is negative"):
        parse_endpoint("os", OS, rows, "patient")
