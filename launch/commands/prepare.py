"""`chiasma prepare`: source files into a prepared cohort."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from launch.command import Command


@click.command(
    cls=Command,
    example="chiasma prepare configs/cohorts/tcga-glioma.yaml --out cohorts/glioma --workers 8",
    goes_on="where it stopped",
)
@click.argument("cohort", metavar="COHORT.yaml", type=click.Path(path_type=Path))
@click.argument("overrides", metavar="[key=value …]", nargs=-1)
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder of the prepared cohort."
)
@click.option(
    "--root",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of the source files, instead of `root` in the YAML.",
)
@click.option("--workers", type=click.IntRange(min=1), help="Processes that read images; by default one per core.")
def prepare(cohort: Path, overrides: Sequence[str], out: Path, root: Path | None, workers: int | None) -> None:
    """Turn source files into a prepared cohort.

    Interrupted and started again, it goes on where it stopped. A key=value changes a key of the YAML, such as
    quarantine.stop_above=0.2 or modalities.mri.size=[64,64,64].
    """
    import json

    from foundation.cohort.prepare import prepare as run
    from launch.cohort_table import print_cohort
    from launch.machine import usable_cores
    from launch.progress import Progress

    with Progress() as progress:
        run(cohort, out=out, root=root, workers=workers or usable_cores(), overrides=overrides, progress=progress)
    print_cohort(json.loads((out / "cohort.json").read_text(encoding="utf-8")), out)
