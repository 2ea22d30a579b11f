"""Outcomes of folds: nothing is trained where nothing can be learned, and what folds lack is told."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from finetune.config import FinetuneConfig
from finetune.outcomes import refuse_nothing_to_learn, remarks
from finetune.run import make_study
from finetune.study import Study
from foundation.cohort.records import Record
from foundation.cohort.store import PreparedCohort
from foundation.config import load_config
from foundation.errors import ConfigError
from launch.cli import main

SUBTYPE = "tasks=[{task: subtype, endpoint: subtype}]"
OS = "tasks=[{task: survival, endpoint: os}]"
MakeStudy = Callable[..., Study]


def records(codes: list[int], events: list[int], sites: str) -> list[Record]:
    random = np.random.default_rng(0)
    return [
        Record(
            patient=f"P{number:03d}",
            time_point="",
            site=site,
            group=None,
            omics={"rna": random.standard_normal(16).astype(np.float32)},
            endpoints={"subtype": code, "os/time": float(number + 1), "os/event": event},
        )
        for number, (code, event, site) in enumerate(zip(codes, events, sites, strict=True))
    ]


@pytest.fixture
def config_of(workplace: Path, tmp_path: Path, make_cohort: Callable[..., PreparedCohort], untrained) -> Callable:
    """Arguments of a run on a cohort of these outcomes."""
    made = 0

    def make(codes, events, sites, *changes: str) -> list[str]:
        nonlocal made
        made += 1
        make_cohort(tmp_path / f"cohort{made}", records(codes, events, sites))
        places = [f"cohort={tmp_path / f'cohort{made}'}", f"out={tmp_path / f'run{made}'}"]
        return [*places, *untrained, *changes]

    return make


@pytest.fixture
def study_of(workplace: Path, config_of) -> MakeStudy:
    return lambda *told: make_study(load_config(FinetuneConfig, workplace / "config.yaml", config_of(*told)))


CODES, EVENTS, SITES = [0, 1, 2] * 8, [0, 1] * 12, "AB" * 12


@pytest.mark.parametrize(
    ("codes", "events", "task", "message"),
    [
        (CODES, [0] * 24, OS, "endpoint 'os': nothing can be learned(.|\\n)*none of 24 patients had the event"),
        (
            [1] * 24,
            EVENTS,
            SUBTYPE,
            "endpoint 'subtype': nothing can be learned(.|\\n)*all of 24 patients have the class 'b'",
        ),
        ([-1] * 24, EVENTS, SUBTYPE, "endpoint 'subtype': nothing can be learned(.|\\n)*no patient has a class"),
        (
            [1] * 24,
            EVENTS,
            "tasks=[{task: survival, endpoint: os}, {task: subtype, endpoint: subtype}]",
            "endpoint 'subtype'",
        ),
    ],
)
def test_one_outcome_alone_is_refused_before_anything_is_trained(
    workplace, config_of, capsys, codes, events, task, message
):
    changes = config_of(codes, events, SITES, task)
    assert main(["finetune", str(workplace / "config.yaml"), *changes]) == 2
    said = capsys.readouterr().err
    assert re.search(message, said), said
    assert "what to do" in said
    assert not list(Path(changes[1].removeprefix("out=")).rglob("done"))


def test_training_patients_of_a_fold_without_an_event_are_refused(study_of):
    """Site A has all events: the fold that tests it trains on nobody who had one."""
    study = study_of(CODES, EVENTS, SITES.replace("A", "X").replace("B", "A").replace("X", "B"), OS, "splits.by=site")
    with pytest.raises(
        ConfigError, match=r"'os': nothing can be learned from the training patients of fold \d: none of 12"
    ) as e:
        refuse_nothing_to_learn(study)
    assert "splits.by: patient" in str(e.value)


def test_inner_folds_by_patient_where_training_has_one_site(study_of):
    study = study_of(CODES, [0, 0, 1, 1] * 6, SITES, OS, "splits.by=site")
    refuse_nothing_to_learn(study)
    assert study.inner_by_patient() == ["0", "1"]
    for fold in study.folds.folds:
        assert not set(study.cohort.sites[fold.train]) & set(study.cohort.sites[fold.test])
        inner = study.inner(fold)
        np.testing.assert_array_equal(np.sort(np.concatenate([one.test for one in inner])), fold.train)
        assert all((study.endpoints["os"]["event"][one.train] > 0).any() for one in inner)


def test_inner_folds_by_patient_where_a_site_alone_teaches_nothing(study_of):
    """Of three sites A has no event, so that an inner fold that trains on A alone cannot choose."""
    events = [int(number % 3 != 0) for number in range(24)]
    study = study_of(CODES, events, "ABC" * 8, OS, "splits={by: site, folds: 3, inner_folds: 2}")
    refuse_nothing_to_learn(study)
    without_a = next(fold.name for fold in study.folds.folds if study.cohort.sites[fold.test][0] == "A")
    assert study.inner_by_patient() == [name for name in "012" if name != without_a]


def test_inner_folds_by_site_stay_so_where_they_can(study_of):
    study = study_of(CODES, EVENTS, "ABCDEF" * 4, SUBTYPE, "splits={by: site, folds: 2, inner_folds: 3}")
    assert study.inner_by_patient() == []


def test_classes_that_nobody_or_no_fold_has_are_told(study_of):
    study = study_of([0, 1] * 12, EVENTS, SITES, SUBTYPE)
    assert remarks(study, study.unfitted[0]) == [
        "Nobody has the class 'c' of subtype: it cannot be predicted, and is in no score."
    ]
    study = study_of([2, *[0, 1] * 11, 0], EVENTS, SITES, SUBTYPE)
    tested = next(fold.name for fold in study.folds.folds if 0 in fold.test)
    other = next(fold.name for fold in study.folds.folds if 0 not in fold.test)
    (told,) = remarks(study, study.unfitted[0])
    assert told.startswith(
        f"The class 'c' of subtype has 1 patient: in fold {other} no test patient has it, and scores"
    )
    assert told.endswith(f"; in fold {tested} no training patient has it, so that it cannot be predicted there.")
    assert remarks(study_of(CODES, EVENTS, SITES, SUBTYPE), study.unfitted[0]) == []


def test_folds_without_a_tested_event_are_told(study_of):
    study = study_of(CODES, EVENTS, SITES, OS)
    assert remarks(study, study.unfitted[0]) == []
    quiet = np.flatnonzero(study.endpoints["os"]["event"] == 0)
    folds = [replace(fold, test=quiet) for fold in study.folds.folds[:1]] + study.folds.folds[1:]
    changed = replace(study, folds=replace(study.folds, folds=folds))
    assert remarks(changed, study.unfitted[0]) == [
        "In fold 0 no test patient had os happen: no order can be scored there."
    ]


def test_causes_that_nobody_or_no_training_fold_had_are_told(study_of):
    study = study_of(CODES, EVENTS, SITES, "tasks=[{task: survival, endpoint: os, form: intervals}]")
    study.cohort.manifest.endpoints["os"]["causes"] = {"relapse": 1, "other": 0}
    (told,) = remarks(study, study.unfitted[0])
    assert told == "Nobody had the cause 'other' of os: it cannot be predicted, and is in no score."
    study.endpoints["os"]["event"] = np.array([2, *EVENTS[1:]])
    tested = next(fold.name for fold in study.folds.folds if 0 in fold.test)
    (told,) = remarks(study, study.unfitted[0])
    assert told.startswith("The cause 'other' of os happened to 1 patient: in fold ")
    assert told.endswith(f"{tested} no training patient had it, so that it cannot be predicted there.")
