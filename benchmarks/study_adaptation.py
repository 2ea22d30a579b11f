"""Which learning rate, and which way to a number of epochs, carries over to patients who were kept aside.

    python benchmarks/study_adaptation.py configs/finetune/beyond-linear.yaml --rates 1e-3 3e-3 --out runs/rates.json

Takes a fine-tuning YAML. On each fold, for each rate, a model is trained without each inner fold, and one on all
training patients; after every epoch each is judged, by the patients of its inner fold and by those of the fold. So each
rule is measured by the same trainings. The rules:

- none: heads alone.
- mean: as many epochs as are best for the mean of inner folds, which is what `chiasma finetune` does.
- median: the median of what is best for each inner fold.
- first: the model of the first inner fold, where that stops it.
- together: the mean of the models of inner folds, after as many epochs as `mean` takes.

A rule that is to be a default must be judged on simulated patients, of whom there are always more.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from finetune.base_model import base_model
from finetune.config import FinetuneConfig
from finetune.methods.beginning import Beginning
from finetune.methods.choose import Choice, Learning, smoothed
from finetune.methods.fit import fit
from finetune.methods.modes import leaving_blind
from finetune.run import make_study
from finetune.splits import Fold
from finetune.study import Study
from foundation.config import load_config
from foundation.data.alignment import align
from foundation.files.whole import write_json
from launch.pretrained import pretrain_model

Outputs = dict[str, Tensor]
RULES = ("none", "mean", "median", "first", "together", "best on the fold itself")


def judge(study: Study, train: np.ndarray, rows: np.ndarray) -> Callable[[Mapping[str, Tensor]], float]:
    """Outputs of a fold's tasks for rows to their log-likelihood, summed over tasks."""
    losses = {name: study.loss_of(task, rows, torch.device("cpu")) for name, task in study.tasks(train).items()}
    return lambda outputs: -sum(study.weights[name] * float(loss(outputs[name])) for name, loss in losses.items())


def after_each_epoch(
    learning: Learning, choice: Choice, train: np.ndarray, beginning: Beginning, asked: Sequence[np.ndarray]
) -> list[list[Outputs]]:
    """Of a model that learns from some rows, after 0, 1, … epochs, what it says of each set of rows asked for."""
    trainee, config = learning.make(choice, train, beginning, trained=False), learning.fit_config(choice)
    told: list[list[Outputs]] = []

    def tell(_: int = 0) -> None:
        predictor = learning.predictor(trainee)
        said = (predictor.outputs(learning.aligned, rows) for rows in asked)
        told.append([{name: output.detach().float().cpu() for name, output in one.items()} for one in said])

    trainee.train(False)
    tell()
    trainee = learning.make(choice, train, beginning, trained=True)
    fit(trainee, learning.data(train), config, epochs=config.epochs, seed=learning.seed, after_epoch=tell)
    return told


def mean_of(outputs: Sequence[Outputs]) -> Outputs:
    """Of several models."""
    return {name: torch.stack([one[name] for one in outputs]).mean(dim=0) for name in outputs[0]}


def by_rule(learning: Learning, choice: Choice, fold: Fold, beginning: Beginning) -> dict[str, Any]:
    """Rule to the log-likelihood of a fold's patients and the epochs that it took, by one rate."""
    study, test = learning.study, learning.study.one_each(fold.test)
    inner = beginning.inner[: study.config.search.inner_folds]
    held_out = [study.one_each(one.test) for one in inner]
    told = [
        after_each_epoch(learning, choice, one.train, beginning, [rows, test])
        for one, rows in zip(inner, held_out, strict=True)
    ]
    judges = [judge(study, one.train, rows) for one, rows in zip(inner, held_out, strict=True)]
    values_KE = np.array([[of(said) for said, _ in epochs] for of, epochs in zip(judges, told, strict=True)])
    of_each_KE = np.array([smoothed(values_E) for values_E in values_KE])
    mean, each = int(of_each_KE.mean(axis=0).argmax()), of_each_KE.argmax(axis=1)
    tested = judge(study, fold.train, test)
    refitted = [tested(said) for [said] in after_each_epoch(learning, choice, fold.train, beginning, [test])]
    median = int(np.median(each))
    found = {
        "none": (refitted[0], 0),
        "mean": (refitted[mean], mean),
        "median": (refitted[median], median),
        "first": (tested(told[0][each[0]][1]), int(each[0])),
        "together": (tested(mean_of([epochs[mean][1] for epochs in told])), mean),
        "best on the fold itself": (max(refitted), int(np.argmax(refitted))),
    }
    return {rule: {"log_likelihood": value, "epochs": epochs} for rule, (value, epochs) in found.items()}


def measure(config: FinetuneConfig, rates: Sequence[float], folds: int) -> list[dict[str, Any]]:
    """A row for each fold, number of labels and rate."""
    study, rows = make_study(config), []
    for fold in study.folds.folds[:folds]:
        base = base_model(study, fold, config.out / "folds" / fold.name, pretrain_model)
        for labels in [*config.labels, None]:
            few = study.few(fold, labels)
            heads_only = study.fit_heads_only(few)
            aligned = align(base.preprocessing.joined(heads_only), study.cohort).only(study.modalities)
            adapt = leaving_blind(config.adapt, base.model, study.modalities)
            learning = Learning(study, base.model, aligned, adapt, config.seed, heads_only)
            beginning = learning.begin(few, learning.read(few))
            [first, *_] = learning.options(beginning)
            for rate in rates:
                found = by_rule(learning, replace(first, learning_rate=rate), few, beginning)
                rows.append({"fold": fold.name, "labels": labels or len(few.train), "rate": rate, "rules": found})
                print(_line(rows[-1]), flush=True)
    return rows


def _line(row: Mapping[str, Any]) -> str:
    rules = (f"{row['rules'][rule]['log_likelihood']:.4f} ({row['rules'][rule]['epochs']})" for rule in RULES)
    return " | ".join([f"fold {row['fold']}, {row['labels']} patients, {row['rate']:g}", *rules])


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The mean over folds of what each rule gains over heads alone, by number of labels and rate."""
    lines = ["| patients | rate | " + " | ".join(RULES[1:]) + " |", "|" + "---|" * (1 + len(RULES))]
    for labels, rate in dict.fromkeys((row["labels"], row["rate"]) for row in rows):
        alike = [row["rules"] for row in rows if (row["labels"], row["rate"]) == (labels, rate)]
        gains = [
            np.mean([rules[rule]["log_likelihood"] - rules["none"]["log_likelihood"] for rules in alike])
            for rule in RULES[1:]
        ]
        lines.append(f"| {labels:,} | {rate:g} | " + " | ".join(f"{gain:+.4f}" for gain in gains) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("config", type=Path, help="fine-tuning YAML")
    parser.add_argument("changes", nargs="*", help="key=value changes to it")
    parser.add_argument("--rates", type=float, nargs="+", default=[3e-4, 1e-3, 3e-3, 1e-2], help="learning rates")
    parser.add_argument("--folds", type=int, default=1, help="how many of the folds")
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the result")
    asked = parser.parse_args()
    rows = measure(load_config(FinetuneConfig, asked.config, asked.changes), asked.rates, asked.folds)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(asked.out, rows)
    print(f"\nlog-likelihood above that of heads alone, summed over tasks\n\n{table(rows)}")


if __name__ == "__main__":
    main()
