"""`chiasma predict`: what a fine-tuning run learned, for new patients."""

from __future__ import annotations

from pathlib import Path

import click

from launch.command import Command
from launch.prepared import prepared, reads_cohort


@click.command(
    cls=Command,
    example="chiasma predict runs/glioma-outcomes cohorts/new --out new.parquet\n"
    "chiasma predict hf://my-group/glioma-outcomes@v1 cohorts/new --out new.parquet\n"
    "chiasma predict runs/glioma-outcomes --from new.yaml --out new.parquet",
    goes_on="where it stopped",
)
@click.argument("run", metavar="RUN")
@reads_cohort
@click.option(
    "--level",
    type=click.FloatRange(0.5, 0.99),
    default=0.9,
    show_default=True,
    help="Share of patients whose outcome should be within the sets, intervals and bounds.",
)
def predict(run: str, cohort: str | None, out: Path, source: Path | None, root: Path | None, level: float) -> None:
    """Predict patients with what a RUN kept.

    Any subset of the modalities will do, a scan alone too; the training data are not needed. The table says of each
    patient what was read, what is predicted, how far that can be off, and whether to abstain from it.
    """
    from finetune.predict import Run
    from finetune.predict import predict as run_it
    from foundation.hub.address import trained
    from launch.progress import Progress

    place = trained(run)
    if source is not None:
        # What is wrong with the run is told before a long preparation.
        Run.open(place)
    with Progress() as progress, prepared(cohort, source, root, beside=out, progress=progress) as folder:
        sentences = run_it(place, folder, out, progress, level)
    for sentence in sentences:
        click.echo(sentence)
    click.echo(f"written: {out}")
