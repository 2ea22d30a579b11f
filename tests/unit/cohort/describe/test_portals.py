"""Folders of portals described, and prepared from the draft as it stands: counts and values derived from the files."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from foundation.cohort.describe.run import Description, describe
from foundation.cohort.manifest import Manifest
from foundation.cohort.prepare import prepare
from foundation.cohort.store import PreparedCohort
from foundation.errors import DataError
from foundation.progress import Silent

EXAMPLES = Path(__file__).parents[4] / "configs" / "cohorts"

Prepared = tuple[Description, Manifest, PreparedCohort]


def drafted(folder: Path, out: Path) -> Prepared:
    """What is found in a folder, and the cohort prepared from the draft without an edit."""
    found = describe(folder, Silent())
    out.mkdir()
    (out / "cohort.yaml").write_text(found.yaml(str(folder)), encoding="utf-8")
    manifest = prepare(out / "cohort.yaml", out=out / "cohort", workers=1, progress=Silent())
    return found, manifest, PreparedCohort(out / "cohort")


@pytest.fixture(scope="module")
def of_cbioportal(cbioportal: Path, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return drafted(cbioportal, tmp_path_factory.mktemp("drafts") / "cbioportal")


@pytest.fixture(scope="module")
def of_gdc(gdc: Path, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return drafted(gdc, tmp_path_factory.mktemp("drafts") / "gdc")


@pytest.fixture(scope="module")
def of_xena(xena: Path, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return drafted(xena, tmp_path_factory.mktemp("drafts") / "xena")


def value(cohort: PreparedCohort, modality: str, patient: str, feature: str) -> float:
    row = int(np.flatnonzero(cohort.patients == patient)[0])
    return float(cohort.values_NF(modality, [row])[0][cohort.features[modality].index(feature)])


def counts(manifest: Manifest) -> dict[str, int]:
    return {name: entry.patients for name, entry in manifest.modalities.items()}


def placed(found: Description, folder: Path) -> set[str]:
    """Files that the draft names, in a source or among what is not in the cohort."""
    text = found.yaml(".")
    return {path.name for path in folder.rglob("*") if path.is_file() and path.name in text}


# cBioPortal


def test_cbioportal_counts(of_cbioportal):
    found, manifest, _ = of_cbioportal
    assert found.findings.portal == "a cBioPortal study folder"
    assert manifest.name == "lgg_tcga_sim"
    assert manifest.patients == 24
    assert manifest.quarantined == 1  # who has a PFS status and no time
    assert counts(manifest) == {
        "rna": 20, "gistic": 22, "cnv": 18, "mutation": 16, "methylation": 12, "protein": 20, "clinical": 24,
    }  # fmt: skip


def test_cbioportal_values(of_cbioportal, cbioportal):
    _, _, cohort = of_cbioportal
    rna = pd.read_csv(cbioportal / "data_mrna_seq_v2_rsem.txt", sep="\t")
    column = rna[["Hugo_Symbol", "TCGA-AB-0003-01"]]
    kras = float(column[column["Hugo_Symbol"] == "KRAS"].iloc[0, 1])
    assert value(cohort, "rna", "TCGA-AB-0003", "KRAS") == pytest.approx(np.log2(1 + kras), rel=1e-5)
    # A symbol in two rows is their mean.
    twice = column[column["Hugo_Symbol"] == "TP53"].iloc[:, 1].astype(float)
    assert len(twice) == 2
    assert len(cohort.features["rna"]) == 10  # a row without a symbol is no feature
    assert value(cohort, "rna", "TCGA-AB-0003", "TP53") == pytest.approx(np.log2(1 + twice.mean()), rel=1e-5)
    assert value(cohort, "cnv", "TCGA-AB-0003", "1p") == pytest.approx(0.25)
    assert [value(cohort, "mutation", "TCGA-AB-0003", gene) for gene in ("IDH1", "TP53")] == [1, 1]
    # Sequenced, and no variant is listed: zero, not absent.
    assert [value(cohort, "mutation", "TCGA-AB-0016", gene) for gene in ("IDH1", "TP53")] == [0, 0]


def test_cbioportal_endpoints(of_cbioportal, cbioportal):
    _, manifest, cohort = of_cbioportal
    table = pd.read_csv(cbioportal / "data_clinical_patient.txt", sep="\t", comment="#").set_index("PATIENT_ID")
    assert set(manifest.endpoints) == {"os", "pfs", "subtype"}
    os = cohort.endpoint("os")
    np.testing.assert_allclose(os["time"], table.loc[cohort.patients, "OS_MONTHS"])
    np.testing.assert_array_equal(os["event"], table.loc[cohort.patients, "OS_STATUS"].str.startswith("1:"))
    assert manifest.endpoints["os"]["unit"] == "months"
    assert manifest.sites == {"AB": 8, "CD": 8, "EF": 8}


def test_cbioportal_says_what_it_leaves_out(of_cbioportal):
    aside = dict(of_cbioportal[0].findings.aside)
    assert "test patients" in aside["data_mrna_seq_v2_rsem_zscores_ref_all_samples.txt"]
    assert "data_cna.txt" in aside["data_linear_cna.txt"]
    assert {"data_sv.txt", "data_timeline_treatment.txt", "data_clinical_sample.txt"} <= set(aside)


def test_cbioportal_samples_that_do_not_begin_with_their_patient_are_told(cbioportal, tmp_path):
    folder = tmp_path / "study"
    shutil.copytree(cbioportal, folder)
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        path.write_text(path.read_text().replace("TCGA-AB-", "P-00"), encoding="utf-8")
    _, manifest, _ = drafted(folder, tmp_path / "out")
    assert manifest.patients == 24
    assert counts(manifest)["rna"] == 20


def study(folder: Path, sample: str, months: str = "5", samples: bool = True) -> Path:
    """A small study of 12 patients called D0 and so on, 10 of them with RNA, whose samples are called as `sample`."""
    folder.mkdir()
    (folder / "meta_study.txt").write_text("cancer_study_identifier: small\nname: Small\n")
    names = [sample.format(number) for number in range(12)]
    for kind, alteration, file in (
        ("PATIENT_ATTRIBUTES", "CLINICAL", "data_clinical_patient.txt"),
        ("SAMPLE_ATTRIBUTES", "CLINICAL", "data_clinical_sample.txt"),
        ("CONTINUOUS", "MRNA_EXPRESSION", "data_mrna.txt"),
    ):
        (folder / file.replace("data", "meta")).write_text(
            f"genetic_alteration_type: {alteration}\ndatatype: {kind}\ndata_filename: {file}\n"
        )
    times = [months if n % 3 == 0 else n + 1 for n in range(12)]
    rows = [f"D{n}\t{40 + n}\t{('0:LIVING', '1:DECEASED')[n % 2]}\t{time}" for n, time in enumerate(times)]
    (folder / "data_clinical_patient.txt").write_text("\n".join(["PATIENT_ID\tAGE\tOS_STATUS\tOS_MONTHS", *rows, ""]))
    if samples:
        pairs = [f"D{n}\t{name}" for n, name in enumerate(names)]
        (folder / "data_clinical_sample.txt").write_text("\n".join(["PATIENT_ID\tSAMPLE_ID", *pairs, ""]))
    genes = [f"G{g}\t" + "\t".join(str(g + n) for n in range(10)) for g in range(4)]
    (folder / "data_mrna.txt").write_text("\n".join(["Hugo_Symbol\t" + "\t".join(names[:10]), *genes, ""]))
    return folder


def test_cbioportal_without_its_table_of_samples(tmp_path):
    found, manifest, _ = drafted(study(tmp_path / "study", "D{}", samples=False), tmp_path / "out")
    assert counts(manifest) == {"rna": 10, "clinical": 12}
    assert "not there" in dict(found.findings.aside)["data_clinical_sample.txt"]


def test_cbioportal_samples_of_none_of_the_patients_are_put_aside_and_the_rest_prepares(tmp_path):
    found, manifest, _ = drafted(study(tmp_path / "study", "S{}_T1"), tmp_path / "out")
    assert counts(manifest) == {"clinical": 12}
    assert "none of its 10 samples names a patient" in dict(found.findings.aside)["data_mrna.txt"]


def test_samples_of_people_who_are_not_in_the_table_are_told_and_not_allowed_for(tmp_path):
    folder = study(tmp_path / "study", "D{}")
    path = folder / "data_clinical_patient.txt"
    path.write_text("\n".join(path.read_text().splitlines()[:7]) + "\n")
    with pytest.raises(DataError, match="4 of 10 entries of 'rna' cannot be used"):
        drafted(folder, tmp_path / "out")
    draft = describe(folder, Silent()).yaml(".")
    assert "4 of 10 of its patients are not in data_clinical_patient.txt" in draft
    assert "# quarantine: {stop_above: 0.4}" in draft
    assert "\nquarantine:" not in draft
    assert "It prepares as it stands" not in draft


def test_a_study_without_its_table_of_patients_says_so(tmp_path):
    folder = study(tmp_path / "study", "D{}")
    (folder / "data_clinical_patient.txt").unlink()
    (folder / "data_sv.txt").write_text("Sample_Id\tSV_Status\tSite1_Hugo_Symbol\nD1\tSOMATIC\tTP53\n")
    findings = describe(folder, Silent()).findings
    assert findings.patients is None
    aside = dict(findings.aside)
    assert "not there" in aside["data_clinical_patient.txt"]
    assert "structural variants" in aside["data_sv.txt"]


def test_a_survival_that_many_have_half_of_is_only_proposed(tmp_path):
    found, manifest, _ = drafted(study(tmp_path / "study", "D{}", months=""), tmp_path / "out")
    assert not manifest.endpoints
    assert "4 of 12 patients have a time without an event" in found.findings.endpoints["os"].why


# GDC


def test_gdc_counts(of_gdc):
    found, manifest, _ = of_gdc
    assert found.findings.portal == "a GDC download"
    assert manifest.patients == 24
    assert manifest.quarantined == 0
    assert counts(manifest) == {"rna": 20, "cnv": 10, "mutation": 12, "methylation": 6, "mirna": 10, "clinical": 24}


def test_gdc_files_of_single_samples_are_joined(of_gdc, gdc):
    cohort = of_gdc[2]
    sheet = pd.read_csv(gdc / "gdc_sample_sheet.2024-05-01.tsv", sep="\t").set_index("Sample ID")
    sheet = sheet[sheet["Data Type"] == "Gene Expression Quantification"]
    # Patient 4 has a normal sample too, which is left out.
    for sample in ("TCGA-AB-0001-01A", "TCGA-AB-0004-01A", "TCGA-AB-0020-01A"):
        file = gdc / str(sheet.loc[sample, "File ID"]) / str(sheet.loc[sample, "File Name"])
        tpm = (
            pd.read_csv(file, sep="\t", comment="#").dropna(subset="gene_name").set_index("gene_name")["tpm_unstranded"]
        )
        assert cohort.features["rna"] == tpm.index.tolist()  # no N_unmapped
        for gene in ("TP53", "IDH1", "RB1"):
            assert value(cohort, "rna", sample[:12], gene) == pytest.approx(np.log2(1 + tpm[gene]), rel=1e-5)
    assert value(cohort, "cnv", "TCGA-AB-0009", "1p") == pytest.approx(0.08, rel=1e-5)
    assert value(cohort, "methylation", "TCGA-AB-0002", "cg00000007") == pytest.approx(0.71, rel=1e-5)
    assert value(cohort, "methylation", "TCGA-AB-0002", "cg00000000") == pytest.approx(0.01, rel=1e-4)
    assert np.isnan(value(cohort, "methylation", "TCGA-AB-0002", "cg00000004"))
    assert value(cohort, "mirna", "TCGA-AB-0006", "hsa-mir-2") == pytest.approx(np.log2(1 + 206), rel=1e-5)


def test_gdc_a_gene_that_is_not_in_a_sequenced_sample_is_zero(of_gdc):
    cohort = of_gdc[2]
    assert cohort.features["mutation"] == ["IDH1", "TP53"]
    hits = {n: [value(cohort, "mutation", f"TCGA-AB-{n:04d}", gene) for gene in ("IDH1", "TP53")] for n in (1, 5, 12)}
    assert hits == {1: [1, 1], 5: [1, 0], 12: [0, 0]}


def test_gdc_clinical_rows_of_each_treatment_are_one_patient(of_gdc):
    cohort = of_gdc[2]
    os = cohort.endpoint("os")
    died = np.arange(24) % 3 == 0
    np.testing.assert_array_equal(os["event"], died)
    np.testing.assert_array_equal(os["time"], np.where(died, 100 + np.arange(24), 900 + np.arange(24)))
    assert value(cohort, "clinical", "TCGA-AB-0005", "age") == 44
    assert value(cohort, "clinical", "TCGA-AB-0003", "stage") == 3


def test_gdc_says_what_is_not_there(of_gdc):
    found, manifest, _ = of_gdc
    aside = dict(found.findings.aside)
    assert "1 of the 71 files" in aside["gdc_sample_sheet.2024-05-01.tsv"]
    assert "whole-slide" in aside["Slide Image (1 file)"]
    assert aside["Copy Number Segment (10 files)"].startswith("Masked Copy Number Segment is taken")
    assert manifest.remarks["rna"]["files that the sheet names and that are not there"] == 1


def test_gdc_without_a_sheet_says_where_to_get_one(gdc, tmp_path):
    folder = tmp_path / "cart"
    shutil.copytree(gdc, folder)
    (folder / "gdc_sample_sheet.2024-05-01.tsv").unlink()
    (folder / "expression.tsv").write_text("gene\tTCGA-AB-0001\tTCGA-AB-0002\nTP53\t1.5\t2.5\n", encoding="utf-8")
    aside = describe(folder, Silent()).findings.aside
    assert any("press Sample Sheet" in why for _, why in aside)


# Xena


def test_xena_counts(of_xena):
    found, manifest, _ = of_xena
    assert found.findings.portal == "a download from a Xena hub"
    assert manifest.patients == 24
    assert counts(manifest) == {"rna": 18, "gistic": 20, "cnv": 9, "mutation": 14, "clinical": 24}
    assert manifest.endpoints["os"]["unit"] == "days"


def test_xena_values(of_xena, xena):
    _, _, cohort = of_xena
    rna = pd.read_csv(xena / "TCGA.LGG.sampleMap" / "HiSeqV2.gz", sep="\t", index_col=0)
    assert value(cohort, "rna", "TCGA-AB-0001", "EGFR") == pytest.approx(rna.loc["EGFR", "TCGA-AB-0001-01"], rel=1e-5)
    assert value(cohort, "cnv", "TCGA-AB-0002", "19q") == pytest.approx(-0.75)
    assert value(cohort, "mutation", "TCGA-AB-0003", "TP53") == 1
    assert value(cohort, "mutation", "TCGA-AB-0013", "IDH1") == 0  # silent variants only
    assert value(cohort, "clinical", "TCGA-AB-0007", "age") == 36
    survival = pd.read_csv(xena / "survival" / "LGG_survival.txt", sep="\t").drop_duplicates("_PATIENT")
    np.testing.assert_array_equal(cohort.endpoint("pfi")["time"], survival["PFI.time"])


def test_covariates_are_known_whichever_table_of_the_gdc_their_names_tell(tmp_path):
    for behind in (False, True):
        names = [("age_at_index", "demographic"), ("gender", "demographic"), ("ajcc_pathologic_stage", "diagnoses")]
        header = [".".join(pair if behind else pair[::-1]) for pair in names]
        folder = tmp_path / str(behind)
        folder.mkdir()
        rows = [f"P{n}\t{40 + n}\t{('male', 'female')[n % 2]}\tStage {'I' * (1 + n % 2)}" for n in range(8)]
        (folder / "patients.tsv").write_text("\n".join(["\t".join(["patient", *header]), *rows, ""]))
        recipe = describe(folder, Silent()).findings.modalities["clinical"].recipe
        assert {name: column["column"] for name, column in recipe["source"]["columns"].items()} == dict(
            zip(["age", "sex", "stage"], header, strict=True)
        )


# All of them


@pytest.mark.parametrize("name", ["of_cbioportal", "of_gdc", "of_xena"])
def test_no_patient_is_named_in_a_draft(name, request):
    found = request.getfixturevalue(name)[0]
    assert "TCGA-AB" not in found.yaml(".")


@pytest.mark.parametrize("name", ["cbioportal", "xena"])
def test_every_file_is_placed_or_named(name, request):
    folder, found = request.getfixturevalue(name), request.getfixturevalue(f"of_{name}")[0]
    lost = {path.name for path in folder.rglob("*") if path.is_file()} - placed(found, folder)
    assert all(name.startswith(("meta_", "cases_")) for name in lost)


@pytest.mark.parametrize(
    ("name", "example"),
    [("of_cbioportal", "cbioportal-study"), ("of_gdc", "gdc-download"), ("of_xena", "xena-hub")],
)
def test_the_example_is_what_describe_writes(name, example, request):
    shipped = yaml.safe_load((EXAMPLES / f"{example}.yaml").read_text(encoding="utf-8"))
    assert shipped == yaml.safe_load(request.getfixturevalue(name)[0].yaml(shipped["root"]))
