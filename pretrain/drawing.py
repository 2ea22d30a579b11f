"""How often records are drawn: the weight of each cohort, the share of pairs in a batch, and what came of both."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from foundation.cohort.store import PreparedCohort
from foundation.cohort.united import UnitedCohort
from foundation.data.alignment import Aligned
from foundation.data.sampler import PatientOrder
from foundation.data.strata import Stratum, drawn, order_of
from foundation.errors import ConfigError
from foundation.objectives.base import Objective
from foundation.objectives.contrastive.pairs import PairwiseObjective
from foundation.wording import counted, listed
from pretrain.config import PretrainConfig

FINEST_WEIGHT = 10**6


@dataclass(frozen=True)
class Drawing:
    """Which training records are drawn how often.

    Attributes:
        cohort: Of the run.
        rows: Training records.
        paired_N: Which of them have both sides of a contrast.
        strata: That they are drawn from, pairs first where their share is asked for: one for each cohort, or two; a
            single one where there is one cohort and no share of pairs.
    """

    cohort: PreparedCohort
    rows: np.ndarray
    paired_N: np.ndarray
    strata: list[Stratum]

    @classmethod
    def of(cls, config: PretrainConfig, aligned: Aligned, rows: np.ndarray, objectives: Iterable[Objective]) -> Drawing:
        """What a config asks for.

        Args:
            config: Weights of cohorts, and the share of pairs.
            aligned: The cohort.
            rows: Training records.
            objectives: Their contrasts say what a pair is.

        Raises:
            ConfigError: The share of pairs cannot be had, or a batch would hold a record twice.
        """
        paired_N = _paired(objectives, aligned, rows)
        if config.pairs is not None:
            _refuse_without_pairs(paired_N)
        strata = _strata(config, aligned.cohort, rows, paired_N)
        _refuse_twice_in_a_batch(config.batch_size, strata)
        return cls(aligned.cohort, rows, paired_N, strata)

    def order(self, config: PretrainConfig, **others: int | None) -> PatientOrder:
        """Batches of the run; others are arguments of `PatientOrder`."""
        build, shards_of = config.order.build, self.cohort.shards_of
        return order_of(
            self.strata,
            config.batch_size,
            lambda rows, purpose: build(shards_of(rows), purpose),
            seed=config.seed,
            **others,
        )

    def first(self, config: PretrainConfig, most: int) -> np.ndarray:
        """Rows that initial weights are found on: all of a single stratum, else those among the first samples drawn."""
        if len(self.strata) == 1:
            return self.rows
        return np.unique(self.order(config).key(0, most).rows)

    def table(self, samples: int) -> list[dict[str, Any]]:
        """What a run drew from each cohort in its first samples.

        Returns:
            For each cohort its name, and of its training records ``patients``, ``records``, ``pairs``; then ``share``
            of all samples, ``share_of_pairs`` where it was asked for, and how many times one record was drawn:
            ``times_each``, or ``times_each_pair`` and ``times_each_other``, null where there is none.
        """
        part_N, counts = _part_of(self.cohort)[self.rows], drawn(self.strata, samples)
        told = []
        for part, name in enumerate(_names(self.cohort)):
            here = part_N == part
            taken = [(s, n) for s, n in zip(self.strata, counts, strict=True) if s.cohort == name]
            entry = {
                "cohort": name,
                "patients": self.cohort.count_patients(self.rows[here]),
                "records": int(here.sum()),
                "pairs": int(self.paired_N[here].sum()),
                "share": sum(n for _, n in taken) / samples,
            }
            pairs, others = ([(s, n) for s, n in taken if s.paired is paired] for paired in (True, False))
            if self.strata[0].paired:
                entry["share_of_pairs"] = sum(n for _, n in pairs) / samples
                told.append({**entry, "times_each_pair": _times(pairs), "times_each_other": _times(others)})
            else:
                told.append({**entry, "times_each": _times(others)})
        return told


def _times(taken: Sequence[tuple[Stratum, int]]) -> float | None:
    records = sum(len(stratum.rows) for stratum, _ in taken)
    return sum(count for _, count in taken) / records if records else None


def _names(cohort: PreparedCohort) -> list[str]:
    return list(cohort.cohorts) if isinstance(cohort, UnitedCohort) else [cohort.manifest.name]


def _part_of(cohort: PreparedCohort) -> np.ndarray:
    """[N] int64, the position of each record's cohort."""
    return cohort.of_cohort() if isinstance(cohort, UnitedCohort) else np.zeros(len(cohort), dtype=np.int64)


def _paired(objectives: Iterable[Objective], aligned: Aligned, rows: np.ndarray) -> np.ndarray:
    """Bool [N], which records are a pair for any objective; see `PairwiseObjective.complete`."""
    present_NM, _ = aligned.presence(rows)
    contrasts = [objective for objective in objectives if isinstance(objective, PairwiseObjective)]
    paired = [contrast.complete(present_NM, aligned.modalities) for contrast in contrasts]
    return np.any(paired, axis=0) if paired else np.zeros(len(rows), dtype=bool)


def _strata(config: PretrainConfig, cohort: PreparedCohort, rows: np.ndarray, paired_N: np.ndarray) -> list[Stratum]:
    sides = [(False, np.ones(len(rows), dtype=bool), Fraction(1))]
    if config.pairs is not None:
        share = _exact(config.pairs)
        sides = [(True, paired_N, share), (False, ~paired_N, 1 - share)]
    names, part_N, strata = _names(cohort), _part_of(cohort)[rows], []
    for paired, of_side_N, share in sides:
        here = {part: rows[of_side_N & (part_N == part)] for part in np.unique(part_N[of_side_N]).tolist()}
        weight = {part: _exact(config.parts[part].weight) * len(of_part) for part, of_part in here.items()}
        whole = sum(weight.values())
        strata += [Stratum(names[part], paired, here[part], share * weight[part] / whole) for part in here]
    return strata


def _exact(number: float) -> Fraction:
    """A number as it was written, to the sixth digit."""
    return max(Fraction(number).limit_denominator(FINEST_WEIGHT), Fraction(1, FINEST_WEIGHT))


def _refuse_without_pairs(paired_N: np.ndarray) -> None:
    if paired_N.any() and not paired_N.all():
        return
    which, fix = "none", "name a cohort whose patients have both sides, and an objective that compares them"
    if paired_N.any():
        which, fix = "all", "add a cohort whose patients have one side"
    raise ConfigError(
        f"{which} of {counted(len(paired_N), 'training record')} have both sides of a contrast, so no share of pairs "
        "can be chosen",
        where="pairs",
        fix=f"leave out `pairs`, or {fix}",
    )


def _refuse_twice_in_a_batch(batch_size: int, strata: Sequence[Stratum]) -> None:
    """Of two views of one record in a batch a contrast would learn nothing but to know it again."""
    short = [s for s in strata if s.share * batch_size > len(s.rows)] if len(strata) > 1 else []
    if short:
        told = [
            f"{float(s.share * batch_size):.1f} of {counted(len(s.rows), 'pair' if s.paired else 'record')} in "
            f"'{s.cohort}'"
            for s in short
        ]
        raise ConfigError(
            f"a batch of {batch_size} would hold {listed(told)}, so some of them twice",
            where="cohorts",
            fix="use a smaller `batch_size`, a smaller share of `pairs`, or other weights of `cohorts`",
        )
