"""What inner folds choose, against a search by hand and on gains that are known."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from finetune.config import FinetuneConfig
from finetune.methods.choose import SMOOTHED, WHILE_TRAINED, Choice, Learning, smoothed
from finetune.methods.heads import Head, RidgeFit
from finetune.methods.modes import Lora
from finetune.methods.penalties import COMMON, FIRST, OFF
from finetune.methods.training_views import PER_RECORD
from finetune.run import make_study
from foundation.config import load_config
from foundation.data.alignment import align
from foundation.data.dataset import CohortDataset
from foundation.model import model_folder
from foundation.model.embedding import embed
from foundation.model.view import FUSED, View

CPU = torch.device("cpu")
EVERYTHING = "reads=[towers, modalities, values, images]"


def test_penalties_are_those_under_which_held_out_patients_are_most_likely(workplace):
    """No other penalty of one block, nor one for all of them, does better by hand."""
    config = load_config(FinetuneConfig, workplace / "config.yaml", ["adapt={mode: frozen}", EVERYTHING])
    study = make_study(config)
    model, preprocessing = model_folder.read(config.pretrain)
    fold = study.folds.folds[0]
    learning = Learning(study, model, align(preprocessing, study.cohort).only(study.modalities), config.adapt, 1)
    reading = learning.read(fold)
    beginning = learning.begin(fold, reading)
    views, inner, blocks = beginning.views, study.inner(fold), reading.blocks()
    assert [block.name for block in blocks] == [
        "fused", "omics tower", "rna embedding", "mutation embedding", "clinical embedding",
        "rna values", "mutation values", "clinical values",
    ]  # fmt: skip
    for one, other in zip(beginning.inner, inner, strict=True):
        np.testing.assert_array_equal(one.test, other.test)

    def lost(name: str, penalties: dict[str, float]) -> float:
        each = []
        for one in inner:
            train, test = views.of(one.train), views.of(study.one_each(one.test), whole=True)
            task = study.tasks(one.train)[name]
            head = Head(task, blocks)
            learned = task.loss_of(study.labels(train.rows, CPU), study.groups(train.rows).tolist())
            RidgeFit(head, train.x_LE, learned).under(penalties)
            with torch.no_grad():
                rest = study.labels(test.rows, CPU), study.groups(test.rows).tolist()
                each.append(float(task.loss(head(test.x_LE), *rest)))
        return float(np.mean(each))

    for name, found in beginning.penalties.items():
        best = lost(name, found.of_block)
        # The search begins where a head was before, which changes the third digit.
        assert best == pytest.approx(-found.cv_log_likelihood, abs=5e-3)
        names = [block.name for block in blocks]
        others = [dict.fromkeys(names, penalty) for penalty in COMMON]
        others += [{**found.of_block, block: OFF} for block, p in found.of_block.items() if math.isfinite(p)][:2]
        assert all(lost(name, other) >= best - 5e-3 for other in others)


def test_what_nobody_has_is_not_read(workplace):
    config = load_config(
        FinetuneConfig, workplace / "config.yaml", ["modalities=[rna]", "reads=[towers, modalities, values]"]
    )
    study = make_study(config)
    model, preprocessing = model_folder.read(config.pretrain)
    fold = study.folds.folds[0]
    learning = Learning(study, model, align(preprocessing, study.cohort).only(study.modalities), config.adapt, 1)
    for found in learning.begin(fold, learning.read(fold)).penalties.values():
        absent = [block for block in found.of_block if block.startswith(("mutation", "clinical"))]
        assert absent and all(found.of_block[block] == OFF for block in absent)
        assert any(map(math.isfinite, found.of_block.values()))


def test_heads_begin_with_views_of_all_that_there_is_and_of_less(workplace):
    """The first views are of all that a record has; the others hide what modality dropout would, and are drawn anew."""
    config = load_config(FinetuneConfig, workplace / "config.yaml", ["dropout={default: 0.5}"])
    study = make_study(config)
    model, preprocessing = model_folder.read(config.pretrain)
    fold = study.folds.folds[0]
    aligned = align(preprocessing, study.cohort).only(study.modalities)
    learning = Learning(study, model, aligned, config.adapt, 1)
    views = learning.begin(fold, learning.read(fold)).views
    np.testing.assert_array_equal(views.rows, np.tile(fold.train, PER_RECORD))
    assert views.whole.sum() == len(fold.train)
    whole = views.of(fold.train, whole=True)
    expected = embed(model, CohortDataset(aligned), fold.train, {FUSED: View(FUSED)}).z[FUSED]
    torch.testing.assert_close(whole.x_LE[:, : expected.shape[1]], expected)
    first, second = (views.x_LE[views.rows.size // PER_RECORD * n :][: len(fold.train)] for n in (1, 2))
    assert not torch.equal(first, whole.x_LE) and not torch.equal(first, second)
    some = views.of(fold.train[3:5])
    assert set(some.rows) == set(fold.train[3:5]) and len(some.rows) == 2 * PER_RECORD == len(some.x_LE)


def learning_of(
    gains: dict[str, list[list[float]]], *, probe: bool = True, alone: dict[str, list[float]] | None = None
):
    """Learning whose tasks gain what is told by inner fold and epoch, and the inner folds that it was tried on."""
    tried: list[tuple[tuple[str, ...], int]] = []
    epochs = len(next(iter(gains.values()))[0])
    members = ["frozen probe", "ours"] if probe else ["ours"]
    search = SimpleNamespace(inner_folds=None, learning_rate=[], rank=[], dropout=[])
    optimiser = SimpleNamespace(learning_rate=1e-3)
    config = SimpleNamespace(
        members=lambda: members, search=search, fit=SimpleNamespace(epochs=epochs, optimiser=optimiser)
    )
    study: Any = SimpleNamespace(weights=dict.fromkeys(gains, 1.0), config=config)

    class Known(Learning):
        def _after_each_epoch(self, choice, beginning, number, fold, epochs):
            tried.append((choice.taught_by, number))
            told = gains if len(choice.taught_by) > 1 or alone is None else {n: [alone[n]] * 9 for n in alone}
            return [(number, at, told) for at in range(epochs + 1)]

        def _values(self, fold, held_out):
            number, _, told = held_out[0]
            return {n: -5 + np.array([[0.0, *told[n][number]][: len(held_out)]]) for n in told}

        def _train(self, choice, train, beginning):
            return choice, []

    learning = Known(study, None, None, Lora(), 0)  # type: ignore[arg-type]
    return learning, tried


def learn(learning: Learning, folds: int, monkeypatch: pytest.MonkeyPatch) -> Choice:
    """What is chosen."""
    monkeypatch.setattr("finetune.methods.choose.HeldOut.join", lambda parts: parts)
    beginning: Any = SimpleNamespace(inner=[None] * folds, penalties={})
    fold: Any = SimpleNamespace(train=None)
    return learning.learn(fold, beginning, all_held_out=False).choice


def test_training_that_gains_on_none_of_the_first_folds_is_given_up(monkeypatch):
    learning, tried = learning_of({"a": [[-1.0, -2.0], [-1.0, -1.0], [9.0, 9.0]]})
    assert learn(learning, 3, monkeypatch).epochs == 0
    assert [number for _, number in tried] == [0, 1, 2] and FIRST == 2
    learning, tried = learning_of({"a": [[-1.0, -2.0], [0.5, 0.1], [2.0, 1.0]]})
    choice = learn(learning, 3, monkeypatch)
    assert choice.epochs == 1 and choice.cv_log_likelihood == pytest.approx(-4.5)


def test_a_task_that_training_harms_takes_nothing_from_others_where_the_probe_can_be_kept(monkeypatch):
    gains = {"a": [[0.1, 0.3]] * 2, "b": [[-5.0, -9.0]] * 2}
    monkeypatch.setattr(Learning, "_teachers", lambda learning, *_: tuple(gains))
    assert learn(learning_of(gains)[0], 2, monkeypatch).epochs == 2
    assert learn(learning_of(gains, probe=False)[0], 2, monkeypatch).epochs == 0


def test_of_several_tasks_those_teach_that_gain_alone(monkeypatch):
    gains, alone = (
        {"a": [[0.2, 0.3]] * 3, "b": [[0.1, 0.1]] * 3, "c": [[0.0, 0.1]] * 3},
        {"a": [0.3] * 2, "b": [-1.0] * 2},
    )
    learning, tried = learning_of(gains, alone=alone | {"c": [0.1, 0.2]})
    choice = learn(learning, 3, monkeypatch)
    assert choice.taught_by == ("a", "c") and choice.epochs == 2
    assert tried[:3] == [(("a",), 0), (("b",), 0), (("c",), 0)] and {taught for taught, _ in tried[3:]} == {("a", "c")}
    learning, tried = learning_of(gains, alone={name: [-1.0, -1.0] for name in gains})
    assert learn(learning, 3, monkeypatch).epochs == 0


def test_heads_alone_are_judged_by_themselves_and_epochs_with_their_neighbours():
    values_E = np.array([-0.5, -0.9, -0.55, -0.51, -0.52])
    found = smoothed(values_E)
    assert found[0] == -0.5 and found.argmax() == 0
    assert found[2] == pytest.approx(values_E[1 : 1 + SMOOTHED].mean())


def test_a_model_that_is_trained_is_read_by_the_tasks_that_teach_it(workplace):
    """However little its embedding shows before."""
    config = load_config(FinetuneConfig, workplace / "config.yaml", [EVERYTHING])
    study = make_study(config)
    model, preprocessing = model_folder.read(config.pretrain)
    fold = study.folds.folds[0]
    learning = Learning(study, model, align(preprocessing, study.cohort).only(study.modalities), config.adapt, 1)
    beginning = learning.begin(fold, learning.read(fold))
    names = [block.name for block in beginning.reading.blocks()]
    unread = {**dict.fromkeys(names, 1.0), FUSED: OFF}
    choice = Choice(1e-2, 2, 0.0, {"subtype": unread, "os": unread}, ("subtype",))
    width = model.config.width

    def read(trained: bool) -> dict[str, float]:
        heads = learning.make(choice, fold.train, beginning, trained=trained).adapted.heads
        assert not trained or heads["subtype"].penalty_E[0].item() == pytest.approx(WHILE_TRAINED)
        return {name: float(head.scale_E[:width].isfinite().float().mean()) for name, head in heads.items()}

    assert read(trained=False) == {"subtype": 0.0, "os": 0.0}
    assert read(trained=True) == {"subtype": 1.0, "os": 0.0}
