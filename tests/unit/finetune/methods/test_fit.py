"""The training loop: what is kept and shown, what teaches nothing, and what no training at all leaves."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from finetune.config import FitConfig, FitOptimiser
from finetune.methods.adapt import adapt
from finetune.methods.fit import Trainee, fit
from finetune.methods.heads import Head
from finetune.methods.modes import Lora
from finetune.methods.reading import Block
from finetune.tasks.base import tasks
from foundation.cohort.store import PreparedCohort
from foundation.data.alignment import align
from foundation.data.dataset import CohortDataset, load
from foundation.data.sampler import PatientOrder
from foundation.errors import ChiasmaError
from foundation.model import model_folder
from foundation.model.view import FUSED
from foundation.training.update import Updater

TASKS = {"subtype": "subtype", "survival": "os"}


def make_trainee(workplace: Path, cohort: PreparedCohort, names: list[str]) -> tuple[Trainee, CohortDataset]:
    model, preprocessing = model_folder.read(workplace / "model")
    built = [tasks.build(tasks[name].Config(endpoint=TASKS[name]), cohort.manifest.endpoints) for name in names]
    for task in built:
        task.fit({name: cohort.endpoint(name) for name in task.endpoints}, cohort.groups.astype(str))
    torch.manual_seed(0)
    heads = nn.ModuleDict({task.name: Head(task, [Block(FUSED, model.config.width)]) for task in built})
    trainee = Trainee(
        adapt(model, Lora(rank=2), heads),
        {t.name: t for t in built},
        {t.name: 1.0 for t in built},
        taught_by=[t.name for t in built],
    )
    return trainee, CohortDataset(align(preprocessing, cohort))


def state(trainee: Trainee) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in trainee.adapted.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def config(**optimiser) -> FitConfig:
    return FitConfig(epochs=2, batch_size=16, optimiser=FitOptimiser(learning_rate=1e-2, **optimiser))


def trained(trainee: Trainee) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in trainee.adapted.named_parameters() if p.requires_grad}


def test_after_every_epoch_the_average_that_is_kept_is_shown_in_evaluation(workplace, cohort):
    trainee, data = make_trainee(workplace, cohort, ["subtype"])
    shown: list[tuple[int, dict[str, torch.Tensor]]] = []

    def note(epoch: int) -> None:
        assert not trainee.adapted.training and not trainee.tasks["subtype"].training
        shown.append((epoch, state(trainee)))

    fit(trainee, data, config(), epochs=2, seed=0, after_epoch=note)
    assert [epoch for epoch, _ in shown] == [1, 2]
    assert not same(shown[0][1], shown[1][1])
    assert same(shown[1][1], state(trainee))
    unseen, _ = make_trainee(workplace, cohort, ["subtype"])
    fit(unseen, data, config(), epochs=2, seed=0)
    assert same(state(unseen), state(trainee)), "looking changes nothing"


def test_what_is_kept_is_the_average_of_its_definition(workplace, cohort, monkeypatch):
    """Of the weights after each step, which a run without an average has too."""
    settings = config()
    assert settings.ema is not None
    plain, data = make_trainee(workplace, cohort, ["subtype"])
    after: list[dict[str, torch.Tensor]] = []
    update = Updater.update

    def noted(self, *arguments):
        done = update(self, *arguments)
        after.append(trained(plain))
        return done

    with monkeypatch.context() as patch:
        patch.setattr(Updater, "update", noted)
        fit(plain, data, settings.model_copy(update={"ema": None}), epochs=2, seed=0)
    assert same(trained(plain), after[-1]), "without an average the parameters stay where they are"
    expected = after[0]
    for step, weights in enumerate(after[1:], start=1):
        keep = min(settings.ema, (1 + step) / (10 + step))
        expected = {name: keep * value + (1 - keep) * weights[name] for name, value in expected.items()}
    averaged, _ = make_trainee(workplace, cohort, ["subtype"])
    fit(averaged, data, settings, epochs=2, seed=0)
    found = trained(averaged)
    assert not same(found, after[-1])
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)


def test_every_step_is_told(workplace, cohort):
    trainee, data = make_trainee(workplace, cohort, ["subtype", "survival"])
    rows = fit(trainee, data, config(), epochs=2, seed=0)
    each = math.ceil(len(data) / 16)
    assert [row["step"] for row in rows] == list(range(1, 2 * each + 1))
    assert [row["samples_seen"] for row in rows] == [16 * row["step"] for row in rows]
    assert [row["epoch"] for row in rows] == [pytest.approx(row["step"] / each, abs=1e-6) for row in rows]
    for row in rows:
        assert all(math.isfinite(row[key]) for key in ("loss", "gradient_norm", "learning_rate", "samples_per_second"))
    assert json.loads(json.dumps(rows)) == rows


@pytest.mark.parametrize("name", ["subtype", "survival"])
def test_batches_without_a_label_or_an_event_do_nothing(workplace, cohort, monkeypatch, name):
    endpoint = PreparedCohort.endpoint

    def nobodys(self, name):
        parts = endpoint(self, name)
        if "event" in parts:
            return {**parts, "event": np.where(np.isfinite(parts["event"]), 0.0, np.nan)}
        return {part: np.full_like(values, -1) if part == "code" else values for part, values in parts.items()}

    trainee, data = make_trainee(workplace, cohort, [name])
    before = state(trainee)
    with monkeypatch.context() as patch:
        patch.setattr(PreparedCohort, "endpoint", nobodys)
        fit(trainee, CohortDataset(data.aligned), config(weight_decay=0), epochs=1, seed=0)
    assert same(before, state(trainee))
    fit(trainee, CohortDataset(data.aligned), config(weight_decay=0), epochs=1, seed=0)
    assert not same(before, state(trainee)), "labels teach"


def test_a_loss_that_is_not_finite_ends_the_fold_before_it_changes_anything(workplace, cohort):
    trainee, data = make_trainee(workplace, cohort, ["subtype"])
    trainee.weights["subtype"] = math.inf
    before = state(trainee)
    with pytest.raises(ChiasmaError, match="not finite") as caught:
        fit(trainee, data, config(), epochs=1, seed=0)
    assert caught.value.exit_code == 1 and "learning_rate" in caught.value.fix
    assert same(before, state(trainee))


def test_no_epoch_leaves_the_frozen_probe(tune):
    """What is attached adds nothing before it is trained, and heads start at the model as it is."""
    metrics, ours = tune("fit.epochs=0", "compare=[frozen probe]")
    _, probe = tune("adapt={mode: frozen}")
    tables = [pd.read_parquet(folder / "predictions.parquet") for folder in (ours, probe)]
    pd.testing.assert_frame_equal(*tables, check_exact=True)
    for entry in (metrics, *metrics["other_tasks"]):
        assert entry["baselines"]["frozen probe"]["difference"]["value"] == 0
        assert entry["baselines"]["frozen probe"]["folds"] == entry["folds"]


def test_a_task_that_does_not_teach_follows(workplace, cohort):
    """Its head learns, and nothing behind it does."""
    trainee, data = make_trainee(workplace, cohort, ["subtype", "survival"])
    trainee = replace(trainee, taught_by=["subtype"])
    for name, head in trainee.adapted.heads.items():
        assert isinstance(head, Head)
        nn.init.normal_(head.inner.weight)
        [batch] = load(data, PatientOrder(data.rows, 16, seed=0, batches=1))
        trainee.adapted.zero_grad()
        one = replace(trainee, tasks={name: trainee.tasks[name]})
        one.loss(batch, 0).backward()
        assert head.inner.weight.grad.abs().sum() > 0
        behind = [p.grad for n, p in trainee.adapted.model.named_parameters() if p.requires_grad]
        assert all(grad is None or not grad.any() for grad in behind) == (name == "os")
