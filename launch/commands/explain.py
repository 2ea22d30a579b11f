"""`chiasma explain`: which genes, pathways and modalities the predictions of a run come from."""

from __future__ import annotations

from pathlib import Path

import click

from launch.command import Command

EXPLAINERS = ("integrated_gradients", "relevance", "grad_cam", "grad_cam_plus_plus", "occlusion")
"""Of scans: those of `finetune.explain.images.explainers`, which takes long to import; the default first."""


@click.command(
    cls=Command,
    example="chiasma explain runs/idh cohorts/glioma --out runs/idh-explained --gene-sets hallmarks.gmt\n"
    "chiasma explain runs/idh cohorts/glioma --out runs/two --patients TCGA-02-0003,TCGA-06-0119 --identifiers",
    goes_on="where it stopped",
)
@click.argument("run", metavar="RUN")
@click.argument("cohort", metavar="COHORT", type=click.Path(file_okay=False, path_type=Path))
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder to write to.")
@click.option(
    "--patients",
    default="12",
    show_default=True,
    metavar="N or NAME,NAME,…",
    help="Whom to show one by one: how many, or who. Cohort-level results are always of all.",
)
@click.option(
    "--gene-sets",
    type=click.Path(dir_okay=False, path_type=Path),
    help="GMT file; by default the gene sets that the predictor's pathway tokenizer knows.",
)
@click.option(
    "--explainer",
    type=click.Choice(EXPLAINERS),
    default=EXPLAINERS[0],
    show_default=True,
    help="What makes maps of scans: relevance is for transformers, grad_cam for convolutional towers; occlusion is the "
    "slow reference.",
)
@click.option(
    "--sources",
    type=click.Path(dir_okay=False, exists=True, path_type=Path),
    metavar="COHORT.yaml",
    help="What the cohort was prepared from: maps of scans that were DICOM are also written as DICOM parametric maps, "
    "which refer to the source series and carry the patient's identity. Needs --identifiers.",
)
@click.option("--identifiers", is_flag=True, help="Name patients; else they are `patient 1`, `patient 2`, …")
@click.option("--seed", type=int, default=0, show_default=True, help="Of bootstraps, random orders and folds.")
def explain(
    run: str,
    cohort: Path,
    out: Path,
    patients: str,
    gene_sets: Path | None,
    explainer: str,
    sources: Path | None,
    identifiers: bool,
    seed: int,
) -> None:
    """Explain what a RUN predicts for a prepared COHORT.

    Writes explanation.html, one file that needs no network: checks on top, then for each score genes, pathways and
    modalities, what a scan tells of genes, and patients one by one. Beside it stand the tables, and attributions/ with
    what every value contributes to every score of every patient. Interrupted and started again, it goes on.
    """
    from finetune.explain.run import FILE
    from finetune.explain.run import explain as work
    from foundation.hub.address import trained
    from launch.progress import Progress

    with Progress() as progress:
        told = work(
            trained(run),
            cohort,
            out,
            patients=patients,
            gene_sets=gene_sets,
            explainer=explainer,
            sources=sources,
            identifiers=identifiers,
            seed=seed,
            progress=progress,
        )
    for sentence in told:
        click.echo(sentence)
    click.echo(f"open {out / FILE}")
