"""Omics tables staged on disk: the rows of the table, made anew where anything changed, nothing left half done."""

import errno
import hashlib
import os
import pickle
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import foundation.cohort.sources  # noqa: F401
from foundation.cohort import staging
from foundation.cohort.barcodes import PatientRule
from foundation.cohort.reading import grids
from foundation.cohort.sources.base import TableSource, table_sources
from foundation.cohort.staging import StagedTable, join_versions, stage
from foundation.errors import ConfigError, DataError, WriteError

RULE = PatientRule(barcode=r"(?P<patient>P\d+)-(?P<sample_type>\d\d)", leave_out=["10"], primary=["01"])
SAMPLES = ["P3-01", "P1-02", "P2-10", "blank", "P1-01", "P4-02", "P3-10"]


def frame(seed: int = 0) -> pd.DataFrame:
    """Features by samples, non-negative, some missing."""
    generator = np.random.default_rng(seed)
    values = generator.random((13, len(SAMPLES))) * 20
    values[generator.random(values.shape) < 0.2] = np.nan
    values[:, SAMPLES.index("P4-02")] = np.nan
    return pd.DataFrame(values, [f"G{i}" for i in range(13)], SAMPLES)


def make(path: Path, table: pd.DataFrame | None = None, **config: object) -> TableSource:
    table = frame() if table is None else table
    orientation = config.setdefault("orientation", "features_by_samples")
    (table if orientation == "features_by_samples" else table.T).to_csv(path, sep="\t", index_label="id")
    part = table_sources["matrix"]
    return part(part.Config.model_validate({"files": path.name, "format": "matrix", **config}), path)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "work" / "stages"


@pytest.mark.parametrize("orientation", ["features_by_samples", "samples_by_features"])
@pytest.mark.parametrize(("piece", "block"), [(10**6, 10**6), (150, 10**6), (150, 8), (150, 1)])
def test_rows_are_those_of_the_table(tmp_path, folder, monkeypatch, orientation, piece, block):
    monkeypatch.setattr(grids, "PIECE_BYTES", piece)
    monkeypatch.setattr(staging, "BLOCK_VALUES", block)
    staged = stage(make(tmp_path / "rna.tsv", orientation=orientation), RULE, folder, "rna", [])
    assert staged.features == [f"G{i}" for i in range(13)]
    assert staged.samples == ["P3-01", "P1-01", "P4-02"]
    assert staged.unmatched == ["blank"]
    assert staged.left_out == ["P2-10", "P3-10"]
    assert staged.remarks == {"further samples of the same patients, not used (patients.several)": 1}
    assert staged.sha256 == hashlib.sha256((tmp_path / "rna.tsv").read_bytes()).hexdigest()
    for patient, sample in {"P1": "P1-01", "P3": "P3-01", "P4": "P4-02"}.items():
        row = staged.row(patient)
        assert row is not None
        assert row.dtype == np.float32
        np.testing.assert_array_equal(row, frame()[sample].to_numpy(np.float32))
    assert staged.row("P2") is None
    assert staged.values.shape == (3, 13)
    assert sorted(path.name for path in folder.iterdir()) == ["rna.json", "rna.npy"]


def test_the_mean_of_several_samples(tmp_path, folder):
    rule = RULE.model_copy(update={"several": "mean"})
    table = frame().assign(**{"P4-02": np.nan, "P4-03": np.nan})
    staged = stage(make(tmp_path / "rna.tsv", table), rule, folder, "rna", [])
    expected = table[["P1-01", "P1-02"]].mean(axis=1)
    assert expected.isna().any() or table[["P1-01", "P1-02"]].isna().any(axis=None)
    np.testing.assert_allclose(staged.row("P1"), expected, rtol=1e-6)
    assert np.isnan(staged.row("P4")).all()


TCGA_RULE = PatientRule(
    barcode=r"(?P<patient>TCGA-\w\w-\w{4})(-(?P<sample_type>\d\d)(?P<vial>[A-Z])?)?", leave_out=["10"], primary=["01"]
)
ONE, TWO, OTHER = "TCGA-AA-0001-01", "TCGA-AA-0001-01A-11R-1234-07", "TCGA-AA-0002-01A"
AS_ONE = "samples named at two lengths of their barcode, taken as one"


