"""The training loop: what is averaged, what teaches nothing, and what no training at all leaves."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from finetune.config import FitConfig, FitOptimiser
from finetune.methods.adapt import Lora, adapt
from finetune.methods.fit import Average, Trainee, fit
from finetune.methods.heads import Head
from finetune.tasks.base import tasks
from foundation.cohort.store import PreparedCohort
from foundation.data.alignment import align
from foundation.data.dataset import CohortDataset
from foundation.errors import ChiasmaError
from foundation.hub import model_folder

TASKS = {"subtype": "subtype", "survival": "os"}


def make_trainee(workplace: Path, cohort: PreparedCohort, names: list[str]) -> tuple[Trainee, CohortDataset]:
    model, preprocessing = model_folder.read(workplace / "model")
    built = [tasks.build(tasks[name].Config(endpoint=TASKS[name]), cohort.manifest.endpoints) for name in names]
    for task in built:
        task.fit({name: cohort.endpoint(name) for name in task.endpoints}, cohort.groups.astype(str))
    torch.manual_seed(0)
    heads = nn.ModuleDict({task.name: Head(task, model.config.width) for task in built})
    trainee = Trainee(
        adapt(model, Lora(rank=2), heads),
        {t.name: t for t in built},
        {t.name: 1.0 for t in built},
        {t.name: 0.0 for t in built},
    )
    return trainee, CohortDataset(align(preprocessing, cohort))


def state(trainee: Trainee) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in trainee.adapted.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def config(**optimiser) -> FitConfig:
    return FitConfig(epochs=2, batch_size=16, optimiser=FitOptimiser(learning_rate=1e-2, **optimiser))


def test_the_average_is_that_of_its_definition():
    parameter = nn.Parameter(torch.zeros(3))
    average = Average([parameter], 0.5)
    expected, decays = torch.zeros(3), []
    for update in range(30):
        with torch.no_grad():
            parameter += torch.tensor([1.0, -2.0, update])
        average.update()
        decay = min(0.5, (1 + update) / (10 + update))
        decays.append(decay)
        expected = decay * expected + (1 - decay) * parameter.detach()
    assert decays[0] == 0.1 and decays[-1] == 0.5
    now = parameter.detach().clone()
    with average.shown():
        torch.testing.assert_close(parameter.detach(), expected)
    assert torch.equal(parameter, now), "one only looked"
    average.settle()
    torch.testing.assert_close(parameter.detach(), expected)


def test_without_an_average_the_parameters_stay_where_they_are():
    parameter = nn.Parameter(torch.ones(2))
    average = Average([parameter], None)
    average.update()
    with average.shown():
        assert parameter.tolist() == [1, 1]
    average.settle()
    assert parameter.tolist() == [1, 1]


def test_one_looks_after_every_epoch_at_the_average_that_is_kept(workplace, cohort):
    trainee, data = make_trainee(workplace, cohort, ["subtype"])
    seen: list[tuple[int, dict[str, torch.Tensor]]] = []
    fit(trainee, data, config(), epochs=2, seed=0, look=lambda epoch: seen.append((epoch, state(trainee))))
    assert [epoch for epoch, _ in seen] == [1, 2]
    assert not same(seen[0][1], seen[1][1])
    assert same(seen[1][1], state(trainee))
    unseen, _ = make_trainee(workplace, cohort, ["subtype"])
    fit(unseen, data, config(), epochs=2, seed=0)
    assert same(state(unseen), state(trainee)), "looking changes nothing"


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
