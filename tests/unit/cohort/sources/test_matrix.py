"""Matrices in text and Parquet: what pandas reads, whichever way they lie, never whole in memory."""

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from foundation.cohort.reading import grids
from foundation.cohort.reading.cells import MISSING
from foundation.cohort.sources import matrix
from foundation.errors import DataError

BY_FEATURES = {"format": "matrix", "orientation": "features_by_samples"}
BY_SAMPLES = {"format": "matrix", "orientation": "samples_by_features"}


def numbers(features: int = 7, samples: int = 5, seed: int = 0) -> pd.DataFrame:
    """Features by samples, some missing."""
    generator = np.random.default_rng(seed)
    values = generator.normal(size=(features, samples)).round(4)
    values[generator.random(values.shape) < 0.2] = np.nan
    return pd.DataFrame(values, [f"G{i}" for i in range(features)], [f"S{i}" for i in range(samples)])


def write(frame: pd.DataFrame, path: Path) -> Path:
    if path.suffix == ".parquet":
        frame.rename_axis("id").to_parquet(path)
    else:
        frame.rename_axis("id").to_csv(path, sep="," if ".csv" in path.name else "\t", na_rep="NA")
    return path


@pytest.mark.parametrize("name", ["t.tsv", "t.csv", "t.txt", "t.tsv.gz", "t.csv.gz", "t.txt.gz", "t.parquet"])
@pytest.mark.parametrize("orientation", ["features_by_samples", "samples_by_features"])
def test_reads_what_pandas_reads(tmp_path, open_source, assemble, name, orientation):
    frame = numbers()
    path = write(frame if orientation == "features_by_samples" else frame.T, tmp_path / name)
    source = open_source(path, format="matrix", orientation=orientation)
    assert source.list_samples() == list(frame.columns)
    features, values = assemble(source)
    assert features == list(frame.index)
    np.testing.assert_array_equal(values, frame.T.to_numpy(np.float32))


@pytest.mark.parametrize("name", ["t.tsv", "t.parquet"])
@pytest.mark.parametrize("orientation", ["features_by_samples", "samples_by_features"])
def test_samples_come_in_the_order_asked_for(tmp_path, open_source, assemble, name, orientation):
    frame = numbers(features=4, samples=9)
    path = write(frame if orientation == "features_by_samples" else frame.T, tmp_path / name)
    wanted = ["S7", "S1", "S2", "S3", "S0", "S8"]
    features, values = assemble(open_source(path, format="matrix", orientation=orientation), wanted)
    assert features == list(frame.index)
    np.testing.assert_array_equal(values, frame[wanted].T.to_numpy(np.float32))


@pytest.mark.parametrize(
    ("orientation", "name"),
    [
        ("features_by_samples", "t.tsv"),
        ("samples_by_features", "t.tsv"),
        ("features_by_samples", "t.parquet"),
    ],
)
@pytest.mark.parametrize("rule", ["mean", "first"])
def test_small_pieces_give_the_same(tmp_path, open_source, assemble, monkeypatch, orientation, name, rule):
    frame = numbers(features=23, samples=11)
    frame.index = [f"G{i % 9}" for i in range(23)]
    flat = frame.T if orientation == "samples_by_features" else frame
    path = write(flat, tmp_path / name)
    source = open_source(path, format="matrix", orientation=orientation, duplicate_features=rule)
    whole = assemble(source)
    monkeypatch.setattr(grids, "PIECE_BYTES", 64)
    monkeypatch.setattr(grids, "BLOCK_VALUES", 22)
    monkeypatch.setattr(matrix, "BLOCK_VALUES", 22)
    pieces = list(source.read(source.list_samples()).blocks)
    assert len(pieces) > 3
    in_pieces = assemble(source)
    assert in_pieces[0] == whole[0]
    np.testing.assert_array_equal(in_pieces[1], whole[1])


def test_a_wide_table_is_never_whole_in_memory(tmp_path, open_source, monkeypatch):
    path = write(numbers(features=200, samples=300), tmp_path / "t.tsv")
    monkeypatch.setattr(grids, "PIECE_BYTES", 20_000)
    source = open_source(path, **BY_FEATURES)
    sizes = [block.values.size for block in source.read(source.list_samples()).blocks]
    assert max(sizes) <= 20_000
    assert sum(sizes) == 200 * 300


@pytest.mark.parametrize("word", sorted({*MISSING, " ", "Nan"}))
def test_missing_words(tmp_path, open_source, assemble, word):
    path = tmp_path / "t.tsv"
    path.write_text(f"gene\tA\tB\nTP53\t{word}\t0\n")
    _, values = assemble(open_source(path, **BY_FEATURES))
    np.testing.assert_array_equal(values, [[np.nan], [0]])


