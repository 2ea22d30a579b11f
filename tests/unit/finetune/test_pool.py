"""Folds in processes of their own: as many as there is room for, none repeated, and an end that says why."""

from __future__ import annotations

import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch

from finetune import pool
from finetune.config import FinetuneConfig
from finetune.pool import Job, run_all
from finetune.run import make_study
from finetune.study import Study
from foundation.config import load_config
from foundation.errors import ChiasmaError, ConfigError
from foundation.progress import Silent

GIB = 2**30
PROCESSES = 3
METHODS = {"ours", "linear-baselines", "kept"}


class Heard:
    """A listener that keeps what it hears, and may do something when more is done."""

    def __init__(self, when_done=lambda: None) -> None:
        self.said: list[tuple] = []
        self.done = 0
        self.when_done = when_done

    def start(self, label: str, total: int | None, unit: str) -> None:
        self.said.append((label, total, unit))

    def advance(self, n: int = 1, bytes: int = 0) -> None:
        self.done += n
        if n:
            self.when_done()

    def finish(self) -> None:
        self.said.append(("finished",))


def study_of(workplace: Path, *changes: str) -> Study:
    changes = ("tasks=[{task: subtype, endpoint: subtype}]", "fit.epochs=0", *changes)
    return make_study(load_config(FinetuneConfig, workplace / "config.yaml", changes))


def done(folder: Path) -> dict[str, int]:
    """What is done of each fold, and when."""
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.glob("[!.]*/[!.]*/done")}


def test_in_this_process_folds_come_one_after_the_other_and_are_not_repeated(workplace, tmp_path):
    study, heard = study_of(workplace), Heard()
    job = Job(study, tmp_path / "folds", None)
    run_all(job, study.folds.folds[:1], heard)
    first = done(job.folder)
    assert set(first) == {f"0/{name}/done" for name in METHODS}
    run_all(job, study.folds.folds, heard)
    assert done(job.folder).items() >= first.items()
    assert set(done(job.folder)) == {f"{fold}/{name}/done" for fold in "01" for name in METHODS}
    # The second time three of six were done before it began.
    assert heard.said == [
        ("fine-tuning", 3, "models"),
        ("finished",),
        ("fine-tuning", 6, "models"),
        ("finished",),
    ]
    assert heard.done == 3 + 6


def test_after_a_process_was_ended_from_outside_another_call_goes_on_with_what_is_not_done(
    workplace, tmp_path, monkeypatch
):
    monkeypatch.setattr(pool, "POLL_SECONDS", 0.01)
    study = study_of(workplace, "processes=2", "splits.repeats=3")

    def kill() -> None:
        next(iter(multiprocessing.active_children())).kill()

    job, heard = Job(study, tmp_path / "folds", None), Heard(kill)
    with pytest.raises(ChiasmaError, match="ended from outside") as caught:
        run_all(job, study.folds.folds, heard)
    assert caught.value.exit_code == 1 and "processes" in caught.value.fix
    assert multiprocessing.active_children() == []
    before = done(job.folder)
    assert 0 < heard.done <= len(before) < 18
    again = Job(study_of(workplace, "processes=1", "splits.repeats=3"), job.folder, None)
    heard = Heard()
    run_all(again, study.folds.folds, heard)
    assert done(job.folder).items() >= before.items() and len(done(job.folder)) == 18
    assert heard.done == 18 and heard.said == [("fine-tuning", 18, "models"), ("finished",)]


@pytest.mark.parametrize("processes", [1, 2])
def test_a_fold_that_fails_ends_all_with_its_own_message(workplace, tmp_path, processes):
    """No function that pretrains was given, which a fold finds out once it is begun."""
    study = study_of(workplace)
    per_fold = study.config.model_copy(
        update={"pretrain": "per_fold", "pretraining": workplace / "pretraining.yaml", "processes": processes}
    )
    job = Job(replace(study, config=per_fold), tmp_path / "folds", None)
    with pytest.raises(ConfigError, match="no function that pretrains was given") as caught:
        run_all(job, study.folds.folds, Silent())
    assert caught.value.exit_code == 2
    assert multiprocessing.active_children() == []
    assert done(job.folder) == {}


