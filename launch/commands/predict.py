"""`chiasma predict`: what a fine-tuning run learned, for new patients."""

from __future__ import annotations

from pathlib import Path

import click

from launch.command import Command


@click.command(
    cls=Command,
    example="chiasma predict runs/glioma-outcomes cohorts/new --out new.parquet\n"
    "chiasma predict hf://my-group/glioma-outcomes@v1 cohorts/new --out new.parquet\n"
    "chiasma predict runs/glioma-outcomes --from new.yaml --out new.parquet",
    goes_on="where it stopped",
)
@click.argument("run", metavar="RUN")
@click.argument("cohort", metavar="[COHORT]", required=False, type=str)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The Parquet file to write.")
@click.option(
    "--from",
    "source",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A cohort.yaml, instead of a prepared cohort: it is prepared on the way.",
)
@click.option("--root", type=click.Path(exists=True, file_okay=False, path_type=Path), help="As of `chiasma prepare`.")
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
    from finetune.predict import predict as run_it
    from foundation.hub.address import local
    from launch.prepared import prepared
    from launch.progress import Progress

    with Progress() as progress, prepared(cohort, source, root, beside=out, progress=progress) as folder:
        sentences = run_it(local(run), folder, out, progress, level)
    for sentence in sentences:
        click.echo(sentence)
    click.echo(f"written: {out}")