@pytest.mark.parametrize("text", ["1e-3", "+2.5", " 3 ", "-0", ".5", "7."])
def test_ways_to_write_a_number(tmp_path, open_source, assemble, text):
    path = tmp_path / "t.tsv"
    path.write_text(f"gene\tA\nTP53\t{text}\n")
    assert assemble(open_source(path, **BY_FEATURES))[1][0, 0] == np.float32(float(text))


@pytest.mark.parametrize("text", ["high", "1,5", "inf", "-Infinity", "1_000", "0x1F", "1e99"])
@pytest.mark.parametrize("name", ["t.tsv", "t.parquet"])
def test_text_among_numbers_is_refused_by_name(tmp_path, open_source, assemble, text, name):
    frame = pd.DataFrame({"A": ["1", "2"], "B": ["3", text]}, ["TP53", "EGFR"])
    path = write(frame, tmp_path / name)
    with pytest.raises(DataError, match=r"row 'EGFR', column 'B'") as caught:
        assemble(open_source(path, **BY_FEATURES))
    assert f"'{text}'" in str(caught.value)
    assert path.name in str(caught.value)


def test_infinity_in_parquet(tmp_path, open_source, assemble):
    path = write(pd.DataFrame({"A": [1.0, np.inf]}, ["TP53", "EGFR"]), tmp_path / "t.parquet")
    with pytest.raises(DataError, match="row 'EGFR', column 'A': 'inf' is not a finite number"):
        assemble(open_source(path, **BY_FEATURES))


def test_parquet_kinds_of_column(tmp_path, open_source, assemble):
    frame = pd.DataFrame(
        {
            "id": ["a", "b"],
            "int": pd.array([1, None], dtype="Int64"),
            "bool": [True, False],
            "category": pd.Categorical(["4", "NA"]),
            "double": [0.5, np.nan],
        }
    )
    frame.to_parquet(tmp_path / "t.parquet", index=False)
    features, values = assemble(open_source(tmp_path / "t.parquet", **BY_SAMPLES))
    assert features == ["int", "bool", "category", "double"]
    np.testing.assert_array_equal(values, [[1, 1, 4, 0.5], [np.nan, 0, np.nan, np.nan]])


def test_label_column_and_left_out_columns(tmp_path, open_source, assemble):
    path = tmp_path / "t.tsv"
    path.write_text("entrez\tsymbol\tA\tnote\tB\n1\tTP53\t0.5\tgood\t1\n2\tEGFR\t2\tbad\t3\n")
    source = open_source(path, **BY_FEATURES, feature_column="symbol", leave_out_columns=["entrez", "note"])
    assert source.list_samples() == ["A", "B"]
    features, values = assemble(source)
    assert features == ["TP53", "EGFR"]
    np.testing.assert_array_equal(values, [[0.5, 2], [1, 3]])


@pytest.mark.parametrize("option", [{"feature_column": "symbl"}, {"leave_out_columns": ["symbl"]}])
def test_a_column_that_does_not_exist(tmp_path, open_source, option):
    path = tmp_path / "t.tsv"
    path.write_text("symbol\tA\nTP53\t1\n")
    with pytest.raises(DataError, match=r"no column 'symbl'(.|\n)*did you mean 'symbol'"):
        open_source(path, **BY_FEATURES, **option).list_samples()


def test_the_label_column_must_fit_the_orientation(tmp_path, open_source):
    with pytest.raises(ValidationError, match="set feature_column"):
        open_source(tmp_path / "t.tsv", **BY_FEATURES, sample_column="patient")
    with pytest.raises(ValidationError, match="set sample_column"):
        open_source(tmp_path / "t.tsv", **BY_SAMPLES, feature_column="gene")
    with pytest.raises(ValidationError, match="orientation"):
        open_source(tmp_path / "t.tsv", format="matrix")


@pytest.mark.parametrize(
    "first", ["TP53\t0\t1\t0", "TP53\t1.5\t2.5\t-0.1", "TP53\t3\t1\tNA"], ids=["events", "floats", "missing"]
)
def test_a_table_without_a_header(tmp_path, open_source, first):
    path = tmp_path / "t.tsv"
    path.write_text(f"{first}\nEGFR\t1\t2\t3\n")
    with pytest.raises(DataError, match=r"no header(.|\n)*numeric_names"):
        open_source(path, **BY_FEATURES).list_samples()