@pytest.mark.parametrize("orientation", ["features_by_samples", "samples_by_features"])
@pytest.mark.parametrize("several", ["primary_first", "mean"])
def test_two_names_of_one_sample_are_one_row(tmp_path, folder, orientation, several):
    table = pd.DataFrame(
        {TWO: [1.0, np.nan, 3.0, 6.0], OTHER: [7.0, 8.0, 9.0, 9.0], ONE: [1.0, 2.0, 4.0, np.nan]}, list("abcd")
    )
    rule = TCGA_RULE.model_copy(update={"several": several})
    staged = stage(make(tmp_path / "rna.tsv", table, orientation=orientation), rule, folder, "rna", [])
    assert staged.by_patient.keys() == {"TCGA-AA-0001", "TCGA-AA-0002"}
    assert sorted(staged.samples) == [ONE, OTHER]
    np.testing.assert_array_equal(staged.row("TCGA-AA-0001"), np.array([1, 2, 4, 6], np.float32))
    np.testing.assert_array_equal(staged.row("TCGA-AA-0002"), np.array([7, 8, 9, 9], np.float32))
    assert staged.remarks[AS_ONE] == 1
    assert staged.remarks["values that differ between two names of one sample, of which the first is used"] == 1
    assert StagedTable.load(folder / "rna.npy") == staged


def test_variants_under_two_names_are_those_of_one_sample(tmp_path, folder):
    head = "Hugo_Symbol\tVariant_Classification\tTumor_Sample_Barcode\n"
    rows = [("TP53", ONE), ("KRAS", TWO), ("TP53", TWO), ("KRAS", OTHER), ("APC", "TCGA-AA-0001-10A-01D")]
    text = "".join(f"{gene}\tMissense_Mutation\t{sample}\n" for gene, sample in rows)
    (tmp_path / "t.maf").write_text(f"#sequenced_samples: TCGA-AA-0001-01A TCGA-AA-0003-01\n{head}{text}")
    part = table_sources["maf"]
    source = part(part.Config(files="t.maf", format="maf"), tmp_path / "t.maf")
    staged = stage(source, TCGA_RULE, folder, "maf", [])
    found = {patient: dict(zip(staged.features, staged.row(patient), strict=True)) for patient in staged.by_patient}
    assert found == {
        "TCGA-AA-0001": {"KRAS": 1, "TP53": 1},
        "TCGA-AA-0002": {"KRAS": 1, "TP53": 0},
        "TCGA-AA-0003": {"KRAS": 0, "TP53": 0},
    }
    assert staged.remarks[AS_ONE] == 1


def test_segments_under_two_names_are_those_of_one_sample(tmp_path, folder):
    rows = [(ONE, 1, 1, 40_000_000, 0.5), (TWO, 1, 40_000_001, 80_000_000, -0.1), (OTHER, 1, 1, 10**8, 1.0)]
    text = "\n".join("\t".join(map(str, row)) for row in rows)
    (tmp_path / "t.seg").write_text(f"Sample\tChromosome\tStart\tEnd\tSegment_Mean\n{text}\n")
    part = table_sources["segments"]
    source = part(part.Config(files="t.seg", format="segments", genome="hg19"), tmp_path / "t.seg")
    staged = stage(source, TCGA_RULE, folder, "cnv", [])
    assert staged.row("TCGA-AA-0001")[staged.features.index("1p")] == pytest.approx(0.2)
    assert staged.row("TCGA-AA-0002")[staged.features.index("1p")] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("south", "common"),
    [
        (["ENSG00000000001.15", "ENSG00000000002.3"], ["ENSG00000000001", "ENSG00000000002"]),
        (["ENSG00000000001", "ENSG00000000002.3"], ["ENSG00000000001", "ENSG00000000002"]),
        (["ENSG00000000003.1", "ENSG00000000001.14"], None),
        (["TP53.2", "TP53.3"], None),
    ],
    ids=["version", "none", "same", "no ids"],
)
def test_ids_that_differ_by_a_version_are_joined(tmp_path, folder, south, common):
    north = ["ENSG00000000001.14", "ENSG00000000002.3"]
    tables = [
        stage(make(tmp_path / f"{n}.tsv", pd.DataFrame({f"P{n}-01": [1.0, 2.0]}, names)), RULE, folder, str(n), [])
        for n, names in enumerate([north, south])
    ]
    joined = join_versions(tables)
    assert joined == (1 if common else 0)
    assert [table.features for table in tables] == ([common, common] if common else [north, south])
    # What was written knows the names of the file, so that a second run finds it.
    assert StagedTable.load(folder / "1.npy").features == south


