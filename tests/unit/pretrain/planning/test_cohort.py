"""The cohort of a plan, from a file of shapes."""

from __future__ import annotations

import pytest

from foundation.errors import ConfigError
from foundation.modality import ImageModality, OmicsModality
from pretrain.planning.cohort import Cohort


def test_a_cohort_is_its_folder_or_a_file_of_shapes(tmp_path):
    path = tmp_path / "shapes.yaml"
    path.write_text(
        "records: 9\nmodalities:\n  rna: {kind: omics, features: 3}\n"
        "  ct: {kind: image, shape: [8, 8, 4], stored_as: int16}\n"
        "  cnv: {kind: omics, features: 2, values: ordinal}\n"
    )
    names = ["feature 0", "feature 1", "feature 2"]
    cnv = OmicsModality(features=names[:2], values="ordinal")
    rna, ct = OmicsModality(features=names, values="continuous"), ImageModality(channels=["channel 0"], shape=[8, 8, 4])
    stored = 9 * (4 * 3 + 2 * 8 * 8 * 4 + 4 * 2)
    cohort = Cohort.read([path], None)
    assert cohort == Cohort(9, {"rna": rna, "ct": ct, "cnv": cnv}, stored)
    assert cohort.in_batch == 4 * (3 + 8 * 8 * 4 + 2) + 3 + 2
    # The records hold the others too.
    assert Cohort.read([path], ["cnv"]) == Cohort(9, {"cnv": cnv}, stored)
    with pytest.raises(ConfigError, match="did you mean 'rna'"):
        Cohort.read([path], ["rnas"])
    path.write_text("record: 9\n")
    with pytest.raises(ConfigError, match="did you mean 'records'"):
        Cohort.read([path], None)
