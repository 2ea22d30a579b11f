"""`chiasma describe-model`: the cohort.yaml that a model wants."""

from __future__ import annotations

from pathlib import Path

import click

from launch.command import Command


@click.command(
    "describe-model",
    cls=Command,
    example="chiasma describe-model runs/glioma-outcomes\nchiasma describe-model runs/glioma-outcomes --out new.yaml",
)
@click.argument("place", metavar="RUN_OR_MODEL")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="The file to write.  [default: print it]")
def describe_model(place: str, out: Path | None) -> None:
    """Write the cohort.yaml that a model wants.

    Spacing, size, intensities, units and transforms are those that the model was trained with; blanks are for your
    files.
    """
    from finetune.config import KEPT
    from finetune.predict import preprocessing_of
    from foundation.data.template import template
    from foundation.errors import writing
    from foundation.files.whole import make_folder
    from foundation.hub.address import trained
    from launch.description import refuse_another

    folder = trained(place)
    text = template(preprocessing_of(folder))
    if out is None:
        click.echo(text, nl=False)
        return
    refuse_another(out)
    with writing(out):
        make_folder(out.parent, named=out.parent, fix="write to another folder")
        out.write_text(text, encoding="utf-8")
    click.echo(f"written: {out}; fill in the blanks, then:")
    predicts = (folder / KEPT).is_dir()
    command, table = ("predict", "predictions") if predicts else ("embed", "embeddings")
    click.echo(f"  chiasma {command} {place} --from {out} --out {table}.parquet")
