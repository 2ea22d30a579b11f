"""`chiasma publish`: a folder built, searched for what must not leave, compared with the run; only then it appears."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from finetune.config import KEPT
from finetune.kept_predictor import KeptPredictor
from finetune.predict import preprocessing_of
from finetune.predictor import ADAPTER, MODEL
from finetune.publish.bases import Base, bases, check, unknown
from finetune.publish.card import card, stands_on
from finetune.publish.check import told
from finetune.publish.checklist import read_about
from finetune.publish.facts import Facts
from finetune.report.answer import made_of, named, tasks_of
from finetune.uncertainty.base import LEVEL
from foundation.cohort.manifest import Manifest
from foundation.cohort.store import PreparedCohort
from foundation.errors import CheckpointError, ConfigError, DataError
from foundation.files.whole import replacing, write_json
from foundation.hub.leaks import leaks
from foundation.hub.published import Published
from foundation.model.seen_patients import SeenPatients
from foundation.wording import counted
from foundation.yaml_text import parse


def publish(run: Path, out: Path, licence: str, cohorts: Sequence[Path | str] = ()) -> list[str]:
    """Build the folder of a fine-tuning run, or of a pretraining run; it appears only after every check was passed.

    Args:
        run: Folder of the run.
        out: To write; must not be there, or be an earlier published folder.
        licence: SPDX identifier, in lower case as hubs have it.
        cohorts: Prepared; whose patients are searched for, and of the first of which predictions are compared. By
            default the run's.

    Returns:
        What was done, in sentences.

    Raises:
        CheckpointError: The run is not complete, or the copy does not predict as the run does.
        ConfigError: The licence does not allow it, a cohort is not there, they lack patients who took part in training,
            something else is at `out`, or about.yaml has a key that no item of the card has.
        DataError: A file holds what must not leave.
    """
    fine_tuned = (run / KEPT).is_dir()
    made_from = bases(run, fine_tuned)
    check(licence, made_from)
    several = _cohorts(run, cohorts)
    prepared, everybody = several[0], np.concatenate([one.patients.astype(str) for one in several])
    _refuse_strangers(run / (ADAPTER if fine_tuned else MODEL), everybody)
    replaced = out.exists()
    if replaced and not (out / "chiasma.json").is_file():
        raise ConfigError("is there already, and is no published folder", where=str(out), fix="name a new folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as partial:
        if fine_tuned:
            _copy_fine_tuned(run, partial, out.name, licence, made_from, prepared.manifest)
        else:
            _copy_pretrained(run, partial, licence, made_from)
        Published.seal(partial, "fine-tuned" if fine_tuned else "pretrained", licence)
        _refuse_leaks(partial, everybody)
        records = _compare(run, partial, prepared)
        size = sum(path.stat().st_size for path in partial.rglob("*") if path.is_file())
    name, patients = prepared.manifest.name, counted(len(set(everybody)), "patient")
    place = f"{out}, in the place of what was published there before" if replaced else f"{out}"
    return [
        f"a fresh process predicts {counted(records, 'record')} of '{name}' from it as the run does, bit for bit",
        f"none of {patients} is named in it, no secret and no place of this machine",
        *unknown(made_from),
        f"written: {place}; {size / 1e6:.1f} MB",
    ]


def _copy_fine_tuned(
    run: Path, partial: Path, name: str, licence: str, made_from: list[Base], cohort: Manifest
) -> None:
    predictor, preprocessing = KeptPredictor.read(run), preprocessing_of(run)
    for part in (MODEL, ADAPTER, KEPT):
        shutil.copytree(run / part, partial / part)
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    write_json(partial / "metrics.json", metrics)
    facts = Facts(
        name=name,
        licence=licence,
        metrics=metrics,
        preprocessing=preprocessing,
        methods={task: made_of(named(of_task)) for task, of_task in predictor.weights.items()},
        novelty={unit: validity.document() for unit, validity in predictor.novelty.validity.items()},
        level=LEVEL,
        settings=json.loads((run / ADAPTER / "adapter.json").read_text(encoding="utf-8")),
        stands_on=made_from,
        cohort=cohort if cohort.name == metrics.get("cohort") else None,
        about=read_about(run),
    )
    (partial / "README.md").write_text(card(facts), encoding="utf-8")
    _write_eval_results(partial, metrics)


def _copy_pretrained(run: Path, partial: Path, licence: str, made_from: list[Base]) -> None:
    model = run / MODEL if (run / MODEL).is_dir() else run
    if not (model / "config.json").is_file():
        raise CheckpointError("has neither `kept` nor `model`", where=str(run), fix="name the folder of a finished run")
    shutil.copytree(model, partial / MODEL)
    words = _without_front_matter((model / "README.md").read_text(encoding="utf-8"))
    front = yaml.safe_dump({"license": licence, "library_name": "chiasma", "tags": ["chiasma", "multimodal"]})
    card_of = f"---\n{front}---\n\n{words.rstrip()}\n\n{stands_on(made_from)}\n"
    (partial / "README.md").write_text(card_of, encoding="utf-8")
    if (run / "metrics.json").is_file() and model != run:
        shutil.copy(run / "metrics.json", partial / "metrics.json")


def _write_eval_results(partial: Path, metrics: dict[str, Any]) -> None:
    """What hubs show of a model, a file for each endpoint; see `huggingface_hub.EvalResultEntry`."""
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    folder = partial / ".eval_results"
    folder.mkdir()
    for entry in tasks_of(metrics):
        kept = entry.get("kept") or entry
        if kept.get("mean") is None:
            continue
        told = EvalResultEntry(
            dataset_id=f"private/{metrics['cohort']}",
            task_id=f"{entry['endpoint']}_{entry['metric']}",
            value=round(float(kept["mean"]), 4),
            notes=f"out of fold, {entry['n']} patients, chance {entry['chance']:.3f}",
        )
        text = yaml.safe_dump(eval_result_entries_to_yaml([told]), sort_keys=False)
        (folder / f"{re.sub(r'[^A-Za-z0-9_.-]', '_', entry['endpoint'])}.yaml").write_text(text, encoding="utf-8")


def _without_front_matter(text: str) -> str:
    return re.sub(r"\A---\n.*?\n---\n+", "", text, flags=re.DOTALL)


FIX = "name each prepared cohort of its patients with --cohort: they are searched for in every file"


def _cohorts(run: Path, named: Sequence[Path | str]) -> list[PreparedCohort]:
    """The cohorts whose patients are searched for."""
    places = list(named)
    if not places and (run / "config.yaml").is_file():
        config = parse((run / "config.yaml").read_text(encoding="utf-8"))
        parts = config.get("cohorts") or [{"path": config.get("cohort")}]
        places = [part["path"] for part in parts if part["path"]]
    if not places:
        raise ConfigError("does not say which cohort it was trained on", where=str(run), fix=FIX)
    return [_opened(place) for place in places]


def _opened(place: Path | str) -> PreparedCohort:
    try:
        return PreparedCohort(place)
    except DataError:
        raise ConfigError("no prepared cohort is there", where=str(place), fix=FIX) from None


def _refuse_strangers(folder: Path, patients: np.ndarray) -> None:
    """Refuse cohorts without somebody who took part in training: nobody would search for that name."""
    seen = SeenPatients.read(folder)
    if seen is None:
        return
    lacking = len(seen.hashes) - int(seen.among(np.unique(patients)).sum())
    if lacking:
        share = f"{lacking:,} of the {counted(len(seen.hashes), 'patient')}"
        what = f"{share} who took part in training are in no cohort that is searched for names"
        raise ConfigError(what, where=str(folder), fix=FIX)


def _refuse_leaks(partial: Path, patients: np.ndarray) -> None:
    found = leaks(partial, patients)
    if found:
        more = f", and {len(found) - 1} more" if len(found) > 1 else ""
        raise DataError(
            f"{found[0].file} holds {found[0].what}{more}; nothing was published",
            where="publish",
            fix="remove it from the run folder, or fine-tune again without it",
        )


def _compare(run: Path, partial: Path, cohort: PreparedCohort) -> int:
    """Refuse a copy that predicts otherwise; returns how many records were compared."""
    with tempfile.TemporaryDirectory() as place:
        ours, theirs = Path(place) / "run.parquet", Path(place) / "published.parquet"
        told(run, cohort).to_parquet(ours, index=False)
        command = [sys.executable, "-m", "finetune.publish.check", str(partial), str(cohort.path), str(theirs)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["without a word"])[-1]
            raise CheckpointError(f"the copy cannot be read: {last}", where=str(run), fix="publish again")
        expected, found = pd.read_parquet(ours), pd.read_parquet(theirs)
    if not expected.equals(found):
        raise CheckpointError("the copy predicts otherwise than the run", where=str(run), fix="publish again")
    return len(found)
