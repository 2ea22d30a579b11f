"""One file per sample and a sheet: joined values, what is missing, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from foundation.cohort.sources.per_sample import PerSampleConfig, PerSampleSource
from foundation.errors import ConfigError, DataError


def write(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(line.replace(" ", "\t") + "\n" for line in lines), encoding="utf-8")


def source(folder: Path, **keys: object) -> PerSampleSource:
    keys = {"sample": "sample", "file": "{id}/{name}"} | keys
    config = PerSampleConfig.model_validate({"format": "per_sample", "files": "sheet.tsv", **keys})
    return PerSampleSource(config, folder / "sheet.tsv")


def values(table: PerSampleSource, samples: list[str]) -> dict[str, list[float]]:
    opened = table.read(samples)
    filled = np.full((len(samples), len(opened.features)), -9.0)
    for block in opened.blocks:
        filled[block.samples, block.features] = block.values
    assert (filled != -9).all() | np.isnan(filled).any()
    return {feature: filled[:, place].tolist() for place, feature in enumerate(opened.features)}


EACH = {"format": "values", "feature": "gene", "value": "tpm"}


@pytest.fixture
def counts(tmp_path: Path) -> Path:
    write(tmp_path / "sheet.tsv", "id name kind sample", "a x.tsv rna S2", "b x.tsv rna S1", "c x.tsv other S3")
    write(tmp_path / "a" / "x.tsv", "gene n tpm", "N_unmapped 7 ", "TP53 1 2.5", "KRAS 2 NA")
    write(tmp_path / "b" / "x.tsv", "gene n tpm", "__no_feature 7 ", "KRAS 2 4", "EGFR 3 5")
    write(tmp_path / "c" / "x.tsv", "other")
    return tmp_path


def test_files_are_joined_by_feature(counts):
    table = source(counts, where={"kind": "rna"}, each=EACH)
    assert table.list_samples() == ["S2", "S1"]
    joined = values(table, ["S1", "S2"])
    np.testing.assert_array_equal(joined["TP53"], [np.nan, 2.5])
    np.testing.assert_array_equal(joined["KRAS"], [4, np.nan])
    np.testing.assert_array_equal(joined["EGFR"], [5, np.nan])
    assert list(joined) == ["KRAS", "EGFR", "TP53"]
    assert any("N_unmapped" in what for what in table.remarks)
    assert sorted(path.parent.name for path in table.companions) == ["a", "b"]


def test_without_a_header_columns_are_numbers(counts):
    for name in ("a", "b"):
        write(counts / name / "x.tsv", f"cg1 0.{ord(name)}", "cg2 0.5")
    table = source(counts, where={"kind": "rna"}, each=EACH | {"feature": 1, "value": 2, "header": False})
    assert values(table, ["S2", "S1"]) == {"cg1": pytest.approx([0.97, 0.98]), "cg2": [0.5, 0.5]}
    with pytest.raises(ConfigError, match="without a header"):
        source(counts, where={"kind": "rna"}, each=EACH | {"header": False}).read(["S1"])


def test_what_is_not_there_is_counted_or_refused(counts):
    (counts / "a" / "x.tsv").unlink()
    table = source(counts, where={"kind": "rna"}, each=EACH)
    assert table.list_samples() == ["S1"]
    assert table.remarks["files that the sheet names and that are not there"] == 1
    (counts / "b" / "x.tsv").unlink()
    with pytest.raises(DataError, match="none of the 2 files"):
        source(counts, where={"kind": "rna"}, each=EACH).list_samples()
    with pytest.raises(DataError, match="has no row where"):
        source(counts, where={"kind": "dna"}, each=EACH).list_samples()


def test_a_second_file_of_a_sample_is_left_out_with_a_word(counts):
    write(counts / "sheet.tsv", "id name kind sample", "b x.tsv rna S1", "a x.tsv rna S1")
    table = source(counts, each=EACH)
    assert values(table, ["S1"])["TP53"] == [2.5]
    assert table.remarks["further files of a sample that has one already, left out"] == 1


def test_words_of_where_may_be_patterns(counts):
    assert source(counts, where={"kind": "r*"}, each=EACH).list_samples() == ["S2", "S1"]


def test_a_bad_cell_is_told_with_its_file(counts):
    write(counts / "a" / "x.tsv", "gene n tpm", "TP53 1 many")
    with pytest.raises(DataError, match=r"a/x\.tsv.*'many' is not a finite number"):
        list(source(counts, where={"kind": "rna"}, each=EACH).read(["S2"]).blocks)


def test_variants_of_single_samples_are_one_table(tmp_path):
    head = "Hugo_Symbol Variant_Classification Tumor_Sample_Barcode"
    write(tmp_path / "sheet.tsv", "file,sample")
    sheet = ["file\tsample", "1.maf\tP1-10A, P1-01A", "2.maf\tP2-01A", "3.maf\tP3-10A, P3-01A"]
    (tmp_path / "sheet.tsv").write_text("\n".join(sheet) + "\n", encoding="utf-8")
    write(tmp_path / "1.maf", head, "IDH1 Missense_Mutation P1-01A-11D", "TP53 Silent P1-01A-11D")
    write(tmp_path / "2.maf", head, "TP53 Nonsense_Mutation P2-01A-11D")
    write(tmp_path / "3.maf", head)
    table = source(tmp_path, file="{file}", each={"format": "maf"})
    # Of two samples the one that the file names; of a file that names none, the first.
    assert table.list_samples() == ["P1-01A", "P2-01A", "P3-01A"]
    assert values(table, ["P1-01A", "P2-01A", "P3-01A"]) == {"IDH1": [1, 0, 0], "TP53": [0, 1, 0]}


def test_segments_of_single_samples_are_one_table(tmp_path):
    write(tmp_path / "sheet.tsv", "file sample", "1.seg S1", "2.seg S2")
    write(tmp_path / "1.seg", "Sample Chromosome Start End Segment_Mean", "x 1 1 124000000 0.5")
    write(tmp_path / "2.seg", "Sample Chromosome Start End Segment_Mean", "x 1 1 124000000 -1")
    table = source(tmp_path, file="{file}", each={"format": "segments", "genome": "hg19"})
    assert values(table, ["S2", "S1"])["1p"] == [-1, 0.5]


def test_a_template_without_a_column_is_refused(counts):
    with pytest.raises(ConfigError, match="names no column"):
        source(counts, file="x.tsv", each=EACH).list_samples()
