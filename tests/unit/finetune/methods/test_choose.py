"""What inner folds choose, against a search by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from finetune.config import FinetuneConfig
from finetune.methods.choose import Learning
from finetune.methods.heads import Head, init_head
from finetune.methods.penalties import COMMON, OFF
from finetune.methods.training_views import PER_RECORD
from finetune.run import make_study
from foundation.config import load_config
from foundation.data.alignment import align
from foundation.data.dataset import CohortDataset
from foundation.hub import model_folder
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
            init_head(head, train.x_LE, learned, penalties)
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
