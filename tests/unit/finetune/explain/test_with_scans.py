"""A network that reads scans: it sees each once, tells what they contribute, and is asked what they tell of genes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from finetune.config import OURS
from finetune.explain.attribution import Explainer
from finetune.explain.radiogenomics import radiogenomics
from finetune.explain.run import explain
from finetune.kept_predictor import KeptPredictor
from finetune.methods.adapted import EVERYTHING
from foundation.data.dataset import CohortDataset
from foundation.model.embedding import batches
from foundation.model.view import FUSED, View

ROWS = np.arange(24)


def test_each_scan_is_seen_once_however_many_steps_are_taken(predictor, seeing):
    adapted = predictor.networks[OURS].adapted
    tower, seen = adapted.model.towers["mri"], []
    handle = tower.register_forward_hook(lambda *_: seen.append(1))
    explainer = Explainer.of(predictor, seeing)
    records = explainer.read(ROWS)
    found = explainer.attribute(ROWS, records, np.ones(4))
    handle.remove()
    assert seen == [1] and adapted.model.towers["mri"] is tower
    gap_BS = found.attribution_BSP.sum(axis=2) - (found.score_BS - found.baseline_BS)
    assert np.abs(gap_BS).max() < 0.01 and np.abs(found.attribution_BSP).max() > 0
    predicted = predictor.predict(seeing, ROWS)
    names = [f"subtype/probability/{name}" for name in predictor.tasks["subtype"].classes]
    log = np.log(predicted[names].to_numpy())
    np.testing.assert_allclose(found.score_BS, log - log.mean(axis=1, keepdims=True), atol=1e-5)


def test_subsets_are_what_the_network_says_of_them(predictor, seeing):
    records = Explainer.of(predictor, seeing).read(ROWS)
    subsets = [(), ("mri",), ("rna", "clinical"), predictor.modalities]
    found = records.of_subsets(subsets)
    network = predictor.networks[OURS]
    batch = next(batches(network.adapted, CohortDataset(network.align(seeing)), ROWS))
    for v, subset in enumerate(subsets):
        with torch.no_grad():
            outputs = network.adapted(batch, {EVERYTHING: View(FUSED, subset)})[EVERYTHING]["subtype"].double()
        torch.testing.assert_close(found[:, v], outputs - outputs.mean(dim=1, keepdim=True), atol=1e-5, rtol=0)
    assert (found[:, 0] != found[:, 1]).any()


def test_scans_are_asked_for_genes(predictor, seeing, tmp_path):
    explainer = Explainer.of(predictor, seeing)
    rna = explainer.columns.names[:5]
    found = radiogenomics(predictor, tmp_path, explainer.columns, np.arange(len(seeing)), {"SET": rna, "TWO": rna[:2]})
    assert {"rna", "clinical"} <= set(found.features["modality"]) and set(found.pathways["name"]) == {"SET"}
    assert found.features["fdr"].between(0, 1).all() and (found.features["r_squared"] < 1).all()
    # The folder does not say who taught the network.
    assert any("of whom some taught it" in sentence for sentence in found.sentences)
    few = radiogenomics(predictor, tmp_path, explainer.columns, ROWS[:10], {})
    assert not len(few.features) and any("too few to ask" in sentence for sentence in few.sentences)


def test_a_predictor_of_scans_alone_is_explained_by_what_is_there(predictor, seeing, tmp_path, monkeypatch):
    alone = replace(predictor.networks[OURS], modalities=("mri",))
    kept = replace(predictor, networks={OURS: alone}, modalities=("mri",))
    (tmp_path / "run" / "kept").mkdir(parents=True)
    (tmp_path / "run" / "kept" / "predictor.json").write_text("{}", encoding="utf-8")
    monkeypatch.setattr(KeptPredictor, "read", lambda *_: kept)
    told = explain(tmp_path / "run", seeing.path, tmp_path / "out", patients=2)
    assert "so no genes are told" in told[-1]
    page = (tmp_path / "out" / "explanation.html").read_text(encoding="utf-8")
    assert "What each modality contributes" in page and "patient 2" in page and "Completeness" not in page
    assert "random weights, subtype" in page and page.count('class="viewer"') == 2
