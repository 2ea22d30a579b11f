import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundation.cohort.clinical import ClinicalTable, read_clinical
from foundation.cohort.endpoints import (
    ClassEndpoint,
    NumberEndpoint,
    SurvivalEndpoint,
    median_follow_up,
    parse_endpoint,
)
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


def test_events_that_compete():
    causes = {"cancer": ["Cancer", "1"], "other": "Other"}
    endpoint = SurvivalEndpoint(kind="survival", time="days", event="dead", unit="days", causes=causes)
    rows = table(days=["1", "2", "3", "4", ""], dead=["0", "cancer", "OTHER", "1", "0"])
    values = parse_endpoint("os", endpoint, rows, "patient")
    np.testing.assert_array_equal(values.parts["event"], [0, 1, 2, 1, np.nan])
    assert values.summary()["events"] == 3
    assert values.summary()["causes"] == {"cancer": 2, "other": 1}
    with pytest.raises(DataError, match="'2' for P2 is no declared cause"):
        parse_endpoint("os", endpoint, table(days=["1", "2"], dead=["0", "2"]), "patient")
    for wrong in ({"cancer": "1"}, {"cancer": "1", "other": "1"}, {"cancer": "1", "none": "0"}):
        with pytest.raises(ValueError, match="causes"):
            SurvivalEndpoint(kind="survival", time="days", event="dead", unit="days", causes=wrong)


def test_ordered_classes_keep_their_order():
    response = ClassEndpoint(kind="response", column="best", classes=["PD", "SD", "PR", "CR"])
    values = parse_endpoint("response", response, table(best=["CR", "PD", "SD"]), "patient")
    assert values.parts["code"].tolist() == [3, 0, 1]
    assert list(values.summary()["classes"]) == ["PD", "SD", "PR", "CR"]


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


def test_numbers():
    endpoint = NumberEndpoint(kind="regression", column="ic50", unit="µM")
    rows = table(ic50=["1.5", "-2", "NA", "4"])
    values = parse_endpoint("ic50", endpoint, rows, "patient")
    assert values.columns() == {"ic50": {"P1": 1.5, "P2": -2.0, "P4": 4.0}}
    expected = pd.Series([1.5, -2, 4])
    summary = values.summary()
    assert summary["mean"] == pytest.approx(expected.mean())
    assert summary["sd"] == pytest.approx(expected.std())
    assert (summary["min"], summary["max"], summary["unit"]) == (-2.0, 4.0, "µM")
    with pytest.raises(DataError, match="'high' for P1 is not a finite number"):
        parse_endpoint("ic50", endpoint, table(ic50=["high"]), "patient")
    assert parse_endpoint("ic50", endpoint, table(ic50=["3"]), "patient").summary()["sd"] is None


def test_any_index_of_the_table_will_do():
    rows = table(days=["1", "-2", "3"], dead=["0", "1", "1"])
    rows.index = pd.Index(["a", "a", "b"])
    with pytest.raises(DataError, match="'-2' for P2 is negative"):
        parse_endpoint("os", OS, rows, "patient")


def slow_median_follow_up(time: list[float], event: list[int]) -> float | None:
    """Reverse Kaplan-Meier by its definition; an event at the time of a censoring still counts as at risk."""
    left = 1.0
    for moment in sorted(set(time)):
        at_risk = sum(t >= moment for t in time)
        censored = sum(t == moment and not e for t, e in zip(time, event, strict=True))
        left *= 1 - censored / at_risk
        if left <= 0.5 + 1e-12:
            return moment
    return None


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 1)), min_size=1, max_size=25))
def test_median_follow_up_by_its_definition(pairs):
    time, event = ([float(p[0]) for p in pairs], [p[1] for p in pairs])
    found = median_follow_up(np.array(time), np.array(event))
    assert found == slow_median_follow_up(time, event)
    json.dumps(found)


def test_the_summary_is_json():
    values = parse_endpoint("os", OS, table(days=["1", "2", "5"], dead=["1", "0", "0"]), "patient")
    assert json.loads(json.dumps(values.summary()))["median_follow_up"] == 2.0


def test_the_clinical_table_comes_as_text(tmp_path):
    path = tmp_path / "clinical.tsv"
    path.write_text("patient\tsite\tage\nP2 \t02\t44.0\nP1\tNA\t\n")
    frame = read_clinical(ClinicalTable(files=path.name, site="site"), path)
    expected = pd.DataFrame({"patient": ["P2", "P1"], "site": ["02", "NA"], "age": ["44.0", ""]})
    pd.testing.assert_frame_equal(frame, expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("patient\tsite\nP1\t1\nP2\t1\nP1\t2\n", "1 patients appear twice, first 'P1'"),
        ("patient\tsite\nP1\t1\n\t2\n", "row 2 has no 'patient'"),
        ("patients\tsite\nP1\t1\n", "did you mean 'patients'"),
        ("patient\tsiet\nP1\t1\n", "did you mean 'siet'"),
        ("patient\tsite\n", "holds no patient"),
        ("", "the table is empty"),
        ("patient\tsite\nP1\t1\t2\n", "line 2 has 3 cells"),
    ],
)
def test_bad_clinical_tables(tmp_path, text, message):
    path = tmp_path / "clinical.tsv"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        read_clinical(ClinicalTable(files=path.name, site="site"), path)
    assert message in str(caught.value)
    assert "clinical.tsv" in str(caught.value)
