"""Published folds read from files; a patient on both sides of one is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from foundation.cohort.barcodes import PatientRule
from foundation.cohort.folds import PublishedFolds, read_folds
from foundation.errors import DataError


def write(folder: Path, name: str, rows: dict[str, str]) -> Path:
    path = folder / name
    path.write_text("patient\tsplit\n" + "".join(f"{patient}\t{split}\n" for patient, split in rows.items()))
    return path


def test_a_fold_may_be_in_several_files(tmp_path):
    paths = [
        ("0", write(tmp_path, "a0.tsv", {"P1": "train", "P2": "val"})),
        ("0", write(tmp_path, "b0.tsv", {"P3": "val"})),
        ("1", write(tmp_path, "a1.tsv", {"P1": "val", "P2": "train"})),
    ]
    assert read_folds(PublishedFolds(files="{fold}"), paths, {"P1", "P2", "P3"}, PatientRule()) == {
        "0": {"P1": "train", "P2": "val", "P3": "val"},
        "1": {"P1": "val", "P2": "train"},
    }


def test_a_patient_planted_in_training_and_validation_of_a_fold_is_refused(tmp_path):
    paths = [
        ("0", write(tmp_path, "a.tsv", {"P1": "train", "P2": "val"})),
        ("0", write(tmp_path, "b.tsv", {"P1": "val"})),
    ]
    with pytest.raises(DataError, match="1 patients are also in another file of fold 0, first 'P1'"):
        read_folds(PublishedFolds(files="{fold}"), paths, {"P1", "P2"}, PatientRule())
    (tmp_path / "a.tsv").write_text("patient\tsplit\nP1\ttrain\nP1\tval\n")
    with pytest.raises(DataError, match="with several rows"):
        read_folds(PublishedFolds(files="{fold}"), paths[:1], {"P1", "P2"}, PatientRule())


def test_patients_get_the_case_and_separators_of_the_cohort(tmp_path):
    rule = PatientRule(normalise=True)
    paths = [("0", write(tmp_path, "a.tsv", {"tcga.02.0001": "train", "TCGA-02-0002": "val"}))]
    patients = {"TCGA-02-0001", "TCGA-02-0002"}
    read = read_folds(PublishedFolds(files="{fold}"), paths, patients, rule)
    assert read == {"0": {"TCGA-02-0001": "train", "TCGA-02-0002": "val"}}
    paths = [("0", write(tmp_path, "a.tsv", {"tcga.02.0001": "train", "TCGA-02-0001": "val"}))]
    with pytest.raises(DataError, match=r"'tcga\.02\.0001' and 'TCGA-02-0001' are both 'TCGA-02-0001'"):
        read_folds(PublishedFolds(files="{fold}"), paths, patients, rule)
