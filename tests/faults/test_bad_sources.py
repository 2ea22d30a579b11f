"""Bad source files: each gives one message with what, where and what to do, or a row in quarantine.tsv."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
import yaml

from foundation.cohort.manifest import Manifest
from foundation.cohort.prepare import prepare
from foundation.cohort.store import PreparedCohort
from foundation.errors import ChiasmaError, ConfigError, DataError
from foundation.progress import Silent


@pytest.fixture
def source(simulated: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(simulated / "source", tmp_path / "source"))


def patients_of(source: Path) -> list[str]:
    return pd.read_csv(source / "clinical.tsv", sep="\t", dtype=str)["patient"].tolist()


def edit(source: Path, change: Callable[[dict], object]) -> None:
    path = source / "cohort.yaml"
    document = yaml.safe_load(path.read_text())
    change(document)
    path.write_text(yaml.safe_dump(document))


def without_images(source: Path) -> None:
    """Tables fail before any image is read; leaving the images out keeps these tests fast."""
    edit(source, lambda document: document["modalities"].pop("mri"))


def run(source: Path) -> Manifest:
    return prepare(source / "cohort.yaml", out=source.parent / "out", workers=1, progress=Silent())


def failure(source: Path, kind: type[ChiasmaError] = DataError) -> str:
    with pytest.raises(kind) as caught:
        run(source)
    assert caught.value.exit_code == 2
    assert not (source.parent / "out" / "cohort.json").exists()
    return str(caught.value)


def quarantine(source: Path) -> pd.DataFrame:
    return pd.read_csv(source.parent / "out" / "quarantine.tsv", sep="\t", keep_default_na=False)


def clinical(source: Path, change: Callable[[pd.DataFrame], pd.DataFrame | None]) -> None:
    path = source / "clinical.tsv"
    table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
    changed = change(table)
    (table if changed is None else changed).to_csv(path, sep="\t", index=False)


def rna(source: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    path = source / "rna.tsv.gz"
    change(pd.read_csv(path, sep="\t")).to_csv(path, sep="\t", index=False)


def survival_columns(source: Path) -> tuple[str, str]:
    endpoint = yaml.safe_load((source / "cohort.yaml").read_text())["endpoints"]["os"]
    return endpoint["time"], endpoint["event"]


def a_scan(source: Path) -> Path:
    return sorted((source / "scans" / "nifti").glob("*/flair.nii.gz"))[0]


def test_truncated_table(source):
    without_images(source)
    path = source / "rna.tsv.gz"
    path.write_bytes(path.read_bytes()[:-2000])
    assert "rna.tsv.gz" in failure(source)


def test_truncated_scan_is_quarantined(source):
    scan = a_scan(source)
    scan.write_bytes(scan.read_bytes()[:-500])
    manifest = run(source)
    rows = quarantine(source)
    assert rows["patient"].tolist() == [scan.parent.name]
    assert rows["modality"].tolist() == ["mri"] and rows["item"].tolist() == ["flair"]
    assert manifest.quarantined == 1
    cohort = PreparedCohort(source.parent / "out")
    row = int(np.flatnonzero(cohort.patients == scan.parent.name)[0])
    flair = list(cohort.image("mri").channels).index("flair")
    assert not cohort.channels_NC("mri", [row])[0, flair]


def test_nan_voxels_are_quarantined(source):
    scan = a_scan(source)
    image = nibabel.load(scan)
    voxels = np.asarray(image.dataobj, dtype=np.float32)
    voxels[3, 3, 3] = np.nan
    nibabel.save(nibabel.Nifti1Image(voxels, image.affine), scan)
    run(source)
    assert "NaN" in quarantine(source)["reason"].item()


def test_missing_dicom_slice_is_quarantined(source):
    folder = sorted((source / "scans" / "dicom").iterdir())[0]
    import pydicom

    flair = [
        p for p in folder.rglob("*") if p.is_file() and "FLAIR" in str(pydicom.dcmread(p).SeriesDescription).upper()
    ]
    flair.sort(key=lambda p: float(pydicom.dcmread(p).ImagePositionPatient[2]))
    flair[len(flair) // 2].unlink()
    run(source)
    rows = quarantine(source)
    assert rows["patient"].tolist() == [folder.name]
    assert "missing slice" in rows["reason"].item()


def test_too_many_bad_scans_stop_the_run(source):
    for scan in sorted((source / "scans" / "nifti").glob("*/*.nii.gz"))[:24]:
        scan.write_bytes(b"not an image")
    message = failure(source)
    assert "quarantine.stop_above" in message and "quarantine.tsv" in message


def test_header_less_table(source):
    without_images(source)
    path = source / "rna.tsv.gz"
    lines = gzip.decompress(path.read_bytes()).splitlines(keepends=True)
    path.write_bytes(gzip.compress(b"".join(lines[1:])))
    assert "header" in failure(source)


def test_duplicated_patient(source):
    without_images(source)
    clinical(source, lambda table: pd.concat([table, table.iloc[[2]]]))
    message = failure(source)
    assert "1 patient with several rows" in message and "clinical" in message


def test_gene_twice(source):
    without_images(source)
    rna(source, lambda table: pd.concat([table, table.iloc[[4]]]))
    gene = pd.read_csv(source / "rna.tsv.gz", sep="\t").iloc[4, 0]
    assert gene in failure(source)


def test_barcodes_that_match_no_patient(source):
    without_images(source)
    edit(source, lambda document: document["patients"].update(barcode="(?P<patient>TCGA-..)"))
    assert "patients.barcode" in failure(source)


def test_one_strange_barcode_is_quarantined(source):
    without_images(source)
    rna(source, lambda table: table.assign(whoever=1.0))
    run(source)
    rows = quarantine(source)
    assert len(rows) == 1 and "whoever" in rows["item"].item()


def test_patient_that_the_clinical_table_does_not_know(source):
    without_images(source)
    rna(source, lambda table: table.assign(**{"SIM-99-9999-01A": 1.0}))
    run(source)
    rows = quarantine(source)
    assert len(rows) == 1 and "clinical table" in rows["reason"].item()


def test_negative_survival_time(source):
    without_images(source)
    time, _ = survival_columns(source)
    clinical(source, lambda table: table.update(pd.DataFrame({time: ["-3"]}, index=[1])))
    assert "-3" in failure(source)


def test_event_of_two(source):
    without_images(source)
    _, event = survival_columns(source)
    clinical(source, lambda table: table.update(pd.DataFrame({event: ["2"]}, index=[1])))
    assert "'2' for SIM-01-0002 is no event that is known, such as 1 or 0" in failure(source)


def test_unknown_class_names_the_nearest(source):
    without_images(source)
    column = yaml.safe_load((source / "cohort.yaml").read_text())["endpoints"]["subtype"]["column"]
    known = pd.read_csv(source / "clinical.tsv", sep="\t", dtype=str)[column].dropna().iloc[0]
    clinical(source, lambda table: table.update(pd.DataFrame({column: [known + "x"]}, index=[1])))
    message = failure(source)
    assert known + "x" in message and f"'{known}'" in message


def test_empty_modality(source):
    without_images(source)
    rna(source, lambda table: table.iloc[:, :1])
    assert "rna" in failure(source)


def test_column_that_does_not_exist_names_the_nearest(source):
    without_images(source)
    _, event = survival_columns(source)
    edit(source, lambda document: document["endpoints"]["os"].update(event=event + "s"))
    message = failure(source)
    assert f"'{event}'" in message and f"'{event}s'" in message


def test_typo_in_the_yaml_names_the_nearest_key(source):
    edit(source, lambda document: document["modalities"]["mri"].update(spacng=[1, 1, 1]))
    message = failure(source, ConfigError)
    assert "'spacng'" in message and "'spacing'" in message


def test_missing_table_file(source):
    (source / "rna.tsv.gz").unlink()
    assert "rna.tsv.gz" in failure(source)


def test_root_that_does_not_exist(source):
    edit(source, lambda document: document.update(root="nowhere"))
    assert "--root" in failure(source)


def test_folder_that_holds_another_cohort(source):
    without_images(source)
    run(source)
    edit(source, lambda document: document.update(name="other"))
    with pytest.raises(DataError, match="holds another cohort"):
        run(source)
    assert Manifest.read(source.parent / "out").name != "other"


def test_folder_that_holds_something_else(source):
    out = source.parent / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match="not empty"):
        run(source)
    assert [path.name for path in out.iterdir()] == ["thesis.txt"]


def test_volume_of_another_dimension(source):
    edit(source, lambda document: document["modalities"]["mri"].update(size=[32, 32], spacing="native"))
    assert "size" in failure(source)


def test_half_a_survival_is_quarantined(source):
    without_images(source)
    time, _ = survival_columns(source)
    clinical(source, lambda table: table.update(pd.DataFrame({time: [""]}, index=[1])))
    manifest = run(source)
    rows = quarantine(source)
    assert rows["modality"].tolist() == ["endpoint os"]
    assert manifest.endpoints["os"]["patients"] == len(patients_of(source)) - 1


def test_transform_that_does_not_exist(source):
    edit(source, lambda document: document["modalities"]["rna"].update(transform=["log2p"]))
    assert "'log2p1'" in failure(source, ConfigError)


def write_fold(source: Path, patients: list[str], split: str = "val") -> None:
    pd.DataFrame({"patient": patients, "split": split}).to_csv(source / "fold_0.tsv", sep="\t", index=False)
    edit(source, lambda document: document.update(folds={"files": "fold_{fold}.tsv"}))


def test_folds_belong_to_the_sources(source):
    without_images(source)
    patients = patients_of(source)
    write_fold(source, patients)
    manifest = run(source)
    assert manifest.folds == {"0": {"val": len(patients)}} and "fold_0.tsv" in manifest.sources["tables"]
    write_fold(source, patients[:-1])
    with pytest.raises(DataError, match="other sources or another YAML"):
        run(source)


def test_folds_of_strangers(source):
    without_images(source)
    write_fold(source, ["SIM-77-0001"])
    assert "SIM-77-0001" in failure(source)


def test_folds_with_a_split_of_their_own(source):
    without_images(source)
    write_fold(source, patients_of(source), split="validation")
    assert "validation" in failure(source)


def test_link_that_leads_nowhere_is_quarantined(source):
    scan = a_scan(source)
    scan.unlink()
    scan.symlink_to("nowhere.nii.gz")
    run(source)
    rows = quarantine(source)
    assert rows["patient"].tolist() == [scan.parent.name] and rows["item"].tolist() == ["flair"]


def test_a_misspelt_channel_is_told(source):
    scan = a_scan(source)
    scan.rename(scan.with_name("FLAIR.nii.gz"))
    assert run(source).sources["other_channels"] == {"mri": {"FLAIR": 1}}


def test_semicolons_are_named(source):
    without_images(source)
    path = source / "clinical.tsv"
    path.with_suffix(".csv").write_text(path.read_text().replace("\t", ";"))
    edit(source, lambda document: document["clinical"].update(files="clinical.csv"))
    assert "semicolons" in failure(source)


def test_samples_that_are_not_used_are_counted(source):
    without_images(source)
    barcodes = pd.read_csv(source / "rna.tsv.gz", sep="\t", index_col=0, nrows=1).columns
    normals = sum(barcode.endswith(("10A", "11A")) for barcode in barcodes)
    assert normals, "the simulator writes some"
    table = run(source).sources["tables"]["rna.tsv.gz"]
    assert table["samples_left_out"] == normals
    assert table["samples_used"] == len({barcode[:11] for barcode in barcodes if not barcode.endswith(("10A", "11A"))})


def test_file_where_the_folder_should_be(source):
    (source.parent / "out").write_text("not a folder")
    with pytest.raises(ConfigError, match="is a file"):
        run(source)


def test_nothing_is_left_of_a_call_that_could_not_start(source):
    (source / "clinical.tsv").unlink()
    failure(source)
    assert not list((source.parent / "out").iterdir())
