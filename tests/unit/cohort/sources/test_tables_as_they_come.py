"""Tables as R, spreadsheets, browsers and aligners write them: read right and told, or refused by name."""

from __future__ import annotations

import codecs
import gzip
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from foundation.cohort.barcodes import PatientRule
from foundation.cohort.reading import lines
from foundation.cohort.reading.feature_names import dates_among
from foundation.cohort.reading.tables import read_frames
from foundation.errors import DataError

BY_FEATURES = {"format": "matrix", "orientation": "features_by_samples"}
BY_SAMPLES = {"format": "matrix", "orientation": "samples_by_features"}
TABLE = "gene\tP1\tP2\tP3\nTP53\t1.5\t2\t3\nKRAS\t4\t5\t6\n"
VALUES = [[1.5, 4], [2, 5], [3, 6]]
MAF = "Hugo_Symbol\tVariant_Classification\tTumor_Sample_Barcode\n"


@pytest.mark.parametrize(
    "text",
    [
        TABLE.removeprefix("gene\t"),
        '"P1"\t"P2"\t"P3"\n"TP53"\t1.5\t2\t3\n"KRAS"\t4\t5\t6\n',
        "#" + TABLE,
        "# made by a script\n# gene" + TABLE.removeprefix("gene"),
        '"#gene"' + TABLE.removeprefix("gene"),
        "#1.2\n2\t3\n" + TABLE,
        TABLE + "   \n\t\t\t\n\t\t\t\n",
        TABLE.replace("\n", "\t\t\n"),
        TABLE.replace("P2", " P2\u00a0").replace("KRAS", "KRAS "),
    ],
    ids=["R", "R with quotes", "hash", "hash and blank", "quoted hash", "GCT", "empty rows", "empty columns", "blanks"],
)
def test_features_by_samples(tmp_path, open_source, assemble, text):
    (tmp_path / "t.tsv").write_text(text)
    source = open_source(tmp_path / "t.tsv", **BY_FEATURES)
    assert [sample.strip() for sample in source.list_samples()] == ["P1", "P2", "P3"]
    features, values = assemble(source)
    assert features == ["TP53", "KRAS"]
    np.testing.assert_array_equal(values, VALUES)


@pytest.mark.parametrize(
    "head", ["TP53\tKRAS\n", "#sample\tTP53\tKRAS\n", "\tTP53\tKRAS\t\n"], ids=["R", "hash", "empty column"]
)
def test_samples_by_features(tmp_path, open_source, assemble, head):
    tab = "\t" if head.endswith("\t\n") else ""
    rows = f"P1\t1.5\t4{tab}\nP2\t2\t5{tab}\nP3\t3\t6{tab}\n\t\t{tab}\n\t\t{tab}\n"
    (tmp_path / "t.tsv").write_text(head + rows)
    source = open_source(tmp_path / "t.tsv", **BY_SAMPLES)
    assert source.list_samples() == ["P1", "P2", "P3"]
    features, values = assemble(source)
    assert features == ["TP53", "KRAS"]
    np.testing.assert_array_equal(values, VALUES)


def test_a_short_header_is_told(tmp_path, open_source):
    (tmp_path / "t.tsv").write_text(TABLE.removeprefix("gene\t"))
    source = open_source(tmp_path / "t.tsv", **BY_FEATURES)
    source.list_samples()
    assert "as R writes" in next(iter(source.remarks))


@pytest.mark.parametrize(
    "text",
    [
        "gene\tP1\tP2\nTP53\t1\t2\t3\nKRAS\t4\t5\t6\n",
        "P1\tP2\nTP53\t1\t2\t\nKRAS\t4\t5\t\n",
        "P1\tP2\nTP53\t1\t2\nKRAS\t4\t5\t6\n",
    ],
    ids=["the name of the last column is missing", "an empty last cell", "one row"],
)
def test_other_short_headers_are_refused(tmp_path, open_source, text):
    (tmp_path / "t.tsv").write_text(text)
    with pytest.raises(DataError, match="cells, the header has"):
        open_source(tmp_path / "t.tsv", **BY_FEATURES).read(["P1"])


