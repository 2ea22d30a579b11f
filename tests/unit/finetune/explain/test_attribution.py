"""Attributions of a stack: they add up, agree with captum and with slopes by hand, and give what is absent nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from captum.attr import IntegratedGradients

from finetune.explain.attribution import TOLERANCE, Explainer
from finetune.explain.linear import ExplainedLinear
from finetune.explain.methods import Score
from finetune.explain.networks import ExplainedNetwork, NetworkRecords
from finetune.methods.adapted import EVERYTHING
from finetune.methods.image_features import ImageFeatures

ROWS = np.arange(40)


def test_scores_are_those_of_the_predictor(explainer, kept, cohort):
    assert explainer.scores == [*(Score("subtype", name) for name in "abc"), Score("os", "risk")]
    scores = explainer.read(ROWS).scores().numpy()
    predicted = kept.predict(cohort, ROWS)
    known = predicted["modalities"].to_numpy() != "none"
    log = np.log(predicted[[f"subtype/probability/{name}" for name in "abc"]].to_numpy()[known])
    np.testing.assert_allclose(scores[known, :3], log - log.mean(axis=1, keepdims=True), atol=1e-9)
    np.testing.assert_allclose(scores[known, 3], predicted["os/risk"].to_numpy()[known], atol=1e-12)


def test_they_add_up_to_the_score_beyond_its_baseline(explainer):
    spread_S = explainer.spread(ROWS)
    found = explainer.attribute(ROWS, explainer.read(ROWS), spread_S)
    gap_BS = found.attribution_BSP.sum(axis=2) - (found.score_BS - found.baseline_BS)
    assert np.abs(gap_BS / spread_S).max() <= TOLERANCE
    np.testing.assert_allclose(found.error_BS, np.abs(gap_BS) / spread_S, atol=1e-5)
    assert np.abs(found.attribution_BSP).max() > 0


def test_what_was_not_observed_gets_exactly_nothing(explainer):
    observed_BP = ~np.isnan(explainer.columns.values(ROWS))
    assert not observed_BP.all()
    found = explainer.attribute(ROWS, explainer.read(ROWS), np.ones(4))
    assert (found.attribution_BSP[~np.broadcast_to(observed_BP[:, None], found.attribution_BSP.shape)] == 0).all()


def test_a_network_agrees_with_captum(explainer):
    [method] = [m for m in explainer.methods if isinstance(m, ExplainedNetwork) and len(m.weighted.tasks) == 2]
    records = method.read(ROWS, explainer.columns)
    assert isinstance(records, NetworkRecords)
    sizes = {name: values.shape[1] for name, values in records.batch.omics.items()}

    def one(x_F: torch.Tensor) -> torch.Tensor:
        omics = dict(zip(sizes, x_F.split([*sizes.values()], dim=1), strict=True))
        return method.weighted(method.adapted(replace(records.batch, omics=omics))[EVERYTHING])

    ours = records.attributions(24).numpy()
    # One step at a time, as captum would enlarge the inputs, but not the batch that they are of.
    captum = IntegratedGradients(one, multiply_by_inputs=True)
    for s in range(4):
        theirs = captum.attribute(
            records.x_BF, target=s, n_steps=24, method="gausslegendre", internal_batch_size=len(ROWS)
        )
        np.testing.assert_allclose(ours[:, s], theirs.detach().numpy(), atol=1e-5)


def test_a_linear_model_is_slope_times_value(explainer, cohort):
    [method] = [m for m in explainer.methods if isinstance(m, ExplainedLinear) and "os" in m.models]
    part = method.models["os"].parts[""]
    inputs = part.inputs
    blocks = inputs.blocks(cohort, ROWS, ImageFeatures(cohort))
    x_ND = inputs.of_blocks(blocks, len(ROWS))
    names = explainer.columns.names
    p = names.index("G3")
    moved = dict(blocks) | {"rna": (blocks["rna"][0].copy(), blocks["rna"][1])}
    column = list(inputs.preprocessing.modalities["rna"].features).index("G3")
    moved["rna"][0][:, column] = 0
    change_N = (x_ND - inputs.of_blocks(moved, len(ROWS))) @ part.fitted[""].weights_D
    found = method.read(ROWS, explainer.columns).attributions(1).numpy()
    np.testing.assert_allclose(found[:, 3, p], 0.7 * change_N, atol=1e-9)
    assert np.abs(change_N).max() > 1e-4


def test_values_that_are_not_kept_are_at_the_baseline(explainer):
    records = explainer.read(ROWS)
    all_BP = torch.ones(len(ROWS), len(explainer.columns), dtype=torch.bool)
    torch.testing.assert_close(records.scores(all_BP), records.scores())
    assert (records.scores(~all_BP) != records.scores()).any()
    torch.testing.assert_close(records.scores(records.moved_BP), records.scores())


def test_random_weights_give_another_map(explainer: Explainer):
    ours, theirs = (e.read(ROWS).attributions(6).numpy() for e in (explainer, explainer.randomised(0)))
    again = explainer.read(ROWS).attributions(6).numpy()
    np.testing.assert_array_equal(ours, again)
    assert abs(np.corrcoef(ours[:, 3].ravel(), theirs[:, 3].ravel())[0, 1]) < 0.5
