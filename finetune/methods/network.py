"""An adapted network as a method of a fold: learns, predicts the test patients for each subset, writes its files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from finetune.base_model import BaseModel
from finetune.config import OURS
from finetune.methods import adapter
from finetune.methods.beginning import Beginning
from finetune.methods.choose import Learning
from finetune.methods.fit import Trainee
from finetune.methods.held_out import TESTED, HeldOut
from finetune.methods.modes import AdaptConfig, Scratch, leaving_blind
from finetune.predictor import ADAPTER, MODEL
from finetune.splits import Fold
from finetune.study import Study
from foundation.data.alignment import align
from foundation.model import model_folder
from foundation.model.seen_patients import SeenPatients
from foundation.randomness import draw

PREDICTIONS, CHOICE, STEPS, HELD_OUT = "predictions.parquet", "choice.json", "metrics.jsonl", "held_out.safetensors"

Beginnings = dict[tuple[bool, int | None], Beginning]
"""From scratch or not, and how many labels, to what methods of that kind begin with."""


@dataclass(frozen=True)
class NetworkMethod:
    """A network on one fold.

    Attributes:
        study: Of the run.
        name: Of the method, for tables.
        adapt: How the network is adapted.
        labels: Training patients that it may learn from; None for all.
        base: The model before that.
        beginnings: Filled with what methods that begin alike share.
    """

    study: Study
    name: str
    adapt: AdaptConfig
    labels: int | None
    base: BaseModel
    beginnings: Beginnings

    def write(self, fold: Fold, folder: Path, *, subsets: Sequence[tuple[str, ...]], keep: bool) -> None:
        """Learn on a fold's training patients and predict its test patients, if there are any.

        Args:
            fold: Of the study, with as many training patients as there are labels.
            folder: Gets `CHOICE`, `STEPS`, `HELD_OUT` and `PREDICTIONS`.
            subsets: Of modalities that are also predicted from alone.
            keep: Whether to write the adapter, and beside ours the model that it stands on where nobody is tested.
        """
        study, seed = self.study, self._seed(fold)
        torch.manual_seed(seed)
        heads_only = study.fit_heads_only(fold)
        aligned = align(self.base.preprocessing.joined(heads_only), study.cohort).only(study.modalities)
        adapt = leaving_blind(self.adapt, self.base.model, study.modalities)
        learning = Learning(study, self.base.model, aligned, adapt, seed, heads_only)
        alike = (isinstance(self.adapt, Scratch), self.labels)
        if alike not in self.beginnings:
            others = [known.reading for (_, labels), known in self.beginnings.items() if labels == self.labels]
            self.beginnings[alike] = learning.begin(fold, others[0] if others else learning.read(fold))
        member = self.name in study.config.members() and self.labels is None
        learned = learning.learn(fold, self.beginnings[alike], all_held_out=member)
        trainee, choice = learned.trainee, learned.choice
        predictor = learning.predictor(trainee)
        rows_of_patients = study.one_each(fold.train)
        outputs = predictor.outputs(aligned, rows_of_patients)
        for name, task in predictor.tasks.items():
            task.finish(outputs[name], study.truth(rows_of_patients), study.groups(rows_of_patients))
        about = {"fold": fold.name, "method": self.name, "labels": self.labels}
        (folder / STEPS).write_text(
            "".join(json.dumps({**about, **row}) + "\n" for row in learned.steps), encoding="utf-8"
        )
        blocks = {name: found.document() for name, found in self.beginnings[alike].penalties.items()}
        document = {**about, "train": len(fold.train), **choice.document(), "blocks": blocks}
        document["adaptation"] = trainee.adapted.summary()
        (folder / CHOICE).write_text(json.dumps(document, indent=2), encoding="utf-8")
        if keep:
            self._keep(fold, folder, trainee)
        held_out = [learned.held_out]
        if len(fold.test):
            test = study.one_each(fold.test)
            predictor.predict(aligned, test, subsets).to_parquet(folder / PREDICTIONS, index=False)
            held_out.append(HeldOut.of(test, TESTED, predictor.outputs(aligned, test)))
        HeldOut.join(held_out).write(folder / HELD_OUT)

    def _seed(self, fold: Fold) -> int:
        return int(draw(self.study.config.seed, "seed of a fold", [fold.name], [0], 1)[0, 0] * 2**31)

    def _keep(self, fold: Fold, folder: Path, trainee: Trainee) -> None:
        """Write what predicts for new patients."""
        study = self.study
        adapter.write(
            folder / ADAPTER,
            trainee.adapted,
            trainee.tasks,
            modalities=study.modalities,
            declared=study.cohort.manifest.endpoints,
            groups=study.groups(fold.train).tolist(),
            seen=SeenPatients.of(study.cohort.patients[fold.train].astype(str)),
        )
        if self.name == OURS and not len(fold.test):
            words = "The model that the adapter beside it stands on.\n"
            base = self.base
            model_folder.write(folder / MODEL, base.model, base.preprocessing, words, base.seen)