def test_two_features_that_differ_by_a_blank_are_one(tmp_path, open_source):
    (tmp_path / "t.tsv").write_text(TABLE + "KRAS \t7\t8\t9\n")
    with pytest.raises(DataError, match="appear more than once, first 'KRAS'"):
        open_source(tmp_path / "t.tsv", **BY_FEATURES).read(["P1"])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.tsv", codecs.BOM_UTF16_LE + TABLE.encode("utf-16-le")),
        ("t.tsv", codecs.BOM_UTF16_BE + TABLE.encode("utf-16-be")),
        ("t.tsv.gz", TABLE.encode()),
        ("t.tsv", gzip.compress(TABLE.encode())),
        ("t.tsv.bgz", gzip.compress(TABLE[:20].encode()) + gzip.compress(TABLE[20:].encode())),
    ],
    ids=["UTF-16", "UTF-16 BE", "unpacked by a browser", "packed", "blocks"],
)
def test_encodings_and_packing(tmp_path, open_source, assemble, monkeypatch, name, content):
    monkeypatch.setattr(lines, "PIECE_BYTES", 7)
    (tmp_path / name).write_bytes(content)
    assert assemble(open_source(tmp_path / name, **BY_FEATURES))[1].tolist() == VALUES
    frames = list(read_frames(tmp_path / name))
    assert list(frames[0].columns) == ["gene", "P1", "P2", "P3"]
    assert sum(map(len, frames)) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04" + bytes(100), "Excel workbook"),
        (b"\xd0\xcf\x11\xe0" + bytes(100), "Excel workbook"),
        ("gene,note,P1\nTP53,é,1\n".encode("latin-1"), "not text in UTF-8"),
        (b'gene,note,P1\nTP53,"a,1\n' + b"KRAS,b,2\n" * 30_000, "a quote is never closed"),
    ],
    ids=["xlsx", "xls", "Latin-1 below the header", "an open quote and 270 kB"],
)
def test_what_is_refused_by_name(tmp_path, open_source, content, message):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        open_source(tmp_path / "t.csv", **BY_FEATURES, leave_out_columns=["note"]).read(["P1"])


def test_a_long_quoted_cell(tmp_path, open_source, assemble):
    (tmp_path / "t.csv").write_text(f'gene,note,P1\nTP53,"{"x, " * 50_000}",1\n')
    assert assemble(open_source(tmp_path / "t.csv", **BY_FEATURES, leave_out_columns=["note"]))[1].tolist() == [[1]]


