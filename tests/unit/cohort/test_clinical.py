"""The clinical table as text, and bad ones that are refused."""

import pandas as pd
import pytest

from foundation.cohort.clinical import ClinicalTable, read_clinical
from foundation.errors import DataError


def test_the_clinical_table_comes_as_text(tmp_path):
    path = tmp_path / "clinical.tsv"
    path.write_text("patient\tsite\tage\nP2 \t02\t44.0\nP1\tNA\t\n")
    frame = read_clinical(ClinicalTable(files=path.name, site="site"), path)
    expected = pd.DataFrame({"patient": ["P2", "P1"], "site": ["02", "NA"], "age": ["44.0", ""]})
    pd.testing.assert_frame_equal(frame, expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("patient\tsite\nP1\t1\nP2\t1\nP1\t2\n", "1 patient with several rows, first 'P1'"),
        ("patient\tsite\nP1\t1\n\t2\n", "line 3 has no 'patient'"),
        ("patients\tsite\nP1\t1\n", "did you mean 'patients'"),
        ("patient\tsiet\nP1\t1\n", "did you mean 'siet'"),
        ("patient\tsite\n", "holds no patient"),
        ("#patient\tsite\tage\nP1\t1\nP2\t2\n", "take the # away"),
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


def test_words_for_nothing_known_are_empty_in_the_whole_table(tmp_path):
    path = tmp_path / "clinical.csv"
    path.write_bytes(b"\xef\xbb\xbfpatient,site,age\r\nP1,?,44\r\nP2,Ulm,Unknown\r\n\r\n")
    frame = read_clinical(ClinicalTable(files=path.name, site="site", missing=["?", "unknown"]), path)
    assert frame.to_dict("list") == {"patient": ["P1", "P2"], "site": ["", "Ulm"], "age": ["44", ""]}
    path.write_text("patient,site,age\nP1,Ulm,44\n\n?,Ulm,45\n?,Ulm,46\n")
    with pytest.raises(DataError, match="line 4 has no 'patient', nor do 1 more"):
        read_clinical(ClinicalTable(files=path.name, missing=["?"]), path)


def test_blanks_around_a_site_make_no_other_site(tmp_path):
    path = tmp_path / "clinical.csv"
    path.write_text("patient,site,status\nP1,Ulm ,Dead\nP2,Ulm,\u00a0Alive\n")
    frame = read_clinical(ClinicalTable(files=path.name, site="site"), path)
    assert frame.to_dict("list") == {"patient": ["P1", "P2"], "site": ["Ulm", "Ulm"], "status": ["Dead", "Alive"]}


def test_only_a_column_that_is_read_must_be_the_only_one_of_its_name(tmp_path):
    path = tmp_path / "clinical.csv"
    path.write_text("patient,site,age,note,note,,\nP1,Ulm,44,x,y,,\n")
    frame = read_clinical(ClinicalTable(files=path.name, site="site"), path, ["age"])
    assert frame.to_dict("list") == {"patient": ["P1"], "site": ["Ulm"], "age": ["44"]}
    with pytest.raises(DataError, match="column 'note' appears 2 times"):
        read_clinical(ClinicalTable(files=path.name, site="site"), path, ["age", "note"])
    path.write_text("patient,site,site\nP1,Ulm,Bonn\n")
    with pytest.raises(DataError, match="column 'site' appears 2 times"):
        read_clinical(ClinicalTable(files=path.name, site="site"), path)
