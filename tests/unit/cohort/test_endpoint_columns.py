"""Endpoints read from columns of a clinical table; impossible values are refused by name."""

import numpy as np
import pandas as pd
import pytest

from foundation.cohort.endpoint_columns import parse_endpoint, parse_endpoints
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
        "endpoint 'idh': column 'IDH': 'mutant' for P2 and 2 more, 'mutated' for P4 is no declared class"
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
        ("3", "2", "column 'dead': '2' for P2 is no event that is known"),
        ("3", "Died", "column 'dead': 'Died' for P2 is no event"),
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
        "`happened`",
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


# Events as portals and programs write them


def events(words: list[str], **told) -> list[float]:
    endpoint = SurvivalEndpoint(kind="survival", time="days", event="dead", unit="days", **told)
    rows = table(days=["1"] * len(words), dead=words)
    return [
        None if np.isnan(event) else event for event in parse_endpoint("os", endpoint, rows, "patient").parts["event"]
    ]


@pytest.mark.parametrize(
    ("happened", "censored"),
    [
        ("1:DECEASED", "0:LIVING"),
        ("1:Recurred/Progressed", "0:DiseaseFree"),
        ("1:PROGRESSION", "0:CENSORED"),
        ("1:DEAD WITH TUMOR", "0:ALIVE OR DEAD TUMOR FREE"),
        ("1: deceased", "0 : Living"),
        ("DECEASED", "LIVING"),
        ("Dead", "Alive"),
        ("TRUE", "FALSE"),
        ("1.0", "0.0"),
        ("1e0", "0"),
    ],
)
def test_what_portals_write_is_known(happened, censored):
    assert events([happened, censored, "", "[Not Available]", happened]) == [1, 0, None, None, 1]


@pytest.mark.parametrize("word", ["0:DECEASED", "1:LIVING", "2:DECEASED", "2", "Yes", "lost", "1.5"])
def test_what_is_not_plain_is_refused_and_nothing_that_corrupts_is_advised(word):
    with pytest.raises(DataError) as caught:
        events(["0", word])
    assert f"'{word}' for P2 is no event" in str(caught.value)
    assert "causes" not in str(caught.value)


def test_what_the_gdc_writes_where_nobody_knows_is_missing_unless_the_yaml_says_otherwise():
    assert events(["Dead", "Unknown", "unknown", "Not Reported", "Alive", "'--"]) == [1, None, None, None, 0, None]
    assert events(["Dead", "Unknown", "Alive"], censored=["unknown", "alive"]) == [1, 0, 0]


def test_r_codes_1_for_censored_and_2_for_an_event():
    assert events(["1", "2", "2.0", "NA"], happened=[2], censored=[1]) == [0, 1, 1, None]
    with pytest.raises(DataError, match=r"'2' for P1 and 1 more(.|\n)*`censored: \[1\]` and `happened: \[2\]`"):
        events(["2", "1", "2"])
    # One key alone must not leave R's other number to its usual meaning.
    for told, unknown in (({"happened": [2]}, "'1' for P1"), ({"censored": [1]}, "'2' for P2")):
        with pytest.raises(DataError, match=unknown):
            events(["1", "2"], **told)


def test_words_for_events_in_whatever_case_and_what_they_leave_as_it_was():
    told = {"happened": ["Relapse", "died"], "censored": "NED", "missing": ["?", -9]}
    assert events(["relapse", "DIED", "ned", "?", "-9.0", "1:DECEASED", "0:LIVING"], **told) == [
        1,
        1,
        0,
        None,
        None,
        1,
        0,
    ]
    assert events(["0", "Relapse"], happened=["relapse"]) == [0, 1]
    assert events(["0", "1"], happened=[0], censored=[1]) == [1, 0]


