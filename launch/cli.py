"""The `chiasma` command: its subcommands, and how each failure is told to the person at the keyboard."""

from __future__ import annotations

import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import click

from foundation.errors import ChiasmaError, ToldByAnother, WriteError, nearest
from launch.exit_codes import FAILED, INTERRUPTED, START_AGAIN, TERMINATED
from launch.rank_log import write_if_asked

STRATEGIES = ["ddp", "fsdp", "zero2", "zero3"]


@dataclass
class Call:
    """What is known of a call when it fails."""

    name: str = "chiasma"
    goes_on: str = ""
    debug: bool = False


def _debug(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        context.ensure_object(Call).debug = True


class _Command(click.Command):
    """A command that shows its example as written and takes `--debug`.

    Args:
        example: One or several command lines.
        goes_on: Where it goes on when it is interrupted and started again; empty where it starts anew.
    """

    def __init__(self, *args: Any, example: str, goes_on: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.example = example
        self.goes_on = goes_on
        self.params.append(
            click.Option(
                ["--debug"], is_flag=True, expose_value=False, callback=_debug, help="Show the traceback of a failure."
            )
        )

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the example."""
        with formatter.section("Example"):
            for line in self.example.splitlines():
                formatter.write(f"{'':{formatter.current_indent}}{line}\n")


class _Group(_Command, click.Group):
    """The commands; a wrong name is answered with the nearest."""

    command_class = _Command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that the first argument names."""
        if args[0] not in self.commands:
            ctx.fail(f"No such command '{args[0]}'; {nearest(args[0], self.commands)}")
        call = ctx.ensure_object(Call)
        call.name = f"chiasma {args[0]}"
        call.goes_on = getattr(self.commands[args[0]], "goes_on", "")
        return super().resolve_command(ctx, args)


@click.group(
    cls=_Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    example="chiasma simulate demo/source\nchiasma prepare demo/source/cohort.yaml --out demo/cohort",
)
@click.version_option(package_name="chiasma", message="%(package)s %(version)s")
def cli() -> None:
    """Join what a scan shows with what the genome says, for patients of whom most lack something."""


@cli.command(example="chiasma simulate demo/source --patients 300 --seed 0")
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@click.option("--patients", type=click.IntRange(min=1), default=300, show_default=True, help="How many to invent.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="The same seed, the same bytes.")
def simulate(out: Path, patients: int, seed: int) -> None:
    """Write a cohort whose truth is known to the folder OUT.

    Source files in the formats a hospital has, a cohort.yaml that names them, and truth/ with what they were made from.
    """
    from foundation.simulation.simulate import simulate as run
    from launch.progress import Progress

    with Progress() as progress:
        run(out=out, patients=patients, seed=seed, progress=progress.report("simulating", "patients"))
        progress.finish()
    click.echo(f"next: chiasma prepare {out / 'cohort.yaml'} --out {out.parent / 'cohort'}")


@cli.command(example="chiasma describe /data/study\nchiasma describe /data/study --out study.yaml")
@click.argument("folder", metavar="FOLDER", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="The file to write.  [default: FOLDER/cohort.yaml]"
)
def describe(folder: Path, out: Path | None) -> None:
    """Look at source files, and write a cohort.yaml to start from.

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


@cli.command(
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
    """Turn the source files of a COHORT.yaml into a prepared cohort.

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


@cli.command(
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


@cli.command(
    example="chiasma finetune configs/finetune/tiny.yaml\n"
    "chiasma finetune my.yaml out=runs/idh 'tasks=[{task: subtype, endpoint: idh}]' 'modalities=[mri]'",
    goes_on="with what is not yet done",
)
@click.argument("config", metavar="CONFIG.yaml", type=click.Path(path_type=Path))
@click.argument("overrides", metavar="[key=value …]", nargs=-1)
@click.option(
    "--fold",
    "folds",
    metavar="NAME",
    multiple=True,
    help="Do this fold only, beside processes that do others; a run without --fold then joins them.",
)
def finetune(config: Path, overrides: Sequence[str], folds: Sequence[str]) -> None:
    """Adapt a model to tasks, and evaluate it beside baselines.

    Patients are split into folds; whatever is chosen is chosen on inner folds, and beside the result stand simple
    baselines on the same folds. Interrupted and started again, it goes on with what is not yet done. The run folder
    holds config.yaml, metrics.json, predictions.parquet, report.html, and adapter/ with the model/ it stands on.
    """
    from finetune.report.answer import headlines
    from finetune.run import finetune as run
    from finetune.run import finetune_folds
    from launch.pretrained import pretrain_model
    from launch.progress import Progress

    if folds:
        with Progress() as progress:
            folder = finetune_folds(config, overrides, folds, progress, pretrain_model)
        click.echo(
            f"done in {folder}: {', '.join(folds)}; once all folds are, the same command without --fold joins them"
        )
        return
    with Progress() as progress:
        metrics, folder = run(config, overrides, progress, pretrain_model)
    for sentence in headlines(metrics):
        click.echo(sentence)
    click.echo(f"open {folder / 'report.html'}")


@cli.command(
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


@cli.command(example="chiasma doctor\nchiasma doctor --json\nchiasma doctor --distributed --timeout 300")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
@click.option(
    "--distributed", is_flag=True, help="Measure the processes this one was started with by chiasma launch doctor."
)
@click.option(
    "--timeout", type=click.FloatRange(min=1), help="Seconds to wait for the others.  [default: 60; with --distributed]"
)
def doctor(as_json: bool, distributed: bool, timeout: float | None) -> None:
    """Say what this machine can do, and what is missing.

    Beside what is missing stands the command that adds it. The exit code is 1 if chiasma does not work without it.

    With --distributed, in processes that chiasma launch doctor started: whether they find each other, run the same
    code and are equally fast, and how fast all-reduce, gather and each link between nodes are.
    """
    if timeout is not None and not distributed:
        raise click.UsageError("--timeout goes with --distributed")
    ok = _doctor_of_processes(as_json, timeout) if distributed else _doctor_of_machine(as_json)
    if not ok:
        click.get_current_context().exit(FAILED)


def _doctor_of_machine(as_json: bool) -> bool:
    from launch.doctor import examine, print_report, to_json

    report = examine()
    if as_json:
        click.echo(to_json(report))
    else:
        print_report(report)
    return report.ok


def _doctor_of_processes(as_json: bool, timeout: float | None) -> bool:
    from launch.interconnect.measure import TIMEOUT, measure
    from launch.interconnect.table import print_findings

    findings, tells = measure(timeout or TIMEOUT)
    if tells and as_json:
        click.echo(findings.to_json())
    elif tells:
        print_findings(findings)
    return not findings.differences


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        args: What follows `chiasma`; by default what this process was started with.

    Returns:
        The exit code: 0 done, 1 failed, 2 the input is wrong, 130 interrupted, 143 terminated, 75 told by
        SIGUSR1 that time is nearly up and to be started again.
    """
    call = Call()
    write_if_asked()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminate)
        signal.signal(signal.SIGUSR1, _terminate)
    arguments = None if args is None else list(args)
    try:
        code = cli.main(arguments, prog_name="chiasma", standalone_mode=False, obj=call)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, _Terminated, Exception) as error:
        if call.debug:
            traceback.print_exc()
        code, message = _explain(error, call)
        if not isinstance(error, ToldByAnother):
            print(f"{call.name}: {message}", file=sys.stderr)
        return code
    return code if isinstance(code, int) else 0


class _Terminated(BaseException):
    """Somebody, such as a batch system, asked this process to end."""


def _terminate(number: int, frame: object) -> None:
    raise _Terminated(number)


def _explain(error: BaseException, call: Call) -> tuple[int, str]:
    """The exit code and the message for an error."""
    if isinstance(error, ChiasmaError):
        return error.exit_code, str(error)
    again = "start the same command again" + (f" and it goes on {call.goes_on}" if call.goes_on else "")
    if isinstance(error, _Terminated):
        if error.args == (signal.SIGUSR1,):
            return START_AGAIN, f"told that time is nearly up; {again}"
        return TERMINATED, f"terminated; {again}"
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return INTERRUPTED, f"interrupted; {again}"
    if isinstance(error, OSError) and (refused := WriteError.of(error, then=again)):
        return refused.exit_code, str(refused)
    if _is_of_another_process(error):
        return FAILED, f"another process of this run was lost; {again}"
    if isinstance(error, ModuleNotFoundError) and error.name:
        return FAILED, f"the package '{error.name}' is not installed\n  what to do: run chiasma doctor"
    message = " ".join(str(error).split())
    return FAILED, f"unexpected: {type(error).__name__}: {message}; run again with --debug for the traceback"


def _is_of_another_process(error: BaseException) -> bool:
    """Whether processes could not speak with each other; gloo has no class of errors of its own."""
    return any(kind.__name__ == "DistError" for kind in type(error).__mro__) or "gloo/transport" in str(error)


if __name__ == "__main__":
    sys.exit(main())
