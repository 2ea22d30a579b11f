"""All that is measured of the embeddings of held-out patients, as a part of metrics.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from foundation.errors import DataError
from pretrain.evaluation.embedded import Embedded
from pretrain.evaluation.probes import probe_endpoints, probe_sites
from pretrain.evaluation.space import measure_space


def evaluate(
    train: Embedded,
    held_out: Embedded,
    *,
    pairs: Sequence[tuple[str, str]],
    endpoint_kinds: Mapping[str, str],
    seed: int,
    permutations: int = 1000,
) -> dict[str, Any]:
    """Measure held-out patients; nothing is fitted on them.

    Args:
        train: Records that the model was trained on; probes are fitted on these.
        held_out: Records of other patients.
        pairs: Views to find from each other.
        endpoint_kinds: Endpoint to ``subtype``, ``response``, ``survival`` or ``regression``.
        seed: Of permutations, inner folds and bootstrap.
        permutations: Behind each p-value.

    Returns:
        ``retrieval``, ``alignment`` and ``uniformity`` (see `measure_space`), ``probes`` (endpoint to view) and
        ``site_probe`` (see `probes`), ready for JSON. What cannot be measured says why under ``skipped``.

    Raises:
        DataError: A patient is on both sides, or an embedding is not finite.
    """
    both = np.intersect1d(train.patients.astype(str), held_out.patients.astype(str))
    if len(both):
        raise DataError(
            f"{len(both)} patients are among both the training and the held-out records",
            where="evaluation",
            fix="split by patient, so that all records of a patient are on one side",
        )
    train.refuse_non_finite()
    return {
        **measure_space(held_out, pairs=pairs, seed=seed, permutations=permutations),
        "probes": probe_endpoints(train, held_out, endpoint_kinds, seed),
        "site_probe": probe_sites(train, held_out, seed),
    }
