"""Every score of a resample without anybody is unknown, without a warning."""

from __future__ import annotations

import numpy as np
import pytest

from foundation.metrics import class_scores, number_scores

VALUES = np.array([0.1, 0.9, 0.4, 0.7])
GUESSES = np.array([0.2, 0.8, 0.5, 0.5])
SCORES = {
    "r_squared": number_scores.r_squared(VALUES, GUESSES),
    "pearson": number_scores.pearson(VALUES, GUESSES),
    "spearman": number_scores.spearman(VALUES, GUESSES),
    "absolute_error": number_scores.absolute_error(VALUES, GUESSES),
    "auroc": class_scores.auroc(VALUES > 0.5, GUESSES),
    "balanced_accuracy": class_scores.balanced_accuracy(np.array([0, 1, 0, 1]), np.array([0, 1, 1, 1])),
}


@pytest.mark.parametrize("name", SCORES)
def test_nobody_has_no_score_and_the_others_keep_theirs(name):
    everyone, nobody = np.ones((1, 4)), np.zeros((1, 4))
    alone = SCORES[name](everyone)
    both = SCORES[name](np.concatenate([nobody, everyone]))
    assert np.isnan(both[0])
    np.testing.assert_allclose(both[1], alone[0])
