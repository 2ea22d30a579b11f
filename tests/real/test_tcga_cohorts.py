"""The real cohorts, prepared whole: every count in cohort.json against one derived from the files with pandas."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from foundation.cohort.manifest import Manifest
from foundation.cohort.prepare import prepare
from foundation.cohort.store import PreparedCohort
from foundation.progress import Silent

CONFIGS = Path(__file__).parents[2] / "configs" / "cohorts"
NORMAL = {"10", "11", "12", "13", "14"}

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]


def prepared(name: str, data: Path, out: Path) -> Manifest:
    return prepare(CONFIGS / f"{name}.yaml", out=out, root=data / name.replace("-", "_"), workers=2, progress=Silent())


@pytest.fixture(scope="module")
def glioma_folder(real_data: Path) -> Path:
    return real_data / "tcga_glioma"


@pytest.fixture(scope="module")
def glioma(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Manifest, PreparedCohort]:
    out = tmp_path_factory.mktemp("glioma")
    manifest = prepared("tcga-glioma", real_data, out)
    return manifest, PreparedCohort(out)


@pytest.fixture(scope="module")
def pancancer(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Manifest, PreparedCohort]:
    out = tmp_path_factory.mktemp("pancancer")
    manifest = prepared("tcga-pancancer", real_data, out)
    return manifest, PreparedCohort(out)


def tumours(barcodes: pd.Series) -> set[str]:
    return set(barcodes[~barcodes.str[13:15].isin(NORMAL)].str[:12])


def chosen_samples(barcodes: pd.Index) -> dict[str, str]:
    """Patient to the sample that should serve: no normals, primary first, then the lowest vial."""
    kept = sorted((b for b in barcodes if b[13:15] not in NORMAL), key=lambda b: (b[:12], b[13:15], b[15], b))
    first: dict[str, str] = {}
    for barcode in kept:
        first.setdefault(barcode[:12], barcode)
    return first


def test_glioma_patients_and_mri(glioma, glioma_folder):
    manifest, _ = glioma
    clinical = pd.read_csv(glioma_folder / "clinical.tsv.gz", sep="\t", dtype=str)
    assert manifest.patients == clinical["patient"].nunique() == 898
    scans = {p.name: {f.name.split(".")[0] for f in p.iterdir()} for p in (glioma_folder / "mri").iterdir()}
    mri = manifest.modalities["mri"]
    assert mri.patients == len(scans) == 88
    assert mri.channels == {c: sum(c in files for files in scans.values()) for c in ("t1", "flair", "t1gd")}
    assert mri.channels == {"t1": 83, "flair": 88, "t1gd": 82}


def test_glioma_omics_patients(glioma, glioma_folder):
    manifest, _ = glioma
    expected = {
        "rna": set(pd.read_csv(glioma_folder / "rna.tsv.gz", sep="\t", index_col=0, nrows=1).columns),
        "gistic": set(pd.read_csv(glioma_folder / "cnv_gistic.tsv.gz", sep="\t", index_col=0, nrows=1).columns),
        "cnv": tumours(pd.read_csv(glioma_folder / "cnv_segments.seg.gz", sep="\t", usecols=["Sample"])["Sample"]),
        "mutation": tumours(
            pd.read_csv(glioma_folder / "mutations.maf.gz", sep="\t", usecols=["Tumor_Sample_Barcode"]).iloc[:, 0]
        ),
        "protein": tumours(pd.read_csv(glioma_folder / "rppa.tsv.gz", sep="\t", usecols=[0]).iloc[:, 0]),
        "mirna": tumours(
            pd.Series(pd.read_csv(glioma_folder / "mirna_rpm.tsv.gz", sep="\t", index_col=0, nrows=1).columns)
        ),
    }
    assert {name: manifest.modalities[name].patients for name in expected} == {k: len(v) for k, v in expected.items()}
    assert manifest.modalities["rna"].patients == 455


def test_glioma_endpoints(glioma, glioma_folder):
    manifest, _ = glioma
    clinical = pd.read_csv(glioma_folder / "clinical.tsv.gz", sep="\t")
    columns = {
        "idh_codel": ("IDH.codel.subtype", ["IDHwt", "IDHmut-non-codel", "IDHmut-codel"]),
        "idh": ("IDH.status", ["WT", "Mutant"]),
        "mgmt": ("MGMT.promoter.status", ["Unmethylated", "Methylated"]),
        "response": (
            "treatment_outcome_first_course",
            ["Progressive Disease", "Stable Disease", "Partial Remission/Response", "Complete Remission/Response"],
        ),
    }
    for name, (column, values) in columns.items():
        counts = clinical[column].value_counts()
        assert list(manifest.endpoints[name]["classes"].values()) == [counts[value] for value in values], name
        assert manifest.endpoints[name]["patients"] == counts.sum(), name
    for name, event in (("os", "OS"), ("pfi", "PFI")):
        complete = clinical[[event, f"{event}.time"]].dropna()
        assert manifest.endpoints[name]["patients"] == len(complete), name
        assert manifest.endpoints[name]["events"] == int(complete[event].sum()), name


def test_glioma_patterns_cover_every_patient(glioma):
    manifest, cohort = glioma
    assert sum(manifest.patterns.values()) == 898
    named = {name: sum(n for p, n in manifest.patterns.items() if name in p.split("+")) for name in manifest.modalities}
    assert named == {name: entry.patients for name, entry in manifest.modalities.items()}
    assert cohort.present_NM.sum(axis=0).tolist() == [entry.patients for entry in manifest.modalities.values()]


def test_glioma_mirna_values(glioma, glioma_folder):
    _, cohort = glioma
    table = pd.read_csv(glioma_folder / "mirna_rpm.tsv.gz", sep="\t", index_col=0)
    for patient, sample in list(chosen_samples(table.columns).items())[::40]:
        row = int(np.flatnonzero(cohort.patients == patient)[0])
        expected = np.log2(1 + table.loc[cohort.features["mirna"], sample].to_numpy(np.float64))
        np.testing.assert_allclose(cohort.values_NF("mirna", [row])[0], expected, rtol=1e-5, atol=1e-6)


def test_glioma_protein_keeps_what_was_not_measured_apart(glioma, glioma_folder):
    _, cohort = glioma
    table = pd.read_csv(glioma_folder / "rppa.tsv.gz", sep="\t", index_col=0)
    patients = chosen_samples(table.index)
    rows = [int(np.flatnonzero(cohort.patients == patient)[0]) for patient in patients]
    expected = table.loc[list(patients.values()), cohort.features["protein"]].to_numpy(np.float32)
    np.testing.assert_array_equal(cohort.values_NF("protein", rows), expected)
    assert np.isnan(expected).any()


def test_glioma_mutations(glioma, glioma_folder):
    _, cohort = glioma
    maf = pd.read_csv(glioma_folder / "mutations.maf.gz", sep="\t")
    samples = chosen_samples(pd.Index(maf["Tumor_Sample_Barcode"].unique()))
    maf = maf[maf["Hugo_Symbol"] != "Unknown"]  # what a MAF writes where no gene is hit
    harmless = {"Silent", "RNA"}
    hits = maf[maf["Tumor_Sample_Barcode"].isin(samples.values()) & ~maf["Variant_Classification"].isin(harmless)]
    counts = hits.groupby("Hugo_Symbol")["Tumor_Sample_Barcode"].nunique()
    expected = counts[counts >= 5]
    values = cohort.values_NF("mutation", np.arange(len(cohort)))
    assert set(cohort.features["mutation"]) == set(expected.index)
    observed = dict(zip(cohort.features["mutation"], np.nansum(values, axis=0).astype(int), strict=True))
    assert observed == expected.to_dict()


def test_glioma_codeletion_is_seen_in_the_arms(glioma):
    _, cohort = glioma
    code = cohort.endpoint("idh_codel")["code"]
    methods = cohort.values_NF("cnv", np.arange(len(cohort)))
    names = cohort.features["cnv"]
    for method in ("1p", "19q"):
        value = methods[:, names.index(method)]
        assert np.nanmedian(value[code == 2]) < -0.2 < np.nanmedian(value[code == 1])


def test_pancancer_counts_and_published_folds(pancancer, real_data):
    manifest, cohort = pancancer
    folder = real_data / "tcga_pancancer"
    for cancer in sorted(path.name for path in folder.iterdir()):
        clinical = pd.read_csv(folder / cancer / "clinical.tsv.gz", sep="\t", dtype=str)
        here = cohort.groups == cancer
        assert set(cohort.patients[here]) == set(clinical["patient"])
        assert manifest.groups[cancer] == len(clinical)
        for name in ("rna", "cnv", "mutation"):
            present = cohort.present_NM[here, cohort.modalities.index(name)].sum()
            assert present == (len(clinical) if (folder / cancer / f"{name}.tsv.gz").exists() else 0), (cancer, name)
        survival = cohort.endpoint("os")
        order = clinical.set_index("patient").loc[cohort.patients[here]]
        np.testing.assert_allclose(survival["time"][here], order["survival_months"].astype(float))
        np.testing.assert_array_equal(survival["event"][here], order["event"].astype(float))
        for fold in range(5):
            published = pd.read_csv(folder / cancer / "folds" / f"fold_{fold}.tsv.gz", sep="\t")
            ours = {p: cohort.folds[str(fold)][p] for p in published["patient"]}
            assert ours == dict(zip(published["patient"], published["split"], strict=True))
    assert manifest.patients == len(cohort.patients) == sum(manifest.groups.values())
    assert len(manifest.folds) == 5
