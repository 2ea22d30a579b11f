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
    from finetune.predict import preprocessing_of
    from foundation.data.template import template
    from foundation.errors import writing
    from foundation.files.whole import make_folder
    from foundation.hub.address import local
    from launch.description import refuse_another

    text = template(preprocessing_of(local(place)))
    if out is None:
        click.echo(text, nl=False)
        return
    refuse_another(out)
    with writing(out):
        make_folder(out.parent, named=out.parent, fix="write to another folder")
        out.write_text(text, encoding="utf-8")
    click.echo(f"written: {out}; fill in the blanks, then:")
    click.echo(f"  chiasma predict {place} --from {out} --out predictions.parquet")
