"""What inner folds choose, against a search by hand."""

from __future__ import annotations

import numpy as np
import torch

from finetune.config import FinetuneConfig
from finetune.methods.choose import Learning
from finetune.methods.heads import PENALTIES, Head, init_head
from finetune.methods.training_views import PER_RECORD
from finetune.run import make_study
from foundation.config import load_config
from foundation.data.alignment import align
from foundation.data.dataset import CohortDataset
from foundation.hub import model_folder
from foundation.model.embedding import embed
from foundation.model.view import FUSED, View

CPU = torch.device("cpu")


def test_the_penalty_is_that_under_which_held_out_patients_are_most_likely(workplace):
    config = load_config(FinetuneConfig, workplace / "config.yaml", ["adapt={mode: frozen}"])
    study = make_study(config)
    model, preprocessing = model_folder.read(config.pretrain)
    fold = study.folds.folds[0]
    learning = Learning(study, model, align(preprocessing, study.cohort).only(study.modalities), config.adapt, 1)
    beginning = learning.begin(fold)
    views, inner = beginning.views, study.inner(fold)
    for one, other in zip(beginning.inner, inner, strict=True):
        np.testing.assert_array_equal(one.test, other.test)
    lost = {name: np.zeros(len(PENALTIES)) for name in study.weights}
    for one in inner:
        train, test = views.of(one.train), views.of(study.one_each(one.test), whole=True)
        for name, task in study.tasks(one.train).items():
            head = Head(task, model.config.width)
            for place, penalty in enumerate(PENALTIES):
                labels, groups = study.labels(train.rows, CPU), study.groups(train.rows).tolist()
                init_head(head, task, train.x_LE, labels, groups, penalty)
                with torch.no_grad():
                    rest = study.labels(test.rows, CPU), study.groups(test.rows).tolist()
                    lost[name][place] += float(task.loss(head(test.x_LE), *rest))
    for name, losses in lost.items():
        assert np.ptp(losses) > 0
        assert losses[PENALTIES.index(beginning.penalties[name])] <= losses.min() + 1e-3


def test_heads_begin_with_views_of_all_that_there_is_and_of_less(workplace):
    """The first views are of all that a record has; the others hide what modality dropout would, and are drawn anew."""
    config = load_config(FinetuneConfig, workplace / "config.yaml", ["dropout={default: 0.5}"])
    study = make_study(config)
    model, preprocessing = model_folder.read(config.pretrain)
    fold = study.folds.folds[0]
    aligned = align(preprocessing, study.cohort).only(study.modalities)
    views = Learning(study, model, aligned, config.adapt, 1).begin(fold).views
    np.testing.assert_array_equal(views.rows, np.tile(fold.train, PER_RECORD))
    assert views.whole.sum() == len(fold.train)
    whole = views.of(fold.train, whole=True)
    expected = embed(model, CohortDataset(aligned), fold.train, {FUSED: View(FUSED)}).z[FUSED]
    torch.testing.assert_close(whole.x_LE, expected)
    first, second = (views.x_LE[views.rows.size // PER_RECORD * n :][: len(fold.train)] for n in (1, 2))
    assert not torch.equal(first, whole.x_LE) and not torch.equal(first, second)
    some = views.of(fold.train[3:5])
    assert set(some.rows) == set(fold.train[3:5]) and len(some.rows) == 2 * PER_RECORD == len(some.x_LE)