def test_transforms_are_applied_before_the_mean(tmp_path, folder):
    rule = RULE.model_copy(update={"several": "mean"})
    staged = stage(make(tmp_path / "rna.tsv"), rule, folder, "rna", ["log2p1", "clip(1, 4)"])
    expected = np.log2(frame()[["P1-01", "P1-02"]] + 1).clip(1, 4).mean(axis=1)
    np.testing.assert_allclose(staged.row("P1"), expected, rtol=1e-5)


def test_a_second_call_reads_nothing(tmp_path, folder, monkeypatch):
    source = make(tmp_path / "rna.tsv")
    first = stage(source, RULE, folder, "rna", ["log2p1"])
    before = (folder / "rna.npy").stat().st_mtime_ns
    monkeypatch.setattr(type(source), "list_samples", lambda self: pytest.fail("the table was read again"))
    second = stage(source, RULE, folder, "rna", ["log2p1"])
    assert second == first
    assert (folder / "rna.npy").stat().st_mtime_ns == before
    assert StagedTable.load(folder / "rna.npy") == first


def test_whatever_changes_makes_it_anew(tmp_path, folder):
    source = make(tmp_path / "rna.tsv")
    keys = [stage(source, RULE, folder, "rna", []).key]
    keys.append(stage(source, RULE, folder, "rna", ["log2p1"]).key)
    keys.append(stage(source, RULE.model_copy(update={"several": "mean"}), folder, "rna", []).key)
    keys.append(stage(make(tmp_path / "rna.tsv", duplicate_features="mean"), RULE, folder, "rna", []).key)
    changed = stage(make(tmp_path / "rna.tsv", frame(seed=1)), RULE, folder, "rna", [])
    assert len({*keys, changed.key}) == 5
    np.testing.assert_array_equal(changed.row("P3"), frame(seed=1)["P3-01"].to_numpy(np.float32))


def test_a_file_beside_the_table_counts(tmp_path, folder):
    maf = tmp_path / "t.maf"
    maf.write_text("Hugo_Symbol\tVariant_Classification\tTumor_Sample_Barcode\nTP53\tNonsense_Mutation\tP1-01\n")
    (tmp_path / "s.txt").write_text("P2-01\n")
    part = table_sources["maf"]
    source = part(part.Config(files="t.maf", format="maf", sequenced="s.txt"), maf)
    assert list(stage(source, RULE, folder, "maf", []).by_patient) == ["P1", "P2"]
    (tmp_path / "s.txt").write_text("P2-01\nP3-01\n")
    assert list(stage(source, RULE, folder, "maf", []).by_patient) == ["P1", "P2", "P3"]


@pytest.mark.parametrize("damage", ["shorter", "no sidecar", "half a sidecar", "no table"])
def test_a_damaged_stage_is_made_anew(tmp_path, folder, damage):
    source = make(tmp_path / "rna.tsv")
    stage(source, RULE, folder, "rna", [])
    if damage == "shorter":
        (folder / "rna.npy").write_bytes((folder / "rna.npy").read_bytes()[:-8])
    elif damage == "half a sidecar":
        (folder / "rna.json").write_text((folder / "rna.json").read_text()[:-20])
    else:
        (folder / ("rna.json" if damage == "no sidecar" else "rna.npy")).unlink()
    with pytest.raises(DataError, match="no finished stage"):
        StagedTable.load(folder / "rna.npy")
    np.testing.assert_array_equal(
        stage(source, RULE, folder, "rna", []).row("P3"), frame()["P3-01"].to_numpy(np.float32)
    )


def test_it_travels_to_another_process(tmp_path, folder):
    staged = stage(make(tmp_path / "rna.tsv"), RULE, folder, "rna", [])
    staged.row("P1")
    message = pickle.dumps(staged)
    np.testing.assert_array_equal(pickle.loads(message).row("P1"), staged.row("P1"))
    values = np.random.default_rng(0).random((5000, len(SAMPLES)))
    large = stage(make(tmp_path / "b.tsv", pd.DataFrame(values, columns=SAMPLES)), RULE, folder, "b", [])
    large.row("P1")
    assert len(pickle.dumps(large)) < large.values.nbytes + len(pickle.dumps(large.features))