def note_rank(_: Path, changes: list[str]) -> Path:
    """In place of pretraining: note the rank of this process, and wait until as many have as there are."""
    [out] = [Path(change.removeprefix("out=")) for change in changes if change.startswith("out=")]
    ranks = out.parents[2] / "ranks"
    ranks.mkdir(exist_ok=True)
    (ranks / out.parent.name).write_text(os.environ["LOCAL_RANK"])
    until = time.monotonic() + 120
    while len(list(ranks.iterdir())) < PROCESSES and time.monotonic() < until:
        time.sleep(0.01)
    raise ChiasmaError("enough is known", where="here", fix="nothing")


def test_every_process_has_a_rank_of_its_own(workplace, tmp_path, monkeypatch):
    """By which it takes a GPU of its own; whatever rank the one that started it has."""
    monkeypatch.setenv("LOCAL_RANK", "7")
    study = study_of(workplace, f"splits.folds={PROCESSES}")
    per_fold = study.config.model_copy(
        update={"pretrain": "per_fold", "pretraining": workplace / "pretraining.yaml", "processes": PROCESSES}
    )
    job = Job(replace(study, config=per_fold), tmp_path / "folds", note_rank)
    with pytest.raises(ChiasmaError, match="enough is known"):
        run_all(job, study.folds.folds, Silent())
    ranks = sorted(path.read_text() for path in (tmp_path / "ranks").iterdir())
    assert ranks == [str(rank) for rank in range(PROCESSES)]


class AskedError(Exception):
    """How many processes were to be started."""


@pytest.fixture
def asked(workplace, tmp_path, monkeypatch):
    """How many processes a study of six folds gets on a machine with some cores, and some memory in GiB."""
    study = study_of(workplace, "splits.repeats=3")

    class Counted(ProcessPoolExecutor):
        def __init__(self, processes: int, **_) -> None:
            raise AskedError(processes)

    def here(*_) -> None:
        raise AskedError(1)

    monkeypatch.setattr(pool, "ProcessPoolExecutor", Counted)
    monkeypatch.setattr(pool, "run_fold", here)

    def ask(cores: int, memory: float, *, gpus: int = 0, **changes) -> int:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
        monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=int(memory * GIB)))
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        job = Job(replace(study, config=study.config.model_copy(update={"processes": None, **changes})), tmp_path, None)
        with pytest.raises(AskedError) as caught:
            run_all(job, study.folds.folds, Silent())
        return caught.value.args[0]

    return ask


def test_there_are_as_many_processes_as_cores_memory_and_folds_allow(asked):
    assert asked(cores=4, memory=64) == 4
    assert asked(cores=64, memory=640) == 6, "folds"
    # Each needs 2 GiB and a little for the model.
    assert asked(cores=8, memory=7) == 3
    assert asked(cores=8, memory=1) == 1, "one runs whatever there is"
    assert asked(cores=1, memory=64) == 1
    assert asked(cores=64, memory=640, gpus=1) == 1, "folds cannot share a GPU"
    assert asked(cores=64, memory=640, gpus=4) == 4, "each has a fold"
    assert asked(cores=64, memory=640, gpus=8) == 6, "folds"


def test_who_asks_for_a_number_of_processes_gets_it_up_to_one_for_each_fold(asked):
    assert asked(cores=1, memory=1, processes=3) == 3
    assert asked(cores=64, memory=640, processes=1) == 1
    assert asked(cores=64, memory=640, processes=9) == 6


def test_a_large_model_needs_more_room(asked, tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    with (model / "model.safetensors").open("wb") as stream:
        stream.truncate(GIB)
    # Eight bytes for each byte of weights, beside 2 GiB.
    assert asked(cores=64, memory=40, pretrain=model) == 4
    assert asked(cores=64, memory=39, pretrain=model) == 3
    assert asked(cores=64, memory=39, pretrain=tmp_path / "elsewhere") == 6
