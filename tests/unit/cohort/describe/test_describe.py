"""Describing folders of no portal: scans, tables, what cannot be placed, and the file that is written."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import yaml

from foundation.cohort.barcodes import PatientRule
from foundation.cohort.describe.patterns import find_series
from foundation.cohort.describe.rule import choose_rule
from foundation.cohort.describe.run import describe
from foundation.cohort.manifest import Manifest
from foundation.cohort.prepare import prepare
from foundation.errors import ConfigError, DataError
from foundation.progress import Silent
from launch.cli import main


@pytest.fixture
def hospital(simulated: Path, tmp_path: Path) -> Path:
    """The simulated cohort's source files, without what explains them."""
    folder = tmp_path / "hospital"
    shutil.copytree(simulated / "source", folder)
    shutil.rmtree(folder / "truth")
    (folder / "cohort.yaml").unlink()
    return folder


def test_a_simulated_hospital_prepares_to_the_same_counts(hospital, simulated, tmp_path):
    assert main(["describe", str(hospital)]) == 0
    manifest = prepare(hospital / "cohort.yaml", out=tmp_path / "out", workers=1, progress=Silent())
    known = Manifest.read(simulated / "cohort")
    assert {n: e.patients for n, e in manifest.modalities.items()} == {
        n: e.patients for n, e in known.modalities.items()
    }
    mri = manifest.modalities["mri"]
    assert mri.shape == known.modalities["mri"].shape
    assert mri.channels["t1"] == known.modalities["mri"].channels["t1"]
    for name in ("subtype", "os", "response", "seizure"):
        assert manifest.endpoints[name]["patients"] == known.endpoints[name]["patients"]


def test_what_has_no_place_is_named(hospital):
    (hospital / "notes.docx").write_bytes(b"PK\x03\x04")
    (hospital / "semicolons.csv").write_text("a;b\n1,5;2\n", encoding="utf-8")
    (hospital / "empty.tsv").write_text("", encoding="utf-8")
    aside = dict(describe(hospital, Silent()).findings.aside)
    assert "no source reads files that end in .docx" in aside["notes.docx"]
    assert "semicolons" in aside["semicolons.csv"]
    assert "empty" in aside["empty.tsv"]
    assert "gene sets" in aside["pathways.gmt"]


def test_links_pointers_and_repeated_columns_are_named(hospital):
    (hospital / "elsewhere").symlink_to(hospital, target_is_directory=True)
    (hospital / "gone.tsv").symlink_to(hospital / "nowhere.tsv")
    (hospital / "pointer.txt").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")
    aside = dict(describe(hospital, Silent()).findings.aside)
    assert "a link to a folder" in aside["* (2 files)"]
    assert "git lfs pull" in aside["pointer.txt"]


def test_columns_that_appear_twice_are_told(tmp_path):
    rows = "".join(f"P{n},{40 + n},x,y\n" for n in range(8))
    (tmp_path / "clinical.csv").write_text("patient,age,note,note\n" + rows)
    assert "not read: 'note'" in describe(tmp_path, Silent()).yaml(".")


