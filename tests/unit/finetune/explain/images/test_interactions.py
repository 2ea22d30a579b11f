"""How a gene's effect depends on a region of a scan: exactly the planted product, and nothing where there is none."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from finetune.explain.images import interactions as module
from finetune.explain.images.interactions import Regions, interactions, pairs_of
from finetune.explain.images.overlays import affines_of
from finetune.explain.images.scan import Scan, _copies, instead
from finetune.explain.methods import Columns
from finetune.explain.networks import NetworkRecords, network_methods
from finetune.methods.adapted import EVERYTHING

GENE = 3


@pytest.fixture
def networks(joined, seeing):
    return network_methods(joined, seeing)


@pytest.fixture
def columns(networks):
    [network] = networks.values()
    return Columns.of(network.aligned)


@pytest.fixture
def row(seeing):
    both = seeing.present_NM[:, [seeing.modalities.index(name) for name in ("mri", "rna")]].all(axis=1)
    return int(np.flatnonzero(both)[0])


class Outputs:
    """Outputs of a planted function are its scores, two of them."""

    def __init__(self, weighted):
        self.scores, self.weights = weighted.scores[:2], weighted.weights

    def __call__(self, outputs):
        return outputs


def planted(network, box, product):
    """A function of one gene and of the mean intensity in a box: its square, the other's square, and their product."""
    network.weighted = Outputs(network.weighted)

    def forward(batch, *_):
        gene_B = batch.omics["rna"][:, GENE].double()
        inside_B = batch.images["mri"][:, 0][:, *box].double().flatten(1).mean(dim=1)
        score_B = gene_B**2 + inside_B**2 + product * gene_B * inside_B
        return {EVERYTHING: torch.stack([score_B, 5 * gene_B], dim=1)}

    return instead(network.adapted, forward)


def region_box(scan, regions, region):
    """The voxels of a region's cells, which is a box of a scan that is all tissue there."""
    inside = scan.cells.blocks(torch.from_numpy(regions.number_G == region))
    return tuple(slice(int(at.min()), int(at.max()) + 1) for at in torch.nonzero(inside, as_tuple=True))


def test_a_planted_product_is_found_and_is_all_that_is_found(networks, columns, seeing, row):
    [network] = networks.values()
    scan = Scan(networks, "mri", row)
    regions = Regions.of(scan, affines_of(seeing, "mri", [row])[0])
    assert 1 < len(regions) <= module.MOST_REGIONS
    sizes = np.bincount(regions.number_G[regions.number_G >= 0])
    region = int(sizes.argmax())
    box = region_box(scan, regions, region)
    place = int(columns.places(network.whole, "rna")[GENE])
    with planted(network, box, product=2.0):
        scan = Scan(networks, "mri", row)
        found = pairs_of(scan, columns, [place, place + 1], regions)
    whole, plain = scan.shown(regions.taken()[[0, region + 1]])[:, 0][:, *box].double().flatten(1).mean(dim=1)
    gene = float(network.read(np.array([row]), columns).batch.omics["rna"][0, GENE])
    assert abs(gene) > 0.1 and abs(whole - plain) > 0.01
    pair_JRS = found.pair_JRS
    assert pair_JRS[0, region, 0] == pytest.approx(2 * gene * float(whole - plain), rel=1e-4)
    assert found.whole_JS[0, 0] == pytest.approx(gene**2 + 2 * gene * float(whole), rel=1e-4)
    others = np.delete(np.arange(len(regions)), region)
    boxed = np.array([_overlaps(scan, regions, other, box) for other in others])
    assert not pair_JRS[0, others[~boxed], 0].any() and not pair_JRS[1].any() and not pair_JRS[:, :, 1].any()


def _overlaps(scan, regions, region, box):
    inside = scan.cells.blocks(torch.from_numpy(regions.number_G == region))
    return bool(inside[box].any())


def test_tables_of_scores_are_those_of_each_pair_alone(networks, columns, seeing, row):
    [(key, network)] = networks.items()
    scan = Scan(networks, "mri", row)
    regions = Regions.of(scan, None)
    keep_KG = regions.taken()[:3]
    keep_JP = torch.ones(3, len(columns), dtype=torch.bool)
    keep_JP[1, :5], keep_JP[2, 5:40] = False, False
    found = scan.crossed(keep_KG, keep_JP, columns)
    torch.testing.assert_close(found[0], scan.taken(keep_KG), atol=1e-5, rtol=0)
    for k in range(3):
        batch = _copies(scan._batches[key], 1)
        batch.images["mri"] = scan.shown(keep_KG[[k]])
        alone = torch.cat([NetworkRecords(network, batch, columns).scores(keep_P[None]) for keep_P in keep_JP])
        torch.testing.assert_close(found[:, k], alone, atol=1e-5, rtol=0)
    assert (found - found[:1] - found[:, :1] + found[:1, :1]).abs().max() > 1e-4


def asked(networks, columns, seeing, row, places):
    [network] = networks.values()
    score = network.weighted.scores[0]
    return interactions({"mri": networks}, seeing, columns, np.array([row]), ["patient 1"], [{score: places}])


def test_pairs_that_weights_do_not_change_fail_and_others_pass(networks, columns, seeing, row):
    [network] = networks.values()
    places = [int(columns.places(network.whole, "rna")[GENE]), *range(len(columns) - 6, len(columns))]
    found = asked(networks, columns, seeing, row, places)
    [guard] = found.guards
    assert guard.passed and "mri and omics" in guard.name and not found.sentence
    assert isinstance(found.table, pd.DataFrame) and found.table["interaction"].abs().is_monotonic_decreasing
    parts = found.table["effect"] - found.table["effect_without_region"]
    np.testing.assert_allclose(parts, found.table["interaction"], atol=1e-6)
    assert np.isfinite(found.table[["x_mm", "y_mm", "z_mm"]]).all(axis=None)
    with planted(network, (slice(None), slice(None), slice(None)), product=2.0):
        [guard] = asked(networks, columns, seeing, row, places).guards
    assert not guard.passed and guard.value > 0.99


def test_a_score_without_leading_values_has_no_pairs_and_no_guard(networks, columns, seeing, row):
    [network] = networks.values()
    first, second = network.weighted.scores[:2]
    leading = [{first: [*range(len(columns) - 6, len(columns))], second: []}]
    found = interactions({"mri": networks}, seeing, columns, np.array([row]), ["patient 1"], leading)
    assert {guard.score for guard in found.guards} == {first}


def test_what_adds_up_has_no_pairs_and_one_sentence_says_so(networks, columns, seeing, row):
    assert "exactly 0" in interactions({}, seeing, columns, np.array([row]), ["patient 1"], [{}]).sentence
    [network] = networks.values()
    with planted(network, (slice(None), slice(None), slice(None)), product=0.0):
        found = asked(networks, columns, seeing, row, [0, 1, 2, 3])
    assert "exactly 0" in found.sentence and not found.pairs and not found.guards
    assert not found.table["interaction"].any()


def test_regions_are_named_in_the_patients_directions(networks, row):
    scan = Scan(networks, "mri", row)
    for turn in (np.diag([2.0, 2, 2, 1]), np.diag([-2.0, 2, 2, 1])):
        regions = Regions.of(scan, turn)
        lateral = np.array([("left" in words) - ("right" in words) for words in regions.words])
        assert (
            lateral.any() and (np.sign(regions.world_R3[:, 0] - np.median(regions.world_R3[:, 0])) * lateral <= 0).all()
        )
    assert "along x" in Regions.of(scan, None).words[0]
