"""`chiasma pretrain`: towers on a prepared cohort, or what that will cost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from launch.command import Command


@click.command(
    cls=Command,
    example="chiasma pretrain configs/pretrain/tiny.yaml\n"
    "chiasma pretrain my.yaml out=runs/second optimiser.learning_rate=3e-4\n"
    "chiasma pretrain configs/pretrain/ct-large.yaml --plan --gpus 8 --gpus 64 --gpus 512",
    goes_on="from its newest checkpoint, if there is one",
)
@click.argument("config", metavar="CONFIG.yaml", type=click.Path(path_type=Path))
@click.argument("overrides", metavar="[key=value …]", nargs=-1)
@click.option(
    "--plan", is_flag=True, help="Do not train; say what it will cost: parameters, operations, memory, steps."
)
@click.option(
    "--gpus",
    type=click.IntRange(min=1),
    multiple=True,
    help="With --plan: over how many the batch is split, 1 by default; several times for a table of all.",
)
@click.option(
    "--hardware",
    type=click.Path(path_type=Path),
    help="With --plan: a YAML of what is assumed of the machines; without it, nodes of 8 H100.",
)
@click.option(
    "--measured",
    metavar="RUN",
    type=click.Path(path_type=Path),
    help="With --plan: a run folder of the same model, whose measured speed takes the place of an assumed one.",
)
@click.option("--json", "as_json", is_flag=True, help="With --plan: print one JSON object instead of tables.")
def pretrain(
    config: Path,
    overrides: Sequence[str],
    plan: bool,
    gpus: Sequence[int],
    hardware: Path | None,
    measured: Path | None,
    as_json: bool,
) -> None:
    """Pretrain the towers of a CONFIG.yaml on a prepared cohort.

    Interrupted and started again, it goes on from the newest checkpoint with the same result. The run folder holds
    config.yaml, metrics.jsonl, metrics.json, report.html, checkpoints/ and model/.
    """
    if plan:
        _print_plan(config, overrides, gpus or (1,), hardware, measured, as_json)
        return
    if gpus or hardware or measured or as_json:
        raise click.UsageError("--gpus, --hardware, --measured and --json go with --plan")
    from launch.progress import Progress
    from pretrain.report.answer import headline
    from pretrain.run import pretrain as run

    with Progress() as progress:
        metrics, folder = run(config, overrides, progress)
    # Of several processes the first one speaks.
    if metrics:
        click.echo(headline(metrics["retrieval"]))
        click.echo(f"open {folder / 'report.html'}")


def _print_plan(
    config: Path,
    overrides: Sequence[str],
    gpus: Sequence[int],
    hardware: Path | None,
    measured: Path | None,
    as_json: bool,
) -> None:
    import json

    from launch.plan_table import print_plan
    from launch.progress import Progress
    from pretrain.planning.plan import make_plan

    with Progress() as progress:
        found = make_plan(config, overrides, gpus, hardware, measured, progress)
    if as_json:
        click.echo(json.dumps(found.document(), indent=2))
    else:
        print_plan(found)
