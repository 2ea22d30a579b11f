"""Leakage refused: a patient or site on both sides of a fold, and test patients whom pretraining has seen."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from foundation.errors import DataError
from foundation.model.seen_patients import SeenPatients
from foundation.wording import counted


def refuse_overlap(sides: Mapping[str, tuple[np.ndarray, np.ndarray]], fold: str) -> None:
    """Refuse a fold in which a patient, or where split by site a site, is on both sides.

    Args:
        sides: What must not be on both, ``patient`` or ``site``, to its names in training and those in test.
        fold: Its name.

    Raises:
        DataError: So it is; it counts them and names none, because what is written of a split is passed on.
    """
    for unit, (train, test) in sides.items():
        both = np.intersect1d(train.astype(str), test.astype(str))
        if len(both):
            raise DataError(
                f"{counted(len(both), unit)} in both training and test",
                where=f"fold {fold}",
                fix="mend the published folds, or let `splits.folds` make them",
            )


def refuse_seen(seen: SeenPatients | None, test_patients: np.ndarray, *, allowed: bool = False) -> np.ndarray:
    """Refuse to score a model on patients it was pretrained on.

    Args:
        seen: Of the model folder; None where it does not say.
        test_patients: [N] names.
        allowed: The user knows; the report then has to say it.

    Returns:
        [N] bool: who was seen; everybody, where the model does not say.

    Raises:
        DataError: Somebody was seen, or nobody can know, and it was not allowed.
    """
    seen_N = np.ones(len(test_patients), dtype=bool) if seen is None else seen.among(test_patients)
    if not seen_N.any() or allowed:
        return seen_N
    if seen is None:
        what = "the model does not say which patients it was pretrained on"
    else:
        count = len(set(test_patients[seen_N]))
        what = f"the model was pretrained on {count} of the {len(set(test_patients))} patients to be tested"
    raise DataError(
        what,
        where="pretrain",
        fix="pretrain without them (`pretrain: per_fold`), or set `allow_seen: true`, which the report then says",
    )