def test_numeric_names_are_allowed_when_declared(tmp_path, open_source, assemble):
    path = tmp_path / "t.tsv"
    path.write_text("patient\t7157\t1956\nP1\t1\t0\n")
    features, values = assemble(open_source(path, **BY_SAMPLES, numeric_names=True))
    assert features == ["7157", "1956"]
    np.testing.assert_array_equal(values, [[1, 0]])


def test_a_feature_twice_is_an_error_that_names_the_fix(tmp_path, open_source):
    path = tmp_path / "t.tsv"
    path.write_text("gene\tA\nEGFR\t1\nTP53\t2\nTP53\t3\n")
    with pytest.raises(DataError, match=r"1 features? .*'TP53'(.|\n)*duplicate_features: mean"):
        open_source(path, **BY_FEATURES).read(["A"])
    path.write_text("id\tTP53\tEGFR\tTP53\nA\t1\t2\t3\n")
    with pytest.raises(DataError, match="'TP53'"):
        open_source(path, **BY_SAMPLES).read(["A"])


@pytest.mark.parametrize("orientation", ["features_by_samples", "samples_by_features"])
@pytest.mark.parametrize("rule", ["mean", "first"])
def test_several_rows_of_one_feature(tmp_path, open_source, assemble, orientation, rule):
    frame = numbers(features=12, samples=6, seed=3)
    frame.index = [f"G{i}" for i in (0, 1, 2, 1, 3, 4, 2, 2, 5, 0, 6, 2)]
    path = write(frame.T if orientation == "samples_by_features" else frame, tmp_path / "t.tsv")
    source = open_source(path, format="matrix", orientation=orientation, duplicate_features=rule)
    features, values = assemble(source)
    first = frame[~frame.index.duplicated()]
    expected = frame.groupby(level=0, sort=False).mean() if rule == "mean" else first
    assert features == list(expected.index)
    np.testing.assert_allclose(values, expected.T.to_numpy(), rtol=1e-6)


def test_a_sample_twice_is_left_to_the_patient_rule(tmp_path, open_source):
    path = tmp_path / "t.tsv"
    path.write_text("gene\tA\tA\nTP53\t1\t2\n")
    assert open_source(path, **BY_FEATURES).list_samples() == ["A", "A"]


def test_truncated_gzip(tmp_path, open_source, assemble):
    path = write(numbers(features=300, samples=50), tmp_path / "t.tsv.gz")
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(DataError, match=r"t\.tsv\.gz: the compressed file ends too early"):
        assemble(open_source(path, **BY_FEATURES))
    with pytest.raises(DataError, match="truncated"):
        open_source(path, **BY_SAMPLES).list_samples()


def test_damaged_and_false_gzip(tmp_path, open_source, assemble):
    path = write(numbers(features=300, samples=50), tmp_path / "t.tsv.gz")
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    path.write_bytes(damaged)
    with pytest.raises(DataError, match=r"gzip|UTF-8|cells|truncated|finite"):
        assemble(open_source(path, **BY_FEATURES))
    path.write_bytes(path.read_bytes()[:2] + b"no more")
    with pytest.raises(DataError, match="gzip"):
        open_source(path, **BY_FEATURES).list_samples()


def test_a_truncated_parquet_file(tmp_path, open_source):
    path = write(numbers(), tmp_path / "t.parquet")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"t\.parquet"):
        open_source(path, **BY_FEATURES).list_samples()


@pytest.mark.parametrize("text", ["", "\n", "  \n"])
def test_an_empty_file(tmp_path, open_source, text):
    path = tmp_path / "t.tsv"
    path.write_text(text)
    with pytest.raises(DataError, match="the table is empty"):
        open_source(path, **BY_FEATURES).list_samples()


def test_a_header_and_nothing_else(tmp_path, open_source):
    path = tmp_path / "t.tsv"
    path.write_text("gene\tA\tB\n")
    with pytest.raises(DataError, match="no features"):
        open_source(path, **BY_FEATURES).read(["A"])
    path.write_text("gene\n")
    with pytest.raises(DataError, match="one column"):
        open_source(path, **BY_FEATURES).list_samples()


def test_no_column_of_values(tmp_path, open_source):
    path = tmp_path / "t.tsv"
    path.write_text("gene\tnote\nTP53\tx\n")
    with pytest.raises(DataError, match="no column of values"):
        open_source(path, **BY_FEATURES, leave_out_columns=["note"]).list_samples()


