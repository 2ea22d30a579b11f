"""cohort.yaml as a whole: words that one part explains and another calls nothing known; one patient in all sources."""

import nibabel
import numpy as np
import pytest
import yaml
from pydantic import ValidationError

from foundation.cohort.prepare import prepare
from foundation.cohort.spec import CohortSpec
from foundation.cohort.store import PreparedCohort
from foundation.errors import DataError
from foundation.progress import Silent


def spec(columns: dict, endpoints: dict, missing: list[str], files: str = "clinical.csv") -> CohortSpec:
    source = {"format": "clinical", "files": files, "columns": columns}
    return CohortSpec(
        name="case",
        clinical={"files": "clinical.csv", "missing": missing},
        modalities={"clinical": {"kind": "omics", "source": source}},
        endpoints=endpoints,
    )


SEX = {"sex": {"kind": "category", "categories": ["M", "None"]}}
RISK = {"risk": {"kind": "subtype", "column": "risk", "classes": ["low", "high", "Unknown"]}}


def test_words_of_the_clinical_table_hold_for_the_covariates_read_from_it():
    made = spec({"age": "number"}, {}, ["?"], files="./clinical.csv")
    source = made.modalities["clinical"].source[0]
    assert made.completed(source).missing == ["?"]
    other = spec({"age": "number"}, {}, ["?"], files="other.csv")
    assert other.completed(other.modalities["clinical"].source[0]).missing == []


@pytest.mark.parametrize(
    ("columns", "endpoints", "word", "message"),
    [
        (SEX, {}, "none", "'None' is listed under both `clinical.missing` and the column 'sex'"),
        (
            {"age": "number"},
            RISK,
            "unknown",
            "'Unknown' is listed under both `clinical.missing` and the endpoint 'risk'",
        ),
    ],
)
def test_a_word_that_means_something_elsewhere_is_refused(columns, endpoints, word, message):
    with pytest.raises(ValidationError, match=message):
        spec(columns, endpoints, [word])
    if columns is SEX:
        spec(columns, endpoints, [word], files="other.csv")


SPELLED = {"clinical.csv": "A-{}", "rna.tsv": "a.{}", "folds_0.csv": "a_{}"}


def write_sources(folder, images=("A_1", "a-2")):
    for name, spelling in SPELLED.items():
        one, two = (spelling.format(number) for number in (1, 2))
        text = {
            "clinical.csv": f"patient,age\n{one},60\n{two},61\n",
            "rna.tsv": f"gene\t{one}\t{two}\nG\t1\t2\n",
            "folds_0.csv": f"patient,split\n{one},train\n{two},val\n",
        }[name]
        (folder / name).write_text(text)
    for image in images:
        (folder / image).mkdir()
        volume = nibabel.Nifti1Image(np.arange(8, dtype=np.float32).reshape(2, 2, 2), np.eye(4))
        nibabel.save(volume, folder / image / "ct.nii.gz")
    document = {
        "name": "case",
        "patients": {"normalise": {"case": "upper", "separators": "-"}},
        "clinical": {"files": "clinical.csv"},
        "modalities": {
            "ct": {
                "kind": "image",
                "channels": ["ct"],
                "size": [2, 2, 2],
                "source": {"format": "nifti", "files": "{patient}/{channel}.nii.gz"},
            },
            "rna": {
                "kind": "omics",
                "source": {"format": "matrix", "files": "rna.tsv", "orientation": "features_by_samples"},
            },
        },
        "folds": {"files": "folds_{fold}.csv"},
    }
    (folder / "cohort.yaml").write_text(yaml.safe_dump(document))


def test_a_patient_spelled_otherwise_in_every_source_is_one(tmp_path):
    write_sources(tmp_path)
    prepare(tmp_path / "cohort.yaml", out=tmp_path / "out", progress=Silent())
    cohort = PreparedCohort(tmp_path / "out")
    assert cohort.patients.tolist() == ["A-1", "A-2"]
    assert cohort.present_NM.all()
    assert cohort.folds == {"0": {"A-1": "train", "A-2": "val"}}


def test_two_folders_of_scans_that_become_one_patient_are_refused_by_name(tmp_path):
    write_sources(tmp_path, images=("A_1", "a-1"))
    with pytest.raises(DataError, match="'A_1' and 'a-1' are both 'A-1'"):
        prepare(tmp_path / "cohort.yaml", out=tmp_path / "out", progress=Silent())
