"""`chiasma embed`: a cohort in the space of a model."""

from __future__ import annotations

from pathlib import Path

import click

from launch.command import Command


@click.command(
    cls=Command,
    example="chiasma embed runs/glioma/model cohorts/new --out new.parquet",
    goes_on="where it stopped",
)
@click.argument("model", metavar="MODEL")
@click.argument("cohort", metavar="[COHORT]", required=False, type=str)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The Parquet file to write.")
@click.option(
    "--from",
    "source",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A cohort.yaml, instead of a prepared cohort: it is prepared on the way.",
)
@click.option("--root", type=click.Path(exists=True, file_okay=False, path_type=Path), help="As of `chiasma prepare`.")
def embed(model: str, cohort: str | None, out: Path, source: Path | None, root: Path | None) -> None:
    """Embed patients with a MODEL folder.

    The table has a row per record: the patient, the modalities that were read, and the embedding of all of them fused.
    """
    from foundation.hub.address import local
    from launch.prepared import prepared
    from launch.progress import Progress
    from pretrain.embed import embed as run_it

    with Progress() as progress, prepared(cohort, source, root, beside=out, progress=progress) as folder:
        sentences = run_it(local(model), folder, out, progress)
    for sentence in sentences:
        click.echo(sentence)
    click.echo(f"written: {out}")
