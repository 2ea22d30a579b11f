"""`chiasma simulate`: a cohort whose truth is known."""

from __future__ import annotations

from pathlib import Path

import click

from launch.command import Command


@click.command(
    cls=Command,
    example="chiasma simulate demo/source --patients 300 --seed 0\n"
    "chiasma simulate demo/new/source --patients 60 --seed 0 --after 300",
)
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@click.option("--patients", type=click.IntRange(min=1), default=300, show_default=True, help="How many to invent.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="The same seed, the same bytes.")
@click.option("--scans/--no-scans", default=True, help="Whether there are scans; without, thousands take a minute.")
@click.option(
    "--after",
    type=click.IntRange(min=0),
    default=0,
    help="Patients of this seed to leave out: who follows them is new to a model that learned from them.",
)
@click.option("--annotations", is_flag=True, help="Draw the tumour of every second scanned patient, as masks.")
def simulate(out: Path, patients: int, seed: int, scans: bool, after: int, annotations: bool) -> None:
    """Write a cohort whose truth is known to the folder OUT.

    Source files in the formats a hospital has, a cohort.yaml that names them, and truth/ with what they were made from.
    """
    from foundation.simulation.simulate import simulate as run
    from launch.progress import Progress

    with Progress() as progress:
        told = progress.report("simulating", "patients")
        run(out=out, patients=patients, seed=seed, progress=told, scans=scans, after=after, annotations=annotations)
        progress.finish()
    click.echo(f"next: chiasma prepare {out / 'cohort.yaml'} --out {out.parent / 'cohort'}")