@pytest.mark.parametrize("row", ["EGFR\t1", "EGFR\t1\t2\t3"])
def test_a_row_of_the_wrong_length(tmp_path, open_source, row):
    path = tmp_path / "t.tsv"
    path.write_text(f"gene\tA\tB\nTP53\t1\t2\n{row}\n")
    with pytest.raises(DataError, match=r"line 3 has \d cells, the header has 3"):
        open_source(path, **BY_FEATURES).read(["A"])


ROWS = [
    ("N_unmapped", "", "9\t9"),
    ("ERCC-1", "", "bad\tcell"),
    ("TP53", "7157", "1\t2"),
    ("", "100130426", "3\tNA"),
    ("", "100133144", "5\t6"),
    ("A1CF", "29974", "1\t3"),
    ("A1CF", "29974", "3\tNA"),
    ("?", "", "8\t8"),
]


def write_rows(path: Path, orientation: str, names: list[str]) -> Path:
    cells = [row[2].split("\t") for row in ROWS]
    if orientation == "features_by_samples":
        lines = [["gene", "id", "A", "B"], *([n, row[1], *c] for n, row, c in zip(names, ROWS, cells, strict=True))]
    else:
        lines = [["sample", *names], *([s, *(c[i] for c in cells)] for i, s in enumerate("AB"))]
    path.write_text("".join("\t".join(line) + "\n" for line in lines))
    return path


@pytest.mark.parametrize("orientation", ["features_by_samples", "samples_by_features"])
@pytest.mark.parametrize(("rule", "a1cf"), [("mean", [2, 3]), ("first", [1, 3])])
@pytest.mark.parametrize("block_values", [10**6, 2])
def test_what_is_no_feature_is_left_out_and_told(
    tmp_path, open_source, assemble, monkeypatch, orientation, rule, a1cf, block_values
):
    monkeypatch.setattr(matrix, "BLOCK_VALUES", block_values)
    path = write_rows(tmp_path / "t.tsv", orientation, [row[0] for row in ROWS])
    given = {"leave_out_columns": ["id"]} if orientation == "features_by_samples" else {}
    source = open_source(
        path,
        format="matrix",
        orientation=orientation,
        duplicate_features=rule,
        leave_out_features=["ERCC*", "MT-*"],
        **given,
    )
    features, values = assemble(source)
    assert features == ["TP53", "A1CF"]
    np.testing.assert_array_equal(values, np.array([[1, 2], a1cf]).T)
    assert source.remarks == {
        "features without a name, left out": 3,
        "rows that count reads of no gene, such as 'N_unmapped', left out": 1,
        f"features that appear more than once, of which the {rule} is used": 1,
        "features left out by leave_out_features: 'ERCC*'": 1,
        "patterns of leave_out_features that match no feature: 'MT-*'": 1,
    }


@pytest.mark.parametrize("name", ["t.tsv", "t.parquet"])
def test_features_named_by_the_next_column(tmp_path, open_source, assemble, name):
    path = write_rows(tmp_path / "t.tsv", "features_by_samples", [row[0] for row in ROWS])
    if name == "t.parquet":
        frame = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False).replace({"gene": {"": None}})
        path = tmp_path / name
        frame.to_parquet(path, index=False)
    source = open_source(
        path, **BY_FEATURES, feature_column=["gene", "id"], duplicate_features="first", leave_out_features=["ERCC*"]
    )
    assert source.list_samples() == ["A", "B"]
    features, values = assemble(source)
    assert features == ["TP53", "100130426", "100133144", "A1CF"]
    np.testing.assert_array_equal(values, [[1, 3, 5, 1], [2, np.nan, 6, 3]])
    assert source.remarks["features without a name, left out"] == 1


def test_features_without_a_name_may_be_an_error(tmp_path, open_source):
    path = tmp_path / "t.tsv"
    path.write_text("gene\tA\nTP53\t1\n\t2\n")
    with pytest.raises(DataError, match=r"feature 2 has no name(.|\n)*unnamed_features: leave_out"):
        open_source(path, **BY_FEATURES, unnamed_features="error").read(["A"])
    path.write_text("gene\tA\n\t1\n\t2\n")
    with pytest.raises(DataError, match="the table has no features"):
        open_source(path, **BY_FEATURES).read(["A"])


