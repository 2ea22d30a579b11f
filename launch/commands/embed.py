"""`chiasma embed`: a cohort in the space of a model."""

from __future__ import annotations

from pathlib import Path

import click

from launch.command import Command
from launch.prepared import prepared, reads_cohort


@click.command(
    cls=Command,
    example="chiasma embed runs/glioma cohorts/new --out new.parquet\n"
    "chiasma embed hf://my-group/glioma@v1 cohorts/new --out new.parquet",
    goes_on="where it stopped",
)
@click.argument("model", metavar="MODEL")
@reads_cohort
def embed(model: str, cohort: str | None, out: Path, source: Path | None, root: Path | None) -> None:
    """Embed patients with a pretrained MODEL.

    It is a model folder, a published one, or a run, whose pretrained model is used without heads and LoRA.
    The table has a row per record: the patient, the modalities that were read, and the embedding of all of them fused.
    """
    from foundation.hub.address import trained
    from foundation.model import model_folder
    from launch.progress import Progress
    from pretrain.embed import embed as run_it

    inside = model_folder.inside(trained(model))
    with Progress() as progress, prepared(cohort, source, root, beside=out, progress=progress) as folder:
        sentences = run_it(inside, folder, out, progress)
    for sentence in sentences:
        click.echo(sentence)
    click.echo(f"written: {out}")
