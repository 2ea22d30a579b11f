"""What outcomes the folds of a study have: refused where nothing can be learned, told where a class is missing."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from finetune.study import Study
from finetune.tasks.base import Task
from foundation.errors import ConfigError
from foundation.wording import counted, listed


def refuse_nothing_to_learn(study: Study) -> None:
    """Refuse folds of whose training patients a task, or a choice on inner folds, can learn nothing.

    Raises:
        ConfigError: There is one; it names the endpoint, the fold and the reason.
    """
    splits = study.config.splits
    for fold in study.folds.folds:
        for task in study.unfitted:
            reason = task.untaught(study.truth(fold.train))
            if reason:
                other = "publish others" if splits.published else "use fewer `splits.folds`"
                raise ConfigError(
                    f"nothing can be learned from the training patients of fold {fold.name}: {reason}",
                    where=f"endpoint '{task.name}'",
                    fix="write `splits.by: patient`" if splits.by == "site" and not splits.published else other,
                )
            for inner in study.inner(fold):
                reason = task.untaught(study.truth(inner.train))
                if reason:
                    raise ConfigError(
                        f"nothing can be chosen on an inner fold of fold {fold.name}: {reason}",
                        where=f"endpoint '{task.name}'",
                        fix="write another number of `splits.inner_folds`, or leave that endpoint out of `tasks`",
                    )


def remarks(study: Study, task: Task) -> list[str]:
    """What a reader should know of classes or events that nobody has, or that some folds lack; sentences."""
    return [sentence for name in task.endpoints for sentence in _remarks(study, name)]


def _remarks(study: Study, endpoint: str) -> Iterator[str]:
    parts = study.endpoints[endpoint]
    if "event" in parts:
        quiet = [fold.name for fold in study.folds.folds if not (parts["event"][fold.test] > 0).any()]
        if quiet:
            yield f"In {_folds(quiet)} no test patient had {endpoint} happen: no order can be scored there."
        yield from _remarks_on_causes(study, endpoint, parts["event"])
    if "code" not in parts:
        return
    code_N = parts["code"]
    code_P = code_N[_everybody(study)]
    for k, name in enumerate(study.cohort.manifest.endpoints[endpoint]["classes"]):
        patients = int((code_P == k).sum())
        if not patients:
            yield f"Nobody has the class '{name}' of {endpoint}: it cannot be predicted, and is in no score."
            continue
        untested = [fold.name for fold in study.folds.folds if not (code_N[fold.test] == k).any()]
        untaught = [fold.name for fold in study.folds.folds if not (code_N[fold.train] == k).any()]
        told = [f"in {_folds(untested)} no test patient has it, and scores there are without it"] if untested else []
        if untaught:
            told.append(f"in {_folds(untaught)} no training patient has it, so that it cannot be predicted there")
        if told:
            yield f"The class '{name}' of {endpoint} has {counted(patients, 'patient')}: {'; '.join(told)}."


def _remarks_on_causes(study: Study, endpoint: str, event_N: np.ndarray) -> Iterator[str]:
    """Of several kinds of event those that nobody had, or nobody to learn from in some folds."""
    event_P = event_N[_everybody(study)]
    for number, cause in enumerate(study.cohort.manifest.endpoints[endpoint].get("causes") or (), start=1):
        patients = int((event_P == number).sum())
        untaught = [fold.name for fold in study.folds.folds if not (event_N[fold.train] == number).any()]
        if not patients:
            yield f"Nobody had the cause '{cause}' of {endpoint}: it cannot be predicted, and is in no score."
        elif untaught:
            had = f"The cause '{cause}' of {endpoint} happened to {counted(patients, 'patient')}"
            yield f"{had}: in {_folds(untaught)} no training patient had it, so that it cannot be predicted there."


def _everybody(study: Study) -> np.ndarray:
    """One row of each patient who takes part."""
    rows = np.unique(np.concatenate([rows for fold in study.folds.folds for rows in (fold.train, fold.test)]))
    return study.one_each(rows)


def _folds(names: list[str]) -> str:
    return f"{'fold' if len(names) == 1 else 'folds'} {listed(names)}"
