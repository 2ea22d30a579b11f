"""What inner folds choose, against a search by hand."""

from __future__ import annotations

import numpy as np
import torch

from finetune.config import FinetuneConfig
from finetune.methods.choose import Learning
from finetune.methods.heads import PENALTIES, init_head
from finetune.run import make_study
from foundation.config import load_config
from foundation.data.alignment import align
from foundation.hub import model_folder


def test_the_penalty_is_that_under_which_held_out_patients_are_most_likely(workplace):
    config = load_config(FinetuneConfig, workplace / "config.yaml", ["adapt={mode: frozen}"])
    study = make_study(config)
    model, preprocessing = model_folder.read(config.pretrain)
    fold = study.folds.folds[0]
    learning = Learning(study, model, study.read(align(preprocessing, study.cohort)), config.adapt, 1)
    looks, inner = learning._look(fold.train), study.inner(fold)
    lost = {name: np.zeros(len(PENALTIES)) for name in study.weights()}
    for one in inner:
        train, test = looks.of(one.train), looks.of(study.one_each(one.test), whole=True)
        for name, task in study.tasks(one.train).items():
            head = learning._head(task)
            for place, penalty in enumerate(PENALTIES):
                labels, groups = study.labels(train.rows), study.groups(train.rows).tolist()
                init_head(head, task, train.x_LE, labels, groups, penalty)
                with torch.no_grad():
                    rest = study.labels(test.rows), study.groups(test.rows).tolist()
                    lost[name][place] += float(task.loss(head(test.x_LE), *rest))
    chosen = learning.ready(fold).penalties
    for name, losses in lost.items():
        assert np.ptp(losses) > 0
        assert losses[PENALTIES.index(chosen[name])] <= losses.min() + 1e-3
