"""Explanations of scans: what is written and shown, without names; nothing where no network reads scans."""

from __future__ import annotations

from dataclasses import replace

import nibabel
import numpy as np
import pytest

from finetune.config import OURS
from finetune.explain.images import explain_images
from finetune.explain.images.cells import Cells
from finetune.explain.images.guards import judge
from finetune.explain.images.show import Shown, mark, section
from finetune.explain.methods import Score
from foundation.model.towers.base import towers
from foundation.report.page import Page


@pytest.fixture(scope="module")
def explained(predictor, seeing, tmp_path_factory):
    out = tmp_path_factory.mktemp("explained")
    here = seeing.present_NM[:, seeing.modalities.index("mri")]
    rows = np.concatenate([np.flatnonzero(here)[:2], np.flatnonzero(~here)[:1]])
    return explain_images(predictor, seeing, rows, out), out, rows


def shown(found):
    page = Page("scans")
    for add in found.sections:
        add(page)
    return page.html()


def test_overlays_lie_on_the_prepared_grid_and_the_table_says_where(explained, seeing):
    found, out, rows = explained
    files = sorted((out / "scans").rglob("*.nii.gz"))
    assert len(files) == 2 and {f.parts[-3] for f in files} == {"patient-1", "patient-2"}
    affine_N44 = seeing.affine_N44("mri", rows[:2])
    for n, file in enumerate(files):
        image = nibabel.load(file)
        np.testing.assert_allclose(image.affine, affine_N44[n], atol=1e-4)
        assert image.shape == tuple(seeing.image("mri").shape)
        name = file.name.removesuffix(".nii.gz").removeprefix("subtype-")
        of = found.table[(found.table["patient"] == f"patient {n + 1}") & (found.table["score"] == name)].iloc[0]
        voxel = np.linalg.solve(affine_N44[n], [of["x_mm"], of["y_mm"], of["z_mm"], 1])[:3].round().astype(int)
        values = np.asarray(image.dataobj)
        assert np.isclose(abs(values[tuple(voxel)]), np.abs(values).max(), rtol=0.35)
    assert set(found.table["explainer"]) == {"integrated_gradients"}
    assert len(found.table) == 2 * 4 and (out / "scans" / "scans.tsv").is_file()


def test_the_page_shows_maps_marks_them_and_names_nobody(explained, seeing):
    found, _, rows = explained
    text = shown(found)
    assert text.count('class="viewer"') == 2 and "networks&#x27; share" in text
    # Of two records no order can be told from chance.
    assert [g.passed for g in found.guards if g.name.startswith("deletion")] == [False] * 4
    assert "not to be trusted (deletion and insertion" in text
    assert not any(name in text for name in seeing.patients[rows])
    assert len(text) < 20e6 / 6


def test_a_map_that_random_weights_do_not_change_is_not_trusted(explained):
    found, _, _ = explained
    scores = [g.score for g in found.guards[::2]]
    gain = np.ones((12, len(scores))) + np.arange(12)[:, None] / 100
    same = judge("mri", scores, np.full((12, len(scores)), 0.9), gain, np.ones(len(scores)))
    assert "not to be trusted (random weights 0.9)" in mark(scores[0], "mri", same)
    changed = judge("mri", scores, np.full((12, len(scores)), 0.1), gain, np.ones(len(scores)))
    assert mark(scores[0], "mri", changed) == "" and all(g.passed for g in changed)


def test_where_few_are_shown_others_are_put_to_the_test_too(predictor, seeing, tmp_path):
    rows = np.flatnonzero(seeing.present_NM[:, seeing.modalities.index("mri")])
    found = explain_images(predictor, seeing, rows[:1], tmp_path, others=rows[1:])
    orders = [g for g in found.guards if g.name.startswith("deletion")]
    assert all("of 12 records" in g.sentence and g.passed for g in orders) and set(found.table["patient"]) == {
        "patient 1"
    }


def test_a_flat_image_is_one_slice():
    cells = Cells.of(towers["vit2d"](towers["vit2d"].tiny(), 1, (20, 16)), (20, 16))
    score = Score("os", "risk")
    one = Shown(
        "xray", np.random.default_rng(0).random((1, 20, 16)), ["xray"], np.array([True]), None, [1.0, 1.0], cells
    )
    one.maps, one.likeliest, one.moved = {score: np.arange(6.0).reshape(3, 2)}, [score], {score: 0.5}
    page = Page("scans")
    section([one], [], "occlusion", {"os": {"ours": 1.0}})(page)
    assert "Maps are by occlusion" in page.html()
    assert page.html().count("<canvas") == 1 and one.peak(score) == [19, 12]


def test_without_a_network_that_reads_scans_one_sentence(predictor, seeing, tmp_path):
    rows = np.arange(3)
    for kept, reason in (
        (replace(predictor, networks={}, weights={"subtype": {}}), "no network is kept"),
        (replace(predictor, modalities=("rna",)), "no network of the stack reads scans"),
    ):
        found = explain_images(kept, seeing, rows, tmp_path)
        assert not found.guards and not len(found.table) and reason in shown(found)
    assert OURS in predictor.networks and not list(tmp_path.iterdir())
