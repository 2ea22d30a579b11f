"""The glioma folder described and prepared from the draft as it stands, against the configuration written by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from foundation.cohort.describe.run import describe
from foundation.cohort.manifest import Manifest
from foundation.cohort.prepare import prepare
from foundation.progress import Silent

BY_HAND = Path(__file__).parents[2] / "configs" / "cohorts" / "tcga-glioma.yaml"

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def both(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Manifest, Manifest]:
    """The cohort of the draft, and that of the configuration in the repository."""
    folder, out = real_data / "tcga_glioma", tmp_path_factory.mktemp("described")
    (out / "cohort.yaml").write_text(describe(folder, Silent()).yaml(str(folder)), encoding="utf-8")
    drafted = prepare(out / "cohort.yaml", out=out / "drafted", workers=2, progress=Silent())
    return drafted, prepare(BY_HAND, out=out / "by_hand", root=folder, workers=2, progress=Silent())


def test_the_draft_counts_the_same_patients(both):
    drafted, by_hand = both
    names = {name: name for name in by_hand.modalities}
    assert drafted.patients == by_hand.patients
    assert {n: drafted.modalities[n].patients for n in names} == {n: m.patients for n, m in by_hand.modalities.items()}
    assert drafted.sites == by_hand.sites
    assert drafted.modalities["mri"].channels.items() == by_hand.modalities["mri"].channels.items()
    assert drafted.modalities["mri"].shape == by_hand.modalities["mri"].shape == [128, 128, 32]
    for name in ("rna", "gistic", "cnv", "protein", "mirna"):
        assert drafted.modalities[name].features == by_hand.modalities[name].features, name


def test_the_draft_finds_the_endpoints(both):
    drafted, by_hand = both
    names = {
        "os": "os", "pfi": "pfi", "idh": "idh_status", "idh_codel": "idh_codel_subtype",
        "mgmt": "mgmt_promoter_status", "response": "treatment_outcome_first_course",
    }  # fmt: skip
    for hand, draft in names.items():
        assert drafted.endpoints[draft]["kind"] == by_hand.endpoints[hand]["kind"]
        assert drafted.endpoints[draft]["patients"] == by_hand.endpoints[hand]["patients"], hand
    for name in ("os", "pfi"):
        assert drafted.endpoints[name]["events"] == by_hand.endpoints[name]["events"]
        assert drafted.endpoints[name]["unit"] == by_hand.endpoints[name]["unit"]
    assert list(drafted.endpoints["treatment_outcome_first_course"]["classes"].values()) == list(
        by_hand.endpoints["response"]["classes"].values()
    )
