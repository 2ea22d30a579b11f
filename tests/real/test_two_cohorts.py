"""Pairs of the TCGA gliomas and two cancers with omics alone in one pretraining."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from foundation.cohort.prepare import prepare
from foundation.cohort.store import PreparedCohort
from foundation.errors import DataError
from foundation.model.seen_patients import SeenPatients
from foundation.progress import Silent
from pretrain.run import pretrain

CONFIGS = Path(__file__).parents[2] / "configs"
UNIT = "z-score per gene within the cancer, by the publisher"
CANCERS = ["blca", "kirp"]
CHANGES = [
    "towers.mri.arguments={embed_dim: 16, depth: 1, num_heads: 2}",
    "towers.mri.max_slices=2",
    "towers.omics={tower: omics_transformer, tokenizer: {tokenizer: chunk, size: 512}, width: 16, depth: 1, heads: 2}",
    "preprocessing.modalities=[mri, rna]",
    "width=16",
    "epochs=0.3",
    "batch_size=16",
    "permutations=100",
    "augmentation=null",
]

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def cohorts(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The gliomas, with the unit of their RNA as it is and as the other cohort says it, and two other cancers."""
    folder = tmp_path_factory.mktemp("two")
    glioma = yaml.safe_load((CONFIGS / "cohorts" / "tcga-glioma.yaml").read_text(encoding="utf-8"))
    del glioma["annotations"]
    for name, kept, unit in (("other-unit", ["rna"], None), ("glioma", ["mri", "rna"], UNIT)):
        modalities = {modality: glioma["modalities"][modality] for modality in kept}
        modalities["rna"] |= {} if unit is None else {"unit": unit}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(glioma | {"modalities": modalities}), encoding="utf-8")
        prepare(folder / f"{name}.yaml", out=folder / name, root=real_data / "tcga_glioma", progress=Silent())
    others = yaml.safe_load((CONFIGS / "cohorts" / "tcga-pancancer.yaml").read_text(encoding="utf-8"))
    others |= {"groups": CANCERS, "modalities": {"rna": others["modalities"]["rna"] | {"absent_for": []}}}
    del others["folds"]
    (folder / "others.yaml").write_text(yaml.safe_dump(others), encoding="utf-8")
    prepare(folder / "others.yaml", out=folder / "others", root=real_data / "tcga_pancancer", progress=Silent())
    return folder


def run(folder: Path, glioma: str, *changes: str) -> dict:
    both = f"cohorts=[{{path: {folder / glioma}}}, {{path: {folder / 'others'}, weight: 0.5}}]"
    config = CONFIGS / "pretrain" / "tcga-glioma-and-pancancer.yaml"
    return pretrain(config, [*CHANGES, both, f"out={folder / 'run'}", *changes])[0]


def test_units_that_differ_are_refused(cohorts):
    with pytest.raises(
        DataError, match="'rna' has unit 'z-score per gene, by the publisher' in the cohort 'tcga-glioma'"
    ):
        run(cohorts, "other-unit", "preprocessing.modalities=[rna]")


def test_gliomas_with_scans_and_other_cancers_are_pretrained_on_together(cohorts):
    metrics = run(cohorts, "glioma")
    told = {entry["cohort"]: entry for entry in metrics["cohorts"]}
    assert set(told) == {"tcga-glioma", "tcga-pancancer"} and told["tcga-pancancer"]["pairs"] == 0
    assert 20 < told["tcga-glioma"]["pairs"] < 88
    samples = json.loads((cohorts / "run" / "metrics.jsonl").read_text().splitlines()[-1])["samples_seen"]
    assert told["tcga-glioma"]["share_of_pairs"] == pytest.approx(0.25, abs=1 / samples)
    assert set(metrics["patterns_seen"]) == {"mri", "rna", "mri+rna", "none"}
    # `os` is in days in one and in months in the other; `response` has the same classes in both.
    assert {"idh_codel", "os of tcga-glioma", "os of tcga-pancancer", "response", "pfi"} <= set(metrics["probes"])
    seen = SeenPatients.read(cohorts / "run" / "model")
    assert seen is not None
    for name in ("glioma", "others"):
        patients = set(PreparedCohort(cohorts / name).patients)
        assert 0.5 < seen.among(patients).mean() < 0.8
