"""Every score of a resample without anybody, and of no patients at all, is unknown, without a warning."""

from __future__ import annotations

import numpy as np
import pytest

from foundation.metrics import class_scores, number_scores

VALUES = np.array([0.1, 0.9, 0.4, 0.7])
GUESSES = np.array([0.2, 0.8, 0.5, 0.5])
CODES, GUESSED = np.array([0, 1, 0, 1]), np.array([0, 1, 1, 1])
BOTH = np.stack([1 - GUESSES, GUESSES], axis=1)
SCORES = {
    "r_squared": lambda n: number_scores.r_squared(VALUES[:n], GUESSES[:n]),
    "pearson": lambda n: number_scores.pearson(VALUES[:n], GUESSES[:n]),
    "spearman": lambda n: number_scores.spearman(VALUES[:n], GUESSES[:n]),
    "absolute_error": lambda n: number_scores.absolute_error(VALUES[:n], GUESSES[:n]),
    "accuracy": lambda n: class_scores.accuracy(CODES[:n], GUESSED[:n]),
    "balanced_accuracy": lambda n: class_scores.balanced_accuracy(CODES[:n], GUESSED[:n]),
    "macro_f1": lambda n: class_scores.macro_f1(CODES[:n], GUESSED[:n]),
    "auroc": lambda n: class_scores.auroc(CODES[:n] == 1, GUESSES[:n]),
    "macro_auroc": lambda n: class_scores.macro_auroc(CODES[:n], BOTH[:n]),
    "auprc": lambda n: class_scores.auprc(CODES[:n] == 1, GUESSES[:n]),
    "macro_auprc": lambda n: class_scores.macro_auprc(CODES[:n], BOTH[:n]),
    "calibration_error": lambda n: class_scores.calibration_error(CODES[:n] == 1, GUESSES[:n]),
    "quadratic_kappa": lambda n: class_scores.quadratic_kappa(CODES[:n], GUESSED[:n], 2),
    "net_benefit": lambda n: class_scores.net_benefit(CODES[:n] == 1, GUESSES[:n], 0.5),
}


@pytest.mark.parametrize("name", SCORES)
def test_nobody_has_no_score_and_the_others_keep_theirs(name):
    everyone, nobody = np.ones((1, 4)), np.zeros((1, 4))
    alone = SCORES[name](4)(everyone)
    both = SCORES[name](4)(np.concatenate([nobody, everyone]))
    assert np.isnan(both[0])
    assert np.isfinite(both[1])
    np.testing.assert_allclose(both[1], alone[0])


@pytest.mark.parametrize("name", sorted(SCORES))
def test_no_patients_have_no_score(name):
    assert np.isnan(SCORES[name](0)(np.ones((2, 0)))).all()
