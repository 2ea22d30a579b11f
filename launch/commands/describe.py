"""`chiasma describe`: a cohort.yaml to start from."""

from __future__ import annotations

from pathlib import Path

import click

from launch.command import Command


@click.command(cls=Command, example="chiasma describe /data/study\nchiasma describe /data/study --out study.yaml")
@click.argument("folder", metavar="FOLDER", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="The file to write.  [default: FOLDER/cohort.yaml]"
)
def describe(folder: Path, out: Path | None) -> None:
    """Draft a cohort.yaml from source files.

    Knows the layouts of cBioPortal, the GDC and Xena, folders of DICOM and NIfTI, and tables of most kinds. The file
    says in comments what it guessed. It is never written over another; where FOLDER cannot be written it is printed.
    """
    from foundation.cohort.describe.run import describe as run
    from launch.description import print_description, refuse_another, write_draft
    from launch.progress import Progress

    refuse_another(out or folder / "cohort.yaml")
    with Progress() as progress:
        description = run(folder, progress)
    print_description(description, folder)
    write_draft(description, folder, out)