@pytest.mark.parametrize("rule", ["error", "mean", "first"])
def test_dates_are_never_made_one(tmp_path, open_source, assemble, rule):
    path = tmp_path / "t.csv"
    path.write_text("gene,A\nTP53,1\n1-Mar,4\n2-Sep,5\n1-Mar,400\n")
    with pytest.raises(DataError, match=r"1 features are named by a date(.|\n)*spreadsheet(.|\n)*\['1-Mar'\]"):
        open_source(path, **BY_FEATURES, duplicate_features=rule).read(["A"])
    source = open_source(path, **BY_FEATURES, duplicate_features=rule, leave_out_features=["1-Mar"])
    assert assemble(source)[0] == ["TP53", "2-Sep"]
    told = [text for text in source.remarks if "date" in text and "spreadsheet" in text and "'2-Sep'" in text]
    assert len(told) == 1


@pytest.mark.parametrize("orientation", ["features_by_samples", "samples_by_features"])
def test_two_versions_of_a_gene_in_one_file(tmp_path, open_source, assemble, orientation):
    names = ["ENSG00000141510.14", "ENSG00000141510.15", "ENSG00000182378.15", "ENSG00000182378.15_PAR_Y"]
    frame = pd.DataFrame([[1.0, np.nan], [np.nan, 2.0], [3.0, 4.0], [0.0, 0.0]], names, ["A", "B"])
    path = write(frame if orientation == "features_by_samples" else frame.T, tmp_path / "t.tsv")
    with pytest.raises(DataError, match=r"first 'ENSG00000141510' \(in the Ensembl versions .*\.14, .*\.15\)"):
        open_source(path, format="matrix", orientation=orientation).read(["A"])
    source = open_source(path, format="matrix", orientation=orientation, duplicate_features="mean")
    features, values = assemble(source)
    assert features == ["ENSG00000141510", *names[2:]]
    np.testing.assert_array_equal(values, [[1, 3, 0], [2, 4, 0]])
    assert source.remarks["features in several Ensembl versions, made one under the id without a version"] == 1


def test_not_text(tmp_path, open_source):
    path = tmp_path / "t.tsv"
    path.write_bytes("gene\tMüller\nTP53\t1\n".encode("latin-1"))
    with pytest.raises(DataError, match="UTF-8"):
        open_source(path, **BY_FEATURES).list_samples()


def test_a_missing_file_names_its_neighbour(tmp_path, open_source):
    write(numbers(), tmp_path / "rna.tsv")
    with pytest.raises(DataError, match=r"no such file(.|\n)*did you mean 'rna\.tsv'"):
        open_source(tmp_path / "rnaa.tsv", **BY_FEATURES).list_samples()
    (tmp_path / "t.xlsx").write_text("x")
    with pytest.raises(DataError, match=r"suffix '\.xlsx'"):
        open_source(tmp_path / "t.xlsx", **BY_FEATURES).list_samples()


def test_an_unknown_sample(tmp_path, open_source):
    path = write(numbers(), tmp_path / "t.tsv")
    with pytest.raises(DataError, match="no sample 'S99'"):
        open_source(path, **BY_FEATURES).read(["S99"])


def test_quotes_blank_lines_and_line_ends(tmp_path, open_source, assemble):
    path = tmp_path / "t.csv"
    path.write_bytes(b'\xef\xbb\xbf"gene","A, left",B\r\n"HLA-A, long",1,"2"\r\n\r\nTP53,3,NA\r\n')
    source = open_source(path, **BY_FEATURES)
    assert source.list_samples() == ["A, left", "B"]
    features, values = assemble(source)
    assert features == ["HLA-A, long", "TP53"]
    np.testing.assert_array_equal(values, [[1, 3], [2, np.nan]])


def test_no_line_end_at_the_end(tmp_path, open_source, assemble):
    path = tmp_path / "t.tsv"
    path.write_text("gene\tA\nTP53\t1\nEGFR\t2")
    assert assemble(open_source(path, **BY_FEATURES))[0] == ["TP53", "EGFR"]


cells = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False, width=32).map(repr),
    st.integers(-(10**6), 10**6).map(str),
    st.sampled_from(MISSING),
)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), columns=st.integers(1, 6), rows=st.integers(1, 8), piece=st.integers(8, 200))
def test_any_table_is_read_as_python_reads_it(tmp_path, open_source, assemble, data, columns, rows, piece):
    table = [[data.draw(cells) for _ in range(columns)] for _ in range(rows)]
    path = tmp_path / "t.tsv.gz"
    lines = ["\t".join(["id", *(f"S{i}" for i in range(columns))])]
    lines += ["\t".join([f"G{i}", *row]) for i, row in enumerate(table)]
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grids, "PIECE_BYTES", piece)
        _, values = assemble(open_source(path, **BY_FEATURES))
    expected = [[np.nan if cell in MISSING else float(cell) for cell in row] for row in table]
    np.testing.assert_array_equal(values, np.array(expected, dtype=np.float32).T)
