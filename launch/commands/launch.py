"""`chiasma launch`: a run on many processes, here or on a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import click

from launch.command import Command

STRATEGIES = ["ddp", "fsdp", "zero2", "zero3"]


@click.command(
    cls=Command,
    example="chiasma launch pretrain my.yaml --gpus 8 --strategy fsdp\n"
    "chiasma launch pretrain my.yaml --nodes 4 --gpus 8 --slurm --time 24:00:00 --partition gpu --submit\n"
    "chiasma launch finetune my.yaml --gpus 1 --slurm --cluster cluster.yaml --dry-run\n"
    "chiasma launch pretrain /data/my.yaml --nodes 2 --gpus 8 --kubernetes --container registry/chiasma:1\n"
    "chiasma launch doctor --nodes 4 --gpus 8 --slurm --time 10 --partition gpu --submit",
    goes_on="where it stopped",
)
@click.argument("command", metavar="pretrain|finetune|doctor", type=click.Choice(["pretrain", "finetune", "doctor"]))
@click.argument("config", metavar="[CONFIG.yaml]", required=False, type=click.Path(path_type=Path))
@click.argument("overrides", metavar="[key=value …]", nargs=-1)
@click.option("--nodes", type=click.IntRange(min=1), help="Machines; 1 by default.")
@click.option(
    "--gpus", type=click.IntRange(min=0), help="Of each node, one process for each; by default all that are here."
)
@click.option("--processes", type=click.IntRange(min=1), help="Of each node, where there are no GPUs; 1 by default.")
@click.option("--strategy", type=click.Choice(STRATEGIES), help="How processes share the model; a key of the run.")
@click.option("--slurm", is_flag=True, help="Write a batch script for SLURM.")
@click.option("--kubernetes", is_flag=True, help="Write an indexed Job for Kubernetes.")
@click.option("--submit", is_flag=True, help="Hand what was written to the scheduler.")
@click.option("--dry-run", is_flag=True, help="Show every command and variable; write and start nothing.")
@click.option(
    "--cluster",
    "profile",
    envvar="CHIASMA_CLUSTER",
    type=click.Path(dir_okay=False, path_type=Path),
    help="YAML with what is always said of this cluster; options here come before it.  [env: CHIASMA_CLUSTER]",
)
@click.option(
    "--folder", type=click.Path(file_okay=False, path_type=Path), help="For what is written.  [default: launched/NAME]"
)
@click.option("--time", help="Of a job, such as 24:00:00; before it is up, the run saves and is queued again.")
@click.option("--partition", help="Of SLURM.")
@click.option("--account", help="Of SLURM.")
@click.option("--mem", help="Memory of each node.")
@click.option("--cpus-per-task", type=click.IntRange(min=1), help="Cores of each node, shared by its processes.")
@click.option("--gres", help="Ask SLURM for GPUs by this name, such as gpu:a100, instead of --gpus-per-node.")
@click.option("--module", multiple=True, help="Environment module to load; may be repeated.")
@click.option("--setup", multiple=True, help="Line of shell before the start; may be repeated.")
@click.option(
    "--env", "environment", metavar="NAME=VALUE", multiple=True, help="Environment variable; may be repeated."
)
@click.option("--container", "image", help="Image to run in: pyxis, or as the profile says; needed on Kubernetes.")
@click.option(
    "--mount", "mounts", metavar="FOLDER:INSIDE", multiple=True, help="Seen in the container; may be repeated."
)
@click.option("--logs", type=click.Path(file_okay=False, path_type=Path), help="Folder with a log per process.")
@click.option("--rendezvous", metavar="HOST:PORT", default="", help="Where several nodes without a scheduler meet.")
@click.option("--timeout", type=click.FloatRange(min=1), help="Of the doctor: seconds to wait for all.  [default: 60]")
@click.option("--json", "as_json", is_flag=True, help="Of the doctor: one JSON object instead of tables.")
def launch(
    command: Literal["pretrain", "finetune", "doctor"],
    config: Path | None,
    overrides: Sequence[str],
    profile: Path | None,
    folder: Path | None,
    strategy: str | None,
    environment: Sequence[str],
    image: str | None,
    mounts: Sequence[str],
    rendezvous: str,
    slurm: bool,
    kubernetes: bool,
    timeout: float | None,
    as_json: bool,
    submit: bool,
    dry_run: bool,
    **asked: Any,
) -> None:
    """Start a run on many processes, here or on a cluster.

    Without --slurm or --kubernetes it starts here. With them it writes what the scheduler wants, shows it, and hands
    it over with --submit. Pretraining is one job over all nodes, which saves and is queued again when its time is
    nearly up; fine-tuning under SLURM is an array with a job for each fold, and a last one that joins them. The doctor
    takes no CONFIG.yaml: before a costly run it measures its processes and the network between them.
    """
    from launch.launchers.start import launch as start

    if slurm and kubernetes:
        raise click.UsageError("--slurm and --kubernetes are two schedulers: give one")
    scheduler = "slurm" if slurm else "kubernetes" if kubernetes else None
    of_doctor = [*([f"--timeout={timeout:g}"] if timeout else []), *(["--json"] if as_json else [])]
    _refuse_what_goes_with_another(command, config, strategy, asked["nodes"] or 1, of_doctor)
    variables = _variables(environment)
    start(
        command,
        config,
        [*overrides, *([f"strategy={strategy}"] if strategy else []), *of_doctor],
        profile=profile,
        asked={**asked, **variables, "scheduler": scheduler, "container.image": image, "container.mounts": mounts},
        folder=folder,
        rendezvous=rendezvous,
        timeout=timeout,
        dry_run=dry_run,
        submit=submit,
    )


def _refuse_what_goes_with_another(
    command: str, config: Path | None, strategy: str | None, nodes: int, of_doctor: Sequence[str]
) -> None:
    """Refuse what `launch` takes for another command than this one."""
    if command == "doctor":
        if config or strategy:
            raise click.UsageError("doctor takes neither CONFIG.yaml nor --strategy: it measures what every run needs")
        return
    if config is None:
        raise click.UsageError("Missing argument 'CONFIG.yaml'.")
    if of_doctor:
        raise click.UsageError("--timeout and --json go with doctor")
    if command == "finetune" and (strategy or nodes > 1):
        raise click.UsageError("--strategy and --nodes go with pretrain: each fold of fine-tuning is one process")


def _variables(environment: Sequence[str]) -> dict[str, str]:
    """`--env` options as keys of the profile."""
    variables = {}
    for each in environment:
        name, equals, value = each.partition("=")
        if not equals or not name.isidentifier():
            raise click.UsageError(f"--env takes NAME=VALUE, and '{each}' is not that")
        variables[f"environment.{name}"] = value
    return variables
