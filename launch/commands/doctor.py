"""`chiasma doctor`: what this machine can do, or these processes."""

from __future__ import annotations

import click

from launch.command import Command
from launch.exit_codes import FAILED


@click.command(cls=Command, example="chiasma doctor\nchiasma doctor --json\nchiasma doctor --distributed --timeout 300")
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
