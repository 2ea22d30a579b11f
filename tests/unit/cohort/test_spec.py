"""cohort.yaml as a whole: words that one part of it explains and another calls nothing known."""

import pytest
from pydantic import ValidationError

from foundation.cohort.spec import CohortSpec


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
