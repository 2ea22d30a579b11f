"""`chiasma finetune`: a model adapted to tasks, beside baselines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from launch.command import Command


@click.command(
    cls=Command,
    example="chiasma finetune configs/finetune/tiny.yaml\n"
    "chiasma finetune my.yaml out=runs/idh 'tasks=[{task: subtype, endpoint: idh}]' 'modalities=[mri]'",
    goes_on="with what is not yet done",
)
@click.argument("config", metavar="CONFIG.yaml", type=click.Path(path_type=Path))
@click.argument("overrides", metavar="[key=value …]", nargs=-1)
@click.option(
    "--fold",
    "folds",
    metavar="NAME",
    multiple=True,
    help="Do this fold only, beside processes that do others; a run without --fold then joins them.",
)
def finetune(config: Path, overrides: Sequence[str], folds: Sequence[str]) -> None:
    """Adapt a model to tasks, and evaluate it beside baselines.

    Patients are split into folds; whatever is chosen is chosen on inner folds, and beside the result stand simple
    baselines on the same folds. Interrupted and started again, it goes on with what is not yet done. The run folder
    holds config.yaml, metrics.json, predictions.parquet, report.html, and adapter/ with the model/ it stands on.
    """
    from finetune.report.answer import headlines
    from finetune.run import finetune as run
    from finetune.run import finetune_folds
    from launch.pretrained import pretrain_model
    from launch.progress import Progress

    if folds:
        with Progress() as progress:
            folder = finetune_folds(config, overrides, folds, progress, pretrain_model)
        click.echo(
            f"done in {folder}: {', '.join(folds)}; once all folds are, the same command without --fold joins them"
        )
        return
    with Progress() as progress:
        metrics, folder = run(config, overrides, progress, pretrain_model)
    for sentence in headlines(metrics):
        click.echo(sentence)
    click.echo(f"open {folder / 'report.html'}")