def test_nothing_of_use_is_refused_with_what_is_there(tmp_path, capsys):
    (tmp_path / "thesis.docx").write_bytes(b"PK")
    assert main(["describe", str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert "thesis.docx" in said.err
    assert "what to do" in said.err
    assert not (tmp_path / "cohort.yaml").exists()


@pytest.mark.parametrize("make", [lambda path: None, Path.mkdir, Path.touch], ids=["absent", "empty", "file"])
def test_a_folder_that_cannot_be_described_is_refused(make, tmp_path, capsys):
    make(tmp_path / "x")
    assert main(["describe", str(tmp_path / "x")]) == 2
    assert "what to do" in capsys.readouterr().err


def test_a_file_of_decisions_is_never_written_over(hospital, capsys):
    (hospital / "cohort.yaml").write_text("name: mine\n", encoding="utf-8")
    assert main(["describe", str(hospital)]) == 2
    assert "--out" in capsys.readouterr().err
    assert (hospital / "cohort.yaml").read_text(encoding="utf-8") == "name: mine\n"


def test_a_folder_that_cannot_be_written_gets_its_draft_printed(hospital, capsys, monkeypatch):
    # Root may write anywhere, so the refusal of a read-only disk is raised where the system would raise it.
    def refuse(self: Path, *args: object, **kwargs: object) -> int:
        raise OSError(30, "Read-only file system", str(self))

    monkeypatch.setattr(Path, "write_text", refuse)
    assert main(["describe", str(hospital)]) == 0
    said = capsys.readouterr()
    assert "read-only" in said.err
    draft = yaml.safe_load(said.out[said.out.index("# Drafted") :])
    assert draft["root"] == str(hospital)
    assert main(["describe", str(hospital), "--out", str(hospital / "other.yaml")]) == 1


def test_a_draft_elsewhere_names_the_folder_from_there(hospital, tmp_path):
    assert main(["describe", str(hospital), "--out", str(tmp_path / "drafts" / "mine.yaml")]) == 0
    assert yaml.safe_load((tmp_path / "drafts" / "mine.yaml").read_text(encoding="utf-8"))["root"] == "../hospital"


# Patterns of scans


def of(names: list[str], patients: tuple[str, ...] = ()) -> dict[str, dict[str, int]]:
    found = find_series(names, ".nii.gz", patients)
    return {series.pattern: {name: len(files) for name, files in series.channels.items()} for series in found}


def test_patterns_of_scans():
    people = [f"P{number}" for number in range(12)]
    assert of([f"{p}/{c}.nii.gz" for p in people for c in ("t1", "t2")]) == {
        "{patient}/{channel}.nii.gz": {"t1": 12, "t2": 12}
    }
    assert of([f"BraTS-{p}/BraTS-{p}-t1c.nii.gz" for p in people]) == {
        "{patient}/{patient}-{channel}.nii.gz": {"t1c": 12}
    }
    assert of([f"sub-{p}/ses-{s}/anat/sub-{p}_ses-{s}_T1w.nii.gz" for p in people for s in (1, 2)]) == {
        "{patient}/{time_point}/anat/{patient}_{time_point}_{channel}.nii.gz": {"T1w": 24}
    }
    assert of([f"images/{p}_{c}.nii.gz" for p in people for c in ("t1", "flair")]) == {
        "images/{patient}_{channel}.nii.gz": {"t1": 12, "flair": 12}
    }
    assert of([f"images/{p}.nii.gz" for p in people]) == {"images/{patient}.nii.gz": {"": 12}}
    assert of([f"train/A/{p}/ct.nii.gz" for p in people], tuple(people)) == {
        "train/A/{patient}/{channel}.nii.gz": {"ct": 12}
    }


PEOPLE = [f"PT-{number:03d}" for number in range(12)]
FLAIR = [f"{patient}_FLAIR.nii.gz" for patient in PEOPLE]


@pytest.mark.parametrize("known", [(), tuple(PEOPLE)])
@pytest.mark.parametrize("others", [{"T1": 10}, {"T1": 6}, {"T1": 12, "T2": 3}, {"X": 12, "Y": 7}])
def test_a_channel_that_patients_lack_is_still_a_channel(others, known):
    names = FLAIR + [f"{p}_{channel}.nii.gz" for channel, number in others.items() for p in PEOPLE[:number]]
    assert of(names, known) == {"{patient}_{channel}.nii.gz": {"FLAIR": 12, **others}}


def test_ends_that_are_no_words_for_sequences_are_channels_with_a_word_to_check():
    names = [f"{p}_{end}.nii.gz" for end, number in (("a", 12), ("b", 7)) for p in PEOPLE[:number]]
    (series,) = find_series(names, ".nii.gz", [])
    assert series.pattern == "{patient}_{channel}.nii.gz"
    assert "CHECK" in series.note
    assert of([f"S{site:02d}_{p}.nii.gz" for site in range(20) for p in range(9)]) == {"{patient}.nii.gz": {"": 180}}
    assert of([f"{p}.nii.gz" for p in PEOPLE], tuple(PEOPLE)) == {"{patient}.nii.gz": {"": 12}}


def test_a_mark_within_patients_makes_each_channel_a_modality():
    names = [f"PT_{n:02d}_{end}.nii.gz" for end in ("T1", "FLAIR") for n in range(12)]
    found = find_series(names, ".nii.gz", [])
    assert {series.pattern: len(series.patients) for series in found} == {
        "{patient}_T1.nii.gz": 12,
        "{patient}_FLAIR.nii.gz": 12,
    }
    assert all("CHECK" in series.note for series in found)


def test_one_file_that_is_named_otherwise_does_not_hide_the_channels():
    found = find_series([*FLAIR, *(f"{p}_T1.nii.gz" for p in PEOPLE[:10]), "renamed.nii.gz"], ".nii.gz", [])
    assert [bool(series.aside) for series in found] == [False, True]
    assert found[0].pattern == "{patient}_{channel}.nii.gz"


def test_a_blank_separates():
    assert of([f"{p}/{p} {c}.nii.gz" for p in PEOPLE for c in ("T1", "FLAIR")]) == {
        "{patient}/{patient} {channel}.nii.gz": {"T1": 12, "FLAIR": 12}
    }
    assert of([f"{p} {c}.nii.gz" for p in PEOPLE for c in ("T1", "FLAIR")]) == {
        "{patient} {channel}.nii.gz": {"T1": 12, "FLAIR": 12}
    }


def test_names_without_a_separator_are_put_aside_with_the_reason():
    (series,) = find_series([f"{p}/{p}T1.nii.gz" for p in PEOPLE], ".nii.gz", [])
    assert "nothing separates" in series.aside


@pytest.mark.parametrize("known", [(), tuple(PEOPLE)])
def test_few_folders_over_the_same_names_are_time_points(known):
    names = [f"{t}/{p}_{c}.nii.gz" for t in ("baseline", "week12") for p in PEOPLE for c in ("T1", "FLAIR")]
    assert of(names, known) == {"{time_point}/{patient}_{channel}.nii.gz": {"T1": 24, "FLAIR": 24}}
    assert of([f"{t}/{p}.nii.gz" for t in ("baseline", "week12") for p in PEOPLE], known) == {
        "{time_point}/{patient}.nii.gz": {"": 24}
    }


def test_few_folders_may_be_channels_or_parts_of_a_cohort():
    assert of([f"{c}/{p}.nii.gz" for c in ("T1", "FLAIR") for p in PEOPLE]) == {
        "{channel}/{patient}.nii.gz": {"T1": 12, "FLAIR": 12}
    }
    parts = [f"{'train' if n < 8 else 'test'}/{p}_{c}.nii.gz" for n, p in enumerate(PEOPLE) for c in ("T1", "T2")]
    assert of(parts) == {"*/{patient}_{channel}.nii.gz": {"T1": 12, "T2": 12}}
    assert of([f"P{n}/{c}.nii.gz" for n in range(3) for c in ("T1", "T2")]) == {
        "{patient}/{channel}.nii.gz": {"T1": 3, "T2": 3}
    }


def scan(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(np.ones((8, 8, 8), np.float32), np.eye(4)), path)  # type: ignore[attr-defined]


@pytest.mark.parametrize("folder", ["masks", "lesion_masks", "segmentations", "labels", "truth", "truth/drawn"])
def test_folders_of_masks_and_of_truth_are_no_input(folder, tmp_path):
    for patient in PEOPLE[:4]:
        scan(tmp_path / "images" / f"{patient}_T1.nii.gz")
        scan(tmp_path / folder / f"{patient}.nii.gz")
    found = describe(tmp_path, Silent()).findings
    assert [modality.where for modality in found.modalities.values()] == ["images/{patient}_{channel}.nii.gz"]
    assert f"{folder}/**/*.gz (4 files)" in dict(found.aside)


def test_scans_with_a_channel_lacking_prepare_as_drafted(tmp_path):
    folder = tmp_path / "scans"
    for place, patient in enumerate(PEOPLE):
        for channel in ("FLAIR", "T1") if place > 1 else ("FLAIR",):
            scan(folder / f"{patient} {channel}.nii.gz")
    assert main(["describe", str(folder)]) == 0
    manifest = prepare(folder / "cohort.yaml", out=tmp_path / "out", workers=1, progress=Silent())
    assert manifest.modalities["mri"].patients == 12


@pytest.mark.parametrize("files", ["{patient}{channel}.nii.gz", "{patient}*.nii.gz", "*{patient}_{channel}.nii.gz"])
def test_placeholders_that_touch_are_refused_in_words(files, tmp_path):
    scan(tmp_path / "PT-001T1.nii.gz")
    (tmp_path / "cohort.yaml").write_text(
        "name: x\nroot: .\nmodalities:\n  mri: {kind: image, channels: [T1], size: [8, 8, 8], spacing: native, "
        f"source: {{format: nifti, files: '{files}'}}}}\n"
    )
    with pytest.raises(ConfigError, match="nothing separates"):
        prepare(tmp_path / "cohort.yaml", out=tmp_path / "out", workers=1, progress=Silent())


# Barcodes


def test_rules_of_barcodes():
    assert choose_rule(["A1", "B2"], ["A1", "B2"], {})[0] == {}
    assert choose_rule([], ["TCGA-AB-0001-01A-11R"], {})[0]["primary"][0] == "01"
    patients = [f"MSK-{number:04d}" for number in range(5)]
    pairs = {f"{patient}-T0{place}-IM6": patient for place, patient in enumerate(patients)}
    rule, notes = choose_rule(patients, list(pairs), pairs)
    assert {sample: PatientRule(**rule).patient(sample) for sample in pairs} == pairs
    assert "check it" in notes[0]
    assert choose_rule(patients, ["S1", "S2"], {"S1": patients[0]})[0] == {}


def test_normal_tissue_is_left_out_and_several_samples_are_told():
    patients = [f"P{number:02d}" for number in range(12)]
    samples = [f"{patient}_tumor" for patient in patients] + [f"{patient}_normal" for patient in patients[:4]]
    rule, notes = choose_rule(patients, [*samples, "P00_tumor2"], {})
    chosen = PatientRule(**rule).assign(samples, where="rna")
    assert [samples[place] for (place,) in chosen.by_patient.values()] == samples[:12]
    assert len(chosen.left_out) == 4
    assert any("called normal are left out" in note for note in notes)
    assert any("1 patient have several samples" in note for note in notes)
    _, notes = choose_rule(patients, samples[:12], {})
    assert not any("several" in note for note in notes)


def test_words_for_nothing_known_and_spellings_of_one_class_are_drafted_so(tmp_path):
    words = ["WT", "Mutant", "mutant", "Unknown"]
    rows = [f"P{n},{'unknown' if n == 3 else 40 + n},{words[n % 4]},{'90+' if n else 80}" for n in range(12)]
    (tmp_path / "clinical.csv").write_text("\n".join(["patient,age,IDH_status,diagnosis_age", *rows, ""]))
    findings = describe(tmp_path, Silent()).findings
    assert findings.endpoints["idh_status"].recipe == {
        "kind": "subtype", "column": "IDH_status", "classes": {"WT": ["WT"], "Mutant": ["Mutant", "mutant"]},
        "missing": ["Unknown"],
    }  # fmt: skip
    clinical = findings.modalities["clinical"]
    assert clinical.recipe["source"]["columns"]["age"]["missing"] == ["unknown"]
    assert any("'diagnosis_age' is not taken" in note and "'90+'" in note for note in clinical.notes)


def test_patients_twice_are_counted_and_not_named(tmp_path):
    (tmp_path / "clinical.csv").write_text("patient,age,sex\nP1,44,F\nP1,45,F\nP2,50,M\n")
    rows = "".join(f"G{g}\t{g}\t{g + 1}\n" for g in range(3))
    (tmp_path / "rna.tsv").write_text("gene\tS1\tS2\n" + rows)
    why = dict(describe(tmp_path, Silent()).findings.aside)["clinical.csv"]
    assert "1 patient with several rows (keep" in why
    assert "P1" not in why


def test_samples_of_nobody_are_told():
    _, notes = choose_rule(["A-1", "A-2"], ["A-1", "A-2", "X-9"], {})
    assert any("1 of 3 samples" in note for note in notes)


# Large folders


def test_headers_that_are_read_do_not_grow_with_the_files(tmp_path, monkeypatch):
    import pydicom

    from foundation.cohort.describe import dicom

    for patient in range(40):
        folder = tmp_path / f"P{patient:03d}" / "series"
        folder.mkdir(parents=True)
        for number in range(60):
            (folder / f"{number}.dcm").touch()
    read = []
    monkeypatch.setattr(pydicom, "dcmread", lambda path, **_: read.append(path) or {})
    monkeypatch.setattr(dicom, "HEADERS", 80)
    with pytest.raises(DataError):
        describe(tmp_path, Silent())
    assert len(read) == 80


def people_and_rna(folder, header="patient,age,sex,CRP", names=("p_1", "p_2", "p_3")):
    rows = [f"{name},{40 + number},{'FM'[number % 2]},{number}" for number, name in enumerate(names)]
    (folder / "clinical.csv").write_text("\n".join([header, *rows, ""]))
    (folder / "rna.tsv").write_text("gene\tP-1\tP-2\tP-3\n" + "".join(f"G{g}\t{g}\t{g + 1}\t2\n" for g in range(3)))


def test_names_that_differ_in_case_and_separators_are_made_alike(tmp_path):
    people_and_rna(tmp_path)
    findings = describe(tmp_path, Silent()).findings
    assert findings.rule["normalise"] == {"case": "upper", "separators": "-"}
    assert "rna" in findings.modalities
    assert any("made alike" in note for note in findings.rule_notes)


def test_columns_that_are_not_used_are_named(tmp_path):
    people_and_rna(tmp_path, names=("P-1", "P-2", "P-3"))
    findings = describe(tmp_path, Silent()).findings
    assert findings.rule == {}
    assert any(where == "clinical.csv: columns CRP" for where, _ in findings.aside)


def test_a_title_above_the_header_is_no_table_of_patients(tmp_path):
    people_and_rna(tmp_path, header="Export of 12/03/2024,,,\n,,,\npatient,age,sex,CRP")
    findings = describe(tmp_path, Silent()).findings
    assert findings.patients is None
    assert "begins with a title" in dict(findings.aside)["clinical.csv"]