@pytest.mark.parametrize("column", [pa.array([[1]]), pa.array([{"a": 1}]), pa.array([1], pa.duration("s"))])
def test_columns_of_parquet_that_are_no_numbers(tmp_path, open_source, assemble, column):
    pq.write_table(pa.table({"id": ["P1"], "TP53": column}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"column 'TP53' holds .* neither text nor a number"):
        assemble(open_source(tmp_path / "t.parquet", **BY_SAMPLES))
    with pytest.raises(DataError, match="column 'TP53' holds"):
        list(read_frames(tmp_path / "t.parquet"))


def hits(source, assemble) -> dict[str, list[str]]:
    samples = source.list_samples()
    features, values = assemble(source)
    return {
        sample: [g for g, v in zip(features, row, strict=True) if v]
        for sample, row in zip(samples, values, strict=True)
    }


@pytest.mark.parametrize(
    "text",
    [
        "#" + MAF + "TP53\tSilent\tP1\nKRAS\tMissense_Mutation\tP2\n",
        MAF + "TP53\tSilent\tP1\n" + MAF + "KRAS \tMissense_Mutation\tP2 \n\t\t\n\t\t\n",
        MAF + "1\tTP53\tSilent\tP1\n2\tKRAS\tMissense_Mutation\tP2\n",
        '"#version 2.4"\n' + MAF + "TP53\tSilent\tP1\nKRAS\tMissense_Mutation\tP2\n",
    ],
    ids=["hash", "joined, blanks, empty rows", "R", "quoted comment"],
)
def test_maf(tmp_path, open_source, assemble, text):
    (tmp_path / "m.maf").write_text(text)
    assert hits(open_source(tmp_path / "m.maf", format="maf"), assemble) == {"P1": [], "P2": ["KRAS"]}


@pytest.mark.parametrize(
    "listed",
    ["P1,P2,P3\n", "SAMPLE_ID\tmutations\nP1\tA\nP3\tB\n", "# who\nP1\nP3\n", '"P1"\n"P3"\n', "P1 P3"],
    ids=["commas", "panels", "comment", "quotes", "one line"],
)
def test_lists_of_the_sequenced(tmp_path, open_source, assemble, listed):
    (tmp_path / "m.maf").write_text(MAF + "TP53\tSilent\tP1\nKRAS\tMissense_Mutation\tP2\n")
    (tmp_path / "who.txt").write_text(listed)
    source = open_source(tmp_path / "m.maf", format="maf", sequenced="who.txt")
    assert hits(source, assemble) == {"P1": [], "P2": ["KRAS"], "P3": []}


def per_sample(tmp_path: Path, text: str) -> Path:
    (tmp_path / "sheet.tsv").write_text("file\tsample\na.tab\tP1\n")
    (tmp_path / "a.tab").write_text(text)
    return tmp_path / "sheet.tsv"


def test_files_without_a_header_whose_first_line_repeats_a_value(tmp_path, open_source, assemble):
    sheet = per_sample(tmp_path, "N_unmapped\t5\t5\t5\nENSG1\t7\t3\t4\nENSG2\t8\t3\t5\n")
    each = {"format": "values", "header": False, "feature": "1", "value": "2"}
    source = open_source(sheet, format="per_sample", file="{file}", sample="sample", each=each)
    features, values = assemble(source)
    assert (features, values.tolist()) == (["ENSG1", "ENSG2"], [[7, 8]])


@pytest.mark.parametrize(
    ("second", "told"), [((1, 100), 1), ((40, 140), 1), ((100, 200), 0), ((95, 200), 0), ((101, 200), 0)]
)
def test_overlapping_segments_are_told(tmp_path, open_source, assemble, second, told):
    head = "Sample\tChromosome\tStart\tEnd\tSegment_Mean\n"
    (tmp_path / "s.seg").write_text(head + f"P1\t1\t1\t100\t1\nP1\t1\t{second[0]}\t{second[1]}\t2\nP2\t1\t1\t100\t1\n")
    source = open_source(tmp_path / "s.seg", format="segments", genome="hg19")
    assemble(source)
    assert sum(n for what, n in source.remarks.items() if "mostly lie in another" in what) == told
    sheet = per_sample(tmp_path, (tmp_path / "s.seg").read_text())
    joined = open_source(
        sheet, format="per_sample", file="{file}", sample="sample", each={"format": "segments", "genome": "hg19"}
    )
    assemble(joined)
    assert sum(n for what, n in joined.remarks.items() if "mostly lie in another" in what) >= told


@pytest.mark.parametrize("name", ["September 2", "Sept 2", "2022/9/2", "Sep 2, 2022", "Friday, September 2, 2022"])
def test_more_dates(name):
    assert dates_among(["TP53", name]) == [name]


def test_blanks_and_another_spelling_of_barcodes():
    rule = PatientRule(barcode=r"(?P<patient>TCGA-\w\w-\w{4})$")
    assert rule.patient(" TCGA-AA-0001\u00a0") == "TCGA-AA-0001"
    with pytest.raises(DataError, match=r"patients\.normalise: true"):
        rule.assign(["tcga.aa.0001"], where="t.tsv")
