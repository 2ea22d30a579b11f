"""Names that are no names of features: missing ones, rows of no gene, dates, versions of one Ensembl id, patterns."""

from collections import Counter
from datetime import date

import pytest

from foundation.cohort.reading.feature_names import (
    dates_among,
    is_no_gene,
    is_unnamed,
    left_out_by,
    match_names,
    unversioned,
)


@pytest.mark.parametrize("name", ["", " ", "NA", "nan", "?", "---", "Unnamed: 0", "<NA>"])
def test_no_name(name):
    assert is_unnamed(name)


@pytest.mark.parametrize("name", ["NAT1", "Unknown", "A", "0", "?|100130426", "Unnamed"])
def test_a_name(name):
    assert not is_unnamed(name)


STAR = ["N_unmapped", "N_multimapping", "N_noFeature", "N_ambiguous"]
HTSEQ = ["__no_feature", "__ambiguous", "__too_low_aQual", "__not_aligned", "__alignment_not_unique", "no_feature"]
FEATURE_COUNTS = ["Unassigned_NoFeatures", "Unassigned_MultiMapping", "Unassigned_Ambiguity", "*"]


@pytest.mark.parametrize("name", [*STAR, *HTSEQ, *FEATURE_COUNTS])
def test_rows_of_no_gene(name):
    assert is_no_gene(name)


@pytest.mark.parametrize(
    "name", ["GAPDH-like", "N_unmapped_gene", "NOFEATURE1", "Unassigned", "ERCC-00002", "N", "NRAS"]
)
def test_genes_all_the_same(name):
    assert not is_no_gene(name)


MADE_BY_A_SPREADSHEET = [
    *["1-Mar", "2-Sep", "01-Mar", "Mar-01", "MAR-2001", "1-MAR-22", "15-Sep-2019", "1-Dec", "4-Oct", "1/Mar"],
    *["2020-03-01", "2020-03-01 00:00:00", "2020-03-01T00:00:00", "3/1/2020", "03/01/20", "01.03.2020", "2022/03/04"],
    *[
        "1. Mrz",
        "01. März",
        "1-mars",
        "2-sept",
        "1-Dez",
        "1-Dic",
        "1-déc",
        "2-Set",
        "1-Mar.1",
        "1-Mar_2",
        "X1.Mar",
        "X2.Sep.1",
        "Mar-1",
    ],
]


@pytest.mark.parametrize("name", MADE_BY_A_SPREADSHEET)
def test_dates(name):
    assert dates_among(["TP53", name]) == [name]


@pytest.mark.parametrize(
    "name",
    [
        *["MARCH1", "MARCHF1", "SEPT2", "SEPTIN2", "DEC1", "MARC1", "SEP15", "Oct-4", "OCT4", "NOV", "HLA-A", "NKX2-1"],
        *["RP11-34P13.7", "50-00-0", "1.1.1.27", "1.14.13", "18:1/20:4", "chr1:0-10Mb", "1p", "miR-1-3p", "1-Marker"],
        *["2020-03", "12/5", "C18-1", "20-HETE", "5-Octanol", "1-Methylhistidine", "3-Mei-T"],
    ],
)
def test_no_dates(name):
    assert dates_among(["TP53", name]) == []


def test_days_as_numbers_of_a_spreadsheet():
    march, september = ((date(2020, month, 2) - date(1899, 12, 30)).days for month in (3, 9))
    assert (march, september) == (43892, 44076)
    assert dates_among(["TP53", "43892", "44076.0", "KRAS"]) == ["43892", "44076.0"]
    # Among Entrez ids, alone or beside symbols, such numbers are ids.
    assert dates_among(["43892", "44076"]) == []
    assert dates_among(["TP53", "7157", "1956", "43892", "100130426"]) == []
    # No gene is called after a day in January, or after the 29th of March.
    assert dates_among(["TP53", "43831", "43919"]) == []


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("ENSG00000141510.18", "ENSG00000141510"),
        ("ENSG00000141510", "ENSG00000141510"),
        ("ENSG00000182378.15_PAR_Y", "ENSG00000182378_PAR_Y"),
        ("ENSGR0000182378.10", "ENSG00000182378_PAR_Y"),
        ("ENSMUSG00000059552.14", "ENSMUSG00000059552"),
        ("ENST00000269305.9", "ENST00000269305"),
        ("ENSG00000141510.18|TP53", "ENSG00000141510|TP53"),
        ("TP53|ENSG00000141510.18", "TP53|ENSG00000141510"),
        ("RP11-34P13.7", "RP11-34P13.7"),
        ("ENSA.2", "ENSA.2"),
        ("AC093323.1", "AC093323.1"),
    ],
)
def test_versions(name, plain):
    assert unversioned(name) == plain


def test_names_are_matched_whole_first_and_by_id_where_nothing_else_fits():
    ids = [f"ENSG{n:011d}" for n in range(5)]
    wanted = [f"{ids[0]}.1", f"{ids[1]}.1", f"{ids[2]}.1", "TP53", f"{ids[3]}.1", f"{ids[4]}.7_PAR_Y"]
    here = ["TP53", f"{ids[1]}.2", f"{ids[0]}.1", f"{ids[0]}.2", f"{ids[2]}.2", f"{ids[2]}.3", ids[3], f"{ids[4]}.7"]
    assert match_names(wanted, here).tolist() == [2, 1, -1, 0, 6, -1]


def test_patterns_tell_what_they_match():
    remarks: Counter[str] = Counter()
    names = ["ERCC-1", "ERCC-2", "TP53", "mir-1", "MIR-1", "A[1]"]
    found = left_out_by(["ERCC-*", "mir-?", "A[[]1]", "HLA*"], names, remarks)
    assert found.tolist() == [True, True, False, True, False, True]
    assert remarks == {
        "features left out by leave_out_features: 'ERCC-*'": 2,
        "features left out by leave_out_features: 'mir-?'": 1,
        "features left out by leave_out_features: 'A[[]1]'": 1,
        "patterns of leave_out_features that match no feature: 'HLA*'": 1,
    }
