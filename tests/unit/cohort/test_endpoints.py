"""Values of endpoints: competing events, ordered classes, numbers, follow-up and the summary."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundation.cohort.endpoint_columns import parse_endpoint
from foundation.cohort.endpoints import ClassEndpoint, NumberEndpoint, SurvivalEndpoint, median_follow_up
from foundation.errors import DataError

OS = SurvivalEndpoint(kind="survival", time="days", event="dead", unit="days")


def table(**columns: list[str]) -> pd.DataFrame:
    rows = len(next(iter(columns.values())))
    return pd.DataFrame({"patient": [f"P{i + 1}" for i in range(rows)], **columns})


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
