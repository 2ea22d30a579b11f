"""Shapley values of modalities: of a game known by hand, and of a stack."""

from __future__ import annotations

import numpy as np

from finetune.explain.shapley import NOTHING_KNOWN, modality_shares, shapley_values, subsets_of


def test_of_a_game_known_by_hand():
    """a is worth 1, b 2, both together 2 more, c nothing."""
    worth = {(): 5.0, ("a",): 6, ("b",): 7, ("c",): 5, ("a", "b"): 10, ("a", "c"): 6, ("b", "c"): 7}
    worth[("a", "b", "c")] = 10
    values = np.array([worth[subset] for subset in subsets_of(["a", "b", "c"])]).reshape(1, -1, 1)
    np.testing.assert_allclose(shapley_values(values, ["a", "b", "c"])[0, :, 0], [2, 3, 0], atol=1e-12)


def test_shares_add_up_to_the_score_and_are_of_what_the_patient_has(explainer, kept, cohort):
    rows = np.flatnonzero(cohort.present_NM.any(axis=1))[:30]
    labels = [f"patient {number}" for number in range(len(rows))]
    found = modality_shares(explainer, kept.modalities, rows, labels)
    together = found.pivot_table(index="row", columns=["task", "score"], values="share", aggfunc="sum", sort=False)
    scores = explainer.read(rows).scores().numpy()
    for s, score in enumerate(explainer.scores):
        np.testing.assert_allclose(together[score.task, score.name].loc[rows], scores[:, s], atol=1e-6)
    for row in rows[:5]:
        has = {name for name, here in zip(cohort.modalities, cohort.present_NM[row], strict=True) if here}
        assert set(found[found["row"] == row]["modality"]) == has | {NOTHING_KNOWN}
