"""`chiasma finetune`: the patients, cohort and model of a config opened; fold by fold, resumed where it stopped."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from finetune.base_model import Pretrain
from finetune.config import FinetuneConfig
from finetune.fold import FINAL, summary_of
from finetune.outcomes import refuse_nothing_to_learn, remarks
from finetune.pool import Job, run_all
from finetune.report.sections.folds import inner_folds_by_patient
from finetune.results import read_oracle, write_results
from finetune.resuming import FOLDS, IDENTITY, add_seconds, begin_or_go_on, join_in
from finetune.splits import Fold
from finetune.study import Study
from foundation.cohort.store import PreparedCohort
from foundation.config import load_config
from foundation.data.alignment import align
from foundation.data.preprocessing import FILE as PREPROCESSING_FILE
from foundation.data.preprocessing import Preprocessing
from foundation.errors import ConfigError, nearest
from foundation.files.hashing import sha256_of
from foundation.files.identity import hashes_of
from foundation.files.lock import claimed_part, claimed_run, refuse_foreign
from foundation.finding.cohort import FoundCohort
from foundation.model.seen_patients import SeenPatients
from foundation.progress import Progress, Silent
from foundation.wording import counted

DOING = "is being fine-tuned in"

PATIENCE = 60.0
"""Seconds to wait while another process begins to do other folds."""


def finetune(
    path: Path, overrides: Sequence[str] = (), progress: Progress | None = None, pretrain: Pretrain | None = None
) -> tuple[dict[str, Any], Path]:
    """Run a fine-tuning config to its end, without repeating what was done before it was stopped.

    Args:
        path: The YAML.
        overrides: ``key=value`` changes to it.
        progress: Hears of folds and methods.
        pretrain: Pretrains a model, for ``pretrain: per_fold``; in a module, because other processes call it.

    Returns:
        The content of metrics.json, and the run folder.

    Raises:
        ConfigError, DataError: The config does not fit the cohort or the model, or another process works in the folder.
        CheckpointError: The model folder is damaged, or the run folder belongs to another run.
    """
    study, oracle = _open(path, overrides)
    out, folds = study.config.out, _folds(study)
    with claimed_run(out, doing=DOING), _claimed(out, folds):
        begin_or_go_on(out, _identity(study))
        _write_config(study)
        seconds = _run(study, folds, progress, pretrain)
        return write_results(study, out, seconds, oracle), out


def finetune_folds(
    path: Path,
    overrides: Sequence[str],
    names: Sequence[str],
    progress: Progress | None = None,
    pretrain: Pretrain | None = None,
) -> Path:
    """Do some folds of a run, beside other processes that do others; `finetune` then has only to join them.

    Args:
        path: The YAML.
        overrides: ``key=value`` changes to it.
        names: Of the folds.
        progress: Hears of folds and methods.
        pretrain: See `finetune`.

    Returns:
        The run folder.

    Raises:
        ConfigError, DataError: As of `finetune`; or no fold has such a name.
        CheckpointError: As of `finetune`.
    """
    study, _ = _open(path, overrides)
    out, folds = study.config.out, {fold.name: fold for fold in _folds(study)}
    for name in names:
        if name not in folds:
            raise ConfigError(f"no fold is called '{name}'", where="--fold", fix=nearest(name, folds))
    chosen = [folds[name] for name in names]
    with _claimed(out, chosen):
        with claimed_run(out, doing=DOING, patience=PATIENCE):
            join_in(out, _identity(study), names)
            _write_config(study)
        _run(study, chosen, progress, pretrain)
        return out


def names_of_folds(path: Path, overrides: Sequence[str] = ()) -> tuple[str, ...]:
    """Every fold of a run by name, in the order in which one process does them.

    Raises:
        ConfigError, DataError: As of `finetune`.
    """
    return tuple(fold.name for fold in _folds(_open(path, overrides)[0]))


def _open(path: Path, overrides: Sequence[str]) -> tuple[Study, dict[str, float]]:
    """The study of a config and what an oracle reaches in it, refusing what cannot be run."""
    config = load_config(FinetuneConfig, path, overrides).pinned()
    refuse_foreign(config.out, IDENTITY)
    study = make_study(config)
    refuse_nothing_to_learn(study)
    return study, read_oracle(config, study)


def _folds(study: Study) -> list[Fold]:
    return [*study.folds.folds, *([_everybody(study)] if study.config.final else [])]


def _write_config(study: Study) -> None:
    (study.config.out / "config.yaml").write_text(study.config.to_yaml(), encoding="utf-8")


@contextlib.contextmanager
def _claimed(out: Path, folds: Sequence[Fold]) -> Iterator[None]:
    """Hold folds of a run."""
    with contextlib.ExitStack() as held:
        for fold in folds:
            held.enter_context(claimed_part(out, f"{FOLDS}/{fold.name}", doing=DOING))
        yield


def _run(study: Study, folds: Sequence[Fold], progress: Progress | None, pretrain: Pretrain | None) -> float:
    """Do what is not yet done of some folds; returns the seconds that were spent on the run so far."""
    out, began = study.config.out, time.monotonic()
    told = [sentence for task in study.unfitted for sentence in remarks(study, task)]
    told += inner_folds_by_patient(study.inner_by_patient())
    told += [f"{counted(n, 'patient')} left out: {reason}." for reason, n in study.folds.left_out.items()]
    first = study.finding(study.folds.folds[0], progress)
    print("\n".join([summary_of(first, study.folds.folds[0]), *_not_shared(first), *told]), flush=True)
    run_all(Job(study, out / FOLDS, pretrain), folds, progress or Silent())
    return add_seconds(out, folds[0].name, time.monotonic() - began)


def make_study(config: FinetuneConfig) -> Study:
    """Open the cohort and split its patients, refusing what cannot be evaluated."""
    cohort = PreparedCohort(config.cohort, cache=config.cache)
    known = cohort.modalities
    if config.find:
        cohort = FoundCohort(cohort, dict.fromkeys(config.find))
    network = config.to_be_built()
    if network is not None:
        network.weight_files()  # refused here, before anything is written
        return Study.of(config, cohort, network.preprocessing.modalities or known, None)
    folder = config.model_folder()
    assert folder is not None
    _refuse_no_model(folder)
    preprocessing = Preprocessing.read(folder)
    aligned, seen = align(preprocessing, cohort), SeenPatients.read(folder)
    return Study.of(config, cohort, list(preprocessing.modalities), seen, aligned)


def _not_shared(study: Study) -> list[str]:
    """What a pretrained model and the cohort do not share, and what no tower reads, in sentences."""
    told = [f"'{name}': no tower of the model reads it; heads alone do." for name in study.heads_only]
    folder = study.config.model_folder()
    if folder is None:
        return told
    preprocessing = Preprocessing.read(folder).joined(study.fit_heads_only(study.folds.folds[0]))
    return align(preprocessing, study.cohort).only(study.modalities).sentences() + told


def _refuse_no_model(folder: Path) -> None:
    """Say which folder may be meant where this is none of a model."""
    if (folder / "config.json").is_file():
        return
    what = "is no model folder" if folder.is_dir() else "no such model folder"
    inside = folder / "model"
    fix = (
        f"name {inside}"
        if (inside / "config.json").is_file()
        else "name the `model` folder of a pretraining run, or hf://organisation/name"
    )
    raise ConfigError(what, where=f"pretrain: {folder}", fix=fix)


def _everybody(study: Study) -> Fold:
    rows = np.unique(np.concatenate([rows for fold in study.folds.folds for rows in (fold.train, fold.test)]))
    return Fold(FINAL, rows, rows[:0])


def _identity(study: Study) -> dict[str, str]:
    """Everything that decides the result, by name, as hashes."""
    config = study.config
    parts = {"the cohort": study.cohort.hash, "the folds": study.folds.hash()}
    if (folder := config.model_folder()) is not None:
        parts["the model"] = sha256_of(folder / "model.safetensors")
        parts["the model's preprocessing"] = sha256_of(folder / PREPROCESSING_FILE)
    for name, file in config.network.weight_files().items() if config.network else ():
        parts[f"the weights of tower '{name}'"] = sha256_of(file)
    if config.pretraining is not None:
        parts["the pretraining"] = sha256_of(config.pretraining)
    document = config.document()
    for place in ("pretrain", "pretraining"):
        # A model is known by its weights, wherever it lies.
        if document[place] not in ("per_fold", "none"):
            document.pop(place)
    return parts | hashes_of(document)