def test_censored_beside_causes():
    causes = {"cancer": ["Cancer"], "other": ["Other", "1"]}
    words = ["cancer", "0:LIVING", "lost", "1", "Alive"]
    assert events(words, causes=causes, censored=["Lost", "alive"]) == [1, 0, 0, 2, 0]
    with pytest.raises(DataError, match="'1:DECEASED' for P1 is no declared cause"):
        events(["1:DECEASED", "Cancer"], causes=causes)


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"happened": ["2"], "censored": [2.0]}, "'2.0' is listed under both `happened` and `censored`"),
        ({"happened": ["x"], "missing": ["X"]}, "'X' is listed under both `happened` and `missing`"),
        ({"happened": ["0:LIVING"]}, "'0:LIVING' under `happened` says the opposite"),
        ({"censored": ["Dead"]}, "'Dead' under `censored` says the opposite"),
        (
            {"causes": {"dead": ["1:DECEASED"], "living": ["0:LIVING"]}},
            "'0:LIVING' under the cause 'living'(.|\n)*censored",
        ),
        ({"causes": {"a": ["A"], "b": ["B"]}, "happened": ["A"]}, "leave out `happened`"),
        ({"causes": {"a": ["A"], "b": ["B"]}, "censored": ["a"]}, "'a' is listed under both"),
    ],
)
def test_words_with_two_meanings_are_refused_before_anything_is_read(told, message):
    with pytest.raises(ValueError, match=message):
        SurvivalEndpoint(kind="survival", time="days", event="dead", unit="days", **told)


# Classes


def classes(declared, words, **told) -> list[int]:
    endpoint = ClassEndpoint(kind="response", column="x", classes=declared, **told)
    return parse_endpoint("x", endpoint, table(x=words), "patient").parts["code"].tolist()


def test_numbers_and_truth_values_are_classes_however_they_are_written():
    assert classes([1, 2], ["1.0", "2.0", "", "1", "2e0"]) == [0, 1, -1, 0, 1]
    assert classes([1.0, 2.0], ["1", "2"]) == [0, 1]
    assert classes([False, True], ["TRUE", "false", "True"]) == [1, 0, 1]
    assert classes({"low": [1, 2], "high": 3}, ["2.0", "3.0"]) == [0, 1]
    with pytest.raises(DataError, match="'01' for P1 is no declared class"):
        classes([1, 2], ["01", "1"])


def test_words_for_nothing_known():
    assert classes(["PD", "CR"], ["PD", "NE", "ne", "?", "CR"], missing=["NE", "?"]) == [0, -1, -1, -1, 1]
    for wrong in ({"missing": ["pd"]}, {"missing": ["NE", "CR"]}):
        with pytest.raises(ValueError, match="listed under both `classes` and `missing`"):
            classes(["PD", "CR"], ["PD"], **wrong)
    with pytest.raises(ValueError, match="under both the class 'a' and the class 'b'"):
        classes({"a": [1], "b": [1.0]}, ["1"])
    with pytest.raises(ValueError, match="put it in quotes"):
        classes({"a": None, "b": "B"}, ["B"])


def test_missing_numbers_of_times():
    endpoint = SurvivalEndpoint(kind="survival", time="days", event="dead", unit="days", missing=[-9, "unk"])
    rows = table(days=["5", "-9.0", "UNK"], dead=["1", "0", "0"])
    values = parse_endpoint("os", endpoint, rows, "patient")
    np.testing.assert_array_equal(values.parts["time"], [5, np.nan, np.nan])
    assert [who for who, _ in values.incomplete] == ["P2", "P3"]


def test_unknown_values_of_all_endpoints_are_said_at_once():
    rows = table(IDH=["WT", "wt", "wt"], days=["1", "2", "x"], dead=["0", "1", "2"])
    with pytest.raises(DataError) as caught:
        parse_endpoints({"idh": SUBTYPE, "os": OS}, rows, "patient")
    for part in (
        "endpoint 'idh': column 'IDH': 'wt' for P2 and 1 more",
        "endpoint 'os': column 'days': 'x'",
        "column 'dead': '2'",
    ):
        assert part in str(caught.value)
    assert parse_endpoints({}, rows, "patient") == {}
