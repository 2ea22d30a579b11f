"""Pairs of views: which towers are compared, and how a patient's omics are dealt out to two sides."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foundation.data.batch import Batch
from foundation.errors import ConfigError
from foundation.modality import ImageModality, OmicsModality
from foundation.model.view import TowerOutput, TowerSpec
from foundation.objectives.contrastive.pairs import disjoint, find_pairs
from foundation.objectives.infonce import InfoNCE, InfoNCEConfig


def of_omics(tower: str, *names: str) -> TowerSpec:
    return TowerSpec(tower, {name: OmicsModality(features=["a"], values="continuous") for name in names})


MRI, CT = (TowerSpec(name, {name: ImageModality(channels=["a"], shape=[2, 2])}) for name in ("mri", "ct"))
OMICS, LONE = of_omics("omics", "rna", "cnv", "mutation"), of_omics("omics", "rna")
MODALITIES = ("cnv", "ct", "mri", "mutation", "rna")


def batch(present_BM, patients=None, records=None):
    count = len(present_BM)
    records = records or [f"P{i}" for i in range(count)]
    zeros = torch.zeros(count, dtype=torch.int64)
    return Batch(
        MODALITIES,
        patients or records,
        records,
        zeros,
        zeros,
        present_BM,
        {},
        {},
        {},
        {},
        {},
        [""] * count,
        [""] * count,
    )


def pairs(sites, **config):
    return [(pair.name, pair.weight) for pair in find_pairs(InfoNCEConfig(**config), sites)]


def test_auto_is_every_image_with_omics_and_omics_with_itself():
    assert pairs([CT, MRI, OMICS]) == [("ct~omics", 1), ("mri~omics", 1), ("omics~omics", 1)]
    assert pairs([MRI, LONE]) == [("mri~omics", 1)]
    assert pairs([OMICS]) == [("omics~omics", 1)]


def test_several_omics_towers_are_compared_with_images_with_each_other_and_with_themselves():
    genome, tissue = of_omics("genome", "cnv", "mutation"), of_omics("tissue", "rna")
    found = [("mri~genome", 1), ("mri~tissue", 1), ("genome~tissue", 1), ("genome~genome", 1)]
    assert pairs([MRI, genome, tissue]) == found


def test_weights_are_those_of_the_kind_of_pair():
    weights = {"image_image": 2, "image_omics": 3, "omics_omics": 0.5}
    wanted = [["mri", "ct"], ["omics", "mri"], ["omics", "omics"]]
    found = pairs([MRI, CT, OMICS], pairs=wanted, weights=weights)
    assert found == [("mri~ct", 2), ("omics~mri", 3), ("omics~omics", 0.5)]


def test_a_pair_without_weight_is_not_looked_at():
    assert pairs([MRI, OMICS], weights={"omics_omics": 0}) == [("mri~omics", 1)]


@pytest.mark.parametrize(
    ("sites", "config", "words"),
    [
        ([MRI], {}, "nothing to compare: towers are mri"),
        ([MRI, OMICS], {"pairs": []}, "nothing to compare"),
        ([MRI, LONE], {"weights": {"image_omics": 0}}, "nothing to compare"),
        ([MRI, OMICS], {"pairs": [["mri", "omic"]]}, "did you mean 'omics'"),
        ([MRI, OMICS], {"pairs": [["mri", "mri"]]}, "tower 'mri' cannot be compared with itself"),
        ([MRI, LONE], {"pairs": [["omics", "omics"]]}, "tower 'omics' cannot be compared with itself"),
        ([MRI, OMICS], {"pairs": [["mri", "omics"], ["omics", "mri"]]}, "named twice"),
    ],
)
def test_pairs_that_cannot_be_are_refused(sites, config, words):
    with pytest.raises(ConfigError, match=words):
        find_pairs(InfoNCEConfig(**config), sites)


@pytest.mark.parametrize("config", [{"pairs": [["mri"]]}, {"temperature": 0.005}, {"temperature": 0}, {"pairs": "all"}])
def test_configs_that_make_no_sense_are_refused(config):
    with pytest.raises(ValueError, match=r"at least 2|below lowest_temperature|greater than 0|auto"):
        InfoNCEConfig(**config)


@settings(max_examples=60)
@given(st.data())
def test_sides_are_disjoint_complete_and_not_empty(data):
    records, modalities = data.draw(st.integers(1, 8)), data.draw(st.integers(1, 5))
    present = np.array(
        data.draw(
            st.lists(
                st.lists(st.booleans(), min_size=modalities, max_size=modalities), min_size=records, max_size=records
            )
        )
    )
    names = [f"P{i}" for i in range(records)]
    one, other = disjoint(present, names, [3] * records, data.draw(st.integers(0, 99)))
    assert not (one & other).any()
    assert np.array_equal(one | other, present)
    several = present.sum(axis=1) > 1
    assert one[several].any(axis=1).all() and other[several].any(axis=1).all()


def test_every_split_and_both_sides_of_a_lone_modality_occur():
    many = 4000
    names = [f"P{i}" for i in range(many)]
    one, _ = disjoint(np.ones((many, 3), dtype=bool), names, [0] * many, 0)
    splits, counts = np.unique(one, axis=0, return_counts=True)
    assert len(splits) == 6 and counts.min() > many / 6 * 0.85
    lone, _ = disjoint(np.eye(1, 3, dtype=bool).repeat(many, axis=0), names, [0] * many, 0)
    assert 0.46 < lone[:, 0].mean() < 0.54


def test_sides_are_a_function_of_seed_patient_and_epoch_alone():
    present, names, epochs = np.ones((200, 4), dtype=bool), [f"P{i}" for i in range(200)], [1] * 200
    sides = disjoint(present, names, epochs, 0)
    order = np.random.default_rng(0).permutation(200)
    assert np.array_equal(disjoint(present, [names[i] for i in order], epochs, 0), sides[:, order])
    assert not np.array_equal(disjoint(present, names, epochs, 1), sides)
    assert not np.array_equal(disjoint(present, names, [2] * 200, 0), sides)


def test_scans_of_one_patient_with_the_same_omics_are_dealt_out_alike():
    one, other = disjoint(np.ones((6, 5), dtype=bool), ["P"] * 6, [0] * 6, 0)
    assert (one == one[0]).all() and not (one[0] & other[5]).any()


def test_views_show_each_tower_its_modalities():
    present = torch.tensor([[1, 1, 1, 1, 1], [0, 0, 1, 0, 1], [1, 0, 0, 1, 1]]).bool()
    objective = InfoNCE(InfoNCEConfig(), [MRI, CT, OMICS], {})
    views = objective.views(batch(present), seed=0)
    assert list(views) == ["mri", "omics", "ct", "omics/one", "omics/other"]
    assert {name: view.tower for name, view in views.items()} == {
        "mri": "mri", "omics": "omics", "ct": "ct", "omics/one": "omics", "omics/other": "omics",
    }  # fmt: skip
    assert not views["mri"].keep and not views["omics"].keep
    one, other = (views[f"omics/{side}"].keep for side in ("one", "other"))
    assert set(one) == set(other) == {"rna", "cnv", "mutation"}
    for name, column in {"cnv": 0, "mutation": 3, "rna": 4}.items():
        assert torch.equal(one[name].int() + other[name].int(), present[:, column].int())


def test_each_view_hides_its_own_share_of_features_and_patches():
    config = InfoNCEConfig(hidden_features=0.4, hidden_patches=0.2)
    present = torch.ones(200, len(MODALITIES), dtype=torch.bool)
    seen = batch(present)
    seen.observed = {name: torch.ones(200, 40, dtype=torch.bool) for name in OMICS.modalities}
    mri = replace(MRI, patch=(2, 2), grid=(4, 5))
    views = InfoNCE(config, [mri, OMICS], {}).views(seen, seed=0)
    assert set(views["mri"].hidden) == {"mri"} and views["mri"].hidden["mri"].shape == (200, 20)
    for name, view in views.items():
        for hidden in view.hidden.values():
            assert abs(float(hidden.float().mean()) - (0.2 if name == "mri" else 0.4)) < 0.03
    assert not any(view.hidden for view in InfoNCE(InfoNCEConfig(), [mri, OMICS], {}).views(seen, seed=0).values())
    one, other = (views[f"omics/{side}"].hidden["rna"] for side in ("one", "other"))
    assert not torch.equal(one, other)
    part = InfoNCE(config, [mri, OMICS], {}).views(seen.part(10, 20), seed=0)
    assert torch.equal(part["omics"].hidden["rna"], views["omics"].hidden["rna"][10:20])


def test_loss_is_the_weighted_sum_and_each_pair_is_logged():
    objective = InfoNCE(InfoNCEConfig(weights={"image_omics": 2.0, "omics_omics": 0.25}), [MRI, OMICS], {})
    example = batch(torch.ones(6, 5, dtype=torch.bool))
    random = torch.Generator().manual_seed(0)
    seen = {
        name: TowerOutput(
            torch.nn.functional.normalize(torch.randn(6, 4, generator=random)), torch.arange(6) != 2, view
        )
        for name, view in objective.views(example, 0).items()
    }
    loss = objective(seen, example)
    assert set(loss.parts) == {"mri~omics", "omics~omics"}
    assert set(loss.facts) == {"mri~omics/rows", "omics~omics/rows", "rows", "temperature"}
    expected = 2.0 * loss.parts["mri~omics"] + 0.25 * loss.parts["omics~omics"]
    torch.testing.assert_close(loss.value.detach(), expected)
    assert loss.parts["mri~omics"] != loss.parts["omics~omics"]
    assert loss.facts["rows"] == 10 and loss.facts["mri~omics/rows"] == 5
    assert loss.facts["temperature"].item() == pytest.approx(0.07)
    assert not any(value.requires_grad for value in [*loss.parts.values(), *loss.facts.values()])


def test_scans_of_one_patient_are_positives():
    """The names of patients, not of records, say who is a positive."""
    objective = InfoNCE(InfoNCEConfig(), [MRI, LONE], {})
    present = torch.ones(2, 5, dtype=torch.bool)
    example = batch(present, ["P", "P"], ["P/0", "P/1"])
    seen = {
        n: TowerOutput(torch.eye(2), torch.ones(2, dtype=torch.bool), v) for n, v in objective.views(example, 0).items()
    }
    one = objective(seen, example)
    two = objective(seen, batch(present, ["P", "Q"], ["P/0", "Q/0"]))
    assert one.value == 0 < two.value