@pytest.mark.parametrize("failing", ["pwrite", "fsync"])
def test_a_full_disk_leaves_nothing_behind(tmp_path, folder, monkeypatch, failing):
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(staging.os, failing, full)
    with pytest.raises(WriteError, match=r"the disk is full\n.*make room") as caught:
        stage(make(tmp_path / "rna.tsv"), RULE, folder, "rna", [])
    assert str(folder) in str(caught.value)
    assert list(folder.iterdir()) == []


def test_a_disk_that_fills_up_in_the_middle(tmp_path, folder, monkeypatch):
    """A short write, as at the end of a full disk, is continued and then fails."""
    room = [150]
    real = os.pwrite

    def filling(file: int, data: memoryview, offset: int) -> int:
        if room[0] == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done = real(file, data[: min(40, room[0])], offset)
        room[0] -= done
        return done

    monkeypatch.setattr(staging.os, "pwrite", filling)
    with pytest.raises(WriteError):
        stage(make(tmp_path / "rna.tsv"), RULE, folder, "rna", [])
    assert list(folder.iterdir()) == []
    room[0] = 10**6
    staged = stage(make(tmp_path / "rna.tsv"), RULE, folder, "rna", [])
    np.testing.assert_array_equal(staged.row("P3"), frame()["P3-01"].to_numpy(np.float32))


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="a file is in the place of a folder"):
        stage(make(tmp_path / "rna.tsv"), RULE, tmp_path / "file" / "stages", "rna", [])


def test_a_bad_cell_leaves_nothing_behind_and_the_earlier_stage_is_gone(tmp_path, folder):
    stage(make(tmp_path / "rna.tsv"), RULE, folder, "rna", [])
    table = frame().astype(object)
    table.iloc[4, 0] = "high"
    with pytest.raises(DataError, match="row 'G4', column 'P3-01'"):
        stage(make(tmp_path / "rna.tsv", table), RULE, folder, "rna", [])
    assert not (folder / "rna.json").exists()
    assert not list(folder.glob("*.partial"))


def test_a_negative_value_under_a_logarithm(tmp_path, folder):
    with pytest.raises(DataError, match=r"rna\.tsv: log2p1 has no meaning for negative values: found -"):
        stage(make(tmp_path / "rna.tsv", -frame()), RULE, folder, "rna", ["log2p1"])
    with pytest.raises(ConfigError, match="did you mean 'log2p1'"):
        stage(make(tmp_path / "rna.tsv"), RULE, folder, "rna", ["log2p"])


def test_nobody_is_left(tmp_path, folder):
    with pytest.raises(DataError, match=re.escape("no sample is left: 2 of 2")):
        stage(make(tmp_path / "rna.tsv", frame()[["P2-10", "P3-10"]]), RULE, folder, "rna", [])
    with pytest.raises(DataError, match="none of 1 barcodes matches"):
        stage(make(tmp_path / "rna.tsv", frame()[["blank"]]), RULE, folder, "rna", [])
    with pytest.raises(DataError, match="named more than once"):
        stage(make(tmp_path / "rna.tsv", frame()[["P1-01", "P1-01"]]), RULE, folder, "rna", [])


def test_narrow_blocks_are_written_together(tmp_path, folder, monkeypatch):
    monkeypatch.setattr(grids, "PIECE_BYTES", 150)
    writes = []
    real = os.pwrite
    monkeypatch.setattr(staging.os, "pwrite", lambda *given: writes.append(given) or real(*given))
    stage(make(tmp_path / "rna.tsv"), RULE, folder, "rna", [])
    assert len(writes) == 2, "one for the values, one for the sidecar"


def test_the_same_bytes_whatever_the_pieces(tmp_path, folder, monkeypatch):
    source = make(tmp_path / "rna.tsv")
    stage(source, RULE, folder, "one", [])
    monkeypatch.setattr(grids, "PIECE_BYTES", 100)
    stage(source, RULE, folder, "two", [])
    assert (folder / "one.npy").read_bytes() == (folder / "two.npy").read_bytes()
    assert (folder / "one.json").read_bytes() == (folder / "two.json").read_bytes()
