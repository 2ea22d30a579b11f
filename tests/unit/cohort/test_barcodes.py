"""Barcodes → patients: who is left out, and which of several samples of a patient counts."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from foundation.cohort.barcodes import PatientRule, shorter_names
from foundation.errors import DataError

TCGA = r"(?P<patient>TCGA-\w\w-\w{4})(-(?P<sample_type>\d\d)(?P<vial>[A-Z]))?"

OPEN = r"(?P<patient>TCGA-\w\w-\w{4})(-(?P<sample_type>\d\d)(?P<vial>[A-Z])?)?"
"""The same, for barcodes that may end before the vial."""


def rule(**changes) -> PatientRule:
    return PatientRule(**{"barcode": TCGA, "leave_out": ["10", "11", "12"], "primary": ["01", "03"], **changes})


def test_normals_are_left_out_and_strangers_named():
    samples = ["TCGA-AA-0001-01A", "TCGA-AA-0001-10A", "blank", "TCGA-AA-0002-11B"]
    found = rule().assign(samples, where="t.tsv")
    assert found.by_patient == {"TCGA-AA-0001": [0]}
    assert found.left_out == ["TCGA-AA-0001-10A", "TCGA-AA-0002-11B"]
    assert found.unmatched == ["blank"]


@pytest.mark.parametrize(
    ("samples", "chosen"),
    [
        (["02A", "01A"], "01A"),
        (["01B", "01A"], "01A"),
        (["06A", "02A"], "02A"),
        (["03A", "01B", "02A"], "01B"),
        (["02A", "06A", "03B"], "03B"),
        (["01A-21R", "01A-11R"], "01A-11R"),
    ],
    ids=str,
)
def test_primary_first_then_lowest_vial(samples, chosen):
    barcodes = [f"TCGA-AA-0001-{sample}" for sample in samples]
    found = rule().assign(barcodes, where="t")
    assert [barcodes[row] for row in found.by_patient["TCGA-AA-0001"]] == [f"TCGA-AA-0001-{chosen}"]


def test_the_vial_counts_wherever_it_stands():
    rule = PatientRule(barcode=r"(?P<patient>P\d)-\d-(?P<vial>[A-Z])")
    assert rule.assign(["P1-1-B", "P1-2-A"], where="t").by_patient == {"P1": [1]}


def test_the_mean_keeps_all_tumours():
    samples = [f"TCGA-AA-0001-{kind}" for kind in ("02A", "10A", "01A")]
    assert rule(several="mean").assign(samples, where="t").by_patient == {"TCGA-AA-0001": [2, 0]}


@given(st.permutations([f"TCGA-AA-000{n}-{kind}" for n in range(3) for kind in ("01A", "01B", "02A", "10A")]))
def test_the_choice_does_not_depend_on_the_order(samples):
    found = rule().assign(samples, where="t")
    assert list(found.by_patient) == sorted(found.by_patient)
    assert {samples[row] for rows in found.by_patient.values() for row in rows} == {
        f"TCGA-AA-000{n}-01A" for n in range(3)
    }


@pytest.mark.parametrize(
    ("samples", "one"),
    [
        (["01", "01A-11R-1234-07"], [0, 1]),
        (["01A-11R-1234-07", "01"], [1, 0]),
        (["01A", "01A-11R"], [0, 1]),
        (["01", "01A", "01A-11R"], [0, 1, 2]),
        (["01", "02A"], [0]),
        (["01A", "01B"], [0]),
        (["01B-11R", "01", "01A-11R"], [1, 2]),
        (["06", "06A", "01"], [2]),
        (["10A-01D", "01", "01A-11D"], [1, 2]),
    ],
    ids=str,
)
def test_a_sample_at_two_lengths_is_one(samples, one):
    found = rule(barcode=OPEN).assign([f"TCGA-AA-0001-{sample}" for sample in samples], where="t")
    assert found.by_patient == {"TCGA-AA-0001": one[:1]}
    assert found.same == ({one[0]: one[1:]} if one[1:] else {})


def test_the_mean_takes_a_sample_of_two_names_once():
    samples = [f"TCGA-AA-0001-{kind}" for kind in ("01", "02A", "01A-11R", "02A-11R", "06A")]
    found = rule(barcode=OPEN, several="mean").assign(samples, where="t")
    assert (found.by_patient, found.same) == ({"TCGA-AA-0001": [0, 1, 4]}, {0: [2], 1: [3]})


def test_other_people_and_other_numbers_are_no_longer_names():
    barcodes = ["P1", "P10", "P1B", "P100-01", "P10-T2", "P10-T"]
    assert PatientRule().assign(barcodes, where="t").same == {}
    assert shorter_names("P10-T2") == ["P10"]
    assert shorter_names("TCGA-AA-0001-01A-11R") == [
        "TCGA",
        "TCGA-AA",
        "TCGA-AA-0001",
        "TCGA-AA-0001-01",
        "TCGA-AA-0001-01A",
        "TCGA-AA-0001-01A-11",
    ]


def test_without_a_rule_a_sample_is_its_patient():
    assert PatientRule().assign(["B", "A"], where="t").by_patient == {"A": [1], "B": [0]}
    assert PatientRule().patient("anything") == "anything"
    assert rule().patient("anything") is None


def test_nothing_matches():
    with pytest.raises(DataError, match=re.escape("none of 2 barcodes matches")) as caught:
        rule().assign(["TP53", "EGFR"], where="rna.tsv")
    assert "orientation" in str(caught.value)
    assert rule().assign([], where="t").by_patient == {}


def test_a_sample_twice():
    with pytest.raises(DataError, match=r"rna\.tsv: 1 sample named more than once, first 'A'"):
        PatientRule().assign(["A", "B", "A"], where="rna.tsv")


@pytest.mark.parametrize(("barcode", "message"), [("(?P<patient>", "regular expression"), (".*", "no group")])
def test_bad_expressions(barcode, message):
    with pytest.raises(ValidationError, match=message):
        PatientRule(barcode=barcode)


# Case and separators


@pytest.mark.parametrize("written", ["tcga.02.0001.01a", "TCGA_02_0001_01A", " Tcga-02 0001-01A ", "TCGA-02-0001-01A"])
def test_barcodes_that_differ_in_case_and_separators_are_one(written):
    for normalise in (True, {"case": "upper", "separators": "-"}):
        found = rule(normalise=normalise)
        assert found.patient(written) == "TCGA-02-0001"
        assert found.assign([written, "tcga.02.0001.10a"], where="t").by_patient == {"TCGA-02-0001": [0]}


def test_only_what_is_asked_for_is_changed():
    assert PatientRule(normalise={"case": "lower"}).patient("A-b") == "a-b"
    assert PatientRule(normalise={"separators": "_"}).patient("A-b.c") == "A_b_c"
    assert PatientRule().patient("A-b.c") == "A-b.c"
    for wrong in ({"case": "title"}, {"separators": "/"}, {"cases": "upper"}):
        with pytest.raises(ValidationError):
            PatientRule(normalise=wrong)


def test_two_barcodes_that_become_one_are_refused_by_name():
    message = r"rna\.tsv: 'P_1' and 'P-1' are both 'P-1' after patients\.normalise"
    with pytest.raises(DataError, match=message):
        PatientRule(normalise=True).assign(["P_1", "P2", "P-1"], where="rna.tsv")
    assert PatientRule().assign(["P_1", "P-1"], where="rna.tsv").by_patient == {"P-1": [1], "P_1": [0]}


def test_blanks_around_a_barcode_are_none_of_it():
    rule = PatientRule()
    assert rule.patient(" P1\u00a0") == "P1"
    assert rule.assign([" P1", "P2 "], where="x").by_patient == {"P1": [0], "P2": [1]}
    with pytest.raises(DataError, match="'P1' and 'P1 ' are both 'P1'"):
        rule.assign(["P1", "P1 "], where="x")
