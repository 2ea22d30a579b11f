"""The simulated cohort as a folder: the same bytes again, whole or absent, and true to what `truth/` says."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pydicom
import pytest
from datasets import load_from_disk

from foundation.cohort.prepare import prepare
from foundation.cohort.spec import CohortSpec
from foundation.cohort.store import PreparedCohort
from foundation.config import load_config
from foundation.errors import ConfigError, WriteError
from foundation.progress import Silent
from foundation.simulation.simulate import simulate
from foundation.simulation.subject import draw_subject
from foundation.yaml_text import dump, parse

PATIENTS, SEED = 40, 3

FIRST_COLUMNS = 9
"""Of clinical.tsv: those that were there before toxicity and seizures."""

AS_BEFORE = "16cc412b8275efed07ee2be8e969264b38c1d719c86860ba6d14a7ae006c47bc"
"""Of what the first version of `chiasma simulate` drew: those columns, and the names of scans and samples."""


def silent(done: int, total: int) -> None:
    pass


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("simulate") / "cohort"
    simulate(out, PATIENTS, SEED, silent)
    return out


@pytest.fixture(scope="module")
def clinical(cohort) -> pd.DataFrame:
    return pd.read_csv(cohort / "clinical.tsv", sep="\t", index_col="patient")


@pytest.fixture(scope="module")
def latent(cohort) -> pd.DataFrame:
    return pd.read_csv(cohort / "truth" / "latent.tsv", sep="\t", index_col="patient")


def test_same_seed_same_bytes_and_another_seed_others(tmp_path):
    for name, seed in (("first", 1), ("again", 1), ("other", 2)):
        simulate(tmp_path / name, 12, seed, silent)
    first, again, other = (digests(tmp_path / name) for name in ("first", "again", "other"))
    assert first == again
    for table in ("rna.tsv.gz", "mutations.maf.gz", "segments.seg.gz", "protein.h5ad", "clinical.tsv", "pathways.gmt"):
        assert first[table] != other[table], table
    scans = [name for name in first if name.endswith("flair.nii.gz") and name in other]
    assert scans and all(first[name] != other[name] for name in scans)


def test_endpoints_that_came_later_change_nothing_that_was_there(cohort):
    rows = [line.split("\t")[:FIRST_COLUMNS] for line in (cohort / "clinical.tsv").read_text().splitlines()]
    scans = sorted(path.relative_to(cohort).as_posix() for path in cohort.glob("scans/*/*/*"))
    samples = list(pd.read_csv(cohort / "rna.tsv.gz", sep="\t", nrows=0))
    segments = sorted(set(pd.read_csv(cohort / "segments.seg.gz", sep="\t")["Sample"]))
    sequenced = (cohort / "sequenced_samples.txt").read_text().split()
    drawn = json.dumps([rows, scans, samples, segments, sequenced])
    assert hashlib.sha256(drawn.encode()).hexdigest() == AS_BEFORE


def test_without_scans_all_else_is_the_same(tmp_path):
    simulate(tmp_path / "whole", 12, SEED, silent)
    simulate(tmp_path / "without", 12, SEED, silent, scans=False)
    whole, without = (digests(tmp_path / name) for name in ("whole", "without"))
    described = {"cohort.yaml", "README.md"}
    of_scans = {name for name in whole if name.startswith(("scans/", "truth/lesion_masks/"))}
    assert of_scans and set(without) == set(whole) - of_scans
    assert {name for name in without if without[name] != whole[name]} == described
    with_mri, alone = (load_config(CohortSpec, tmp_path / name / "cohort.yaml") for name in ("whole", "without"))
    assert set(with_mri.modalities) - set(alone.modalities) == {"mri"}
    assert "scans" not in (tmp_path / "without" / "README.md").read_text().replace("--no-scans", "")


def test_a_patient_is_the_same_in_a_smaller_cohort(cohort, clinical, tmp_path):
    simulate(tmp_path / "small", 12, SEED, silent)
    small = pd.read_csv(tmp_path / "small" / "clinical.tsv", sep="\t", index_col="patient")
    pd.testing.assert_frame_equal(small, clinical.iloc[:12], check_dtype=False)
    large = digests(cohort)
    scans = {name: digest for name, digest in digests(tmp_path / "small").items() if name.startswith("scans/")}
    assert len(scans) > 12 and all(large[name] == digest for name, digest in scans.items())


def test_patients_after_others_are_those_of_a_larger_cohort(tmp_path):
    simulate(tmp_path / "all", 32, SEED, silent)
    simulate(tmp_path / "last", 12, SEED, silent, after=20)
    everybody, last = (pd.read_csv(tmp_path / name / "clinical.tsv", sep="\t", dtype=str) for name in ("all", "last"))
    pd.testing.assert_frame_equal(last, everybody[everybody["patient"].isin(last["patient"])].reset_index(drop=True))
    assert last["patient"].nunique() == 12
    scans = [path for path in sorted((tmp_path / "last" / "scans").rglob("*")) if path.is_file()]
    assert scans and all(
        path.read_bytes() == (tmp_path / "all" / path.relative_to(tmp_path / "last")).read_bytes() for path in scans
    )
    # A model of the first wants every gene of the others, also those that none of them has hit.
    assert "min_patients: 0" in (tmp_path / "last" / "cohort.yaml").read_text()
    assert "min_patients: 3" in (tmp_path / "all" / "cohort.yaml").read_text()


def test_the_yaml_is_a_valid_cohort_and_names_files_that_exist(cohort):
    spec = load_config(CohortSpec, cohort / "cohort.yaml")
    assert list(spec.modalities) == ["mri", "rna", "mutation", "cnv", "protein", "clinical"]
    assert {name: endpoint.kind for name, endpoint in spec.endpoints.items()} == {
        "subtype": "subtype",
        "response": "response",
        "os": "survival",
        "toxicity": "subtype",
        "seizure": "survival",
    }
    assert list(spec.endpoints["toxicity"].classes) == ["no", "yes"]
    assert spec.endpoints["toxicity"].columns() == ["toxicity"]
    assert spec.endpoints["seizure"].columns() == ["seizure_days", "seizure_event"]
    for modality in spec.omics().values():
        for source in modality.source:
            assert (cohort / source.files).is_file()
    assert (cohort / "sequenced_samples.txt").is_file()
    assert "SIMULATED" in (cohort / "README.md").read_text()


def test_the_barcode_rule_sorts_every_sample(cohort):
    spec = load_config(CohortSpec, cohort / "cohort.yaml")
    samples = list(pd.read_csv(cohort / "rna.tsv.gz", sep="\t", index_col=0, nrows=1).columns)
    assignment = spec.patients.assign(samples, where="rna")
    assert assignment.unmatched == []
    assert assignment.left_out == [sample for sample in samples if "-11A" in sample] != []
    assert any("-01B" in sample or "-02A" in sample for sample in samples)
    chosen = {samples[positions[0]] for positions in assignment.by_patient.values()}
    assert chosen == {sample for sample in samples if sample.endswith("-01A")}


def test_tables_tell_toxicity_and_seizures_of_whom_they_were_recorded(clinical, latent):
    subjects = [draw_subject(SEED, index) for index in range(PATIENTS)]
    for subject, (name, row) in zip(subjects, clinical.iterrows(), strict=True):
        known, end = subject.presence, subject.outcome
        assert name == subject.patient.name
        assert row["toxicity"] == ("yes" if end.toxicity else "no") if known.toxicity else pd.isna(row["toxicity"])
        seizure = row[["seizure_days", "seizure_event"]]
        assert seizure.tolist() == [end.seizure_days, end.seizure_event] if known.seizure else seizure.isna().all()
    assert clinical[["toxicity", "seizure_days"]].isna().any().all()
    score = 3.5 * latent["height"] * latent["texture"]
    np.testing.assert_allclose(latent["toxicity_score"], score, atol=1e-4)
    score = 2 * latent["height"] * latent["elongation"] * latent["necrosis"]
    np.testing.assert_allclose(latent["seizure_score"], score, atol=1e-4)


def test_every_site_treats_its_share(clinical):
    assert clinical["site"].value_counts().to_dict() == {
        "site-1": 12,
        "site-2": 8,
        "site-3": 8,
        "site-4": 8,
        "site-5": 4,
    }
    assert all(name.split("-")[1] == f"0{site[-1]}" for name, site in clinical["site"].items())


def test_one_site_hands_over_dicom_and_the_others_nifti(cohort, clinical):
    series = {path.name for path in (cohort / "scans" / "dicom").iterdir()}
    files = {path.name for path in (cohort / "scans" / "nifti").iterdir()}
    assert set(clinical.loc[sorted(series), "site"]) == {"site-3"}
    assert set(clinical.loc[sorted(files), "site"]) == {"site-1", "site-2", "site-4", "site-5"}
    masks = {path.name.removesuffix(".nii.gz") for path in (cohort / "truth" / "lesion_masks").iterdir()}
    assert masks == series | files


def test_a_mask_lies_on_the_grid_of_its_scan(cohort):
    for patient in sorted((cohort / "scans" / "nifti").iterdir()):
        mask = nibabel.load(cohort / "truth" / "lesion_masks" / f"{patient.name}.nii.gz")
        assert 0 < np.count_nonzero(mask.dataobj) < 0.2 * np.prod(mask.shape)
        for path in patient.iterdir():
            scan = nibabel.load(path)
            assert scan.shape == mask.shape
            np.testing.assert_array_equal(scan.affine, mask.affine)


def test_scans_are_stored_in_several_orientations(cohort):
    paths = sorted((cohort / "scans" / "nifti").glob("*/*.nii.gz"))
    stored = {"".join(nibabel.aff2axcodes(nibabel.load(path).affine)) for path in paths}
    assert stored == {"RAS", "LPS", "LAS"}


def test_a_dicom_folder_holds_its_series_in_no_order(cohort):
    folders = sorted((cohort / "scans" / "dicom").iterdir())
    for folder in folders:
        slices = [pydicom.dcmread(path) for path in sorted(folder.iterdir())]
        counts = pd.Series([header.SeriesDescription for header in slices]).value_counts().to_dict()
        assert counts.pop("Localizer") == 3
        assert counts and set(counts) <= {"T1 axial", "AX FLAIR"} and set(counts.values()) == {24}
        numbers = [int(header.InstanceNumber) for header in slices if header.SeriesDescription in counts]
        assert numbers != sorted(numbers)
        assert len({header.SOPInstanceUID for header in slices}) == len(slices)
        assert {header.PatientID for header in slices} == {folder.name}


def test_the_oracle_knows_more_than_chance_and_less_than_all(cohort):
    scores = json.loads((cohort / "truth" / "oracle.json").read_text())
    assert {name: sorted(metrics) for name, metrics in scores.items()} == {
        "subtype": ["balanced_accuracy", "macro_auroc"],
        "response": ["auroc_responder", "quadratic_kappa"],
        "os": ["c_index"],
        "toxicity": ["balanced_accuracy", "macro_auroc"],
        "seizure": ["c_index"],
    }
    for name, metrics in scores.items():
        for score in metrics.values():
            # Most products of three are near 0, so that few of forty patients tell what seizures follow.
            assert score["chance"] + (0.05 if name == "seizure" else 0.15) < score["oracle"] < 1.0001


def test_the_larger_the_latent_size_the_larger_the_lesion(cohort, latent):
    volumes = {}
    for path in (cohort / "truth" / "lesion_masks").iterdir():
        mask = nibabel.load(path)
        volumes[path.name.removesuffix(".nii.gz")] = np.count_nonzero(mask.dataobj) * abs(np.linalg.det(mask.affine))
    volume = pd.Series(volumes)
    size = latent.loc[volume.index, "size"]
    assert np.corrcoef(size, np.log(volume))[0, 1] > 0.85
    assert abs(np.corrcoef(latent.loc[volume.index, "elongation"], np.log(volume))[0, 1]) < 0.5


def test_a_lesion_lies_where_the_latent_says(cohort, latent):
    places = {}
    for path in (cohort / "truth" / "lesion_masks").iterdir():
        mask = nibabel.load(path)
        middle = np.argwhere(np.asarray(mask.dataobj)).mean(axis=0)
        places[path.name.removesuffix(".nii.gz")] = nibabel.affines.apply_affine(mask.affine, middle)
    place = pd.DataFrame(places, index=["side", "depth", "height"]).T
    for name in place:
        assert np.corrcoef(place[name], latent.loc[place.index, name])[0, 1] > 0.85, name


def test_rna_follows_the_weights_that_the_truth_names(cohort, latent):
    rna = np.log2(pd.read_csv(cohort / "rna.tsv.gz", sep="\t", index_col=0) + 1)
    rna = rna.loc[:, rna.columns.str.endswith("-01A")].rename(columns=lambda name: name[:-4])
    causal = pd.read_csv(cohort / "truth" / "causal_genes.tsv", sep="\t")
    for name in ("side", "size", "texture", "necrosis"):
        weights = causal[(causal["modality"] == "rna") & (causal["latent"] == name)].set_index("gene")["weight"]
        score = rna.loc[weights.index].T @ weights
        assert np.corrcoef(score, latent.loc[rna.columns, name])[0, 1] > 0.7, name


def test_a_pathway_holds_the_genes_that_share_a_cause(cohort):
    causal = pd.read_csv(cohort / "truth" / "causal_genes.tsv", sep="\t")
    pathways = {
        line.split("\t")[0]: set(line.split("\t")[2:]) for line in (cohort / "pathways.gmt").read_text().splitlines()
    }
    assert len(pathways) == 12 and {len(genes) for genes in pathways.values()} == {44}
    moved_by_side = set(causal[(causal["modality"] == "rna") & (causal["latent"] == "side")]["gene"])
    assert len(moved_by_side & pathways["SIM_PATHWAY_01"]) >= 20
    genes = set(pd.read_csv(cohort / "rna.tsv.gz", sep="\t", usecols=["gene"])["gene"])
    assert set().union(*pathways.values()) < genes and len(genes) == 600


def test_whoever_was_sequenced_stands_in_the_list(cohort):
    mutations = pd.read_csv(cohort / "mutations.maf.gz", sep="\t", dtype=str)
    sequenced = (cohort / "sequenced_samples.txt").read_text().split()
    assert set(mutations["Tumor_Sample_Barcode"]) <= set(sequenced)
    assert "Silent" in set(mutations["Variant_Classification"])


def test_segments_cover_each_arm_without_overlap(cohort):
    segments = pd.read_csv(cohort / "segments.seg.gz", sep="\t", dtype={"Chromosome": str})
    assert (segments["Start"] < segments["End"]).all()
    for _, rows in segments.groupby(["Sample", "Chromosome"], sort=False):
        assert (rows["Start"].to_numpy()[1:] == rows["End"].to_numpy()[:-1] + 1).all()
    # Lengths of chromosomes 1 and 21 in hg38, which differ from hg19.
    assert segments.groupby("Chromosome")["End"].max()[["1", "21"]].tolist() == [248_956_422, 46_709_983]
    blood = segments["Sample"].str.endswith("-10A")
    assert blood.any()
    assert segments.loc[blood, "Segment_Mean"].std() < 0.1 < segments.loc[~blood, "Segment_Mean"].std()


def test_protein_lacks_a_few_values(cohort):
    import anndata

    protein = anndata.read_h5ad(cohort / "protein.h5ad")
    assert protein.shape[1] == 48 and protein.X.dtype == np.float32
    assert 0 < np.isnan(protein.X).mean() < 0.1
    assert all(name.endswith("-01A") for name in protein.obs_names)


def test_progress_counts_every_patient(tmp_path):
    seen = []
    simulate(tmp_path / "cohort", 10, 0, lambda done, total: seen.append((done, total)))
    assert seen == [(done, 10) for done in range(1, 11)]


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "cohort").mkdir()
    simulate(tmp_path / "cohort", 10, 0, silent)
    assert (tmp_path / "cohort" / "cohort.yaml").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["cohort"]


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not an empty folder") as caught:
        simulate(tmp_path, 10, 0, silent)
    assert caught.value.where == str(tmp_path) and caught.value.fix
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_what_a_stopped_simulation_left_is_named_and_not_removed(tmp_path):
    (tmp_path / "cohort.partial").mkdir()
    with pytest.raises(ConfigError, match="was stopped"):
        simulate(tmp_path / "cohort", 10, 0, silent)
    assert (tmp_path / "cohort.partial").is_dir()


@pytest.mark.parametrize(("patients", "seed", "flag"), [(9, 0, "--patients"), (10, -1, "--seed")])
def test_a_number_that_does_not_fit_is_refused(tmp_path, patients, seed, flag):
    with pytest.raises(ConfigError) as caught:
        simulate(tmp_path / "cohort", patients, seed, silent)
    assert caught.value.where == flag
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_nothing_half_written_remains(tmp_path, stop):
    def interrupt(done: int, total: int) -> None:
        raise stop

    with pytest.raises((KeyboardInterrupt, WriteError)):
        simulate(tmp_path / "cohort", 10, 0, interrupt)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_is_no_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="file: is a file, not a folder") as caught:
        simulate(tmp_path / "file" / "cohort", 10, 0, silent)
    assert caught.value.fix


def test_annotations_are_masks_of_half_of_the_scanned_and_change_nothing_else(tmp_path):
    simulate(tmp_path / "plain", 24, SEED, silent)
    simulate(tmp_path / "drawn", 24, SEED, silent, annotations=True)
    plain, drawn = (digests(tmp_path / name) for name in ("plain", "drawn"))
    masks = {name for name in drawn if name.startswith("masks/")}
    assert set(drawn) == set(plain) | masks
    assert {name for name in plain if plain[name] != drawn[name]} == {"cohort.yaml", "README.md"}
    assert all(drawn[name] == drawn[name.replace("masks/", "truth/lesion_masks/")] for name in masks)
    scanned = {name for name in plain if name.startswith("truth/lesion_masks/")}
    assert 0 < len(masks) < len(scanned)
    assert not any("annotation" in (tmp_path / "plain" / name).read_text() for name in ("cohort.yaml", "README.md"))


def test_drawn_tumours_are_prepared_from_nifti_and_dicom_where_they_are(tmp_path):
    simulate(tmp_path / "source", 24, SEED, silent, annotations=True)
    spec = parse((tmp_path / "source" / "cohort.yaml").read_text())
    spec["modalities"] = {"mri": spec["modalities"]["mri"]}
    (tmp_path / "source" / "scans.yaml").write_text(dump(spec))
    manifest = prepare(tmp_path / "source" / "scans.yaml", out=tmp_path / "out", workers=1, progress=Silent())
    prepare(tmp_path / "source" / "scans.yaml", out=tmp_path / "two", workers=2, progress=Silent())
    assert digests(tmp_path / "two") == digests(tmp_path / "out")
    prepared = PreparedCohort(tmp_path / "out")
    assert "annotation/tumour/regions" in load_from_disk(str(tmp_path / "out" / "records")).features
    masks = {path.name.split(".")[0] for path in (tmp_path / "source" / "masks").iterdir()}
    assert manifest.annotations["tumour"].patients == len(masks) and manifest.quarantined == 0
    dicom = {path.name for path in (tmp_path / "source" / "scans" / "dicom").iterdir()}
    assert masks & dicom and masks - dicom
    for row in range(len(prepared)):
        annotation = prepared.annotation("tumour", row)
        assert (annotation is not None) == (prepared.patients[row] in masks)
        if annotation is None:
            continue
        [tumour] = annotation.regions
        truth = nibabel.load(tmp_path / "source" / "truth" / "lesion_masks" / f"{prepared.patients[row]}.nii.gz")
        volume = np.asarray(truth.dataobj).sum() * abs(np.linalg.det(truth.affine))
        assert tumour.sum() * 4 * 4 * 6 == pytest.approx(volume, rel=0.1)
        stored = prepared.affine_N44("mri", [row])[0]
        drawn_at, stored_at = (
            affine[:3, :3] @ np.argwhere(mask).mean(axis=0) + affine[:3, 3]
            for affine, mask in ((truth.affine, np.asarray(truth.dataobj)), (stored, tumour))
        )
        np.testing.assert_allclose(stored_at, drawn_at, atol=1.5)
